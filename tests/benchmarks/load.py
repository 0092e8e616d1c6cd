"""Send requests that were made ahead, and time the answers: `python -m tests.benchmarks.load PORT FILE`.

A process of its own on plain sockets, so that what is measured is the server: a request costs it a fraction
of what it costs any server in Python. The file holds the list of requests, pickled.
"""

import argparse
import json
import pickle
import selectors
import socket
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic, process_time
from typing import Any

HANGS_S = 60.0
ROOT = Path(__file__).parent.parent.parent


@dataclass
class Sent:
    took_s: float = 0.0
    cpu_s: float = 0.0
    """Of the sender itself."""
    answers: dict[str, int] = field(default_factory=dict)
    """How many there were of each, status and body."""
    waits_ms: list[float] = field(default_factory=list)
    """For each answer, from when its request was due."""


class Line:
    """One connection, with at most one request on it."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self._got = b""

    def send(self, request: bytes, due: float) -> None:
        """Send a request; it is small enough for the socket's buffer."""
        self.due = due
        self.socket.sendall(request)

    def answer(self) -> bytes | None:
        """Read on; the status and the body once they are here."""
        came = self.socket.recv(65536)
        if not came:
            raise ConnectionError("the server closed the connection")
        self._got += came
        head, found, body = self._got.partition(b"\r\n\r\n")
        if not found or len(body) < _length(head):
            return None
        self._got = b""
        return head[9:12] + b" " + body

    def close(self) -> None:
        self.socket.close()


def send(port: int, requests: Sequence[bytes], *, connections: int, rate: float) -> Sent:
    """Send them all: `rate` a second or, if that is 0, each as soon as a connection is free."""
    # By turns, for a server closes a connection that has been idle for long.
    free = deque(Line(port) for _ in range(connections))
    answers: Counter[bytes] = Counter()
    waits: list[float] = []
    with selectors.DefaultSelector() as selector:
        for line in free:
            selector.register(line.socket, selectors.EVENT_READ, line)
        cpu, began, following = process_time(), monotonic(), 0
        while len(waits) < len(requests):
            while free and following < len(requests):
                due = began + following / rate if rate else monotonic()
                if due > monotonic():
                    break
                free.popleft().send(requests[following], due)
                following += 1
            late = following == len(requests) or not free
            ready = selector.select(HANGS_S if late else max(0.0, due - monotonic()))
            if late and not ready:
                raise TimeoutError("the server does not answer")
            for key, _ in ready:
                if (answer := key.data.answer()) is not None:
                    waits.append((monotonic() - key.data.due) * 1000)
                    answers[answer] += 1
                    free.append(key.data)
        took, cpu = monotonic() - began, process_time() - cpu
        for one in list(selector.get_map().values()):
            one.data.close()
    return Sent(took, cpu, {answer.decode(): number for answer, number in answers.items()}, waits)


def begin(port: int, path: Path, *, connections: int = 32, rate: float = 0) -> subprocess.Popen[bytes]:
    """Send a file of requests from a process of its own; `result` waits for it."""
    options = [str(port), str(path), "--connections", str(connections), "--rate", str(rate)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.load", *options], cwd=ROOT, stdout=subprocess.PIPE
    )


def result(process: subprocess.Popen[bytes]) -> Sent:
    told, _ = process.communicate()
    if process.returncode != 0:
        raise RuntimeError("the sender failed; what it said is above")
    return Sent(**json.loads(told))


def main() -> None:
    asked = argparse.ArgumentParser(prog="python -m tests.benchmarks.load", description=__doc__)
    asked.add_argument("port", type=int)
    asked.add_argument("file", type=Path)
    asked.add_argument("--connections", type=int, default=32)
    asked.add_argument("--rate", type=float, default=0)
    given: Any = asked.parse_args()
    sent = send(
        given.port, pickle.loads(given.file.read_bytes()), connections=given.connections, rate=given.rate
    )
    print(json.dumps(asdict(sent)))


def _length(head: bytes) -> int:
    at = head.lower().find(b"\r\ncontent-length:")
    return int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0


if __name__ == "__main__":
    main()
