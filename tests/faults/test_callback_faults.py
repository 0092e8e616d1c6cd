"""Callbacks that are lost, doubled, late, out of order, forged, replayed, or that contradict each other."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import pytest

from tests.faults import harm
from tests.faults.harm import Call
from tests.faults.scenes import KINDS, PROOF, SIGNING, Scene, Stage
from tests.faults.world import SANDBOX, Accepted

MONTH_S = 31 * 24 * 3600
DATED = ("replicate", "kie", "fal")
"""Those that sign when a callback was sent."""
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
    with stage.scene("callback never sent", timing=QUICK, gateways=KINDS) as scene:
        scene.archived(scene.submit(fault="no_callback"))
        assert scene.world.get("/v1/status")["found_by_polling"] == len(KINDS)


@pytest.mark.smoke
def test_callbacks_lost_on_the_way(stage: Stage) -> None:
    with stage.scene("callback lost on the way", timing=QUICK, gateways=KINDS) as scene:
        armed = scene.wires.callbacks.arm(harm.drop)
        scene.archived(scene.submit())
        assert armed.struck >= len(KINDS)
        assert scene.world.get("/v1/status")["found_by_polling"] == len(KINDS)
        assert scene.world.rows("SELECT id FROM deliveries") == []


def test_answers_to_callbacks_lost_on_the_way(stage: Stage) -> None:
    with stage.scene("answer to callback lost", gateways=KINDS) as scene:
        armed = scene.wires.callbacks.arm(harm.swallow, times=len(KINDS))
        jobs = scene.submit()
        scene.archived(jobs)
        assert armed.struck == len(KINDS)
        assert {len(deliveries(scene, job)) for job in jobs} == {1}


@pytest.mark.both_databases
@pytest.mark.parametrize("gateways", [KINDS[::2], KINDS[1::2]], ids="+".join)
def test_fifty_of_the_same_callback_at_the_same_instant(stage: Stage, gateways: tuple[str, ...]) -> None:
    patient = replace(SANDBOX, callback_timeout_s=30)  # several scenes share the machine
    with stage.scene("callback 50 times at once", sandbox=patient, gateways=gateways) as scene:
        jobs = scene.submit(fault={"fault": "duplicate", "times": 50, "at_once": True})
        scene.archived(jobs)
        for made in scene.world.sandbox.jobs():
            scene.world.sandbox.wait(made.id, 20)
        answers = [sent.status for made in scene.world.sandbox.jobs() for sent in made.callbacks]
        # One that had no answer in time is sent once more.
        assert answers.count(200) == 50 * len(jobs)
        assert {len(deliveries(scene, job)) for job in jobs} == {1}


def test_progress_after_completion(stage: Stage) -> None:
    with stage.scene("progress after completion", gateways=KINDS) as scene:
        apiframe = scene.submit("apiframe", each=2, fault="out_of_order")
        kling = scene.submit("api-in-one", each=2, fault={"fault": "out_of_order", "dialect": "kling"})
        scene.archived(apiframe + kling + scene.submit(*KINDS[1:], fault="out_of_order"))
        scene.world.settle()
        for job in apiframe:
            effects = [row["effect"] for row in deliveries(scene, job)]
            assert (len(effects), bool({"late", "progress"} & set(effects))) == (2, True), effects


def test_callbacks_later_than_polling(stage: Stage) -> None:
    with stage.scene("callback after polling", timing=QUICK, gateways=KINDS) as scene:
        jobs = scene.submit(fault={"fault": "late", "delay_s": 2.5})
        scene.archived(jobs)
        assert scene.world.get("/v1/status")["found_by_polling"] == len(KINDS)
        before = state_of(scene)
        scene.world.settle()
        assert state_of(scene) == before
        assert [[row["effect"] for row in deliveries(scene, job)] for job in jobs] == [["late"]] * len(KINDS)


@pytest.mark.parametrize("wait_s", [0.0, 4.0])
def test_a_terminal_state_that_changes_its_mind(stage: Stage, wait_s: float) -> None:
    with stage.scene("terminal state changes", gateways=KINDS) as scene:
        worse = scene.submit(fault={"fault": "changes_mind", "delay_s": wait_s})
        better = scene.submit(fault={"fault": "failed+changes_mind", "delay_s": wait_s})
        first = scene.finish(worse + better)
        scene.world.settle()
        # The timeline goes on, because it tells of each callback.
        for job, then in zip(scene.finish(worse + better), first, strict=True):
            assert {**job, "timeline": None} == {**then, "timeline": None}
        # What is signed is believed as it comes; of what is not, the gateway is asked, and may say either.
        # A gateway that changes its mind takes its images back, so at once there is no telling.
        signed = [job["status"] for job in first if job["gateway"] in PROOF]
        assert signed == ["archived"] * len(PROOF) + ["failed"] * len(PROOF) or wait_s == 0


def test_callbacks_that_cannot_be_believed(stage: Stage) -> None:
    with stage.scene("callback refused", timing=QUICK, gateways=KINDS) as scene:
        jobs = scene.submit(*SIGNING, fault="wrong_signature")
        jobs += scene.submit(fault="malformed_callback")
        scene.archived(jobs)
        assert scene.world.rows("SELECT id FROM deliveries") == []
        scene.world.settle()
        answers = {sent.status for made in scene.world.sandbox.jobs() for sent in made.callbacks}
        assert answers == {401, 400}


def test_callbacks_that_are_only_hints(stage: Stage) -> None:
    with stage.scene("callback with a foreign link", gateways=KINDS) as scene:
        jobs = scene.submit(*SIGNING, fault="unsigned+evil_url")
        jobs += scene.submit(*set(KINDS) - set(PROOF), fault="evil_url")
        jobs += scene.submit(*DATED, fault="stale_signature+evil_url")
        scene.archived(jobs)


def test_forged_callbacks(stage: Stage) -> None:
    with stage.scene("callback forged", gateways=KINDS) as scene:
        jobs = scene.submit(each=2, fault={"fault": "late", "delay_s": 1.5})
        scene.until(lambda: {made.status for made in scene.world.sandbox.jobs()} == {"COMPLETED"})
        with httpx.Client(base_url=scene.world.url, trust_env=False) as http, ThreadPoolExecutor(8) as pool:
            for gateway, other in zip(KINDS, (*KINDS[1:], KINDS[0]), strict=True):
                first, second = [made.id for made in scene.world.sandbox.jobs() if made.gateway == gateway]
                url = str(scene.world.sandbox.job(first).callback_url)
                token = url.rpartition("/")[2]
                forged = [
                    f"/callbacks/{gateway}/guessed",
                    f"/callbacks/{gateway}/{token[:-2]}AA",
                    f"/callbacks/{other}/{token}",
                    f"/callbacks/{gateway}/",
                ]
                body = completed(scene, second)
                answers = list(pool.map(lambda path: http.post(path, json=body).status_code, forged * 3))  # noqa: B023
                assert set(answers) == {401}
                # A true URL of another job, with the words of this one.
                assert http.post(f"/callbacks/{gateway}/{token}", json=body).status_code == 409, gateway
        scene.archived(jobs)


def completed(scene: Scene, gateway_job_id: str) -> Any:
    """A plausible callback about a job of the sandbox, unsigned, with the link of somebody else."""
    made = scene.world.sandbox.sandbox.jobs.get(gateway_job_id)
    assert made is not None
    (gateway,) = [one for one in scene.world.sandbox.gateways if one.name == made.account.gateway]
    (told,) = gateway.callbacks(made, "completed", ["http://evil.example/x.png"])
    return told


def test_callbacks_replayed_from_last_month(stage: Stage) -> None:
    with stage.scene("callback replayed", gateways=KINDS) as scene:
        scene.archived(scene.submit())
        calls = list(scene.wires.callbacks.calls)
        assert len(calls) == len(KINDS)
        before = state_of(scene), scene.world.rows("SELECT * FROM deliveries")
        assert again(scene, calls) == [200] * len(KINDS)
        assert (state_of(scene), scene.world.rows("SELECT * FROM deliveries")) == before
        # Other bytes, so it is news: kept where the gateway does not sign its body, and it changes nothing.
        assert set(again(scene, calls, change=b"\n")) == {200, 401}
        assert state_of(scene) == before[0]
        kept = scene.world.rows("SELECT * FROM deliveries")
        assert len(kept) == 2 * len(KINDS) - len(PROOF)
        scene.world.clock.set(MONTH_S)
        assert again(scene, calls) == [401] * len(KINDS)
        assert (state_of(scene), scene.world.rows("SELECT * FROM deliveries")) == (before[0], kept)
        scene.archived(scene.submit())
