"""Run the HTTP server: in the foreground until a signal, or in a thread."""

import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from types import FrameType
from typing import Protocol

import structlog
import uvicorn
from starlette.applications import Starlette

from receiver.http.connection_limits import ConnectionLimiter, allowed, limited
from receiver.http.middleware import AtOnce

log = structlog.get_logger("darkroom.serving")

BACKLOG = 2048
"""How many connections may wait to be accepted."""
GRACE_S = 4
"""How long responses may take after a stop was requested; `Service.stop` adds about as much."""


class Server(uvicorn.Server):
    """uvicorn's server, but it cancels waiting requests as it stops, and exits with 0 after a signal."""

    def __init__(self, config: uvicorn.Config, *, started: Callable[[], None], stopping: Callable[[], None]):
        super().__init__(config)
        self._on_started = started
        self._on_stopping = stopping

    def handle_exit(self, sig: int, _frame: FrameType | None) -> None:
        """Stop cleanly at SIGTERM and SIGINT; at once at a second SIGINT."""
        # uvicorn's own would raise the signal again at the end, as if it had not been handled.
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    def ask_to_stop(self) -> None:
        """Stop cleanly; returns at once."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and call `started`; raise OSError if another program took the port meanwhile."""
        for listener in sockets or ():
            # uvloop would go on without it.
            listener.listen(self.config.backlog)
        await super().startup(sockets)
        if self.started:
            self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Cancel the requests that wait, let the rest finish, and abort what is not read."""
        self._on_stopping()
        await super().shutdown(sockets)
        # uvloop's close() waits for ever for a connection with unsent data.
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def listen(host: str, port: int) -> socket.socket:
    """Bind a socket; port 0 picks a free port. Raises OSError if the address is taken or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except BaseException:
        listener.close()
        raise
    return listener


def address(listener: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@dataclass(frozen=True, slots=True)
class Connections:
    """The limits of connections, and whose `X-Forwarded-For` is believed."""

    most: int
    """How many may be open."""
    head_timeout_s: float
    """How long a request's head may take."""
    trusted_proxies: Sequence[str] = ()
    """Networks of reverse proxies."""


class Servable(Protocol):
    """A service that makes its own ASGI application."""

    @property
    def connections(self) -> Connections:
        """The limits of its connections."""

    def at_once(self) -> AtOnce | None:
        """Return what serves some requests without the application, if anything does."""

    def cancel_waiters(self) -> None:
        """Respond to the requests that wait, because a stop was requested."""

    def on_failure(self, failed: Callable[[], None]) -> None:
        """Call something once it is certain that the service can never work. Before it starts."""

    def raise_failure(self) -> None:
        """Raise what is wrong if that is so."""

    def limit_waiters(self, connections: int) -> None:
        """Let no more requests wait than leave some of so many connections for others."""

    def asgi(self, *, work: bool) -> Starlette:
        """Return the application; its lifespan starts and stops the service."""


def serve(service: Servable, app: Starlette, listener: socket.socket) -> None:
    """Serve a service's application until SIGTERM or SIGINT; the service is stopped at the end.

    Raises what `raise_failure` does.
    """
    server = _server(service, app, started=lambda: log.info("listening", url=address(listener)))
    server.run(sockets=[listener])
    log.info("stopped")
    service.raise_failure()


@contextmanager
def served(service: Servable, listener: socket.socket, *, work: bool = True) -> Iterator[str]:
    """Serve from a thread within the context; yields the URL. Raises what `raise_failure` does."""
    url = address(listener)
    started = threading.Event()
    server = _server(service, service.asgi(work=work), started=started.set)

    def run() -> None:
        try:
            server.run(sockets=[listener])
        finally:
            started.set()

    thread = threading.Thread(target=run, name="darkroom-http")
    thread.start()
    try:
        started.wait()
        service.raise_failure()
        if not server.started:
            raise RuntimeError("The service did not start; its log says why.")
        yield url
    finally:
        server.should_exit = True
        thread.join()


def _server(service: Servable, app: Starlette, *, started: Callable[[], None]) -> Server:
    connections = allowed(service.connections.most)
    limiter = ConnectionLimiter(connections, timeout_s=service.connections.head_timeout_s)
    service.limit_waiters(connections)
    config = uvicorn.Config(
        app,
        http=limited(limiter, service.at_once()),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=True,
        forwarded_allow_ips=_with_mapped(service.connections.trusted_proxies),
        timeout_graceful_shutdown=GRACE_S,
        backlog=BACKLOG,
    )
    # It warns of every request that is not HTTP, which strangers could fill the log with.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    server = Server(config, started=started, stopping=service.cancel_waiters)
    service.on_failure(server.ask_to_stop)
    return server


def _with_mapped(networks: Iterable[str]) -> list[str]:
    """Return networks, and the IPv4 ones as a dual-stack socket spells their addresses too."""
    found = [ip_network(network) for network in networks]
    mapped = [f"::ffff:{one.network_address}/{96 + one.prefixlen}" for one in found if one.version == 4]
    return [*map(str, found), *mapped]
