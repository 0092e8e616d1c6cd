"""A ledger that is moved from SQLite to PostgreSQL: all of it, once, however often that is broken off."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Executable, func, insert, select, text, update

from storage.errors import Conflict, Corrupt, Misconfigured
from storage.ledger.circuits import Circuits
from storage.ledger.database import Database
from storage.ledger.events import EventPosition, Events
from storage.ledger.ledger import Ledger
from storage.ledger.schema import GRAMS, circuits, jobs, outputs, tallies
from storage.models import Circuit, JobError, JobRequest, JobResult, Output, Status
from storage.search.filters import SearchFilter
from storage.search.search import Search
from storage.transfer.compare import TABLES
from storage.transfer.copy import moved_here
from storage.transfer.transfer import GONE_S, STEPS, Moved, move, open_alone, rows_of
from tests.support.ledgers import Clock, add_job, add_output, offer
from tests.support.postgres import Postgres

ODD = "Ä \u200b naïve 寿司 🪁 \ud7ff \\u0000 'quoted' \"twice\" \t tab"
"""Signs that a copy might trip over; what stands before 0000 is a backslash."""


def fill(path: Path, clock: Clock) -> None:
    """A ledger with jobs in every state, and everything else that there may be."""
    database = Database.open(f"sqlite:///{path}")
    ledger = Ledger(database, clock)
    for number, end in enumerate(Status):
        _job(ledger, f"job-{number}", end)
        clock.now += 1
    _job(ledger, "job-old", Status.QUEUED)
    ledger.claim("killed", 1)
    Circuits(database, clock).failed("image_host", "cdn.example:443", lambda _old, now: _circuit(now))
    Events(database).forget(clock.now - 5)
    database.close()


def _job(ledger: Ledger, job_id: str, end: Status) -> None:
    request = JobRequest(
        model="imagen-4", prompt=f"{ODD} {job_id}", seed=str(2**70), tags={"ö": ODD},
        params={"none": None, "nul": "a\0b", "deep": [1, 2.5, -0.0, 1e300, 2**60, True, {"x": {}}]},
    )  # fmt: skip
    add_job(
        ledger, job_id, "apiframe", request, idempotency_key=f"key {ODD} {job_id}", notify_url="https://a/"
    )
    if end is Status.QUEUED:
        return
    (job,) = (one for one in ledger.claim("w", 9) if one.id == job_id)
    if end is Status.CANCELLED:
        ledger.move(job, end, "w")
        return
    job = ledger.move(job, Status.SUBMITTING, "w", keep_lease=True)
    if end is Status.SUBMITTING:
        return
    job = ledger.move(job, Status.RUNNING, "w", gateway_job_id=f"theirs {job_id}", keep_lease=True)
    ledger.add_deliveries([offer(job_id, bytes(range(256)), job.gateway_job_id)])
    if end is Status.RUNNING:
        return
    if end is Status.FAILED:
        ledger.move(job, end, "w", error=JobError("no_answer", ODD, "gateway", {"nul": "\0"}))
        return
    result = JobResult(
        model="other", seed="7", credits=0.1, images_returned=1, reply={"nul": "\0", "nothing": None}
    )
    job = ledger.move(job, Status.READY, "w", result=result, keep_lease=True)
    if end is not Status.READY:
        add_output(
            ledger, Output(job_id, 0, f"images/{job_id} {ODD}.png", "ab" * 32, 2**40, "image/png", 1, 1, 1)
        )
        ledger.move(job, end, "w", records=1)


def _circuit(now: int) -> Circuit:
    return Circuit("image_host", "cdn.example:443", "download", "away", ODD, "host", 5, now, now + 1000, None)


END_OTHERS = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()"""


@pytest.fixture
def path(tmp_path: Path, clock: Clock) -> Path:
    """A small ledger with everything in it."""
    path = tmp_path / "ledger.sqlite3"
    fill(path, clock)
    return path


@pytest.fixture
def empty_url(postgres: Postgres) -> Iterator[str]:
    """A database as an operator creates it: without any table."""
    name = postgres.create()
    yield postgres.url(name)
    postgres.drop(name)


def nothing(_step: str, _table: str, _rows: int) -> None:
    """Nobody looks."""


class BrokenOff(Exception):
    pass


def break_off(step: str, _table: str, _rows: int) -> None:
    """Break a move off after its first batch."""
    if step == "copying":
        raise BrokenOff


def moved(
    path: Path,
    url: str,
    *,
    batch: int = 7,
    told: Callable[[str, str, int], None] = nothing,
    wait_s: float = GONE_S,
) -> Moved:
    with closing(open_alone(path)) as source, closing(Database.connect(url)) as target:
        return move(source, target, clock=lambda: 99, progress=told, batch=batch, wait_s=wait_s)


def content(database: Database) -> dict[str, list[tuple[object, ...]]]:
    """Everything in a ledger, leases apart, in no order of the database's."""
    found = {}
    with database.read() as connection:
        for table in TABLES:
            columns = [column for column in table.c if not column.name.startswith("leased_")]
            found[table.name] = sorted((tuple(row) for row in connection.execute(select(*columns))), key=repr)
    return found


def same(path: Path, url: str) -> bool:
    with closing(Database.open(f"sqlite:///{path}")) as source, closing(Database.open(url)) as target:
        ours, theirs = content(source), content(target)
    assert all(ours[table.name] for table in TABLES), "there is something of everything"
    return ours == theirs


@pytest.mark.parametrize("batch", [1, 7, 5000])
def test_everything_is_there_as_it_was(path: Path, empty_url: str, batch: int) -> None:
    done = moved(path, empty_url, batch=batch)
    assert same(path, empty_url)
    assert done.before is None
    assert done.tables["jobs"].rows == len(Status) + 1
    assert list(done.tables) == [table.name for table in TABLES]


def test_an_older_ledger_is_brought_up_to_date(path: Path, empty_url: str) -> None:
    with closing(sqlite3.connect(path)) as older, older:
        # What came after it on SQLite, but for what the index of prompts and models has anew.
        older.executescript(
            "DROP TABLE workers; DROP INDEX ix_outputs_missing_since;"
            "ALTER TABLE outputs DROP COLUMN missing_since;"
            "ALTER TABLE jobs DROP COLUMN images_returned; ALTER TABLE jobs DROP COLUMN withheld;"
            "ALTER TABLE jobs DROP COLUMN poll_url; ALTER TABLE jobs DROP COLUMN echoed_seed;"
            "ALTER TABLE jobs DROP COLUMN called_off_at;"
            "DROP TABLE fillings; DROP TABLE job_counts;"
            "DROP TRIGGER count_new_job; DROP TRIGGER count_deleted_job; DROP TRIGGER count_moved_job;"
            "DROP INDEX ix_jobs_gateway_status_number; DROP INDEX ix_jobs_ready;"
            "DROP INDEX ix_deliveries_pending;"
            "CREATE INDEX ix_jobs_gateway_status ON jobs (gateway, status, found_by);"
            "UPDATE alembic_version SET version_num = '0003'"
        )
    moved(path, empty_url)
    assert same(path, empty_url)


def test_nobody_holds_a_job_afterwards(path: Path, empty_url: str, clock: Clock) -> None:
    moved(path, empty_url)
    with closing(Database.open(empty_url)) as database:
        claimed = Ledger(database, clock).claim("new", 100)
        with database.read() as connection:
            unfinished = connection.scalar(select(func.count()).where(jobs.c.next_attempt_at.is_not(None)))
    assert len(claimed) == unfinished == 5


def test_events_go_on_and_words_are_found(path: Path, empty_url: str, clock: Clock) -> None:
    with closing(Database.open(f"sqlite:///{path}")) as database:
        newest = Events(database).newest()
    moved(path, empty_url)
    with closing(Database.open(empty_url)) as database:
        told = Events(database)
        assert told.newest() == newest
        clock.now += 1000
        add_job(Ledger(database, clock), "new", "apiframe", JobRequest(model="m", prompt="later"))
        since = told.since(EventPosition(newest.id, newest.at), limit=10)
        assert [(one.id, one.job_id) for one in since.events] == [(newest.id + 1, "new")]
        assert since.lost is None
        found = Search(database).outputs(SearchFilter(words=("寿司",)), limit=50)
        assert {one.output.job_id for one in found.rows} == {"job-4", "job-5"}


@pytest.mark.exhaustive
def test_a_move_broken_off_after_any_batch_goes_on(path: Path, empty_url: str) -> None:
    copied: list[tuple[str, int]] = []

    def count_and_break_off(step: str, table: str, rows: int) -> None:
        if step == "copying":
            copied.append((table, rows))
        break_off(step, table, rows)

    breaks = 0
    while True:
        try:
            moved(path, empty_url, batch=3, told=count_and_break_off)
            break
        except BrokenOff:
            breaks += 1
        with pytest.raises(Misconfigured, match="is being moved"):
            Database.open(empty_url)
    with closing(open_alone(path)) as source:
        assert sum(rows for _, rows in copied) == rows_of(source), "nothing was copied twice"
    assert breaks == len(copied) > 20
    assert same(path, empty_url)


def test_what_is_told_adds_up(path: Path, empty_url: str) -> None:
    rows = dict.fromkeys(STEPS, 0)

    def add(step: str, _table: str, more: int) -> None:
        rows[step] += more

    moved(path, empty_url, told=add)
    with closing(open_alone(path)) as source:
        assert set(rows.values()) == {rows_of(source)}


def test_a_finished_move_is_told_and_changes_nothing(path: Path, empty_url: str, clock: Clock) -> None:
    moved(path, empty_url)
    with closing(Database.open(empty_url)) as database:
        add_job(Ledger(database, clock), "new", "apiframe", JobRequest(model="m", prompt="later"))
        before = content(database)
    assert moved(path, empty_url).before == 99
    with closing(Database.open(empty_url)) as database:
        assert content(database) == before


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (update(jobs).where(jobs.c.id == "job-3").values(attempts=77), "jobs job-3 differs in attempts"),
        (update(jobs).where(jobs.c.id == "job-3").values(tags={}), "jobs job-3 differs in tags"),
        (outputs.delete().where(outputs.c.job_id == "job-4"), "outputs job-4 0 is missing in the copy"),
        (insert(tallies).values(facet="day", value="x", outputs=1), "tallies day x is in the copy only"),
        (update(jobs).where(jobs.c.id == "job-3").values(leased_by="x"), "jobs job-3 differs in leased_by"),
        (text(f"UPDATE {GRAMS} SET folded = 'other'"), "cannot be looked up"),
    ],
)
def test_a_difference_is_found_and_nothing_starts(
    path: Path, empty_url: str, damage: Executable, told: str
) -> None:
    last = TABLES[-1].name
    done: list[str] = []

    def do_damage(step: str, table: str, _rows: int) -> None:
        # When all that is to be damaged is there, and before it is read.
        if step == "copying" and table == last:
            with other.write() as connection:
                connection.execute(damage)
            done.append(table)

    other = Database.connect(empty_url)
    with closing(other), pytest.raises(Corrupt) as caught:
        moved(path, empty_url, batch=5000, told=do_damage)
    assert done == [last]
    assert told in str(caught.value)
    with pytest.raises(Misconfigured, match="is being moved"):
        Database.open(empty_url)
    with pytest.raises(Corrupt):
        moved(path, empty_url)


def test_a_ledger_that_is_in_use_is_not_moved(path: Path, empty_url: str) -> None:
    with closing(Database.open(f"sqlite:///{path}")) as service:
        with service.read() as connection:
            connection.execute(select(jobs.c.id)).all()
        with pytest.raises(Conflict, match="in use"):
            open_alone(path)
    with (
        closing(open_alone(path)),
        closing(sqlite3.connect(path, timeout=0)) as late,
        pytest.raises(sqlite3.OperationalError, match="locked"),
    ):
        late.execute("SELECT * FROM jobs")
    moved(path, empty_url)


def test_a_copy_that_is_in_use_is_refused(path: Path, empty_url: str) -> None:
    with closing(Database.open(empty_url)), pytest.raises(Conflict, match="in use"):
        moved(path, empty_url, wait_s=0.3)
    moved(path, empty_url)


def test_another_ledger_is_left_alone(path: Path, empty_url: str, clock: Clock) -> None:
    with closing(Database.open(empty_url)) as database:
        add_job(Ledger(database, clock), "theirs", "apiframe", JobRequest(model="m", prompt="p"))
        before = content(database)
    with pytest.raises(Conflict, match="another ledger"):
        moved(path, empty_url)
    with closing(Database.open(empty_url)) as database:
        assert content(database) == before


@pytest.mark.parametrize("finished", [True, False])
def test_a_ledger_that_changed_is_not_mixed_in(
    path: Path, empty_url: str, clock: Clock, finished: bool
) -> None:
    with suppress(BrokenOff):
        moved(path, empty_url, told=nothing if finished else break_off)
    with closing(Database.open(f"sqlite:///{path}")) as database, database.write() as connection:
        connection.execute(update(circuits).values(failures=6))
    with pytest.raises(Conflict, match="before it changed"):
        moved(path, empty_url)


def test_a_copy_of_another_version_is_refused(path: Path, empty_url: str) -> None:
    with pytest.raises(BrokenOff):
        moved(path, empty_url, told=break_off)
    with closing(Database.connect(empty_url)) as database, database.write() as connection:
        connection.execute(update(moved_here).values(schema="0001"))
    with pytest.raises(Conflict, match="another version"):
        moved(path, empty_url)


@pytest.mark.exhaustive
def test_a_lost_connection_is_made_again(path: Path, empty_url: str) -> None:
    ended = []

    def end_connections(step: str, _table: str, _rows: int) -> None:
        if step == "copying":
            with closing(psycopg.connect(empty_url, autocommit=True)) as other:
                ended.append(other.execute(END_OTHERS).fetchall())

    moved(path, empty_url, batch=20, told=end_connections)
    assert len(ended) >= len(TABLES)
    assert all(ended)
    assert same(path, empty_url)


def test_a_database_that_is_not_utf8_is_refused(path: Path, postgres: Postgres) -> None:
    with closing(psycopg.connect(postgres.url(), autocommit=True)) as admin:
        admin.execute("CREATE DATABASE latin ENCODING LATIN1 LOCALE 'C' TEMPLATE template0")
        try:
            with pytest.raises(Misconfigured, match="ENCODING 'UTF8'"):
                moved(path, postgres.url("latin"))
        finally:
            admin.execute("DROP DATABASE latin WITH (FORCE)")


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("table", "change", "told"),
    [
        ("jobs", "prompt = 'a' || char(0) || 'secret'", "prompt: PostgreSQL text fields cannot contain NUL"),
        ("jobs", f"gateway_job_id = '{'secret' * 99}'", "gateway_job_id: value too long"),
        ("jobs", """reply = '{"secret": NaN}'""", "reply: invalid input syntax for type json"),
        ("outputs", '"index" = 3000000000', "outputs job-4 3000000000"),
    ],
)
def test_a_row_postgresql_cannot_keep_is_named(
    path: Path, empty_url: str, table: str, change: str, told: str
) -> None:
    with closing(sqlite3.connect(path)) as ledger, ledger:
        ledger.execute(f"UPDATE {table} SET {change} WHERE {'id' if table == 'jobs' else 'job_id'} = 'job-4'")
    with pytest.raises(Misconfigured) as refused:
        moved(path, empty_url)
    assert f"{table} job-4" in str(refused.value)
    assert told in str(refused.value)
    assert "secret" not in str(refused.value)
    with closing(sqlite3.connect(path)) as ledger, ledger:
        assert ledger.execute("SELECT count(*) FROM jobs").fetchone() == (len(Status) + 1,)


def test_what_is_no_ledger_is_not_touched(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no ledger at"):
        open_alone(tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "text").write_text("no database at all, but long enough to be looked at as one" * 99)
    with closing(sqlite3.connect(tmp_path / "others")) as others:
        others.execute("CREATE TABLE t (x)")
    for name in ("text", "others"):
        with pytest.raises(Misconfigured, match="not a ledger"):
            open_alone(tmp_path / name)
    with closing(sqlite3.connect(tmp_path / "others")) as others:
        assert others.execute("SELECT name FROM sqlite_master").fetchall() == [("t",)]
