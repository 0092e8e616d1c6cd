"""What the fault proxy can do with a request: hand it on, or any of many harms."""

import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NoReturn

from storage.ledger.wakeup import readable_of
from tests.faults.wire import (
    Gone,
    Message,
    answer_of,
    body_length,
    delimited,
    read_answer,
    read_answer_head,
    read_body,
)

RST_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with no time left: closing sends RST and no FIN."""


@dataclass
class Call:
    """One request that came, and what can be done with it."""

    request: Message
    connect: Callable[[], socket.socket]
    """Reach the target; raises OSError if nobody is there."""
    sock: socket.socket
    answered: Message | None = None
    """What the target answered, whether or not that was handed on."""

    def forward(self) -> Message:
        """Ask the target; raises Gone if it gives no whole answer."""
        try:
            with self.connect() as upstream, upstream.makefile("rb") as file:
                upstream.sendall(self.request.raw)
                self.answered = read_answer(file, self.request.method)
        except OSError as error:
            raise Gone from error
        return self.answered

    def relay(self) -> None:
        """Ask the target, and hand on what it answers as it comes; it breaks off as the target does."""
        try:
            upstream = self.connect()
        except OSError as error:
            raise Gone from error
        with upstream, upstream.makefile("rb", buffering=0) as file:
            upstream.sendall(self.request.raw)
            head = read_answer_head(file)
            length = body_length(head, self.request.method)
            if length is None:
                self.answered = replace(head, body=read_body(file, head.headers, or_all=True))
                self.reply(self.answered)
                return
            self.answered = head
            self.sock.sendall(head.raw)
            self._relay_body(upstream, length)
        if head.headers.get("connection", "").lower() == "close":
            raise Gone

    def _relay_body(self, upstream: socket.socket, length: int) -> None:
        assert self.answered is not None
        while len(self.answered.body) < length:
            ready = readable_of([upstream, self.sock])
            if self.sock in ready and not self.sock.recv(1, socket.MSG_PEEK):
                raise Gone
            try:
                part = upstream.recv(64 * 1024)
            except ConnectionResetError:
                reset(self)
            if not part:
                raise Gone
            self.answered = replace(self.answered, body=self.answered.body + part)
            self.sock.sendall(part)

    def reply(self, answer: Message) -> None:
        """Hand an answer on; none to HEAD has a body."""
        self.sock.sendall(answer.head if self.request.method == "HEAD" else answer.raw)
        if answer.headers.get("connection", "").lower() == "close" or not delimited(answer):
            raise Gone


Action = Callable[[Call], None]
"""What is done with a request. The connection is closed after it if it raises Gone."""


def pass_on(call: Call) -> None:
    call.relay()


def answer(status: int, body: bytes = b"", **headers: str) -> Action:
    """Answer for the target, which hears nothing."""
    return lambda call: call.reply(answer_of(status, body, **headers))


def s3_error(status: int, code: str) -> Action:
    xml = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>no</Message></Error>'
    return answer(status, xml.encode(), content_type="application/xml")


def drop(call: Call) -> None:
    """Close the connection without an answer; the target hears nothing."""
    raise Gone


def reset(call: Call) -> NoReturn:
    """The same with a TCP reset."""
    call.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
    raise Gone


def swallow(call: Call) -> None:
    """Hand the request on whole, and close the connection once it was answered."""
    call.forward()
    raise Gone


def stall(call: Call) -> None:
    """Say nothing until the caller gives up; the target hears nothing."""
    while call.sock.recv(4096):
        pass
    raise Gone


def swallow_and_stall(call: Call) -> None:
    """Hand the request on whole, and then say nothing until the caller gives up."""
    call.forward()
    stall(call)


def held(until: threading.Event) -> Action:
    def wait(call: Call) -> None:
        until.wait()
        pass_on(call)

    return wait


def cut(after: int) -> Action:
    """Hand on so many bytes of the answer, head included, and close; negative counts from its end."""

    def send_some(call: Call) -> None:
        call.sock.sendall(call.forward().raw[:after])
        raise Gone

    return send_some


def altered(change: Callable[[Message], Message]) -> Action:
    """Hand on another answer than the target gave."""
    return lambda call: call.reply(change(call.forward()))
