"""What one connection may cost: time and bytes for the head of a request, and how many may be open.

uvicorn itself waits for ever for a head, for the rest of a body that was refused, and for somebody to read
its answer. It has no limit for the size of a head; and where it limits connections (`limit_concurrency`),
it answers 503 to whoever comes next, good or bad. Here the connections that have no request in hand are
closed instead, those first that have waited the longest. A good sender's head comes at once, so to keep it
out somebody would have to open as many connections as are allowed within that moment.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
from collections import OrderedDict
from time import monotonic
from typing import Any, ClassVar

import structlog
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from receiver.http.middleware import SAFE_HEADERS, problem_content
from receiver.telemetry.logs import Tally

log = structlog.get_logger("darkroom.http")

PROTOCOL_LOG = "darkroom.http.uvicorn"
HEADERS = 100
HEAD_BYTES = 32 * 1024
"""A head may have this many bytes, and so may whatever of a request is neither head nor body."""
FRAMING = 8
"""Raw bytes that one byte of a body may come with: a chunk of one byte takes six."""
AFTER_ANSWER_S = 5.0
AFTER_ANSWER_BYTES = 8 * 1024 * 1024
"""How much of a refused body is still taken and thrown away, so that its sender can read the answer: to
close at once would reset the connection, and the answer would be lost."""
PIPELINED = 8
"""Requests that may be sent ahead on one connection; no sender of callbacks does so at all."""
FRESH_S = 1.0
BURST = 2
"""A connection that has waited for less than this is let be, even if there are too many, until there are
twice as many: in a burst, what it sent may be here already and only not have been looked at."""
AT_STOP_S = 2.0
"""How long somebody may read nothing of their answer once the process was asked to stop."""
OTHER_FILES = 200
"""Descriptors kept free for the ledger, the bucket and the gateways."""


class ConnectionLimiter:
    """How many connections may be open, and which of them have no request in hand."""

    def __init__(self, most: int, *, patience_s: float) -> None:
        """`patience_s`: how long a head may take, and the other side to read some of what it was sent."""
        self.patience_s = patience_s
        self._most = most
        self._open: set[Connection] = set()
        self._waiting: OrderedDict[Connection, float] = OrderedDict()
        """Since when; those that have waited the longest come first."""
        self._closed = Tally(log, "connections closed to make room for new ones")
        self.not_http = Tally(log, "requests that are not HTTP")

    def enter(self, connection: Connection) -> None:
        """Let a new connection in; if there are too many now, close the one that has waited longest."""
        self._open.add(connection)
        self.waits(connection)
        if len(self._open) <= self._most:
            return
        longest, since = next(iter(self._waiting.items()))
        if monotonic() - since > FRESH_S or len(self._open) > BURST * self._most:
            self._closed.add()
            self.leave(longest)
            longest.drop()

    def leave(self, connection: Connection) -> None:
        """Forget a connection."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)

    def waits(self, connection: Connection) -> None:
        """Note that a connection has no request in hand from now on."""
        if connection in self._open:
            self._waiting[connection] = monotonic()
            self._waiting.move_to_end(connection)

    def works(self, connection: Connection) -> None:
        """Note that a connection has a request in hand."""
        self._waiting.pop(connection, None)


class Connection(HttpToolsProtocol):
    """uvicorn's own, with limits. Use a subclass that `within` makes."""

    room: ClassVar[ConnectionLimiter]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # It would log a line for whatever a stranger sends that is no HTTP; they are counted instead.
        self.logger = logging.getLogger(PROTOCOL_LOG)
        self._patience_s = self.room.patience_s
        self._deadline: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._running: RequestResponseCycle | None = None
        self._whole = True
        self._in_head = False
        self._over = False
        self._loose_bytes = 0
        self._bytes_after_answer = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self.room.enter(self)
        self._wait(self.room.patience_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._work()
        self._stop_unread()
        self.room.leave(self)
        self._tell_gone()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; give up on a head, or on what is around a body, that does not end."""
        if self._over:
            self._throw_away(data)
            return
        self._loose_bytes += len(data)
        super().data_received(data)
        if self._loose_bytes > HEAD_BYTES and not self._ending():
            self._refuse_head()

    def on_message_begin(self) -> None:
        """Note that a request begins."""
        self._whole, self._in_head = False, True
        self._bytes_after_answer = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer, unless there are too many."""
        if len(self.headers) <= HEADERS:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Take the request in hand."""
        self._loose_bytes = 0
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > HEAD_BYTES or len(self.headers) > HEADERS or len(self.pipeline) >= PIPELINED:
            self._refuse_head()
        self._in_head = False
        if not self._ending():
            self._work()
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body, or throw it away if the answer is out already."""
        self._loose_bytes = max(0, self._loose_bytes - FRAMING * len(body))
        if self._ending():
            return
        if self.cycle.response_complete:
            self._throw_away(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the request is whole; if it is answered too, wait for the next one."""
        self._whole = True
        self._loose_bytes = 0
        if self._ending():
            return
        super().on_message_complete()
        if self.cycle.response_complete:
            self._wait(self.room.patience_s)

    def on_response_complete(self) -> None:
        """Wait for the rest of the body, if there is one, and for the next request."""
        super().on_response_complete()
        if self.cycle.response_complete and not self._ending():
            self._wait(self.room.patience_s if self._whole else AFTER_ANSWER_S)

    def pause_writing(self) -> None:
        """Give up on whoever does not read for too long what they were sent."""
        super().pause_writing()
        self._unread = self.loop.call_later(self._patience_s, self.drop)

    def resume_writing(self) -> None:
        """Go on, for some of it was read."""
        self._stop_unread()
        super().resume_writing()

    def shutdown(self) -> None:
        """Let the answer in hand end, unless nobody reads it."""
        self._patience_s = min(self._patience_s, AT_STOP_S)
        if self._unread is not None:
            self._stop_unread()
            self._unread = self.loop.call_later(self._patience_s, self.drop)
        super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP as everything else is answered."""
        self.room.not_http.add()
        if self._may_answer():
            self._answer_last(400, "bad_request", msg)
        else:
            self.drop()

    def drop(self) -> None:
        """Close at once, even if the other side does not read what it was sent."""
        self._tell_gone()
        self.transport.abort()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _tell_gone(self) -> None:
        """Tell whoever reads or answers a request here that the other side is gone.

        uvicorn tells only the latest request; of those sent ahead, that is not the one in hand.
        """
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    def _ending(self) -> bool:
        return self._over or self.transport.is_closing()

    def _refuse_head(self) -> None:
        if self._in_head and self._may_answer():
            most = f"{HEAD_BYTES} bytes and {HEADERS} lines"
            self._answer_last(431, "bad_request", f"The head of a request may have {most} at most.")
        else:
            self.drop()

    def _may_answer(self) -> bool:
        """Whether an answer from here could not be taken for that of another request."""
        latest = self._latest()
        if latest is None or latest.response_complete:
            return self._in_head or self._whole
        return not (self._in_head or self.pipeline or latest.response_started)

    def _latest(self) -> RequestResponseCycle | None:
        return self.cycle  # None until the first head is complete, whatever its declaration says

    def _throw_away(self, data: bytes) -> None:
        self._bytes_after_answer += len(data)
        if self._bytes_after_answer > AFTER_ANSWER_BYTES:
            self.drop()

    def _answer_last(self, status: int, code: str, detail: str) -> None:
        body = json.dumps(problem_content(status, code, detail)).encode()
        headers = {
            "content-type": "application/problem+json",
            "content-length": str(len(body)),
            "connection": "close",
            **SAFE_HEADERS,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(STATUS_LINE[status] + lines.encode() + b"\r\n" + body)
        self.transport.write_eof()
        self._over = True
        self._tell_gone()
        self._wait(AFTER_ANSWER_S)

    def _wait(self, seconds: float) -> None:
        self._work()
        self._deadline = self.loop.call_later(seconds, self.drop)
        self.room.waits(self)

    def _work(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self.room.works(self)

    def _stop_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


def within(room: ConnectionLimiter) -> type[Connection]:
    """Connections that share one room."""
    return type("RoomedConnection", (Connection,), {"room": room})


def allowed(connections: int) -> int:
    """How many of so many connections the process has descriptors for; it asks for more first, as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = BURST * connections + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return connections
    return max(1, min(connections, (soft - OTHER_FILES) // BURST))
