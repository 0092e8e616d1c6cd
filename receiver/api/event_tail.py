"""The newest events of the ledger, read by one task on the event loop for all who follow them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

import structlog
from anyio import CapacityLimiter
from anyio.to_thread import run_sync

from receiver.telemetry.metrics import Metrics
from storage.errors import StorageError
from storage.ledger.events import Event, EventPosition, Events

log = structlog.get_logger("darkroom.events")

LOOK_S = 1.0
"""How often it looks by itself: another process may have moved a job."""
GAP_S = 0.01
"""The least time between two looks, however much happens; the first one after a pause is at once."""
PAGE = 500
RECENT = 1000
"""How many of the newest events are kept in memory, about 0.5 MB of them."""


class EventBuffer:
    """The newest events in memory: all that came after `since`, up to `at`."""

    def __init__(self, at: EventPosition) -> None:
        self.since = at.id
        self.at = at
        self._recent: deque[Event] = deque()

    def add(self, events: Sequence[Event]) -> None:
        """Add the events that came next; of all, the newest are kept."""
        self._recent.extend(events)
        self.at = EventPosition(events[-1].id, events[-1].at)
        while len(self._recent) > RECENT:
            self.since = self._recent.popleft().id

    def after(self, event_id: int) -> list[Event]:
        """All events after one that is not before `since`."""
        found = []
        # From the end, because hardly anybody is far behind.
        for event in reversed(self._recent):
            if event.id <= event_id:
                break
            found.append(event)
        return found[::-1]


class EventTailer:
    """The task that reads, from its making until `stop`. For use on one event loop, but for `wake`."""

    def __init__(
        self, events: Events, came: Callable[[EventPosition, Sequence[Event]], None], metrics: Metrics
    ) -> None:
        """`came` is called with events that came, and the place where they begin."""
        self.loop = asyncio.get_running_loop()
        self.tail: asyncio.Future[EventBuffer] = self.loop.create_future()
        """There once it is known where to begin; or the StorageError for which there is no telling."""
        self._events = events
        self._came = came
        self._metrics = metrics
        self._woken = asyncio.Event()
        self._failing = False
        # A thread of its own, or requests that hang in the bucket could take the last one.
        self._thread = CapacityLimiter(1)
        self._task = self.loop.create_task(self._run(), name="darkroom-events")

    def wake(self) -> None:
        """Look now; may be called from any thread."""
        if self._woken.is_set():
            return
        try:
            self.loop.call_soon_threadsafe(self._woken.set)
        except RuntimeError:
            # The loop is closed, so nobody is left to be told.
            return

    def stop(self) -> None:
        """Read no more."""
        self._task.cancel()
        self.tail.cancel()

    async def _run(self) -> None:
        try:
            tail = EventBuffer(await run_sync(self._events.newest, limiter=self._thread))
        except Exception as error:  # noqa: BLE001 - those who wait for it are to have it
            if not self.tail.done():
                self.tail.set_exception(error)
                # It may be that nobody waits for it any more; that is no mistake.
                self.tail.exception()
            return
        self.tail.set_result(tail)
        while True:
            if not await self._read(tail):
                await self._pause()
            await asyncio.sleep(GAP_S)

    async def _read(self, tail: EventBuffer) -> bool:
        """Read what is new; answers whether there may be more at once."""
        self._woken.clear()
        try:
            new = await run_sync(self._next, tail.at.id, limiter=self._thread)
        except Exception as error:  # noqa: BLE001 - this task must not end
            self._complain(error)
            return False
        self._failing = False
        if new:
            begin = tail.at
            tail.add(new)
            self._came(begin, new)
        return len(new) == PAGE

    def _next(self, event_id: int) -> Sequence[Event]:
        return self._events.after(event_id, limit=PAGE)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(LOOK_S):
                await self._woken.wait()
        except TimeoutError:
            return

    def _complain(self, error: Exception) -> None:
        self._metrics.count("darkroom_ledger_errors_total", part="events")
        if not self._failing:
            # A traceback only for what nobody expected.
            expected = isinstance(error, StorageError)
            log.error(
                "events are not read; tried again", why=str(error), exc_info=None if expected else error
            )
        self._failing = True
