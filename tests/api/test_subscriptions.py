"""Who waits for events, on an event loop without HTTP: memory, ledger and the seam between them."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import wraps
from typing import Any

import pytest
from sqlalchemy import insert
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from receiver.api.subscriptions import GAP_S, RECENT, TAKEN, Reset, Subscriptions
from receiver.http.auth import Caller
from receiver.telemetry.metrics import Metrics
from storage.errors import Unavailable
from storage.ledger.database import Database
from storage.ledger.events import OLDEST, Event, EventPosition, Events, LostReason
from storage.ledger.ledger import Ledger
from storage.ledger.schema import events as table
from storage.models import JobError, Status
from tests.support.ledgers import Clock, add, running


class Counted(Events):
    """Events that count how often they are read, and fail when they are told to."""

    reads = 0
    pages = 0
    away = False

    def newest(self) -> EventPosition:
        self._must_be_there()
        return super().newest()

    def after(self, event_id: int, *, limit: int) -> Sequence[Event]:
        self.reads += 1
        self._must_be_there()
        return super().after(event_id, limit=limit)

    def since(self, place: EventPosition, **more: Any) -> Any:
        self.pages += 1
        self._must_be_there()
        return super().since(place, **more)

    def _must_be_there(self) -> None:
        if self.away:
            raise Unavailable("The ledger is away.")


@pytest.fixture
def events(database: Database) -> Counted:
    return Counted(database)


@pytest.fixture
def waiters(events: Counted) -> Subscriptions:
    return Subscriptions(events, Metrics(["apiframe"]), most=1000, most_each=400)


def put(database: Database, number: int, job_id: str = "job", at: int = 1_795_000_000_000) -> None:
    row = {"at": at, "job_id": job_id, "gateway": "apiframe", "status": "queued"}
    with database.write() as connection:
        connection.execute(insert(table), [row] * number)


def request(gone: asyncio.Event | None = None) -> Request:
    """A request whose sender stays until it is `gone`."""
    gone = gone or asyncio.Event()

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    made = Request({"type": "http", "headers": []}, receive)
    made.state.caller = Caller("somebody", "read")
    return made


def bounded(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on an event loop of its own, for at most twenty seconds."""

    @wraps(test)
    def run(**fixtures: Any) -> None:
        async def within_time() -> None:
            async with asyncio.timeout(20):
                await test(**fixtures)

        asyncio.run(within_time())

    return run


@bounded
async def test_who_falls_behind_is_given_pages_of_the_ledger(
    database: Database, events: Counted, waiters: Subscriptions
) -> None:
    with waiters.following(request()) as slow, waiters.following(request()) as quick:
        await slow.begin()
        await quick.begin()
        heard: list[int] = []
        for number in range(5):
            put(database, RECENT // 2)
            waiters.moved()
            while len(heard) < RECENT // 2 * (number + 1):
                heard += [one.id for one in await quick.more(9) if isinstance(one, Event)]
        assert events.pages == 0
        late: list[Event | Reset] = []
        while len(late) < len(heard):
            late += await slow.more(9)
        put(database, 1)
        late += await slow.more(9)
    assert [one.id for one in late if isinstance(one, Event)] == [*heard, len(heard) + 1]
    # The first half has left the memory; the rest comes from there again.
    assert 0 < events.pages <= len(heard) // TAKEN


@bounded
async def test_other_jobs_events_do_not_make_it_fall_behind(
    database: Database, events: Counted, waiters: Subscriptions
) -> None:
    with waiters.following(request(), job_id="mine") as follower:
        await follower.begin()
        for _ in range(4):
            put(database, RECENT, "others")
            waiters.moved()
            assert await follower.more(5 * GAP_S) == ()
        put(database, 1, "mine")
        waiters.moved()
        (one,) = await follower.more(9)
        assert isinstance(one, Event)
        assert (one.job_id, events.pages) == ("mine", 0)


@bounded
async def test_a_place_forgotten_while_behind_is_told(
    database: Database, events: Counted, waiters: Subscriptions
) -> None:
    with waiters.following(request()) as follower:
        await follower.begin()
        put(database, RECENT + 700)
        waiters.moved()
        while follower.tail is None or follower.tail.at.id < RECENT + 700:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(GAP_S)
        events.forget(0, most=RECENT)
        assert await follower.more(9) == [Reset(LostReason.FORGOTTEN, events.newest())]
        put(database, 1)
        (one,) = await follower.more(9)
        assert isinstance(one, Event)
        assert one.id == RECENT + 701


@bounded
async def test_while_the_ledger_is_away_nothing_is_lost(
    database: Database, events: Counted, waiters: Subscriptions
) -> None:
    with waiters.following(request()) as follower:
        await follower.begin()
        events.away = True
        put(database, 3)
        reads = events.reads
        for _ in range(10):
            waiters.moved()
            assert await follower.more(GAP_S) == ()
        assert events.reads > reads
        with waiters.following(request()) as other:
            await other.begin()
            assert await other.more(0) == (), "from memory"
        events.away = False
        waiters.moved()
        assert len(await follower.more(9)) == 3


@bounded
async def test_who_comes_while_the_ledger_is_away_is_told_so(events: Counted, waiters: Subscriptions) -> None:
    events.away = True
    with waiters.following(request()) as one, waiters.following(request()) as other:
        told = await asyncio.gather(one.begin(), other.begin(), return_exceptions=True)
        assert [type(error) for error in told] == [Unavailable, Unavailable]
        events.away = False
        await one.begin()
        assert await one.more(0) == ()


@bounded
async def test_much_that_moves_is_read_together(
    database: Database, events: Counted, waiters: Subscriptions
) -> None:
    with waiters.following(request()) as follower:
        await follower.begin()
        for _ in range(200):
            put(database, 1)
            waiters.moved()
            await asyncio.sleep(0)
        heard = 0
        while heard < 200:
            heard += len(await follower.more(9))
        assert events.reads < 100


@bounded
async def test_a_wait_costs_no_reading_but_at_its_ends(
    ledger: Ledger, events: Counted, waiters: Subscriptions, clock: Clock
) -> None:
    job = running(ledger)
    looks: list[str] = []

    def finished(job_id: str) -> bool:
        looks.append(job_id)
        return ledger.job(job_id).status.terminal

    waits = [asyncio.create_task(waiters.until(request(), finished, job.id, within_s=9)) for _ in range(20)]
    while len(looks) < 20:  # noqa: ASYNC110 - they look from threads
        await asyncio.sleep(GAP_S)
    for number in range(30):
        add(ledger, f"other-{number}")
        waiters.moved()
        await asyncio.sleep(0.002)
    assert len(looks) == 20
    assert not any(wait.done() for wait in waits)
    clock.now += 31_000
    (held,) = [one for one in ledger.claim("w", 99) if one.id == job.id]
    ledger.move(held, Status.FAILED, "w", error=JobError("x", "y", "gateway"))
    waiters.moved()
    await asyncio.gather(*waits)
    assert len(looks) == 40


@bounded
async def test_a_wait_ends_in_time_and_with_its_sender(ledger: Ledger, waiters: Subscriptions) -> None:
    job_id = add(ledger).id

    def finished(job_id: str) -> bool:
        return ledger.job(job_id).status.terminal

    await waiters.until(request(), finished, job_id, within_s=0.05)
    gone = asyncio.Event()
    hopeless = asyncio.create_task(waiters.until(request(gone), finished, job_id, within_s=60))
    patient = asyncio.create_task(waiters.until(request(), finished, job_id, within_s=60))
    await asyncio.sleep(GAP_S)
    gone.set()
    with pytest.raises(ClientDisconnect):
        await hopeless
    assert not patient.done()
    waiters.close()
    await patient
    await waiters.until(request(), finished, job_id, within_s=60)


def left(events: Events) -> list[int]:
    return [one.id for one in events.after(0, limit=10_000)]


def test_old_events_are_forgotten_and_the_newest_stays(database: Database, events: Counted) -> None:
    for at in (10, 20, 99, 20, 30, 40):
        put(database, 1, at=at)
    assert events.forget(10) == 0
    assert events.forget(30, limit=1) == 1
    assert events.forget(30) == 1
    # The clock was wrong at the third one; without it there would be a gap that nobody could see.
    assert left(events) == [3, 4, 5, 6]
    assert events.forget(0, most=2) == 2
    assert events.forget(1000) == 1
    assert events.forget(1000) == 0
    assert left(events) == [6]
    assert events.since(EventPosition(6, 40), limit=9).lost is None
    assert events.since(EventPosition(5), limit=9).lost is None
    assert events.since(EventPosition(4), limit=9).lost is LostReason.FORGOTTEN
    assert events.since(EventPosition(0, 0), limit=9).lost is LostReason.FORGOTTEN
    assert [one.id for one in events.since(OLDEST, limit=9).events] == [6]
    put(database, 1)
    assert left(events) == [6, 7], "no id comes twice"
