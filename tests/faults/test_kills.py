"""`kill -9` at every step that lasts, and at moments that nobody chose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver.demo.seaweedfs import EmbeddedS3
from tests.faults.forks import Forks
from tests.faults.judge import Verdict, judge
from tests.faults.points import Kill
from tests.faults.table import Table
from tests.faults.world import Accepted, World, world
from tests.support.postgres import Postgres

GATEWAYS = ("apiframe", "api-in-one")
AT_A_TIME = 8

STEPS: list[tuple[Kill, object]] = [
    (Kill("add_job", "commit", 2), None),
    (Kill("add_job", "after", 2), None),
    (Kill("claim", "after"), None),
    (Kill("move:submitting", "commit"), None),
    (Kill("move:submitting", "after"), None),
    (Kill("send:submit", "wire", 2), None),
    (Kill("send:submit", "after", 2), None),
    (Kill("move:running", "commit", 2), None),
    (Kill("move:running", "after", 2), None),
    (Kill("record", "before"), None),
    (Kill("record", "commit"), None),
    (Kill("record", "after"), None),
    (Kill("send:poll", "wire"), "no_callback"),
    (Kill("send:poll", "after"), "no_callback"),
    (Kill("move:ready", "commit"), None),
    (Kill("move:ready", "after"), None),
    (Kill("put:image", "before"), None),
    (Kill("put:image", "after"), None),
    (Kill("add_output", "commit"), None),
    (Kill("add_output", "after"), None),
    (Kill("put:record", "before"), None),
    (Kill("put:record", "after"), None),
    (Kill("move:archived", "commit"), None),
    (Kill("move:archived", "after"), None),
    (Kill("move:queued", "commit"), {"fault": "rate_limited", "retry_after_s": 0}),
    (Kill("move:queued", "after"), {"fault": "rate_limited", "retry_after_s": 0}),
    (Kill("postpone", "commit"), {"fault": "expired_link", "times": 2}),
    (Kill("postpone", "after"), {"fault": "expired_link", "times": 2}),
    (Kill("move:failed", "commit"), "failed"),
    (Kill("move:failed", "after"), "failed"),
]
"""Each step that lasts in the life of a job, and the fault that leads there if a usual job does not."""

STARTS = [
    Kill("migrate", "before"),
    Kill("migrate", "commit"),
    Kill("migrate", "after"),
    Kill("put:probe", "after"),
]

RETRY_STEPS = [
    Kill("reopen", "commit"),
    Kill("reopen", "after"),
    Kill("send:poll", "after"),
    Kill("move:ready", "commit"),
    Kill("add_output", "commit"),
    Kill("put:record", "after"),
    Kill("move:archived", "commit"),
    Kill("move:archived", "after"),
]
"""Each step that lasts in the retry of a job of which an image was missing."""


DATABASES = ("sqlite", "postgresql")

Run = Callable[[Kill, str, str], Verdict]


def new_ledger(request: pytest.FixtureRequest, database: str, *, empty: bool = False) -> str | None:
    """Where a ledger of a world's own is, if it is not a file; `empty` is without tables."""
    if database == "sqlite":
        return None
    server: Postgres = request.getfixturevalue("postgres")
    template: str = request.getfixturevalue("postgres_template")
    return server.url(server.create(None if empty else template))


def on(database: str) -> str:
    """What is put behind the name of a fault in the table."""
    return "" if database == "sqlite" else ", on PostgreSQL"


@pytest.fixture(scope="module")
def run(
    request: pytest.FixtureRequest,
    s3_server: EmbeddedS3,
    forks: Forks,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Run]:
    """Runs scenarios, several at a time and ahead of the tests that ask for them: most of each is waiting."""

    def one(kill: Kill, fault: object, gateway: str, ledger: str | None) -> Verdict:
        with world(s3_server, forks, tmp_path_factory.mktemp("kill"), ledger=ledger) as here:
            return _killed_at(here, kill, fault, gateway)

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        futures: dict[tuple[Kill, str, str], Future[Verdict]] = {}
        for item in request.session.items:
            if isinstance(item, pytest.Function) and item.originalname == STEP_TEST:
                params: dict[str, Any] = item.callspec.params
                kill, gateway, database = params["kill"], params["gateway"], params["database"]
                ledger = new_ledger(request, database)
                futures[kill, gateway, database] = pool.submit(one, kill, params["fault"], gateway, ledger)
        yield lambda kill, gateway, database: futures[kill, gateway, database].result()
        pool.shutdown(cancel_futures=True)


def _killed_at(here: World, kill: Kill, fault: object, gateway: str) -> Verdict:
    here.start(kill)
    for _ in range(3):
        here.submit_meanwhile(gateway, fault=fault)
    here.await_death()
    here.start()
    here.settle()
    return judge(here)


@pytest.mark.parametrize("database", DATABASES)
@pytest.mark.parametrize("gateway", GATEWAYS)
@pytest.mark.parametrize(("kill", "fault"), STEPS, ids=[str(kill) for kill, _ in STEPS])
def test_a_kill_at_a_step_loses_and_doubles_nothing(
    run: Run, table: Table, gateway: str, kill: Kill, fault: object, database: str
) -> None:
    del fault  # `run` has led there by it
    name = f"kill -9 at each of {len(STEPS)} steps, {gateway}{on(database)}"
    table.add(name, run(kill, gateway, database))


STEP_TEST = test_a_kill_at_a_step_loses_and_doubles_nothing.__name__


@pytest.mark.parametrize("database", DATABASES)
@pytest.mark.parametrize("kill", STARTS, ids=str)
def test_a_kill_during_the_first_start_leaves_nothing_that_is_in_the_way(
    request: pytest.FixtureRequest,
    s3_server: EmbeddedS3,
    forks: Forks,
    table: Table,
    tmp_path: Path,
    kill: Kill,
    database: str,
) -> None:
    ledger = new_ledger(request, database, empty=True)
    with world(s3_server, forks, tmp_path, ledger=ledger) as here:
        here.start(kill, expect_up=False)
        here.await_death()
        here.start()
        here.submit("apiframe")
        here.settle()
        name = f"kill -9 at each of {len(STARTS)} steps of the first start{on(database)}"
        table.add(name, judge(here))


def _partial(here: World) -> Accepted:
    """A job of whose images one could not be had, which could be had now."""
    here.start()
    job = here.submit("api-in-one", fault="partial_images", num_images=2)
    here.settle()
    here.kill()
    _mend(here)
    return job


def _mend(here: World) -> None:
    for report in here.sandbox.jobs():
        here.sandbox.mend(report.id)


@pytest.mark.parametrize("database", DATABASES)
@pytest.mark.parametrize("kill", RETRY_STEPS, ids=str)
def test_a_kill_during_a_retry_loses_and_doubles_nothing(
    request: pytest.FixtureRequest,
    s3_server: EmbeddedS3,
    forks: Forks,
    table: Table,
    tmp_path: Path,
    kill: Kill,
    database: str,
) -> None:
    with world(s3_server, forks, tmp_path, ledger=new_ledger(request, database)) as here:
        job = _partial(here)
        here.start(kill)
        with suppress(httpx.TransportError):
            here.post(f"/v1/jobs/{job.job_id}/retry")
        here.await_death()
        here.start()
        if here.get(f"/v1/jobs/{job.job_id}")["status"] == "partial":
            here.post(f"/v1/jobs/{job.job_id}/retry")
        here.settle()
        assert here.get(f"/v1/jobs/{job.job_id}")["status"] == "archived"
        table.add(f"kill -9 at each of {len(RETRY_STEPS)} steps of a retry{on(database)}", judge(here))


def test_an_image_that_comes_back_after_a_kill_is_kept(
    s3_server: EmbeddedS3, forks: Forks, table: Table, tmp_path: Path
) -> None:
    """The record of a partial job was written, and the job not moved yet; then all its images can be had."""
    with world(s3_server, forks, tmp_path) as here:
        here.start(Kill("put:record", "after"))
        here.submit_meanwhile("api-in-one", fault="partial_images", num_images=2)
        here.await_death()
        _mend(here)
        here.start()
        here.settle()
        verdict = judge(here)
        assert verdict.problems == (), str(verdict)
        assert verdict.archived == 1


@pytest.mark.parametrize("fault", ["other_bytes", "single_use_link"])
@pytest.mark.parametrize("gateway", GATEWAYS)
@pytest.mark.parametrize("kill", [Kill("put:image", "after"), Kill("add_output", "commit")], ids=str)
def test_an_image_that_cannot_be_downloaded_alike_again_is_kept(
    s3_server: EmbeddedS3, forks: Forks, table: Table, tmp_path: Path, kill: Kill, gateway: str, fault: str
) -> None:
    """The image was stored, and the ledger does not know; its host gives other bytes then, or none."""
    with world(s3_server, forks, tmp_path) as here:
        here.start(kill)
        submitted = here.submit_meanwhile(gateway, fault=fault)
        here.await_death()
        assert here.rows("SELECT * FROM outputs") == []
        here.start()
        here.settle()
        assert here.get(f"/v1/jobs/{submitted.result().job_id}")["status"] == "archived", here.said()
        assert len(list(here.store.list(f"{here.prefix}images/"))) == 1
        assert "kept the image of an earlier try" in here.log.read_text()
        table.add("kill -9 before the ledger knows an image, which comes otherwise then", judge(here))
