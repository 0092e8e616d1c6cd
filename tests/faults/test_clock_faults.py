"""Clocks that jump by an hour in the middle of work, and leases that run out under those who hold them."""

import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from time import time_ns

import pytest

from tests.faults import harm
from tests.faults.scenes import GATEWAYS, SUBMIT, Scene, Stage
from tests.faults.world import SANDBOX, Accepted

HOUR_S = 3600
AWAKE = {"unconfirmed": 2 * HOUR_S, "callback_polls": (0.7, 1)}
"""No deadline of a job is shorter than the jump, as none of the true schedule is that matters here."""
BUSY = {"callback_polls": (30,)}


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S], ids=["+1 h", "-1 h"])
def test_a_clock_that_jumps_while_jobs_are_everywhere(stage: Stage, jump_s: int) -> None:
    with stage.scene(f"clock jumps {jump_s // HOUR_S:+} h", timing=AWAKE) as scene:
        jobs = scene.submit(each=2, fault={"fault": "late", "delay_s": 0.5})
        jobs += scene.submit(each=2, fault={"fault": "slow_answer", "delay_s": 1.0})
        jobs += scene.submit(each=2, fault={"fault": "slow_image", "delay_s": 1.0})
        jobs += scene.submit("apiframe", each=2, fault={"fault": "rate_limited", "retry_after_s": 1})
        scene.world.clock.set(jump_s)
        jobs += scene.submit(each=2)
        jobs += scene.submit(each=2, fault="no_callback")
        scene.archived(jobs)
        assert [scene.sent_to(job) for job in jobs] == [1] * len(jobs)


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S], ids=["+1 h", "-1 h"])
def test_a_clock_that_jumps_before_a_poll(stage: Stage, jump_s: int) -> None:
    with stage.scene("clock jumps before a poll", timing={"callback_polls": (4, 1)}) as scene:
        jobs = scene.submit(each=2, fault="no_callback")
        scene.until(lambda: set(scene.places(jobs)) == {"running"})
        scene.world.clock.set(jump_s)
        scene.archived(jobs)


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S], ids=["+1 h", "-1 h"])
def test_a_clock_that_jumps_while_callbacks_are_on_their_way(stage: Stage, jump_s: int) -> None:
    """A token is not refused because it seems to be an hour old, or to come from an hour ahead."""
    with stage.scene(f"clock jumps {jump_s // HOUR_S:+} h", timing=BUSY) as scene:
        gate = threading.Event()
        armed = scene.wires.callbacks.arm(harm.held(gate))
        jobs = scene.submit(each=3)
        armed.wait(6)
        scene.until(lambda: set(scene.places(jobs)) == {"running"})
        scene.world.clock.set(jump_s)
        gate.set()
        scene.archived(jobs)
        scene.world.settle()
        told = [call.answered and call.answered.status for call in scene.wires.callbacks.calls]
        assert told == [200] * 6


def test_a_clock_that_jumps_to_and_fro(stage: Stage) -> None:
    with stage.scene("clock jumps to and fro", timing=AWAKE) as scene:
        jobs: list[Accepted] = []
        for jump_s in (HOUR_S, -HOUR_S, 0, HOUR_S, 0):
            jobs.extend(scene.submit(each=2, fault={"fault": "late", "delay_s": 0.3}))
            # A step in which the clock jumps writes the time at which it began.
            scene.until(lambda: not {"queued", "submitting"} & set(scene.places(jobs)))
            scene.world.clock.set(jump_s)
        scene.archived(jobs)
        assert [scene.sent_to(job) for job in jobs] == [1] * len(jobs)


def test_a_clock_that_was_set_back_while_the_service_was_down(stage: Stage) -> None:
    with stage.scene("clock set back while down", timing=AWAKE) as scene:
        gate = threading.Event()
        armed = scene.wires.callbacks.arm(harm.held(gate))
        jobs = scene.submit(each=3)
        armed.wait(6)
        scene.world.kill()
        scene.world.clock.set(-HOUR_S)
        scene.world.start()
        gate.set()
        scene.archived(jobs)


@pytest.mark.sqlite_file
@pytest.mark.parametrize("gateway", GATEWAYS)
def test_an_answer_that_comes_when_the_lease_is_lost(stage: Stage, gateway: str) -> None:
    """A gateway takes a job, and its answer finds that another worker has the job meanwhile."""
    slow = replace(SANDBOX, latency_s=(1.5, 1.6))
    with stage.scene("answer after lease was lost", sandbox=slow, timing=AWAKE) as scene:
        gate = threading.Event()
        armed = scene.wires.gateway(gateway).arm(harm.held(gate), path=SUBMIT, times=3)
        jobs = scene.submit(gateway, each=3)
        armed.wait(3)
        another_worker_takes(scene)
        gate.set()
        scene.archived(jobs)
        assert scene.world.log.read_text().count("job went to another worker") >= 3
        assert [scene.sent_to(job) for job in jobs] == [1] * 3


def another_worker_takes(scene: Scene) -> None:
    """Do to the ledger what a worker does that claims all jobs; it then dies of something, and lets go."""
    until = (time_ns() // 1_000_000) + 1500
    with closing(sqlite3.connect(scene.world.ledger, timeout=10)) as other, other:
        taken = other.execute("UPDATE jobs SET leased_by = 'another', leased_until = ?", [until])
        assert taken.rowcount == 3
