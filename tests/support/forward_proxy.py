"""A real forward proxy on loopback, for CONNECT and for plain http, which remembers what it was asked.

It leads only where it is told to, so that public addresses and names can be reached without a network.
"""

import select
import socket
import threading
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from socketserver import StreamRequestHandler, ThreadingTCPServer
from urllib.parse import SplitResult, urlsplit, urlunsplit

USER = "user:pass-word"


class ForwardProxy(ThreadingTCPServer):
    """`routes` has the port on loopback for each `host:port`; all else is refused with 502."""

    daemon_threads = True

    def __init__(self, routes: Mapping[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.routes = dict(routes)
        self.asked: list[str] = []
        self._heard = threading.Condition()
        self.user: str | None = None
        """What `Proxy-Authorization` must hold; None: nothing is asked for."""

    @property
    def url(self) -> str:
        user = f"{self.user}@" if self.user else ""
        return f"http://{user}127.0.0.1:{self.server_address[1]}"

    def hear(self, authority: str) -> None:
        with self._heard:
            self.asked.append(authority)
            self._heard.notify_all()

    def wait_for(self, *authorities: str) -> None:
        """Wait until each of these was asked for."""
        with self._heard:
            assert self._heard.wait_for(lambda: set(authorities) <= set(self.asked), 20), self.asked


class _Handler(StreamRequestHandler):
    server: ForwardProxy
    rbufsize = 0  # what follows the head is for the server behind

    def handle(self) -> None:
        lines = [line.decode().rstrip("\r\n") for line in iter(self.rfile.readline, b"\r\n") if line]
        if not lines:
            return
        method, place, _ = lines[0].split()
        url = urlsplit(place)
        authority = place if method == "CONNECT" else f"{url.hostname}:{url.port or 80}"
        self.server.hear(authority)
        wanted = self.server.user and f"Basic {b64encode(self.server.user.encode()).decode()}"
        given = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if wanted and given.get("proxy-authorization") != wanted:
            self._refuse("407 Proxy Authentication Required")
        elif authority not in self.server.routes:
            self._refuse("502 Bad Gateway")
        else:
            with (
                suppress(OSError),
                socket.create_connection(("127.0.0.1", self.server.routes[authority])) as behind,
            ):
                if method == "CONNECT":
                    self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
                else:
                    behind.sendall(_relative(method, url, lines[1:]))
                self._pass_on(behind)

    def _refuse(self, status: str) -> None:
        self.wfile.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())

    def _pass_on(self, behind: socket.socket) -> None:
        pairs = {self.connection: behind, behind: self.connection}
        while True:
            for source in select.select(list(pairs), [], [], 20)[0]:
                data = source.recv(65536)
                if not data:
                    return
                pairs[source].sendall(data)


def _relative(method: str, url: SplitResult, headers: list[str]) -> bytes:
    path = urlunsplit(("", "", url.path or "/", url.query, ""))
    kept = [line for line in headers if not line.lower().startswith(("proxy-", "connection:"))]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *kept, "Connection: close", "", ""]).encode()


@contextmanager
def forward_proxy(routes: Mapping[str, int]) -> Iterator[ForwardProxy]:
    """Run one until the end of the block."""
    with ForwardProxy(routes) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join(10)
