"""The worker: it writes what a step decides, measures it, and deletes old events."""

import threading
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
from sqlalchemy import insert

from receiver.gateways.api_in_one import ApiInOne
from receiver.gateways.apiframe import Apiframe
from receiver.gateways.client import GatewayClient
from receiver.gateways.replicate import Replicate
from receiver.jobs.context import Outcome
from receiver.jobs.worker import Worker
from storage.errors import Conflict, LeaseLost, Unavailable
from storage.ledger.database import Database
from storage.ledger.events import Events
from storage.ledger.job_writer import Move
from storage.ledger.ledger import Ledger
from storage.ledger.schema import events as table
from storage.models import FoundBy, Job, Status
from tests.support.gateway_samples import adapter
from tests.support.ledgers import Clock, add
from tests.support.workers import job_context, worker
from tests.telemetry.test_metrics import value


def held(ledger: Ledger, by: str) -> Job:
    add(ledger)
    (job,) = ledger.claim(by, 1)
    return job


class TestRunStep:
    def test_writes_and_measures(self, ledger: Ledger, clock: Clock) -> None:
        inside: list[float | None] = []
        outcomes: Iterator[Outcome] = iter(
            [
                Move(Status.SUBMITTING, keep_lease=True),
                Move(Status.READY, keep_lease=True, found_by=FoundBy.CALLBACK),
                Move(Status.ARCHIVED, records=1),
            ]
        )

        def step(_job: Job) -> Outcome:
            clock.now += 2000
            inside.append(value(working._metrics.page(), "darkroom_worker_jobs"))
            return next(outcomes)

        working = worker(ledger, step)
        job = held(ledger, working.name)
        for _ in range(3):
            job = working.run_step(job)
        assert (ledger.job(job.id).status, job.leased_by) == (Status.ARCHIVED, None)
        shown = working._metrics.page()
        assert inside == [1, 1, 1]
        assert value(shown, "darkroom_worker_jobs") == 0
        for status in (Status.READY, Status.ARCHIVED):
            assert value(shown, "darkroom_moves_total", gateway="apiframe", status=status) == 1
        assert value(shown, "darkroom_moves_total", gateway="apiframe", status="running") == 0
        assert value(shown, "darkroom_results_total", gateway="apiframe", found_by="callback") == 1
        assert value(shown, "darkroom_step_seconds_count", status="submitting") == 1

    @pytest.mark.parametrize(
        ("error", "name", "labels"),
        [
            (LeaseLost("gone"), "darkroom_leases_lost_total", {}),
            (Unavailable("away"), "darkroom_ledger_errors_total", {"part": "worker"}),
            (Conflict("no such move"), "darkroom_steps_failed_total", {"status": "queued"}),
            (RuntimeError("unforeseen"), "darkroom_steps_failed_total", {"status": "queued"}),
        ],
    )
    def test_counts_failures(
        self, ledger: Ledger, error: Exception, name: str, labels: dict[str, str]
    ) -> None:
        def step(_job: Job) -> Outcome:
            raise error

        working = worker(ledger, step)
        with pytest.raises(type(error)):
            working.run_step(held(ledger, working.name))
        assert value(working._metrics.page(), name, **labels) == 1
        assert value(working._metrics.page(), "darkroom_worker_jobs") == 0

    def test_sets_aside_what_was_not_foreseen(self, ledger: Ledger, clock: Clock) -> None:
        def step(_job: Job) -> Outcome:
            raise RuntimeError

        working = worker(ledger, step)
        job = held(ledger, working.name)
        working.work(job)
        assert ledger.job(job.id).next_attempt_at == clock.now + 60_000


def test_old_events_are_deleted_at_the_start_and_again(database: Database, ledger: Ledger) -> None:
    row = {"job_id": "job-1", "gateway": "apiframe", "status": "queued"}
    with database.write() as connection:
        connection.execute(insert(table), [row | {"at": 10}] * 2500 + [row | {"at": 90}])
    done, failing = threading.Semaphore(0), iter([True, False])

    def forget() -> int:
        if next(failing, False):
            raise Unavailable("The ledger is away.")
        done.release()
        return Events(database).forget(50)

    def step(_job: Job) -> Outcome:
        raise AssertionError

    working = worker(ledger, step, forget=forget, clean_every_s=0.05)
    working.start()
    try:
        for _ in range(5):  # three pieces, nothing left, and then once more
            assert done.acquire(timeout=20)
        assert [one.id for one in Events(database).after(0, limit=9)] == [2501]
    finally:
        working.stop(20)
        working.join(20)
    assert not any(thread.is_alive() for thread in working._threads)


def test_of_equal_shares_the_gateway_whose_links_die_first_is_served_first(ledger: Ledger) -> None:
    gateways = {
        "api-in-one": adapter(ApiInOne, "aio_key"),
        "apiframe": adapter(Apiframe, "afk_key"),
        "replicate": adapter(Replicate, "r8_key"),
    }
    context = job_context(ledger, gateways)
    sender = GatewayClient(httpx.Client(), dict.fromkeys(gateways, 4))
    one = Worker(
        replace(context, sender=sender),
        lambda job: Move(Status.FAILED),
        concurrency=6,
        moved=lambda job: None,
        forget=lambda: 0,
    )
    assert list(one.budget(6, []).by_gateway) == ["replicate", "apiframe", "api-in-one"]
