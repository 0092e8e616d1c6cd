"""Callbacks that are lost, doubled, late, out of order, forged, replayed, or that contradict each other."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import pytest

from tests.faults import harm
from tests.faults.harm import Call
from tests.faults.scenes import GATEWAYS, Scene, Stage
from tests.faults.world import SANDBOX, Accepted

MONTH_S = 31 * 24 * 3600
QUICK = {"callback_polls": (0.7, 1)}


def state_of(scene: Scene) -> list[dict[str, Any]]:
    """All that the ledger and the bucket hold of the jobs, but for what was only recorded of callbacks."""
    world = scene.world
    rows = world.rows("SELECT * FROM jobs ORDER BY id") + world.rows("SELECT * FROM outputs ORDER BY key")
    return rows + [{"key": stored.key, "etag": stored.etag} for stored in world.store.list(world.prefix)]


def deliveries(scene: Scene, job: Accepted) -> list[dict[str, Any]]:
    query = "SELECT * FROM deliveries WHERE job_id = ? ORDER BY received_at, id"
    return scene.world.rows(query, job.job_id)


def again(scene: Scene, calls: Iterable[Call], change: bytes = b"") -> list[int]:
    """Send recorded callbacks once more, past the proxy; answers the statuses."""
    unsafe = {"content-length", "transfer-encoding", "connection", "host"}
    with httpx.Client(base_url=scene.world.url, trust_env=False) as http:
        return [
            http.post(
                call.request.path,
                content=call.request.body + change,
                headers={name: text for name, text in call.request.headers.items() if name not in unsafe},
            ).status_code
            for call in calls
        ]


def test_callbacks_that_never_come(stage: Stage) -> None:
    with stage.scene("callback never sent", timing=QUICK) as scene:
        scene.archived(scene.submit(each=4, fault="no_callback"))
        assert scene.world.get("/v1/status")["found_by_polling"] == 8


@pytest.mark.smoke
def test_callbacks_lost_on_the_way(stage: Stage) -> None:
    with stage.scene("callback lost on the way", timing=QUICK) as scene:
        armed = scene.wires.callbacks.arm(harm.drop)
        scene.archived(scene.submit(each=4))
        assert armed.struck >= 8
        assert scene.world.get("/v1/status")["found_by_polling"] == 8
        assert scene.world.rows("SELECT id FROM deliveries") == []


def test_answers_to_callbacks_lost_on_the_way(stage: Stage) -> None:
    with stage.scene("answer to callback lost") as scene:
        armed = scene.wires.callbacks.arm(harm.swallow, times=8)
        jobs = scene.submit(each=4)
        scene.archived(jobs)
        assert armed.struck == 8
        assert {len(deliveries(scene, job)) for job in jobs} == {1}


@pytest.mark.both_databases
@pytest.mark.parametrize("gateway", GATEWAYS)
def test_fifty_of_the_same_callback_at_the_same_instant(stage: Stage, gateway: str) -> None:
    patient = replace(SANDBOX, callback_timeout_s=30)  # several scenes share the machine
    with stage.scene("callback 50 times at once", sandbox=patient) as scene:
        jobs = scene.submit(gateway, each=4, fault={"fault": "duplicate", "times": 50, "at_once": True})
        scene.archived(jobs)
        for made in scene.world.sandbox.jobs():
            scene.world.sandbox.wait(made.id, 20)
        answers = [sent.status for made in scene.world.sandbox.jobs() for sent in made.callbacks]
        # One that had no answer in time is sent once more.
        assert answers.count(200) == 200
        assert [len(deliveries(scene, job)) for job in jobs] == [1] * 4


def test_progress_after_completion(stage: Stage) -> None:
    with stage.scene("progress after completion") as scene:
        apiframe = scene.submit("apiframe", each=4, fault="out_of_order")
        kling = scene.submit("api-in-one", each=4, fault={"fault": "out_of_order", "dialect": "kling"})
        scene.archived(apiframe + kling)
        scene.world.settle()
        for job in apiframe:
            effects = [row["effect"] for row in deliveries(scene, job)]
            assert (len(effects), bool({"late", "progress"} & set(effects))) == (2, True), effects


def test_callbacks_later_than_polling(stage: Stage) -> None:
    with stage.scene("callback after polling", timing=QUICK) as scene:
        jobs = scene.submit(each=4, fault={"fault": "late", "delay_s": 2.5})
        scene.archived(jobs)
        assert scene.world.get("/v1/status")["found_by_polling"] == 8
        before = state_of(scene)
        scene.world.settle()
        assert state_of(scene) == before
        assert [[row["effect"] for row in deliveries(scene, job)] for job in jobs] == [["late"]] * 8


@pytest.mark.parametrize("wait_s", [0.0, 4.0])
def test_a_terminal_state_that_changes_its_mind(stage: Stage, wait_s: float) -> None:
    with stage.scene("terminal state changes") as scene:
        worse = scene.submit(each=3, fault={"fault": "changes_mind", "delay_s": wait_s})
        better = scene.submit(each=3, fault={"fault": "failed+changes_mind", "delay_s": wait_s})
        first = scene.finish(worse + better)
        scene.world.settle()
        # The timeline goes on, because it tells of each callback.
        for job, then in zip(scene.finish(worse + better), first, strict=True):
            assert {**job, "timeline": None} == {**then, "timeline": None}
        # What is signed is believed as it comes; of what is not, the gateway is asked, and may say either.
        # A gateway that changes its mind takes its images back, so at once there is no telling.
        signed = [job["status"] for job in first if job["gateway"] == "apiframe"]
        assert signed == ["archived"] * 3 + ["failed"] * 3 or wait_s == 0


def test_callbacks_that_cannot_be_believed(stage: Stage) -> None:
    with stage.scene("callback refused", timing=QUICK) as scene:
        jobs = scene.submit("apiframe", each=3, fault="wrong_signature")
        jobs += scene.submit(each=3, fault="malformed_callback")
        scene.archived(jobs)
        assert scene.world.rows("SELECT id FROM deliveries") == []
        scene.world.settle()
        answers = {sent.status for made in scene.world.sandbox.jobs() for sent in made.callbacks}
        assert answers == {401, 400}


def test_callbacks_that_are_only_hints(stage: Stage) -> None:
    with stage.scene("callback with a foreign link") as scene:
        jobs = scene.submit("apiframe", each=3, fault="unsigned+evil_url")
        jobs += scene.submit("api-in-one", each=3, fault="evil_url")
        scene.archived(jobs)


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_forged_callbacks(stage: Stage, gateway: str) -> None:
    with stage.scene("callback forged") as scene:
        jobs = scene.submit(gateway, each=3, fault={"fault": "late", "delay_s": 1.5})
        scene.until(lambda: [made.status for made in scene.world.sandbox.jobs()] == ["COMPLETED"] * 3)
        urls = [str(made.callback_url) for made in scene.world.sandbox.jobs()]
        token = urls[0].rpartition("/")[2]
        other = next(name for name in GATEWAYS if name != gateway)
        forged = [
            f"/callbacks/{gateway}/guessed",
            f"/callbacks/{gateway}/{token[:-2]}AA",
            f"/callbacks/{other}/{token}",
            f"/callbacks/{gateway}/",
        ]
        body = {"jobId": "x", "status": "COMPLETED", "result": {"images": ["http://evil.example/"]}}
        with httpx.Client(base_url=scene.world.url, trust_env=False) as http, ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda path: http.post(path, json=body).status_code, forged * 10))
            # A true URL of another job, with the words of this one.
            crossed = http.post(
                f"/callbacks/{gateway}/{token}", json=completed(scene, gateway, 1)
            ).status_code
        assert set(answers) == {401}
        assert crossed == 409
        scene.archived(jobs)


def completed(scene: Scene, gateway: str, n: int) -> dict[str, Any]:
    """A plausible callback about the sandbox's job number `n`, unsigned."""
    made = scene.world.sandbox.jobs()[n]
    links = ["http://evil.example/x.png"]
    if gateway == "apiframe":
        return {"jobId": made.id, "status": "COMPLETED", "result": {"images": links}}
    return {"data": {"task_id": made.id, "status": "completed", "output": {"image_urls": links}}}


def test_callbacks_replayed_from_last_month(stage: Stage) -> None:
    with stage.scene("callback replayed") as scene:
        scene.archived(scene.submit(each=4))
        calls = list(scene.wires.callbacks.calls)
        assert len(calls) == 8
        before = state_of(scene), scene.world.rows("SELECT * FROM deliveries")
        assert again(scene, calls) == [200] * 8
        assert (state_of(scene), scene.world.rows("SELECT * FROM deliveries")) == before
        # Other bytes, so it is news: kept where the gateway does not sign, and it changes nothing.
        assert set(again(scene, calls, change=b"\n")) == {200, 401}
        assert state_of(scene) == before[0]
        kept = scene.world.rows("SELECT * FROM deliveries")
        assert len(kept) == 12
        scene.world.clock.set(MONTH_S)
        assert again(scene, calls) == [401] * 8
        assert (state_of(scene), scene.world.rows("SELECT * FROM deliveries")) == (before[0], kept)
        scene.archived(scene.submit(each=2))
