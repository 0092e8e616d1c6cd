"""Gateways that are down, in trouble, slow, or that take a job and do not say so."""

from time import monotonic

import pytest

from tests.faults import harm
from tests.faults.scenes import GATEWAYS, KINDS, OTHER, SUBMIT, UNSURE, Scene, Stage

SOON = {"unconfirmed": 3, "callback_polls": (0.5, 1)}
UNDELAYED_S = 25.0
"""How long a few jobs of the other gateway may take, on a busy machine; a call that hangs takes longer."""


def undelayed(scene: Scene, gateway: str) -> None:
    """Jobs of this gateway are archived as quickly as ever."""
    began = monotonic()
    scene.archived(scene.submit(gateway, each=4), within_s=UNDELAYED_S)
    assert monotonic() - began < UNDELAYED_S


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_a_gateway_that_is_down_costs_time_and_nothing_else(stage: Stage, gateway: str) -> None:
    with stage.scene("gateway down") as scene:
        broken = scene.wires.gateway(gateway)
        broken.down()
        jobs = scene.submit(gateway, each=6)
        undelayed(scene, OTHER[gateway])
        assert {scene.world.get(f"/v1/jobs/{job.job_id}")["status"] for job in jobs} <= {
            "queued",
            "submitting",
        }
        broken.up()
        scene.archived(jobs)


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_a_gateway_that_goes_down_while_it_has_jobs(stage: Stage, gateway: str) -> None:
    with stage.scene("gateway down") as scene:
        jobs = scene.submit(gateway, each=6, fault={"fault": "no_callback"})
        broken = scene.wires.gateway(gateway)
        broken.down()
        undelayed(scene, OTHER[gateway])
        broken.up()
        scene.finish(jobs)


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_a_gateway_that_takes_connections_and_says_nothing(stage: Stage, gateway: str) -> None:
    with stage.scene("gateway hangs", timing=SOON) as scene:
        broken = scene.wires.gateway(gateway)
        armed = broken.arm(harm.stall, path=SUBMIT)
        jobs = scene.submit(gateway, each=6)
        armed.wait(4)
        undelayed(scene, OTHER[gateway])
        broken.disarm()
        broken.down()
        broken.up()
        if gateway == "apiframe":
            scene.archived(jobs)
        else:
            shown = scene.finish(jobs)
            assert {(job["error"] or {}).get("code") for job in shown} == {"submission_unconfirmed", None}


def test_server_errors(stage: Stage) -> None:
    with stage.scene("gateway answers 500", timing=SOON, gateways=KINDS) as scene:
        jobs = {
            gateway: scene.submit(gateway, each=2, fault={"fault": "server_error", "times": 2})
            for gateway in KINDS
        }
        scene.archived(jobs["apiframe"])
        # A 500 does not say that the job was not taken, and these gateways would charge for it twice.
        unsure = [job for gateway in UNSURE for job in jobs[gateway]]
        scene.failed(unsure, "submission_unconfirmed")
        assert {scene.sent_to(job) for job in unsure} == {0}


@pytest.mark.parametrize(
    ("fault", "name"), [("rate_limited", "gateway answers 429"), ("unavailable", "gateway answers 503")]
)
def test_a_gateway_that_asks_to_wait(stage: Stage, fault: str, name: str) -> None:
    with stage.scene(name, timing=SOON, gateways=KINDS) as scene:
        jobs = scene.submit(fault={"fault": fault, "times": 2, "retry_after_s": 1})
        scene.finish(jobs)


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ("early", "callback before the answer"),
        ("slow_answer", "gateway slow"),  # callbacks overtake it
        ("cut_answer", "answer cut off"),
        pytest.param("lost_answer", "accepted, answer lost", marks=pytest.mark.smoke),
    ],
)
def test_a_job_that_was_taken_although_the_answer_was_not_heard(stage: Stage, fault: str, name: str) -> None:
    with stage.scene(name, timing=SOON, gateways=KINDS) as scene:
        jobs = scene.submit(fault={"fault": fault, "times": 2, "delay_s": 1.0})
        scene.archived(jobs)
        assert [scene.sent_to(job) for job in jobs] == [1] * len(KINDS)


def test_polls_that_fail(stage: Stage) -> None:
    with stage.scene("polls answer 500", timing=SOON, gateways=KINDS) as scene:
        jobs = scene.submit(fault={"fault": "poll_error+no_callback", "times": 2})
        jobs += scene.submit("api-in-one", "kie", "runware", fault={"fault": "poll_error", "times": 2})
        scene.archived(jobs)
