"""A small TCP proxy that stands between the service and what it talks to, and does harm on request.

It reads HTTP only to know where a request or an answer ends: bytes go on as they came, so signatures over
the Host header and the body still fit. All of it is kept, so what passes should be small.
"""

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from typing import Self
from urllib.parse import urlsplit

from tests.faults.harm import RST_ON_CLOSE, Action, Call, pass_on
from tests.faults.wire import Gone, Message, read_request


@dataclass
class Armed:
    """A fault that waits for requests that fit it. `struck` counts those it met."""

    action: Action
    method: re.Pattern[str]
    path: re.Pattern[str]
    times: int | None
    struck: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def takes(self, request: Message) -> bool:
        """Whether this request is to be struck; counts it."""
        if not (self.method.fullmatch(request.method) and self.path.search(request.path)):
            return False
        with self._changed:
            if self.times is not None and self.struck >= self.times:
                return False
            self.struck += 1
            self._changed.notify_all()
            return True

    def wait(self, times: int = 1, timeout_s: float = 60.0) -> None:
        """Wait until it struck so often; raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.struck >= times, timeout_s):
                raise TimeoutError(f"the fault struck {self.struck} times, not {times}")


class Proxy:
    """Stands in front of an HTTP server, whose client uses the proxy's `url` instead of the server's own.

    Of several targets, each request goes to the next that is there, as behind a load balancer.

    Use it as a context manager. `down`, `up`, `arm` and `disarm` may be called at any time, from any thread.
    """

    def __init__(self, *targets: str) -> None:
        self._targets = targets
        self._turns = cycle(urlsplit(target) for target in targets)
        # Bound but never listening: it keeps the port for us while we are down.
        self._holder = _bound(0)
        self.port: int = self._holder.getsockname()[1]
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._armed: list[Armed] = []
        self._threads: list[threading.Thread] = []
        self.calls: list[Call] = []
        """Every request that came, in the order they came."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def arm(self, action: Action, *, method: str = ".*", path: str = "", times: int | None = None) -> Armed:
        """Do this with the next `times` requests that fit: `method` whole, `path` anywhere in it."""
        armed = Armed(action, re.compile(method), re.compile(path), times)
        with self._lock:
            self._armed.append(armed)
        return armed

    def disarm(self) -> None:
        with self._lock:
            self._armed.clear()

    @contextmanager
    def armed(
        self, action: Action, *, method: str = ".*", path: str = "", times: int | None = None
    ) -> Iterator[Armed]:
        """The same as `arm`, until the end of the block."""
        armed = self.arm(action, method=method, path=path, times=times)
        try:
            yield armed
        finally:
            with self._lock:
                self._armed.remove(armed)

    def down(self) -> None:
        with self._lock:
            listener, self._listener = self._listener, None
            if listener is not None:
                with suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)
                listener.close()
            for sock in self._open:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def up(self) -> None:
        with self._lock:
            if self._listener is None:
                self._listener = _bound(self.port)
                self._listener.listen(256)
                self._begin(self._accept, self._listener)

    def close(self) -> None:
        self.down()
        for thread in self._threads:
            thread.join(10)
        self._holder.close()

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _begin(self, work: Callable[[socket.socket], None], sock: socket.socket) -> None:
        thread = threading.Thread(target=work, args=[sock], name="fault-proxy", daemon=True)
        self._threads = [other for other in self._threads if other.is_alive()] + [thread]
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                if self._listener is not listener:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
                    sock.close()
                    continue
                self._open.add(sock)
                self._begin(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with sock.makefile("rb") as file:
                while True:
                    self._take(Call(read_request(file, sock), self._connect, sock))
        except (Gone, OSError):
            pass
        finally:
            with self._lock:
                self._open.discard(sock)
            sock.close()

    def _connect(self) -> socket.socket:
        for _ in self._targets:
            with self._lock:
                target = next(self._turns)
            with suppress(ConnectionError):
                return socket.create_connection((target.hostname, target.port))
        raise Gone

    def _take(self, call: Call) -> None:
        with self._lock:
            self.calls.append(call)
            armed = list(self._armed)
        action = next((fault.action for fault in armed if fault.takes(call.request)), pass_on)
        action(call)


def _bound(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock
