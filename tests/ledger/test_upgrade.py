"""A ledger and a record that an earlier Darkroom wrote: opened, migrated, and gone on with.

`tests/samples/ledger` holds what the code of commit 1972d4e wrote: a job in each status, callbacks, a
delivered and two other notifications, and a circuit.
"""

# ruff: noqa: RUF001 - characters that look like others are what is tried

import gzip
import hashlib
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from unicodedata import normalize

import psycopg
import pytest
from sqlalchemy import insert, text

from receiver.query.language import read_query_text
from storage.archive.archive import Archive
from storage.archive.keys import Keys
from storage.archive.object_store import ObjectStore
from storage.archive.record import record_document
from storage.ledger.circuits import Circuits
from storage.ledger.database import Database
from storage.ledger.fillings import Fillings, _fill_next
from storage.ledger.job_counts import wrong_counts
from storage.ledger.job_writer import new_job
from storage.ledger.ledger import Ledger
from storage.ledger.notifications import Notifications
from storage.ledger.schema import GRAMS, jobs
from storage.ledger.search_index import index_job, lookup, pieces_of
from storage.models import Attempt, JobRequest, Status, Verdict
from storage.search.filters import SearchFilter
from storage.search.search import Search
from tests.support.ledgers import add_job, migrated_to
from tests.support.postgres import Postgres
from tests.support.processes import until

SAMPLES = Path(__file__).parents[1] / "samples" / "ledger"
LATER = 1_795_000_000_000 + 86_400_000


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Database]:
    path = tmp_path / "ledger.sqlite3"
    path.write_bytes(gzip.decompress((SAMPLES / "1972d4e.sqlite3.gz").read_bytes()))
    database = Database.open(f"sqlite:///{path}")
    yield database
    database.close()


def test_old_ledger_is_read(old: Database) -> None:
    ledger = Ledger(old, lambda: LATER)
    statuses = set(Status) - {Status.CANCELLED}  # which came later
    for status in statuses:
        job = ledger.job(f"{status}-1")
        assert (job.status, job.request.seed, job.moves[-1][0]) == (status, "12345678901234567890", status)
    (counts,) = ledger.job_counts().values()
    assert counts.balanced
    assert {status for status, count in counts.counts.items() if count == 1} == statuses
    assert [one.signature for one in ledger.pending_deliveries("running-1")] == [Verdict.VALID]
    found = Search(old).outputs(SearchFilter(words=("寿司",), tags={"campaign": "menu"}), limit=9).rows
    assert [hit.output.id for hit in found] == ["partial-1.0", "archived-1.0"]
    notifications = Notifications(old, lambda: LATER)
    counted = notifications.counts()
    assert (counted.pending, counted.failed) == (2, 0)
    (circuit,) = Circuits(old, lambda: LATER).every()
    assert (circuit.name, circuit.failures) == ("apiframe", 1)


def test_old_ledger_goes_on(old: Database) -> None:
    ledger = Ledger(old, lambda: LATER)
    again, new = add_job(
        ledger,
        "other-id",
        "apiframe",
        ledger.job("queued-1").request,
        idempotency_key="key-queued-1",
        notify_url="https://app.example/hook?token=x",
    )
    assert (again.id, new) == ("queued-1", False)
    claimed = {job.status: job for job in ledger.claim("w", 9)}
    assert set(claimed) == {Status.QUEUED, Status.SUBMITTING, Status.RUNNING, Status.READY}
    sent = ledger.move(claimed[Status.QUEUED], Status.SUBMITTING, "w", keep_lease=True)
    ledger.move(sent, Status.RUNNING, "w", gateway_job_id="theirs-queued-1")
    archived = ledger.move(claimed[Status.READY], Status.ARCHIVED, "w", records=1)
    assert archived.status is Status.ARCHIVED
    (waiting,) = ledger.pending_deliveries("running-1")
    ledger.move(claimed[Status.RUNNING], Status.FAILED, "w", applied={waiting.id: "failed"})
    retry = Attempt.once("retry", "asked", "", LATER)
    ledger.reopen(ledger.job("failed-1"), Status.QUEUED, retry)
    assert next(iter(ledger.job_counts().values())).balanced


def test_old_record_reads_the_same(old: Database, store: ObjectStore) -> None:
    written = (SAMPLES / "1972d4e.record.json").read_bytes()
    ledger, keys = Ledger(old, lambda: LATER), Keys()
    job = ledger.job("archived-1")
    store.put_new(
        keys.record(job),
        io.BytesIO(written),
        size=len(written),
        sha256=hashlib.sha256(written).hexdigest(),
        content_type="application/json",
        metadata={},
    )
    assert Archive(store, keys).read_record(job) == json.loads(written)
    made = record_document(
        replace(job, moves=job.moves[:-1]),
        ledger.outputs(job.id),
        ledger.deliveries(job.id),
        closing=job.moves[-1],
        missing=None,
        seed_supported=True,
        store=store.facts,
    )
    assert made.pop("store")["verified_by"] == "read_back", "what older versions did not say"
    assert made["seed"].pop("echoed") is None
    result = made["result"]
    added = [result.pop(name) for name in ("images_requested", "images_returned", "withheld")]
    assert added == [job.request.num_images, None, []], "what came is not known of old jobs"
    assert json.loads(json.dumps(made | {"supersedes": None})) == json.loads(written)


def filled(database: Database) -> None:
    fillings = Fillings(database)
    while fillings.fill():
        pass


BEFORE_0012 = [column for column in jobs.c if column.name not in {"poll_url", "echoed_seed", "called_off_at"}]
LOOKS = {
    "it’s a kite": "it's",
    "wide–angle": "wide-angle",
    "over a\r\nline end": '"a line"',
    "İstanbul ve ılık": "ISTANBUL ILIK",
    "a soft\u00adhyphen": "softhyphen",
    "½ moon": "1/2",
    "unchanged": "changed",
}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
    postgres: Postgres = request.getfixturevalue("postgres")
    return postgres.url(postgres.create())


@pytest.mark.exhaustive("postgresql")
def test_old_prompts_are_found_by_what_looks_alike(url: str) -> None:
    with migrated_to(url, "0007") as connection:
        for number, prompt in enumerate(LOOKS):
            row = new_job(prompt, "apiframe", JobRequest("m", prompt), number) | {"request_sha256": "00"}
            row |= {"number": number + 1, "prompt_folded": folded_before(prompt)}
            added = connection.execute(insert(jobs).values(row).returning(*BEFORE_0012)).mappings().one()
            index_job(connection, added, pieces_of(row["prompt_folded"]))
    with closing(Database.open(url)) as database:
        filled(database)
        search = Search(database)
        for prompt, query in LOOKS.items():
            found = search.jobs(read_query_text(query, LATER), limit=9).rows
            assert [job.request.prompt for job in found] == [prompt]
        assert not search.jobs(read_query_text("lineend", LATER), limit=9).rows
        if url.startswith("sqlite"):
            matching = text("SELECT rowid FROM grams WHERE grams MATCH :pieces")
            with database.read() as connection:
                left = connection.execute(matching, {"pieces": lookup([["’"]])}).all()
            assert left == [], "the index has forgotten what it had"


@pytest.mark.exhaustive("postgresql")
def test_models_of_an_old_index_are_found_in_any_case(url: str) -> None:
    with migrated_to(url, "0008") as connection:
        row = new_job("one", "apiframe", JobRequest("Imagen-4É", "a kite"), 1) | {"request_sha256": "00"}
        connection.execute(insert(jobs).values(row | {"number": 1}))
        connection.execute(text("INSERT INTO terms (term, number) VALUES ('model:Imagen-4É', 1)"))
        connection.execute(text("DROP TABLE fillings"))  # which 0008 did not make at first
    with closing(Database.open(url)) as database:
        filled(database)
        for name in ("imagen-4É", "IMAGEN-4É"):
            found = Search(database).jobs(SearchFilter(model=name), limit=9).rows
            assert [job.id for job in found] == ["one"]


@pytest.mark.exhaustive("postgresql")
def test_old_jobs_are_filled_in_pieces_by_whoever_is_there(url: str) -> None:
    """Opening changes no row of a job; each piece is committed, and a process that comes later goes on."""
    prompts = [f"it’s number {number}" for number in range(7)]
    with migrated_to(url, "0007") as connection:
        for number, prompt in enumerate(prompts, start=1):
            row = new_job(prompt, "apiframe", JobRequest("Imagen", prompt), number) | {"request_sha256": "00"}
            row |= {"number": number, "prompt_folded": folded_before(prompt)}
            added = connection.execute(insert(jobs).values(row).returning(*BEFORE_0012)).mappings().one()
            index_job(connection, added, pieces_of(row["prompt_folded"]))
            connection.execute(text("UPDATE terms SET term = 'model:Imagen' WHERE term = 'model:imagen'"))
    with closing(Database.open(url)) as database:

        def found() -> int:
            return len(Search(database).jobs(read_query_text("it's", LATER), limit=9).rows)

        assert found() == 0
        assert Fillings(database, rows=3).fill() == 3
        assert found() == 3
        with database.write() as connection:  # a callback comes in between
            connection.execute(text("UPDATE jobs SET updated_at = 5"))
        with database.write() as connection:
            assert _fill_next(connection, 3) == 3
            connection.rollback()  # as if it was killed before its commit
        assert found() == 3
        with ThreadPoolExecutor() as pool:
            list(pool.map(filled, [database] * 4))
        assert found() == 7
        assert len(Search(database).jobs(SearchFilter(model="imagen"), limit=9).rows) == 7
        with database.read() as connection:
            assert connection.execute(text("SELECT * FROM fillings")).all() == []
            words = {prompt for (prompt,) in connection.execute(text("SELECT prompt_folded FROM jobs"))}
        assert words == {f"it's number {number}" for number in range(7)}


def test_a_new_ledger_and_one_without_the_table_have_nothing_to_fill(url: str) -> None:
    with closing(Database.open(url)) as database:
        assert Fillings(database).fill() == 0
        with database.write() as connection:
            connection.execute(text("DROP TABLE fillings"))
        assert Fillings(database).fill() == 0


def test_jobs_of_an_old_ledger_are_counted(url: str) -> None:
    with migrated_to(url, "0009") as connection:
        for number in range(9):
            row = new_job(f"job-{number}", f"g{number % 2}", JobRequest("m", "a kite"), number)
            more = {"request_sha256": "00", "number": number, "status": list(Status)[number % 4]}
            connection.execute(insert(jobs).values(row | more | {"error_code": "x" if number % 3 else None}))
    with closing(Database.open(url)) as database:
        with database.write() as connection:
            assert wrong_counts(connection) == {}
            connection.execute(
                text("UPDATE jobs SET status = 'archived', found_by = 'poll' WHERE number > 3")
            )
            connection.execute(text("UPDATE jobs SET error_code = NULL, found_by = NULL WHERE number > 6"))
            connection.execute(text("DELETE FROM jobs WHERE number IN (2, 6)"))
        with database.read() as connection:
            assert wrong_counts(connection) == {}


def test_replicas_go_on_while_a_long_migration_runs(postgres: Postgres) -> None:
    url = postgres.url(postgres.create())
    with migrated_to(url, "0005") as old:
        row = new_job("job-1", "apiframe", JobRequest("m", "two\nlines"), 1) | {"request_sha256": "00"}
        old.execute(insert(jobs).values(row | {"number": 1, "prompt_folded": "two\nlines"}))
        old.execute(text(f"INSERT INTO {GRAMS} (number, folded) VALUES (1, 'two\nlines')"))
    with (
        ThreadPoolExecutor() as pool,
        psycopg.connect(url) as holder,
        psycopg.connect(url, autocommit=True) as replica,
    ):
        holder.execute("SELECT 1 FROM outputs")  # so that it takes as long as this
        opened = pool.submit(Database.open, url)
        waiting = (
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        until(lambda: replica.execute(waiting).fetchone())
        replica.execute("SET lock_timeout = 1000")
        assert replica.execute("SELECT id FROM jobs").fetchall() == [("job-1",)]
        holder.rollback()
        opened.result(timeout=30).close()


def folded_before(prompt: str) -> str:
    """What the ledger had of a prompt until its migration 0008."""
    once = normalize("NFKC", normalize("NFD", prompt).casefold())
    return normalize("NFKC", once.casefold())
