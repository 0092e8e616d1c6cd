"""A ledger of a test's own, its clock, and the jobs and callbacks that most tests of it begin with."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine

import storage
from storage.errors import Conflict
from storage.ledger import outputs
from storage.ledger.database import Database
from storage.ledger.deliveries import NewDelivery
from storage.ledger.job_writer import NewJob
from storage.ledger.ledger import Ledger
from storage.ledger.schema import jobs
from storage.models import Delivery, Job, JobRequest, Output, Status, Verdict

REQUEST = JobRequest(model="imagen-4", prompt="a red kite", seed="12345678901234567890", tags={"a": "b"})


class Clock:
    """A clock that stands still until it is told to move."""

    def __init__(self) -> None:
        self.now = 1_795_000_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a new, empty ledger is: whatever is tested with this is tested on both databases."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database.open(database_url)
    yield opened
    opened.close()


@pytest.fixture
def ledger(database: Database, clock: Clock) -> Ledger:
    return Ledger(database, clock)


def add_job(
    ledger: Ledger, job_id: str, gateway: str, request: JobRequest, **more: str | None
) -> tuple[Job, bool]:
    """Accept one job; `more` are further fields of `NewJob`. Raises Conflict."""
    (found,) = ledger.add_jobs([NewJob(job_id, gateway, request, **more)])
    if isinstance(found, Conflict):
        raise found
    return found


def add_output(ledger: Ledger, output: Output) -> None:
    """Insert an archived image as a move of its job does, without one; raises Conflict as that does."""
    with ledger._database.write() as connection:
        found = connection.execute(sa.select(jobs).where(jobs.c.id == output.job_id))
        later = outputs.Later()
        outputs.add_output(connection, found.mappings().one(), output, later)
        later.write(connection)


@contextmanager
def migrated_to(url: str, version: str) -> Iterator[Connection]:
    """Make a ledger as an earlier version had it, and write to it until the end of the block."""
    config = Config()
    config.set_main_option("script_location", str(Path(storage.__file__).parent / "ledger" / "migrations"))
    config.set_main_option("path_separator", "os")
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, version)
        yield connection
    engine.dispose()


def add(
    ledger: Ledger,
    job_id: str = "job-1",
    gateway: str = "apiframe",
    key: str | None = None,
    request: JobRequest = REQUEST,
) -> Job:
    return add_job(ledger, job_id, gateway, request, idempotency_key=key)[0]


def running(ledger: Ledger, job_id: str = "job-1") -> Job:
    add(ledger, job_id)
    (job,) = ledger.claim("w", 1)
    job = ledger.move(job, Status.SUBMITTING, "w", keep_lease=True)
    return ledger.move(job, Status.RUNNING, "w", gateway_job_id=f"theirs-{job_id}", due_in_ms=30_000)


def offer(job_id: str = "job-1", body: bytes = b"{}", theirs: str | None = None) -> NewDelivery:
    delivery = Delivery(
        id=f"{job_id}-{body!r}"[:36],
        job_id=job_id,
        gateway="apiframe",
        received_at=1,
        headers={"content-type": "application/json"},
        body=body,
        body_sha256=str(hash(body)),
        signature=Verdict.VALID,
    )
    return NewDelivery(delivery, theirs)


def output(index: int = 0, sha256: str = "ab") -> Output:
    return Output("job-1", index, f"images/job-1/{index}.png", sha256, 3, "image/png", 1, 1, 1)
