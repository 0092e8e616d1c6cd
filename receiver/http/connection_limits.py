"""Limit what one connection may cost: a deadline and a size for the head of a request, and how many are open.

uvicorn itself waits for ever for a head and for a client to read its response, and has no limit for the size
of a head. Its `limit_concurrency` returns 503 to the next request, good or bad. Here the connections without
a request in hand are closed instead, the longest waiting first: the head of a good request comes at once.
"""

from __future__ import annotations

import asyncio
import resource
from itertools import chain
from time import monotonic
from typing import Any, ClassVar, cast

import structlog
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from receiver.http.middleware import AtOnce
from receiver.telemetry.logs import Tally

log = structlog.get_logger("darkroom.http")

HEADERS = 100
HEAD_BYTES = 32 * 1024
"""The limit for a head, and for whatever else of a request is not its body: chunk extensions, trailers."""
FRAMING = 8
"""Raw bytes that one byte of a body may come with: a chunk of one byte takes six."""
AFTER_RESPONSE_S = 5.0
AFTER_RESPONSE_BYTES = 8 * 1024 * 1024
"""How much of a refused body is still read and dropped, so that the client can read the response: to close
at once would reset the connection, and the response would be lost."""
PIPELINED = 8
FRESH_S = 1.0
BURST = 2
"""A connection that waits for less than `FRESH_S` is kept until there are `BURST` times too many: in a burst,
what it sent may be here already and only not have been read."""
OTHER_FILES = 200
"""Descriptors kept free for the ledger, the bucket and the gateways."""


class ConnectionLimiter:
    """Caps the open connections of a server; closes those that have no request in hand."""

    def __init__(self, most: int, *, timeout_s: float) -> None:
        """`timeout_s`: how long a head may take, and the client to read some of a response."""
        self.timeout_s = timeout_s
        self._most = most
        self._waiting: dict[LimitedConnection, float] = {}  # since when; the longest waiting first
        self._closed = Tally(log, "connections closed to make room for new ones")
        self.not_http = Tally(log, "requests that are not HTTP")

    def make_room(self, open_now: set[Any]) -> None:
        """Close the connection that has waited longest, if too many are open."""
        if len(open_now) <= self._most:
            return
        longest, since = next(iter(self._waiting.items()))
        if monotonic() - since > FRESH_S or len(open_now) > BURST * self._most:
            self._closed.add()
            self.works(longest)
            open_now.discard(longest)
            longest.transport.abort()

    def waits(self, connection: LimitedConnection) -> None:
        """Note that a connection has no request in hand from now on."""
        self.works(connection)
        self._waiting[connection] = monotonic()

    def works(self, connection: LimitedConnection) -> None:
        """Note that a connection has a request in hand, or is closed."""
        self._waiting.pop(connection, None)


class LimitedConnection(HttpToolsProtocol):
    """uvicorn's protocol with limits. Use a subclass that `limited` returns."""

    limiter: ClassVar[ConnectionLimiter]
    at_once: ClassVar[AtOnce | None]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head; close another connection if too many are open."""
        super().connection_made(transport)
        self._deadline: float | None = None  # of what is waited for: by the loop's time
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0
        self._unread: asyncio.TimerHandle | None = None
        self._unanswered: list[RequestResponseCycle] = []
        self._parsing = False
        self._begun: tuple[RequestResponseCycle, Any] | None = None
        self._loose_bytes = 0
        self._wait(self.limiter.timeout_s)
        self.limiter.make_room(self.connections)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timers and disconnect every request in hand."""
        for timer in (self._alarm, self._unread):
            if timer is not None:
                timer.cancel()
        self.limiter.works(self)
        for cycle in self._unanswered:
            # uvicorn tells only the latest request; of pipelined ones, that is not the one in hand.
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse; refuse a head, or what is around a body, that does not end."""
        self._loose_bytes += len(data)
        self._parsing = True
        super().data_received(data)
        self._parsing = False
        if (begun := self._begun) is not None:
            self._begun = None
            self._start_asgi_task(*begun)
        if self._loose_bytes > (AFTER_RESPONSE_BYTES if self._is_body_refused() else HEAD_BYTES):
            self.send_400_response("The head of the request is too large.")

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Serve a request at once if that can be, or have the application do so."""
        if self._parsing:
            # Its body may be a few bytes further.
            self._begun = cycle, app
        elif not self._is_served(cycle):
            super()._start_asgi_task(cycle, app)

    def _is_served(self, cycle: RequestResponseCycle) -> bool:
        if self.at_once is None or cycle.more_body or cycle.waiting_for_100_continue or cycle.disconnected:
            return False

        def write(head: bytes, body: bytes) -> None:
            # As uvicorn does it: RequestResponseCycle.send.
            if cycle.disconnected:
                return
            cycle.response_started = cycle.response_complete = True
            more = [b"%b: %b\r\n" % header for header in cycle.default_headers]
            end = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
            self.transport.write(b"".join((head, *more, end, body)))
            if not cycle.keep_alive:
                self.transport.close()
            self.on_response_complete()

        return self.at_once(cast("Scope", cycle.scope), bytes(cycle.body), write)

    def on_headers_complete(self) -> None:
        """Take the request in hand, if its head is small enough."""
        size = len(self.url) + sum(map(len, chain.from_iterable(self.headers)))
        self._unanswered = [cycle for cycle in self._unanswered if not cycle.response_complete]
        if size > HEAD_BYTES or len(self.headers) > HEADERS or len(self._unanswered) >= PIPELINED:
            raise ValueError("too large, or too many")  # uvicorn ends the parsing and calls send_400_response
        self._loose_bytes = 0
        self._deadline = None
        self.limiter.works(self)
        super().on_headers_complete()
        self._unanswered.append(self.cycle)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body; what comes after the response is only counted."""
        if not self.cycle.response_complete:
            self._loose_bytes = max(0, self._loose_bytes - FRAMING * len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait for the next request, if this one was answered before it was complete."""
        self._loose_bytes = 0
        super().on_message_complete()
        self.cycle.more_body = False
        if self.cycle.response_complete:
            self._wait(self.limiter.timeout_s)

    def on_response_complete(self) -> None:
        """Wait for the rest of a refused body, or for the next request."""
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self._wait(AFTER_RESPONSE_S if self.cycle.more_body else self.limiter.timeout_s)

    def pause_writing(self) -> None:
        """Set a deadline for a client that does not read its response."""
        super().pause_writing()
        self._unread = self.loop.call_later(self.limiter.timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Cancel the deadline."""
        if self._unread is not None:
            self._unread.cancel()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Return 400 and close; only close where it could be taken for the response to another request."""
        self.limiter.not_http.add()
        if self._is_body_refused() or not all(cycle.response_complete for cycle in self._unanswered):
            self.transport.abort()
        elif not self.transport.is_closing():
            super().send_400_response(msg)

    def _is_body_refused(self) -> bool:
        latest: RequestResponseCycle | None = self.cycle  # None until the first head is complete
        return latest is not None and latest.response_complete and latest.more_body

    def _wait(self, seconds: float) -> None:
        self._deadline = deadline = self.loop.time() + seconds
        # An alarm that is set stays, and looks at the deadline: to set one for each request would cost more.
        if self._alarm is None or self._alarm_at > deadline:
            self._set_alarm(deadline)
        self.limiter.waits(self)

    def _set_alarm(self, at: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm, self._alarm_at = self.loop.call_at(at, self._ring), at

    def _ring(self) -> None:
        self._alarm = None
        if self._deadline is None:
            return
        if self._deadline > self.loop.time():
            self._set_alarm(self._deadline)
        else:
            self.transport.abort()


def limited(limiter: ConnectionLimiter, at_once: AtOnce | None = None) -> type[LimitedConnection]:
    """Return a uvicorn protocol whose connections share one limiter, and serve some requests at once."""
    return type("LimitedConnection", (LimitedConnection,), {"limiter": limiter, "at_once": at_once})


def allowed(connections: int) -> int:
    """Return how many of so many connections the process has descriptors for; raises its limit as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return connections
    wanted = BURST * connections + OTHER_FILES
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(connections, (soft - OTHER_FILES) // BURST))
