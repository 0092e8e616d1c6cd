"""A gateway or an image host that is broken never delays the others, and one request may answer for many."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.jobs.context import Outcome
from receiver.jobs.fair_share import FairShare
from receiver.sandbox import SandboxConfig, SandboxServer
from receiver.schedule import system_clock
from storage.ledger.job_writer import Postpone
from storage.ledger.ledger import Ledger
from storage.models import ImageRef, Job, JobResult, Status
from tests.support.ledgers import add
from tests.support.live import IMAGEN, ULTRA, Live, Movable, Start, started
from tests.support.workers import worker


@contextmanager
def silent() -> Iterator[str]:
    """An address at which connections are taken, and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def poll(live: Live, job_id: str, until: Any) -> Job:
    for _ in range(200):
        job = live.job(job_id)
        if until(job):
            return job
        live.http.get(f"/v1/jobs/{job_id}", params={"wait": 0.05})
    raise AssertionError(live.job(job_id))


def ready(live: Live, image: str, **body: Any) -> str:
    """A job whose gateway says that its image is there."""
    ledger = live.service.resources.ledger
    job_id = str(live.submit(IMAGEN | body)["id"])
    job = next(job for job in ledger.claim("test", 100) if job.id == job_id)
    job = ledger.move(job, Status.SUBMITTING, "test", keep_lease=True)
    result = JobResult(images=(ImageRef(image),))
    ledger.move(job, Status.READY, "test", gateway_job_id=f"theirs-{job_id}", result=result)
    return job_id


def test_images_that_never_come_hold_up_no_gateway(start: Start) -> None:
    idle = start(work=False)
    with silent() as url:
        stuck = [ready(idle, f"{url}/{number}.png") for number in range(20)]
        live = start(download={"timeout": 20})
        assert live.make(ULTRA)["status"] == "archived"
        running = live.submit(IMAGEN)["id"]
        poll(live, running, lambda job: job.gateway_job_id)
        assert {live.job(job_id).status for job_id in stuck} == {Status.READY}


def test_a_failing_host_is_left_alone_and_tried_again(start: Start) -> None:
    clock = Movable(system_clock)
    idle = start(work=False)
    stuck = [ready(idle, "http://127.0.0.1:1/0.png") for _ in range(8)]
    live = start(clock=clock)
    circuits = live.parts.breaker.circuits
    poll(live, stuck[0], lambda _: any(one.retry_at for one in circuits.every()))
    (host,) = live.http.get("/v1/gateways").json()["image_hosts"]
    assert host["circuit"]["state"] in {"open", "half_open"}
    assert (host["name"], host["circuit"]["code"]) == ("127.0.0.1", "image_unavailable")
    assert host["circuit"]["retry_at"]


@pytest.mark.parametrize(
    ("key", "code"), [("afk_poor", "out_of_credits"), ("afk_inactive", "gateway_unauthorized")]
)
def test_a_paused_gateway_is_told_and_goes_on(
    s3_server: EmbeddedS3, tmp_path: Path, key: str, code: str
) -> None:
    with SandboxServer(SandboxConfig(latency_s=(0.05, 0.1), image_px=64)) as sandbox:
        common: dict[str, Any] = {"sandbox": sandbox}
        with started(s3_server, tmp_path, apiframe={"api_key": key}, **common) as live:
            jobs = [live.submit(IMAGEN | {"model": "imagen-4-ultra"})["id"] for _ in range(5)]
            poll(live, jobs[0], lambda _: live.parts.breaker.paused())
            assert live.parts.breaker.paused() == {"apiframe": code}
            assert live.make(ULTRA)["status"] == "archived", "the other gateway goes on"
            live.service.health.forget()
            told = live.http.get("/readyz")
            assert told.status_code == 200
            assert "Paused until" in told.json()["warnings"]["apiframe"]
            assert f'darkroom_gateway_paused{{code="{code}",gateway="apiframe"}} 1.0' in (
                live.http.get("/metrics").text
            )
            waiting = [live.job(job_id) for job_id in jobs]
            assert {one.status for one in waiting} <= {Status.QUEUED, Status.SUBMITTING}
            assert {one.error.at_fault for one in waiting if one.error} == {"operator"}
        with started(s3_server, tmp_path, **common) as live:
            assert [live.finish(job_id)["status"] for job_id in jobs] == ["archived"] * 5
            assert live.parts.breaker.paused() == {}


def test_a_job_that_waited_gets_a_fresh_callback_url(s3_server: EmbeddedS3, tmp_path: Path) -> None:
    clock = Movable(system_clock)
    with SandboxServer(SandboxConfig(latency_s=(0.05, 0.1), image_px=64)) as sandbox:
        common: dict[str, Any] = {"sandbox": sandbox, "clock": clock}
        with started(s3_server, tmp_path, apiframe={"api_key": "afk_inactive"}, **common) as live:
            job_id = live.submit(IMAGEN)["id"]
            poll(live, job_id, lambda job: job.error)
            first = live.callback_url(job_id)
            clock.forward(3 * 24 * 3600)
            a_day_later = system_clock() + 24 * 3600 * 1000
            poll(live, job_id, lambda job: job.submission_at and job.submission_at > a_day_later)
            assert live.callback_url(job_id) != first
        with started(s3_server, tmp_path, **common) as live:
            done = live.finish(job_id)
    assert (done["status"], done["found_by"]) == ("archived", "callback")


def test_a_job_queued_for_days_has_its_own_day(start: Start) -> None:
    clock = Movable(system_clock)
    idle = start(work=False, clock=clock)
    job_id = idle.submit(IMAGEN, fault={"fault": "unavailable", "times": 2})["id"]
    clock.forward(3 * 24 * 3600)
    done = start(clock=clock).finish(job_id)
    assert (done["status"], done["found_by"]) == ("archived", "callback"), done["error"]


def test_nothing_is_sent_again_under_a_forgotten_key(start: Start) -> None:
    clock = Movable(system_clock)
    live = start(clock=clock)
    job_id = live.submit(IMAGEN, fault={"fault": "lost_answer+no_callback", "times": 99})["id"]
    poll(live, job_id, lambda job: any(one.code == "outcome_unknown" for one in job.attempt_log))
    clock.forward(23.5 * 3600)
    done = live.finish(job_id)
    assert (done["status"], done["error"]["code"]) == ("failed", "submission_unconfirmed")
    assert len([one for one in live.sandbox.jobs() if one.idempotency_key == job_id]) == 1


def test_a_job_due_again_during_its_step_is_done(ledger: Ledger) -> None:
    add(ledger)
    done = threading.Event()
    steps: list[str] = []

    def step(job: Job) -> Outcome:
        steps.append(job.id)
        if len(steps) == 1:
            return Postpone(0)
        done.set()
        return Postpone(3_600_000)

    def moved(job: Job) -> None:
        """Hold the first step up until the job was claimed again."""
        for _ in range(500):
            if len(steps) > 1 or ledger.job(job.id).leased_by == working.name:
                return
            working.wake()
            done.wait(0.01)

    working = worker(ledger, step, moved=moved)
    working.start()
    try:
        assert done.wait(10), "left lying until its lease ran out"
    finally:
        working.stop(2)
        working.join(2)


def test_a_refusal_keeps_the_gateways_words(start: Start) -> None:
    live = start(apiframe={"callback_field": "webhook_url"})
    job = live.make(IMAGEN)
    assert (job["status"], job["error"]["code"]) == ("failed", "gateway_refused")
    assert "webhook_url" in job["error"]["details"]
    (attempt,) = [event for event in job["timeline"] if event["event"] == "attempt"]
    assert (attempt["step"], attempt["code"]) == ("send", "gateway_refused")


def test_one_request_answers_for_many_overdue_jobs(s3_server: EmbeddedS3, tmp_path: Path) -> None:
    clock = Movable(system_clock)
    asked = {"list": 0, "job": 0}
    quick = SandboxConfig(latency_s=(0.05, 0.1), image_px=64)
    with SandboxServer(quick) as sandbox, started(s3_server, tmp_path, sandbox=sandbox, clock=clock) as live:
        prompts = [f"many {number}" for number in range(20)]
        jobs = [live.submit(IMAGEN | {"prompt": one}, fault="no_callback")["id"] for one in prompts]
        for job_id in jobs:
            theirs = poll(live, job_id, lambda job: job.gateway_job_id).gateway_job_id
            assert theirs
            sandbox.wait(theirs)
        client = live.parts.client
        client.event_hooks = {"request": [lambda request: _count(request.url.path, asked)]}
        clock.forward(31)
        ended = [live.finish(job_id) for job_id in jobs]
        counts = live.http.get("/v1/status").json()
    assert [job["status"] for job in ended] == ["archived"] * 20
    assert {job["found_by"] for job in ended} == {"poll"}
    assert counts["found_by_polling"] == 20
    assert asked["list"] >= 1
    assert asked["list"] + asked["job"] <= 8, asked


def _count(path: str, asked: dict[str, int]) -> None:
    with threading.Lock():
        asked["list" if path == "/v2/jobs" else "job"] += path.startswith("/v2/jobs")


def test_every_gateway_keeps_a_share_of_the_threads() -> None:
    shares = FairShare(["a", "b"], 8, {})
    budget = shares.budget(2, ["a"] * 6, full=())
    assert (budget.of("a"), budget.of("b")) == (0, 6)
    assert next(iter(budget.by_gateway)) == "b"
    assert shares.budget(3, ["a"] * 5, full=()).of("a") == 1


def test_downloads_leave_a_thread_for_the_gateway() -> None:
    shares = FairShare(["a"], 3, {})
    images = partial(shares.downloading, images=True)
    with images("a") as first, images("a") as second:
        with images("a") as third:
            assert (first, second, third) == (True, True, False)
        assert shares.budget(1, [], full=()).no_images == ["a"]
        with shares.downloading("a", images=False) as talking:
            assert talking
        with images("gone") as other:
            assert other
    with images("a") as again:
        assert again
