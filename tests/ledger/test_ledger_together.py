"""Several processes on one ledger, on both databases: each `Ledger` here has connections of its own."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from itertools import pairwise

import pytest
from sqlalchemy import insert, select, text, update

from storage.errors import Conflict, Crowded, LeaseLost, TookTooLong, Unavailable
from storage.ledger.circuits import Circuits
from storage.ledger.database import HEAD, Database
from storage.ledger.deliveries import DeliveryResult
from storage.ledger.engine import BUSY_TIMEOUT_MS
from storage.ledger.events import GAP_S, Events, SafePosition
from storage.ledger.job_counts import SLOTS, total, wrong_counts
from storage.ledger.job_writer import Accepted, Change, NewJob, write_changes
from storage.ledger.leases import ClaimBudget
from storage.ledger.ledger import Ledger
from storage.ledger.schema import circuits, events, jobs
from storage.models import Circuit, Job, JobError, Status
from tests.support.ledgers import REQUEST, Clock, add, add_job, add_output, offer, output, running
from tests.support.postgres import Postgres, serving

PEERS = 4
ON_POSTGRESQL = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@pytest.fixture
def databases(database_url: str) -> Iterator[Sequence[Database]]:
    with ExitStack() as stack:
        yield [stack.enter_context(closing(Database.open(database_url))) for _ in range(PEERS)]


@pytest.fixture
def peers(databases: Sequence[Database], clock: Clock) -> Sequence[Ledger]:
    return [Ledger(database, clock) for database in databases]


def at_once(number: int, act: Callable[[int], None]) -> None:
    """So many act at the same instant."""
    barrier = threading.Barrier(number)

    def begin(peer: int) -> None:
        barrier.wait(10)
        act(peer)

    with ThreadPoolExecutor(number) as pool:
        for done in [pool.submit(begin, peer) for peer in range(number)]:
            done.result(60)


def together(peers: Sequence[Ledger], act: Callable[[Ledger, int], None]) -> None:
    """All act at the same instant."""
    at_once(len(peers), lambda peer: act(peers[peer], peer))


def once_more(before: Circuit | None, now: int) -> Circuit:
    """A circuit that counts one failure more, and stays closed."""
    first = Circuit(
        kind="gateway", name="apiframe", step="send", code="gateway_unavailable", message="away",
        at_fault="gateway", failures=0, since=now, retry_at=None,
    )  # fmt: skip
    return replace(before or first, failures=(before or first).failures + 1)


def test_jobs_of_one_millisecond_get_own_numbers(peers: Sequence[Ledger], database: Database) -> None:
    together(peers, lambda ledger, peer: [add(ledger, f"job-{peer}-{n}") for n in range(15)].clear())
    with database.read() as connection:
        numbers = list(connection.scalars(select(jobs.c.number).order_by(jobs.c.number)))
    assert len(numbers) == 15 * PEERS
    assert all(after == before + 1 for before, after in pairwise(numbers))
    page = total(list(peers[0].job_counts().values()))
    assert (page.accepted, page.balanced) == (15 * PEERS, True)


def test_one_key_at_the_same_instant_is_one_job(peers: Sequence[Ledger]) -> None:
    answers: list[tuple[Job, bool]] = []

    def submit(ledger: Ledger, peer: int) -> None:
        for turn in range(5):
            job_id = f"job-{turn}-{peer}"
            answers.append(add_job(ledger, job_id, "apiframe", REQUEST, idempotency_key=f"k-{turn}"))

    together(peers, submit)
    assert len({job.id for job, _ in answers}) == 5
    assert sum(new for _, new in answers) == 5
    assert total(list(peers[0].job_counts().values())).accepted == 5


def test_batches_with_one_set_of_keys_are_one_batch(peers: Sequence[Ledger]) -> None:
    results: list[Accepted | Conflict] = []

    def submit(ledger: Ledger, peer: int) -> None:
        for turn in range(3):
            keys = [f"k-{turn}-{number}" for number in range(20)]
            ordered = reversed(keys) if peer % 2 else keys
            batch = [NewJob(f"{key}-{peer}", f"g{len(key) % 2}", REQUEST, key) for key in ordered]
            results.extend(ledger.add_jobs(batch))

    together(peers, submit)
    accepted = [one for one in results if not isinstance(one, Conflict)]
    assert (len(accepted), sum(new for _, new in accepted)) == (60 * PEERS, 60)
    assert len({job.id for job, _ in accepted}) == 60
    counts = total(list(peers[0].job_counts().values()))
    assert (counts.accepted, counts.balanced) == (60, True)


def test_a_job_is_cancelled_or_sent_never_both(peers: Sequence[Ledger]) -> None:
    ids = [add(peers[0], f"job-{number}").id for number in range(12)]
    sent: list[str] = []

    def check(job: Job, _called_back: bool) -> None:
        if job.status is not Status.QUEUED:
            raise Conflict("sent")

    def act(ledger: Ledger, peer: int) -> None:
        if peer % 2:
            for job_id in reversed(ids):
                with suppress(Conflict):
                    ledger.cancel(job_id, check)
            return
        while claimed := ledger.claim(f"w{peer}", 1):
            with suppress(LeaseLost):
                sent.append(ledger.move(claimed[0], Status.SUBMITTING, f"w{peer}", keep_lease=True).id)

    together(peers, act)
    cancelled = [job_id for job_id in ids if peers[0].job(job_id).status is Status.CANCELLED]
    assert sorted([*sent, *cancelled]) == sorted(ids)
    page = total(list(peers[0].job_counts().values()))
    assert (page.balanced, page.counts[Status.CANCELLED]) == (True, len(cancelled))


def test_counts_are_right_whoever_moves_at_once(peers: Sequence[Ledger], database: Database) -> None:
    for number in range(40):
        add(peers[0], f"job-{number}", f"g{number % 2}")

    def act(ledger: Ledger, peer: int) -> None:
        while claimed := ledger.claim(f"w{peer}", 3):
            # In another order each, as deadlocks need it.
            for job in claimed if peer % 2 else reversed(claimed):
                sent = ledger.move(job, Status.SUBMITTING, f"w{peer}", keep_lease=True)
                error = JobError(f"code-{peer}", "", "gateway")
                ledger.move(sent, Status.FAILED, f"w{peer}", error=error)

    together(peers, act)
    page = total(list(peers[0].job_counts().values()))
    assert (page.balanced, page.counts[Status.FAILED]) == (True, 40)
    with database.read() as connection:
        assert wrong_counts(connection) == {}


@ON_POSTGRESQL
def test_no_count_waits_for_another_transaction(database: Database, ledger: Ledger) -> None:
    many = SLOTS + 2
    for number in range(many):
        add(ledger, f"job-{number}")
    with ExitStack() as open_at_once:
        for number in range(many):
            connection = open_at_once.enter_context(database.write())
            connection.execute(text("SET LOCAL lock_timeout = 1000"))
            mine = update(jobs).where(jobs.c.id == f"job-{number}")
            with suppress(InterruptedError), connection.begin_nested():
                connection.execute(mine.values(status=Status.RUNNING))
                raise InterruptedError
            connection.execute(mine.values(status=Status.FAILED))
        assert ledger.job_counts()["apiframe"].counts[Status.QUEUED] == many, "none has committed"
    assert ledger.job_counts()["apiframe"].counts[Status.FAILED] == many
    with database.read() as connection:
        assert wrong_counts(connection) == {}
        slots = "SELECT count(DISTINCT slot) FROM job_counts WHERE status = 'failed'"
        assert connection.scalar(text(slots)) == many


def test_no_job_is_leased_to_two_workers(peers: Sequence[Ledger]) -> None:
    for number in range(60):
        add(peers[0], f"job-{number}", "apiframe" if number % 2 else "api-in-one")
    got: dict[int, list[str]] = {}

    def claim(ledger: Ledger, peer: int) -> None:
        mine: list[str] = []
        while claimed := ledger.claim(f"w{peer}", 4):
            mine += [job.id for job in claimed]
        got[peer] = mine

    together(peers, claim)
    # Whoever found everything locked by others came away with less; what is left is there for the next.
    rest = [job.id for job in peers[0].claim("late", 60)]
    everything = [job_id for mine in (*got.values(), rest) for job_id in mine]
    assert sorted(everything) == sorted(f"job-{number}" for number in range(60))


def test_one_callback_at_one_instant_is_taken_once(peers: Sequence[Ledger]) -> None:
    for name in ("a", "b"):
        running(peers[0], name)
    receipts: list[DeliveryResult] = []

    def take(ledger: Ledger, peer: int) -> None:
        # In another order each, which must not make them wait for each other.
        names = ("a", "b") if peer % 2 else ("b", "a")
        receipts.extend(ledger.add_deliveries([offer(name, theirs=f"theirs-{name}") for name in names]))

    together(peers, take)
    assert sorted(receipts) == sorted(
        [DeliveryResult.ACCEPTED] * 2 + [DeliveryResult.DUPLICATE] * (2 * PEERS - 2)
    )
    assert [len(peers[0].deliveries(name)) for name in ("a", "b")] == [1, 1]


def test_one_image_at_one_instant_is_noted_once(peers: Sequence[Ledger]) -> None:
    running(peers[0])
    together(peers, lambda ledger, _peer: add_output(ledger, output()))
    assert len(peers[0].outputs("job-1")) == 1


@ON_POSTGRESQL
@pytest.mark.parametrize("status", [Status.READY, Status.RUNNING])
def test_a_move_reads_no_other_job_of_its_status(database: Database, ledger: Ledger, status: Status) -> None:
    many = 200
    ledger.add_jobs([NewJob(f"job-{number}", "apiframe", REQUEST) for number in range(many)])
    (job, *_) = ledger.claim("w", many)
    with database.write() as connection:
        connection.execute(text("ANALYZE jobs"))
        connection.execute(update(jobs).values(status=status, ready_at=1))
    moved = Change(replace(job, status=status), "w", {"status": Status.RUNNING, "updated_at": 1})
    read = text(
        "SELECT sum(pg_stat_get_xact_tuples_returned(oid)) FROM (SELECT indexrelid AS oid FROM pg_index "
        "WHERE indrelid = 'jobs'::regclass UNION SELECT 'jobs'::regclass) AS places"
    )
    with database.write() as connection:
        before = connection.scalar(read)
        (after,) = write_changes(connection, [moved])
        assert connection.scalar(read) - before < 10
    assert after.id == job.id


@ON_POSTGRESQL
def test_a_gap_that_nobody_will_fill_is_passed(database: Database) -> None:
    reader, ledger = Events(database), Ledger(database, Clock())
    add(ledger, "job-1")
    before = reader.newest().id
    with suppress(ZeroDivisionError), database.write() as broken:
        broken.execute(insert(events).values(at=1, job_id="never", gateway="g", status="queued"))
        raise ZeroDivisionError
    add(ledger, "job-2")
    assert [one.job_id for one in reader.after(before, limit=9)] == ["job-2"]


@ON_POSTGRESQL
def test_an_uncommitted_event_holds_up_later_ones(database: Database) -> None:
    now = [0.0]
    reader, ledger = Events(database), Ledger(database, Clock())
    reader._safe = SafePosition(lambda: now[0])
    add(ledger, "job-1")
    before = reader.newest().id
    with database.write() as slow:
        slow.execute(insert(events).values(at=1, job_id="slow", gateway="g", status="queued"))
        add(ledger, "job-2")
        assert reader.after(before, limit=9) == reader.since(reader.newest(), limit=9).events == []
        assert reader.newest().id == before
        now[0] = GAP_S + 1
        assert [one.job_id for one in reader.after(before, limit=9)] == ["job-2"], "but not for ever"
    assert [one.job_id for one in Events(database).after(before, limit=9)] == ["slow", "job-2"]


@ON_POSTGRESQL
def test_a_slow_query_is_broken_off(database: Database) -> None:
    with pytest.raises(TookTooLong), database.read(within_s=0.05) as connection:
        connection.execute(text("SELECT pg_sleep(20)"))
    with database.read(within_s=5) as connection:
        assert connection.scalar(text("SELECT 1")) == 1


def test_replicas_that_start_together_make_the_ledger_once(postgres: Postgres) -> None:
    name = postgres.create()
    with ThreadPoolExecutor(PEERS) as pool:
        opened = list(pool.map(Database.open, [postgres.url(name)] * PEERS))
    for database in opened:
        with database.read() as connection:
            assert connection.scalar(text("SELECT version_num FROM alembic_version")) == HEAD
        database.close()
    postgres.drop(name)


def test_a_server_that_is_away_is_found_again(tmp_path_factory: pytest.TempPathFactory) -> None:

    with serving() as server, closing(Database.open(server.url())) as database:
        ledger = Ledger(database, Clock())
        add(ledger, "job-1")
        server.stop("immediate")
        with pytest.raises(Unavailable):
            add(ledger, "job-2")
        with pytest.raises(Unavailable):
            ledger.job("job-1")
        server.start()
        assert ledger.job("job-1").id == "job-1", "what was committed is there after a crash"
        add(ledger, "job-2")


def test_the_limit_of_sending_is_for_all_processes(peers: Sequence[Ledger], database: Database) -> None:
    for number in range(4 * PEERS):
        add(peers[0], f"job-{number}")
    claimed = [ledger.claim(f"w{peer}", 4) for peer, ledger in enumerate(peers)]
    crowded: list[str] = []

    def begin(ledger: Ledger, peer: int) -> None:
        for job in claimed[peer]:
            try:
                ledger.move(job, Status.SUBMITTING, f"w{peer}", keep_lease=True, at_most=3)
            except Crowded as error:
                crowded.append(str(error))

    together(peers, begin)
    with database.read() as connection:
        sent = connection.scalars(select(jobs.c.id).where(jobs.c.status == Status.SUBMITTING)).all()
    assert (len(sent), len(crowded)) == (3, 4 * PEERS - 3)
    assert "3 jobs of apiframe are submitting already" in crowded[0]


@pytest.mark.parametrize("known", [False, True], ids=["the first ones", "after another"])
def test_failures_of_several_processes_all_count(
    databases: Sequence[Database], clock: Clock, known: bool
) -> None:
    seen = [Circuits(database, clock) for database in databases]
    if known:
        seen[0].failed("gateway", "apiframe", once_more)

    def fail(peer: int) -> None:
        for _ in range(5):
            seen[peer].failed("gateway", "apiframe", once_more)

    at_once(len(seen), fail)
    (circuit,) = seen[0].every()
    assert circuit.failures == 5 * PEERS + known


@ON_POSTGRESQL
def test_of_several_workers_one_probes(
    databases: Sequence[Database], peers: Sequence[Ledger], clock: Clock
) -> None:
    for number in range(2 * PEERS):
        add(peers[0], f"job-{number}")
    Circuits(databases[0], clock).failed(
        "gateway", "apiframe", lambda before, now: replace(once_more(before, now), retry_at=now)
    )
    with ThreadPoolExecutor(PEERS) as pool:
        with databases[0].write() as holding:
            holding.execute(select(circuits).with_for_update())
            claiming = [pool.submit(peers[peer].claim, f"w{peer}", 4) for peer in range(1, PEERS)]
            # Each has seen by now that it is time for a try.
            await_waiting(databases[0], PEERS - 1)
        got = [job for claimed in claiming for job in claimed.result(60)]
    assert len(got) == 1


def await_waiting(database: Database, number: int) -> None:
    """Wait until so many transactions wait for a lock."""
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    give_up = time.monotonic() + 20
    with database.autocommit() as connection:
        while connection.scalar(waiting) != number:
            assert time.monotonic() < give_up, f"{number} transactions did not come to wait"


def test_no_more_is_claimed_than_may_be_sent_now(peers: Sequence[Ledger], clock: Clock) -> None:
    for number in range(6):
        add(peers[0], f"job-{number}")
    add(peers[0], "other", gateway="api-in-one")
    room = ClaimBudget(10, sending={"apiframe": 3})
    first = {job.id: job for job in peers[0].claim("w0", room)}
    assert sorted(first) == ["job-0", "job-1", "job-2", "other"]
    for job in first.values():
        peers[0].move(job, Status.SUBMITTING, "w0", keep_lease=True, at_most=3)
    assert peers[1].claim("w1", room) == []
    assert peers[1].next_due(room) is None
    peers[0].move(peers[0].job("job-1"), Status.RUNNING, "w0", gateway_job_id="theirs", due_in_ms=9_000)
    assert [job.id for job in peers[1].claim("w1", room)] == ["job-3"]
    # What a process held that has died is in nobody's hands once its lease is over.
    clock.now += 31_000
    assert {"job-0", "job-2"} < {job.id for job in peers[1].claim("w1", room)}


def test_events_are_numbered_on_beyond_32_bits(
    databases: Sequence[Database], peers: Sequence[Ledger]
) -> None:
    last = 2**31 + 5
    add(peers[0])
    with databases[0].write() as connection:
        if databases[0].shared:
            connection.execute(text(f"SELECT setval('events_id_seq', {last})"))
        else:
            connection.execute(text(f"UPDATE sqlite_sequence SET seq = {last} WHERE name = 'events'"))
    add(peers[1], "job-2")
    assert [(one.id, one.job_id) for one in Events(databases[2]).after(last, limit=9)] == [
        (last + 1, "job-2")
    ]


@pytest.mark.alone
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_process_that_always_writes_lets_others(databases: Sequence[Database]) -> None:
    """SQLite itself looks ever more rarely whether it may, in the end every tenth of a second."""
    busy, rest = databases[:2]
    held, done, times = threading.Event(), threading.Event(), 0

    def write_on() -> None:
        nonlocal times
        while not done.is_set():
            with busy.write():
                held.set()
                times += 1
                done.wait(0.4)
            # Nobody can tell the other one that it may; so long it has to find out.
            time.sleep(0.01)

    thread = threading.Thread(target=write_on)
    thread.start()
    try:
        assert held.wait(10)
        passed_by = 0
        for _ in range(5):
            before = times
            with rest.write() as connection:
                passed_by += times - before
                # Whoever reads waits as long as before, should it ever have to.
                assert connection.scalar(text("PRAGMA busy_timeout")) == BUSY_TIMEOUT_MS
            busy_again = times
            while times == busy_again and thread.is_alive():
                time.sleep(0.001)
        assert passed_by <= 2
    finally:
        done.set()
        thread.join()
