"""When a worker was last seen: on both databases, across clocks that jump, and by a worker that works."""

import threading

import pytest

from receiver.jobs.context import Outcome
from storage.ledger.database import Database
from storage.ledger.leases import FORGOTTEN_MS, Workers
from storage.ledger.ledger import Ledger
from storage.models import Job
from tests.support.ledgers import Clock, add
from tests.support.workers import worker


@pytest.fixture
def workers(database: Database) -> Workers:
    return Workers(database)


def test_the_last_worker_seen_counts(ledger: Ledger, workers: Workers, clock: Clock) -> None:
    assert workers.last_seen_at() is None
    ledger.renew("a", [])
    clock.now += 5_000
    ledger.renew("b", [])
    assert workers.last_seen_at() == clock.now
    clock.now += 5_000
    ledger.renew("a", ["nobody"])
    assert workers.last_seen_at() == clock.now


def test_workers_that_are_gone_are_deleted(ledger: Ledger, workers: Workers, clock: Clock) -> None:
    ledger.renew("a", [])
    clock.now += FORGOTTEN_MS + 1
    ledger.renew("b", [])
    clock.now -= FORGOTTEN_MS
    ledger.repair_clock_skew()
    assert workers.last_seen_at() == clock.now, "what was seen in the future is now"


def test_a_worker_without_work_is_seen(database: Database, workers: Workers, clock: Clock) -> None:
    ledger = Ledger(database, clock, lease_ms=60)
    idle = worker(ledger, lambda _job: pytest.fail("there is nothing to do"))
    idle.start()
    try:
        seen = any(workers.last_seen_at() or threading.Event().wait(0.02) for _ in range(500))
    finally:
        idle.stop(5)
    assert seen


def test_a_worker_that_ends_soon_is_never_seen(ledger: Ledger, workers: Workers) -> None:
    """Though it has begun with a job: one that starts again and again does not pass for one that works."""
    add(ledger)
    begun = threading.Event()

    def step(_job: Job) -> Outcome:
        begun.set()
        raise RuntimeError

    short = worker(ledger, step)
    short.start()
    assert begun.wait(10)
    short.stop(5)
    assert workers.last_seen_at() is None
