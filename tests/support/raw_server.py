"""A real server on loopback that says whatever a test has it say, byte by byte; and what it may say."""

import io
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import pytest
from PIL import Image

TLS = Path(__file__).parents[1] / "samples" / "tls"
"""A certificate for images.example and cdn.example, and the authority that signed it; valid until 2120."""

Script = Callable[[socket.socket], None]


class Server:
    """Answers each path by its script, and remembers every connection and the head of every request."""

    def __init__(
        self,
        scripts: Mapping[str, Script | bytes],
        *,
        at: tuple[str, int] = ("127.0.0.1", 0),
        tls: bool = False,
    ) -> None:
        self.scripts = dict(scripts)
        self.connections = 0
        self.heads: list[str] = []
        self.names: list[str | None] = []
        self.over = threading.Event()
        self._context = self._make_context() if tls else None
        self._listener = socket.create_server(at)
        self.host, self.port = self._listener.getsockname()
        self.url = f"{'https' if tls else 'http'}://{self.host}:{self.port}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _make_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(TLS / "server.pem")
        context.sni_callback = lambda _sock, name, _context: self.names.append(name)
        return context

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=[connection])
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with (
                self._context.wrap_socket(connection, server_side=True)
                if self._context
                else connection as sock
            ):
                self._answer(sock)
        except OSError:
            connection.close()

    def _answer(self, sock: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            received = sock.recv(4096)
            if not received:
                return
            head += received
        self.heads.append(head.decode())
        path = head.split()[1].decode().partition("?")[0]
        script = self.scripts[path]
        if isinstance(script, bytes):
            sock.sendall(script)
        else:
            script(sock)

    def close(self) -> None:
        self.over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(20)


class Serve(Protocol):
    """Starts a server that ends with the test."""

    def __call__(
        self,
        scripts: Mapping[str, Script | bytes],
        *,
        at: tuple[str, int] = ("127.0.0.1", 0),
        tls: bool = False,
    ) -> Server: ...


@contextmanager
def serving() -> Iterator[Serve]:
    with ExitStack() as stack:

        def start(
            scripts: Mapping[str, Script | bytes],
            *,
            at: tuple[str, int] = ("127.0.0.1", 0),
            tls: bool = False,
        ) -> Server:
            server = Server(scripts, at=at, tls=tls)
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture
def serve() -> Iterator[Serve]:
    with serving() as start:
        yield start


def picture(kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.frombytes("RGB", (64, 48), os.urandom(64 * 48 * 3)).save(file, kind)
    return file.getvalue()


PNG = picture()


def reply(body: bytes = b"", status: str = "200 OK", length: int | None = None, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def redirect(location: str, status: str = "302 Found") -> bytes:
    return reply(status=status, Location=location)
