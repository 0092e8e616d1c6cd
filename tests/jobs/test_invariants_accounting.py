"""The ninth invariant: every accepted job is accounted for at every moment, under any fault."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import Connection, event

from storage.errors import Unavailable
from storage.ledger.database import Database
from storage.ledger.job_counts import total, wrong_counts
from storage.ledger.ledger import Ledger
from storage.ledger.schema import accepted, deliveries, jobs, outputs
from storage.models import Attempt, ImageRef, Job, JobError, JobResult, Status
from tests.jobs.test_invariants import rows
from tests.support.ledgers import Clock, add, add_output, offer, output


class _Driver:
    """A driver's connection, or its cursor, that tells of each statement after it was run."""

    def __init__(self, real: Any, ran: Callable[[], None]) -> None:
        self._real = real
        self._ran = ran

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def cursor(self) -> _Driver:
        return _Driver(self._real.cursor(), self._ran)

    def execute(self, *statement: Any) -> Any:
        done = self._real.execute(*statement)
        self._ran()
        return done

    def executemany(self, *statement: Any) -> None:
        self._real.executemany(*statement)
        self._ran()


class _Heard:
    """A connection that calls somebody after each statement, by SQLAlchemy or on the driver itself."""

    def __init__(self, real: Connection, heard: Callable[[int], None]) -> None:
        self._real = real
        self._heard = heard
        self._numbers = itertools.count(1)
        event.listen(real, "after_cursor_execute", self._executed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    @property
    def connection(self) -> Any:
        return SimpleNamespace(driver_connection=_Driver(self._real.connection.driver_connection, self._ran))

    def _executed(self, _connection: object, _cursor: object, statement: str, *_more: object) -> None:
        if not statement.startswith("BEGIN"):
            self._ran()

    def _ran(self) -> None:
        self._heard(next(self._numbers))


class Interrupted(Database):
    """A database that calls somebody after each statement of a transaction, who may end it by raising."""

    writing: Callable[[int], None] | None = None
    reading: Callable[[int], None] | None = None

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Connection]:
        with super().write(durable=durable) as connection:
            yield _heard(connection, self.writing)

    @contextmanager
    def read(self, *, within_s: float | None = None) -> Iterator[Connection]:
        with super().read(within_s=within_s) as connection:
            yield _heard(connection, self.reading)


def _heard(connection: Connection, heard: Callable[[int], None] | None) -> Connection:
    return connection if heard is None else cast("Connection", _Heard(connection, heard))


@pytest.fixture
def interrupted(database_url: str) -> Iterator[Interrupted]:
    opened = Interrupted.open(database_url)
    assert isinstance(opened, Interrupted)
    yield opened
    opened.close()


def test_9_a_cut_transaction_leaves_every_job_counted(interrupted: Interrupted) -> None:
    """9: every accepted job is accounted for at every moment, under any fault.

    Upheld by `Database.write` (storage/ledger/database.py): one transaction, all or nothing; and by `Ledger`
    (storage/ledger/ledger.py, job_writer.py): each verb uses one only, and `add_jobs` counts in it
    (`count_accepted`).
    """
    ledger = Ledger(interrupted, Clock())

    def job() -> Job:
        return ledger.job("job-1")

    result = JobResult(
        images=(ImageRef("https://cdn.example/1.png"), ImageRef("https://cdn.example/2.png", index=1))
    )
    missing = JobError("image_expired", "gone", "image")
    callback = offer(theirs="theirs")
    applied = {callback.delivery.id: "ready"}
    asked = Attempt.once("retry", "asked", "", 1)
    verbs: list[Callable[[], object]] = [
        lambda: add(ledger, key="k"),
        lambda: ledger.claim("w", 1),
        lambda: ledger.move(job(), Status.SUBMITTING, "w", keep_lease=True),
        lambda: ledger.add_deliveries([callback]),
        lambda: ledger.move(job(), Status.RUNNING, "w", keep_lease=True, gateway_job_id="theirs"),
        lambda: ledger.move(job(), Status.READY, "w", keep_lease=True, applied=applied, result=result),
        lambda: add_output(ledger, output()),
        lambda: ledger.move(job(), Status.PARTIAL, "w", error=missing),
        lambda: ledger.reopen(job(), Status.RUNNING, asked, gateway_job_id="theirs"),
        lambda: add(ledger, "job-2"),
        lambda: ledger.cancel("job-2", lambda *_: None),
    ]
    for verb in verbs:
        assert _cut_off_everywhere(interrupted, ledger, verb) > 0
    assert [status for status, _ in job().moves] == [
        "queued", "submitting", "running", "ready", "partial", "running",
    ]  # fmt: skip


def _cut_off_everywhere(database: Interrupted, ledger: Ledger, verb: Callable[[], object]) -> int:
    """Do it, after it was cut off after its first statement, its second, and so on; answers how often."""

    def everything() -> list[list[dict[str, Any]]]:
        return [rows(database, table) for table in (jobs, deliveries, outputs, accepted)]

    for cut in itertools.count(1):

        def end(number: int, cut: int = cut) -> None:
            if number == cut:
                raise Unavailable("cut off")

        before = everything()
        database.writing = end
        try:
            verb()
        except Unavailable:
            assert everything() == before
        else:
            return cut - 1
        finally:
            database.writing = None
            page = total(list(ledger.job_counts().values()))
            assert page.balanced
            assert page.accepted == len(rows(database, jobs))
            with database.read() as connection:
                assert wrong_counts(connection) == {}
    raise AssertionError


@pytest.mark.parametrize("after", [1, 2])
def test_9_the_counts_are_of_one_moment(interrupted: Interrupted, database_url: str, after: int) -> None:
    """Upheld by `Database.read` (storage/ledger/database.py): what is read together is of one moment."""
    ledger = Ledger(interrupted, Clock())
    add(ledger, "job-1")
    with closing(Database.open(database_url)) as theirs:
        other = Ledger(theirs, Clock())

        def in_between(number: int) -> None:
            if number == after:
                add(other, "job-2")

        interrupted.reading = in_between
        page = ledger.job_counts()["apiframe"]
        interrupted.reading = None
    assert (page.balanced, page.accepted) == (True, 1)
    assert ledger.job_counts()["apiframe"].accepted == 2
