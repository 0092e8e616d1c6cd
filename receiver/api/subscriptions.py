"""Let HTTP requests wait for what happens, without each of them asking the ledger.

As long as somebody waits, one task reads the new events of the ledger: whenever a thread of this process has
moved a job, and once a second, because another process may have. The newest are kept in memory, and each
request takes from there what came after what it has seen. One that is farther behind, because it came with an
old id or reads slowly, is given pages of the ledger until it has caught up. So nobody has a queue that could
run over, and nothing falls between memory and ledger: both are in the order of the ids.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from time import monotonic

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from receiver.api.event_tail import EventBuffer, EventTailer
from receiver.errors import TooManyRequests, TooManyWaiting
from receiver.telemetry.metrics import Metrics, Values
from storage.ledger.events import Event, EventPage, EventPosition, Events, LostReason
from storage.models import Status

TAKEN = 200
"""How many events a request is given at once."""
CATCHING_UP = 2
"""How many requests may read pages of the ledger at the same time."""
COME_AGAIN_S = 5
TERMINAL = frozenset(status for status in Status if status.terminal)


@dataclass(frozen=True, slots=True)
class Reset:
    """Something may be missing: who follows must read the lists anew, and can go on from `place`."""

    why: LostReason
    place: EventPosition


@dataclass(eq=False, slots=True)
class Subscriber:
    """One request that waits. Ask `begin` first."""

    waiters: Subscriptions
    who: str
    job_id: str | None
    gateway: str | None
    place: EventPosition | None
    """It has heard all that happened up to there; None: it begins with now."""
    gone: bool = False
    checked: bool = False
    tail: EventBuffer | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set if it is worth asking for `more`."""

    @property
    def over(self) -> bool:
        """Whether nobody waits any longer: the other side is gone, or the service stops."""
        return self.gone or self.waiters.closed

    async def begin(self) -> None:
        """Take up a place, from which on nothing is missed; raises Unavailable if there is no ledger."""
        self.tail = await self.waiters.tail()
        self.checked = self.place is None
        self.place = self.place or self.tail.at

    async def more(self, within_s: float) -> Sequence[Event | Reset]:
        """The next that it wants to hear of; empty if nothing came in time, or it is `over`.

        Raises Unavailable if the ledger had to be asked, and does not answer.
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
        """Whether it wants to hear of this one."""
        return self.job_id in (None, event.job_id) and self.gateway in (None, event.gateway)

    def came(self, begin: EventPosition, events: Sequence[Event]) -> None:
        """Hear that these have come, the first of them after `begin`."""
        if self.tail is None or self.place is None:
            return
        if any(self.wants(event) for event in events):
            self.news.set()
        elif begin.id <= self.place.id < self.tail.at.id:
            # It need not look for itself, nor does it fall behind by what it does not want.
            self.place = self.tail.at

    async def _take(self) -> Sequence[Event | Reset]:
        assert self.tail is not None
        assert self.place is not None
        if self.checked and self.place.id >= self.tail.since:
            new = self.tail.after(self.place.id)
            found = [event for event in new if self.wants(event)][:TAKEN]
            self._heard(found, self.tail.at)
            return found
        since = await self.waiters.since(self, self.place)
        self.checked = True
        if since.lost:
            self.place = since.newest
            return [Reset(since.lost, since.newest)]
        self._heard(since.events, since.newest)
        return since.events

    def _heard(self, events: Sequence[Event], all_up_to: EventPosition) -> None:
        full = len(events) == TAKEN
        heard = EventPosition(events[-1].id, events[-1].at) if full else all_up_to
        # Never back: what was read in the ledger may be newer than what is in memory yet.
        if self.place is None or heard.id >= self.place.id:
            self.place = heard


class Subscriptions:
    """All requests that wait. For use on the event loop, but for `moved` and `close`."""

    def __init__(self, events: Events, metrics: Metrics, *, most: int, most_each: int) -> None:
        """Let `most` requests wait at once, `most_each` of them with one API token."""
        self._events = events
        self._metrics = metrics
        self._most = most
        self._most_each = most_each
        self._followers: set[Subscriber] = set()
        self._reader: EventTailer | None = None
        self._catching_up = CapacityLimiter(CATCHING_UP)
        self._closed = False
        metrics.watch(self._count)

    @property
    def closed(self) -> bool:
        """Whether the service is stopping, so that nobody should wait any longer."""
        return self._closed

    def at_most(self, requests: int) -> None:
        """Let no more than so many wait, whatever the settings say."""
        self._most = min(self._most, max(1, requests))

    def moved(self, _job_id: str = "") -> None:
        """Look for what is new, because a job has moved; may be called from any thread."""
        if (reader := self._reader) is not None:
            reader.wake()

    def close(self) -> None:
        """Send everybody home, as the service stops; may be called from any thread."""
        self._closed = True
        if (reader := self._reader) is not None:
            with suppress(RuntimeError):  # the loop is closed already
                reader.loop.call_soon_threadsafe(self._tell_all)

    @contextmanager
    def following(
        self,
        request: Request,
        *,
        job_id: str | None = None,
        gateway: str | None = None,
        place: EventPosition | None = None,
    ) -> Iterator[Subscriber]:
        """Let a request wait for what happens after a place, or from now on; of one job or gateway or all.

        Raises TooManyRequests or TooManyWaiting if too many wait already.
        """
        who = request.state.caller.name
        self._must_have_room(who)
        follower = Subscriber(self, who, job_id, gateway, place)
        self._followers.add(follower)
        watch = asyncio.create_task(_watch(follower, request.receive))
        try:
            yield follower
        finally:
            watch.cancel()
            self._followers.discard(follower)
            if not self._followers and self._reader is not None:
                self._reader.stop()
                self._reader = None

    async def until(
        self, request: Request, done: Callable[[str], bool], job_id: str, *, within_s: float
    ) -> None:
        """Wait until a job is done, or this time is over.

        `done` asks the ledger: at the beginning, and whenever the job has come to rest. Raises what it does,
        and what `following` does; ClientDisconnect if the other side is gone.
        """
        deadline = monotonic() + within_s
        with self.following(request, job_id=job_id) as follower:
            await follower.begin()
            while not await run_in_threadpool(done, job_id):
                while not any(_rests(one) for one in await follower.more(deadline - monotonic())):
                    if follower.gone:
                        raise ClientDisconnect
                    if follower.over or monotonic() >= deadline:
                        return

    async def tail(self) -> EventBuffer:
        """The newest events; they are read as long as anybody follows."""
        if self._reader is None:
            self._reader = EventTailer(self._events, self._came, self._metrics)
        reader = self._reader
        try:
            return await asyncio.shield(reader.tail)
        except Exception:
            if self._reader is reader:
                self._reader = None
            raise

    async def since(self, follower: Subscriber, place: EventPosition) -> EventPage:
        """Read in the ledger what a follower wants to hear of."""
        read = partial(self._events.since, limit=TAKEN, job_id=follower.job_id, gateway=follower.gateway)
        return await run_sync(read, place, limiter=self._catching_up)

    def _must_have_room(self, who: str) -> None:
        if sum(follower.who == who for follower in self._followers) >= self._most_each:
            raise TooManyRequests(
                f"{self._most_each} requests with this API token wait already; end one, or come later.",
                retry_after_s=COME_AGAIN_S,
            )
        if len(self._followers) >= self._most:
            raise TooManyWaiting(f"{self._most} requests are waiting, which is as many as may; come later.")

    def _came(self, begin: EventPosition, events: Sequence[Event]) -> None:
        for follower in self._followers:
            follower.came(begin, events)

    def _tell_all(self) -> None:
        for follower in self._followers:
            follower.news.set()

    def _count(self) -> Values:
        return {"darkroom_requests_waiting": len(self._followers)}


def _rests(one: Event | Reset) -> bool:
    return isinstance(one, Reset) or one.status in TERMINAL


async def _watch(follower: Subscriber, receive: Receive) -> None:
    """See that the other side is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    follower.gone = True
    follower.news.set()
