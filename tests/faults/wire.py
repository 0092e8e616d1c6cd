"""HTTP/1.1 as it lies on the wire: where a message begins and ends, and what it says, byte for byte."""

from __future__ import annotations

import io
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace

MOST_HEAD = 64 * 1024
RawOrBuffered = io.BufferedReader | io.RawIOBase


class Gone(Exception):
    """The other side closed the connection."""


@dataclass(frozen=True)
class Message:
    """A request or an answer, as it lay on the wire."""

    head: bytes
    """Through the empty line."""
    body: bytes = b""

    @property
    def first(self) -> str:
        return self.head.split(b"\r\n", 1)[0].decode("latin-1")

    @property
    def method(self) -> str:
        return self.first.split(" ")[0]

    @property
    def path(self) -> str:
        """With its query."""
        return self.first.split(" ")[1]

    @property
    def status(self) -> int:
        return int(self.first.split(" ")[1])

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        pairs = (line.partition(":") for line in lines if line)
        return {name.lower(): value.strip() for name, _, value in pairs}

    @property
    def raw(self) -> bytes:
        return self.head + self.body

    def with_header(self, name: str, value: str) -> Message:
        """The same with another value of a header, which is added if it is not there."""
        first, *lines = self.head.removesuffix(b"\r\n\r\n").split(b"\r\n")
        kept = [line for line in lines if line.partition(b":")[0].decode().lower() != name.lower()]
        return replace(self, head=b"\r\n".join([first, *kept, f"{name}: {value}".encode()]) + b"\r\n\r\n")


def answer_of(status: int, body: bytes = b"", **headers: str) -> Message:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status} Fault"]
    lines += [f"{name}: {value}" for name, value in ({"content-length": str(len(body))} | named).items()]
    return Message("\r\n".join(lines).encode() + b"\r\n\r\n", body)


def damaged(message: Message) -> Message:
    middle = len(message.body) // 2
    turned = bytes([message.body[middle] ^ 1])
    return replace(message, body=message.body[:middle] + turned + message.body[middle + 1 :])


def read_request(file: RawOrBuffered, sock: socket.socket) -> Message:
    """Read one request; raises Gone at the end of the connection."""
    head = Message(_read_head(file))
    if head.headers.get("expect", "").lower() == "100-continue":
        sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    return replace(head, body=read_body(file, head.headers, or_all=False))


def read_answer(file: RawOrBuffered, method: str) -> Message:
    """Read the whole answer to a request; raises Gone if there is none."""
    head = read_answer_head(file)
    if body_length(head, method) == 0:
        return head
    return replace(head, body=read_body(file, head.headers, or_all=True))


def read_answer_head(file: RawOrBuffered) -> Message:
    """Read the head of an answer, past any interim ones."""
    while (head := Message(_read_head(file))).status < 200:
        pass
    return head


def body_length(head: Message, method: str) -> int | None:
    """How many bytes follow the head of an answer; None if that is not said in it."""
    if method == "HEAD" or head.status in (204, 304):
        return 0
    if "transfer-encoding" in head.headers or "content-length" not in head.headers:
        return None
    return int(head.headers["content-length"])


def delimited(answer: Message) -> bool:
    """Whether the client can see where an answer ends without the connection being closed."""
    return bool({"content-length", "transfer-encoding"} & set(answer.headers)) or answer.status in (204, 304)


def _read_head(file: RawOrBuffered) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = file.readline(MOST_HEAD)
        if not line.endswith(b"\n") or len(head) > MOST_HEAD:
            raise Gone
        head += line
    return head


def read_body(file: RawOrBuffered, headers: Mapping[str, str], *, or_all: bool) -> bytes:
    """Read a body by what its head says; where that is nothing, `or_all` that comes."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return _read_chunks(file)
    if "content-length" in headers:
        return _exactly(file, int(headers["content-length"]))
    return (file.read() or b"") if or_all else b""


def _read_chunks(file: RawOrBuffered) -> bytes:
    body = b""
    while True:
        line = file.readline(MOST_HEAD)
        size = int(line.partition(b";")[0], 16) if line else 0
        body += line + _exactly(file, size) + (file.readline(MOST_HEAD) if size else b"")
        if not size:
            break
    while line := file.readline(MOST_HEAD):
        body += line
        if line == b"\r\n":
            return body
    raise Gone


def _exactly(file: RawOrBuffered, size: int) -> bytes:
    body = b""
    while len(body) < size:
        part = file.read(size - len(body))
        if not part:
            raise Gone
        body += part
    return body
