"""Let HTTP requests subscribe to events: tail the ledger's events, buffer the newest, page the rest.

While there are subscribers, one task reads the new events of the ledger: when a thread of this process has
moved a job, and once a second, because another process may have. The newest are buffered in memory, and each
subscriber takes those after its position. One that is behind, with an old id or a slow connection, reads
pages of the ledger until it has caught up. So no queue can overflow, and no event is lost between buffer and
ledger: both are in the order of the ids.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from time import monotonic

import structlog
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from receiver.errors import TooManyRequests, TooManyWaiting
from receiver.telemetry.metrics import Metrics
from storage.errors import StorageError
from storage.ledger.events import Event, EventPage, EventPosition, Events, LostReason
from storage.models import Status

log = structlog.get_logger("darkroom.events")

LOOK_S = 1.0
"""Seconds between two polls: another process may have moved a job."""
GAP_S = 0.01
"""The least time between two reads; the first one after a pause is immediate."""
PAGE = 500
RECENT = 1000
"""How many of the newest events are kept in memory, about 0.5 MB of them."""
TAKEN = 200
"""The most events that a subscriber takes at once."""
CATCHING_UP = 2
"""How many subscribers may read pages of the ledger at the same time."""
COME_AGAIN_S = 5


class EventBuffer:
    """Buffer the newest events: all after `since`, up to `at`."""

    def __init__(self, at: EventPosition) -> None:
        self.since = at.id
        self.at = at
        self._recent: deque[Event] = deque()

    def add(self, events: Sequence[Event]) -> None:
        """Append events, and drop the oldest beyond `RECENT`."""
        self._recent.extend(events)
        self.at = EventPosition(events[-1].id, events[-1].at)
        while len(self._recent) > RECENT:
            self.since = self._recent.popleft().id

    def after(self, event_id: int) -> list[Event]:
        """Return the events after an id, which must not be before `since`."""
        # From the end, because most subscribers are close to it.
        return list(takewhile(lambda event: event.id > event_id, reversed(self._recent)))[::-1]


class EventTailer:
    """Read new events in a task until `stop`. For use on one event loop, except `wake`."""

    def __init__(
        self, events: Events, came: Callable[[EventPosition, Sequence[Event]], None], metrics: Metrics
    ) -> None:
        """`came` is called with new events, and the position after which they begin."""
        self.loop = asyncio.get_running_loop()
        self.tail: asyncio.Future[EventBuffer] = self.loop.create_future()
        """Set once the first position is known; or the StorageError that prevented it."""
        self._events = events
        self._came = came
        self._metrics = metrics
        self._woken = asyncio.Event()
        self._failing = False
        # A thread of its own, or requests that hang in the bucket could take the last one.
        self._thread = CapacityLimiter(1)
        self._task = self.loop.create_task(self._run(), name="darkroom-events")

    def wake(self) -> None:
        """Read now; may be called from any thread."""
        if not self._woken.is_set():
            with suppress(RuntimeError):  # the loop is closed
                self.loop.call_soon_threadsafe(self._woken.set)

    def stop(self) -> None:
        """Stop reading."""
        self._task.cancel()
        self.tail.cancel()

    async def _run(self) -> None:
        try:
            tail = EventBuffer(await run_sync(self._events.newest, limiter=self._thread))
        except Exception as error:  # noqa: BLE001 - passed on to those that wait
            if not self.tail.done():
                self.tail.set_exception(error)
                # Retrieved here, or asyncio would warn where no request waits for it.
                self.tail.exception()
            return
        self.tail.set_result(tail)
        while True:
            if not await self._read(tail):
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._woken.wait()
            await asyncio.sleep(GAP_S)

    async def _read(self, tail: EventBuffer) -> bool:
        """Read what is new; return whether there may be more."""
        self._woken.clear()
        try:
            new = await run_sync(partial(self._events.after, tail.at.id, limit=PAGE), limiter=self._thread)
        except Exception as error:  # noqa: BLE001 - this task must not end
            self._log_failure(error)
            return False
        self._failing = False
        if new:
            begin = tail.at
            tail.add(new)
            self._came(begin, new)
        return len(new) == PAGE

    def _log_failure(self, error: Exception) -> None:
        self._metrics.count("darkroom_ledger_errors_total", part="events")
        if not self._failing:
            # A traceback only for unexpected errors.
            unexpected = None if isinstance(error, StorageError) else error
            log.error("events are not read; tried again", why=str(error), exc_info=unexpected)
        self._failing = True


@dataclass(frozen=True, slots=True)
class Reset:
    """Events may be missing: a client must read the lists again, and can continue from `place`."""

    why: LostReason
    place: EventPosition


@dataclass(eq=False, slots=True)
class Subscriber:
    """One request that follows events. Await `begin` first."""

    waiters: Subscriptions
    who: str
    job_id: str | None
    gateway: str | None
    place: EventPosition | None
    """Its position: it has had all events up to there. None: it begins with the next one."""
    gone: bool = False
    checked: bool = False
    tail: EventBuffer | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when `more` may have something."""

    @property
    def over(self) -> bool:
        """Whether the client has disconnected, or the service stops."""
        return self.gone or self.waiters.closed

    async def begin(self) -> None:
        """Take the position after which no event is missed; raises Unavailable without a ledger."""
        self.tail = await self.waiters.tail()
        self.checked = self.place is None
        self.place = self.place or self.tail.at

    async def more(self, within_s: float) -> Sequence[Event | Reset]:
        """Return the next matching events; empty after a timeout, or if it is `over`.

        Raises Unavailable if the ledger had to be read, and cannot be.
        """
        deadline = monotonic() + within_s
        while not self.over:
            self.news.clear()
            if found := await self._take():
                return found
            try:
                async with asyncio.timeout(deadline - monotonic()):
                    await self.news.wait()
            except TimeoutError:
                break
        return ()

    def wants(self, event: Event) -> bool:
        """Return whether an event matches its filter."""
        return self.job_id in (None, event.job_id) and self.gateway in (None, event.gateway)

    def came(self, begin: EventPosition, events: Sequence[Event]) -> None:
        """Notice new events, the first of them after `begin`."""
        if self.tail is None or self.place is None:
            return
        if any(self.wants(event) for event in events):
            self.news.set()
        elif begin.id <= self.place.id < self.tail.at.id:
            # Events that do not match must not make it fall behind.
            self.place = self.tail.at

    async def _take(self) -> Sequence[Event | Reset]:
        assert self.tail is not None
        assert self.place is not None
        if self.checked and self.place.id >= self.tail.since:
            new = self.tail.after(self.place.id)
            found = [event for event in new if self.wants(event)][:TAKEN]
            self._advance(found, self.tail.at)
            return found
        since = await self.waiters.since(self, self.place)
        self.checked = True
        if since.lost:
            self.place = since.newest
            return [Reset(since.lost, since.newest)]
        self._advance(since.events, since.newest)
        return since.events

    def _advance(self, events: Sequence[Event], all_up_to: EventPosition) -> None:
        full = len(events) == TAKEN
        heard = EventPosition(events[-1].id, events[-1].at) if full else all_up_to
        # Never back: the ledger may be ahead of the buffer.
        if self.place is None or heard.id >= self.place.id:
            self.place = heard


class Subscriptions:
    """All subscribers, within their limits. For use on the event loop, except `moved` and `close`."""

    def __init__(self, events: Events, metrics: Metrics, *, most: int, most_each: int) -> None:
        """Let `most` requests wait at once, `most_each` of them with one API token."""
        self._events = events
        self._metrics = metrics
        self._most = most
        self._most_each = most_each
        self._subscribers: set[Subscriber] = set()
        self._reader: EventTailer | None = None
        self._catching_up = CapacityLimiter(CATCHING_UP)
        self.closed = False
        """Whether the service is stopping."""
        metrics.watch(lambda: {"darkroom_requests_waiting": len(self._subscribers)})

    def at_most(self, requests: int) -> None:
        """Lower the limit of subscribers to this many."""
        self._most = min(self._most, max(1, requests))

    def moved(self, _job_id: str = "") -> None:
        """Read new events, because a job has moved; may be called from any thread."""
        if (reader := self._reader) is not None:
            reader.wake()

    def close(self) -> None:
        """Cancel all subscribers, as the service stops; may be called from any thread."""
        self.closed = True
        if (reader := self._reader) is not None:
            with suppress(RuntimeError):  # the loop is closed already
                reader.loop.call_soon_threadsafe(self._wake_all)

    @contextmanager
    def following(
        self,
        request: Request,
        *,
        job_id: str | None = None,
        gateway: str | None = None,
        place: EventPosition | None = None,
    ) -> Iterator[Subscriber]:
        """Subscribe a request to the events after a position, or from now on; of one job or gateway or all.

        Raises TooManyRequests or TooManyWaiting at the limit of subscribers.
        """
        who = request.state.caller.name
        self._check_limits(who)
        subscriber = Subscriber(self, who, job_id, gateway, place)
        self._subscribers.add(subscriber)
        watch = asyncio.create_task(_watch(subscriber, request.receive))
        try:
            yield subscriber
        finally:
            watch.cancel()
            self._subscribers.discard(subscriber)
            if not self._subscribers and self._reader is not None:
                self._reader.stop()
                self._reader = None

    async def until(
        self, request: Request, done: Callable[[str], bool], job_id: str, *, within_s: float
    ) -> None:
        """Wait until a job is done, or for `within_s` seconds.

        `done` reads the ledger: at the beginning, and whenever the job has finished. Raises what it does,
        and what `following` does; ClientDisconnect if the client is gone.
        """
        deadline = monotonic() + within_s
        with self.following(request, job_id=job_id) as subscriber:
            await subscriber.begin()
            while not await run_in_threadpool(done, job_id):
                while not any(_finishes(one) for one in await subscriber.more(deadline - monotonic())):
                    if subscriber.gone:
                        raise ClientDisconnect
                    if subscriber.over or monotonic() >= deadline:
                        return

    async def tail(self) -> EventBuffer:
        """Return the buffer of newest events; it is filled while there are subscribers."""
        if self._reader is None:
            self._reader = EventTailer(self._events, self._came, self._metrics)
        reader = self._reader
        try:
            return await asyncio.shield(reader.tail)
        except Exception:
            if self._reader is reader:
                self._reader = None
            raise

    async def since(self, subscriber: Subscriber, place: EventPosition) -> EventPage:
        """Read a page of matching events from the ledger."""
        read = partial(self._events.since, limit=TAKEN, job_id=subscriber.job_id, gateway=subscriber.gateway)
        return await run_sync(read, place, limiter=self._catching_up)

    def _check_limits(self, who: str) -> None:
        if sum(subscriber.who == who for subscriber in self._subscribers) >= self._most_each:
            raise TooManyRequests(
                f"{self._most_each} requests with this API token are waiting; end one, or try again later.",
                retry_after_s=COME_AGAIN_S,
            )
        if len(self._subscribers) >= self._most:
            raise TooManyWaiting(f"{self._most} requests are waiting, which is the limit; try again later.")

    def _came(self, begin: EventPosition, events: Sequence[Event]) -> None:
        for subscriber in self._subscribers:
            subscriber.came(begin, events)

    def _wake_all(self) -> None:
        for subscriber in self._subscribers:
            subscriber.news.set()


def _finishes(one: Event | Reset) -> bool:
    return isinstance(one, Reset) or (one.status is not None and Status(one.status).terminal)


async def _watch(subscriber: Subscriber, receive: Receive) -> None:
    """Notice that the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass
    subscriber.gone = True
    subscriber.news.set()
