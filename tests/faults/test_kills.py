"""`kill -9` at every step that lasts, and at moments that nobody chose."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import httpx
import pytest
from _pytest.mark import ParameterSet

from tests.faults.judge import judge
from tests.faults.points import Kill
from tests.faults.scenes import GATEWAYS, UNSURE, Stage
from tests.faults.world import Accepted, World
from tests.support.postgres import Postgres
from tests.support.sandbox import mend

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
    Kill("put:record", "after"),
    Kill("move:archived", "commit"),
    Kill("move:archived", "after"),
]
"""Each step that lasts in the retry of a job of which an image was missing."""


SMOKE = {
    "commit add_job (no. 2)", "after send:submit (no. 2)", "after record", "after move:ready",
    "after put:image", "after put:record", "commit move:archived",
}  # fmt: skip
"""Steps of the default run, for one gateway on SQLite."""


def on(stage: Stage) -> str:
    return ", on PostgreSQL" if stage.ledger else ""


AROUND = {"claim", "move:submitting", "send:submit", "move:running", "record"}
"""The steps around a submission and a callback, in which gateways differ most."""


def _plays() -> Iterator[ParameterSet]:
    """Yield each step with Apiframe, which may be sent a job again, and with one of the other kinds in turn.

    What a gateway lacks does not depend on the database: each step is tried on both, with different ones.
    """
    for number, (kill, fault) in enumerate(STEPS):
        smoke = [pytest.mark.smoke] * (str(kill) in SMOKE)
        yield pytest.param("sqlite", "apiframe", kill, fault, id=f"{kill}-sqlite-apiframe", marks=smoke)
        turns = [("postgresql", number), ("sqlite", number + len(UNSURE) // 2)]
        for database, turn in turns if kill.step in AROUND else turns[:1]:
            name = UNSURE[turn % len(UNSURE)]
            marks = [pytest.mark.exhaustive, *smoke]
            yield pytest.param(database, name, kill, fault, id=f"{kill}-{database}-{name}", marks=marks)


@pytest.mark.parametrize(("stage", "gateway", "kill", "fault"), [*_plays()], indirect=["stage"])
def test_a_kill_at_a_step_loses_and_doubles_nothing(
    stage: Stage, gateway: str, kill: Kill, fault: object
) -> None:
    with stage.world(gateways=[gateway]) as here:
        here.start(kill)
        for _ in range(3):
            here.submit_meanwhile(gateway, fault=fault)
        here.await_death()
        here.start()
        here.settle()
        who = gateway if gateway == "apiframe" else "the other kinds in turn"
        stage.report(f"kill -9 at each of {len(STEPS)} steps, {who}{on(stage)}", judge(here))


@pytest.mark.both_databases
@pytest.mark.parametrize("kill", STARTS, ids=str)
def test_a_kill_during_the_first_start_leaves_nothing_that_is_in_the_way(
    request: pytest.FixtureRequest, stage: Stage, kill: Kill
) -> None:
    if stage.ledger:
        server: Postgres = request.getfixturevalue("postgres")
        stage = replace(stage, ledger=server.url(server.create()))
    with stage.world() as here:
        here.start(kill, expect_up=False)
        here.await_death()
        here.start()
        here.submit("apiframe")
        here.settle()
        stage.report(f"kill -9 at each of {len(STARTS)} steps of the first start{on(stage)}", judge(here))


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
        mend(here.sandbox, report.id)


@pytest.mark.both_databases
@pytest.mark.parametrize("kill", RETRY_STEPS, ids=str)
def test_a_kill_during_a_retry_loses_and_doubles_nothing(stage: Stage, kill: Kill) -> None:
    with stage.world() as here:
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
        stage.report(f"kill -9 at each of {len(RETRY_STEPS)} steps of a retry{on(stage)}", judge(here))


@pytest.mark.sqlite_file
def test_an_image_that_comes_back_after_a_kill_is_kept(stage: Stage) -> None:
    """The record of a partial job was written, and the job not moved yet; then all its images can be had."""
    with stage.world() as here:
        here.start(Kill("put:record", "after"))
        here.submit_meanwhile("api-in-one", fault="partial_images", num_images=2)
        here.await_death()
        _mend(here)
        here.start()
        here.settle()
        verdict = judge(here)
        assert verdict.problems == (), str(verdict)
        assert verdict.archived == 1


@pytest.mark.sqlite_file
@pytest.mark.parametrize("fault", ["other_bytes", "single_use_link"])
@pytest.mark.parametrize("gateway", GATEWAYS)
@pytest.mark.parametrize("kill", [Kill("put:image", "after"), Kill("put:record", "before")], ids=str)
def test_an_image_that_cannot_be_downloaded_alike_again_is_kept(
    stage: Stage, kill: Kill, gateway: str, fault: str
) -> None:
    """The image was stored, and the ledger does not know; its host gives other bytes then, or none."""
    with stage.world() as here:
        here.start(kill)
        submitted = here.submit_meanwhile(gateway, fault=fault)
        here.await_death()
        assert here.rows("SELECT * FROM outputs") == []
        here.start()
        here.settle()
        assert here.get(f"/v1/jobs/{submitted.result().job_id}")["status"] == "archived", here.said()
        assert len(list(here.store.list(f"{here.prefix}images/"))) == 1
        assert "kept the image of an earlier try" in here.log.read_text()
        stage.report("kill -9 before the ledger knows an image, which comes otherwise then", judge(here))
