"""The life of a job, from submitting to the archive, through both gateways' wire protocols."""

import hashlib
import socket
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.sandbox import SandboxConfig, SandboxServer
from receiver.schedule import system_clock
from storage.models import ImageRef, JobResult, Status
from tests.support.live import FAST, IMAGEN, QUICK, ULTRA, Live, Movable, Start, started


def record_of(live: Live, job_id: str) -> dict[str, Any]:
    return live.bucket.archive.read_record(live.job(job_id))


@pytest.mark.parametrize(
    ("body", "images", "media_type"),
    [
        (IMAGEN, 1, "image/jpeg"),
        (IMAGEN | {"aspect_ratio": "16:9", "params": {"output_format": "png"}}, 1, "image/png"),
        (ULTRA | {"negative_prompt": "chopsticks", "num_images": 3, "seed": 12345}, 3, None),
    ],
)  # fmt: skip
def test_7_a_job_is_archived_with_the_gateways_bytes(
    live: Live, body: dict[str, Any], images: int, media_type: str | None
) -> None:
    """The seventh invariant: original bytes are never re-encoded, and metadata is never written into them.

    Upheld by `Archiver._fetch` (receiver/jobs/archive.py), which hands the downloaded file itself on, and by
    `Archive.store_image` (storage/archive/archive.py), which stores that file: let either open and save it as
    an image.
    """
    job = live.make(body, tags={"campaign": "spring"})
    assert job["status"] == "archived"
    assert [one["id"] for one in job["outputs"]] == [f"{job['id']}.{index}" for index in range(images)]
    assert job["outputs"] == live.outputs(job["id"])
    for output in live.outputs(job["id"]):
        data = live.sandbox.image_bytes(job["gateway_job_id"], output["index"])
        stored = live.bucket.store.head(output["key"])
        assert live.bucket.store.digest(output["key"]) == (output["sha256"], output["bytes"])
        assert hashlib.sha256(data).hexdigest() == output["sha256"] == stored.sha256
        assert live.http.get(f"/v1/outputs/{output['id']}/image?stream=1").content == data
        assert stored.content_type == output["media_type"]
        assert stored.metadata["darkroom-job-id"] == job["id"]
        if media_type:
            assert output["media_type"] == media_type


def test_the_record_says_all_that_made_the_image(live: Live) -> None:
    body = ULTRA | {"negative_prompt": "chopsticks", "num_images": 2, "seed": 9007199254740993}
    job = live.make(body, tags={"campaign": "spring"}, params={"quality": "high"})
    record = record_of(live, job["id"])
    assert record["schema"] == "darkroom/record/1"
    assert record["job"]["id"] == job["id"]
    assert record["job"]["tags"] == {"campaign": "spring"}
    assert [move["status"] for move in record["job"]["moves"]] == [
        "queued", "submitting", "running", "ready", "archived",
    ]  # fmt: skip
    times = [datetime.fromisoformat(move["at"]) for move in record["job"]["moves"]]
    assert times == sorted(times)
    assert record["request"]["asked"]["prompt"] == ULTRA["prompt"]
    assert record["request"]["sent"]["seed"] == 9007199254740993
    assert record["request"]["sent"]["negative_prompt"] == "chopsticks"
    assert record["seed"] == {
        "requested": "9007199254740993", "returned": "9007199254740993", "echoed": None, "supported": True,
    }  # fmt: skip
    assert record["result"]["model_requested"] == "imagen4-ultra"
    assert record["result"]["credits"] == 24
    assert record["result"]["credits_estimated"] is True
    assert record["evidence"]["found_by"] == "callback"
    assert record["evidence"]["confirmed_by"] == "poll"
    assert [one["signature"] for one in record["evidence"]["deliveries"]] == ["unsupported"]
    assert [one["index"] for one in record["outputs"]] == [0, 1]
    assert all(one["seed"] is None for one in record["outputs"]), "one seed for two images is the job's"


def test_an_empty_place_keeps_its_number(live: Live) -> None:
    asked = ULTRA | {"num_images": 4, "seed": 7}
    job = live.make(asked, fault={"fault": "withheld_image", "message": "blocked by the safety filter"})
    ids = [output["id"] for output in job["outputs"]]
    assert (job["status"], ids) == ("archived", [f"{job['id']}.{n}" for n in (0, 2, 3)])
    came = {
        "images_requested": 4,
        "images_returned": 3,
        "withheld": [{"index": 1, "reason": "blocked by the safety filter"}],
    }
    assert job["result"].items() >= came.items()
    assert (job["result"]["credits"], job["result"]["credits_estimated"]) == (36, True), "12 for each"
    record = record_of(live, job["id"])
    assert record["result"].items() >= came.items()
    assert [one["index"] for one in record["outputs"]] == [0, 2, 3]
    for output in live.outputs(job["id"]):
        data = live.sandbox.image_bytes(job["gateway_job_id"], output["index"])
        assert live.http.get(f"/v1/outputs/{output['id']}/image?stream=1").content == data
    short = f'is:short seed:7 "{ULTRA["prompt"]}"'
    for route, key in (("/v1/jobs", "jobs"), ("/v1/outputs", "outputs")):
        found = live.http.get(route, params={"q": short}).json()[key]
        assert job["id"] in {one.get("job_id", one["id"]) for one in found}
        assert found[0].get("job_id") or found[0]["result"].items() >= came.items()
        rest = live.http.get(route, params={"q": f"-{short}"}).json()[key]
        assert job["id"] not in {one.get("job_id", one["id"]) for one in rest}
    assert 'darkroom_short_results_total{gateway="api-in-one"}' in live.http.get("/metrics").text


def test_a_signed_callback_is_proof_enough(live: Live) -> None:
    record = record_of(live, live.make(IMAGEN)["id"])
    assert record["seed"] == {"requested": None, "returned": None, "echoed": None, "supported": False}
    assert record["evidence"]["confirmed_by"] == "callback"
    assert record["evidence"]["deliveries"][0]["signature"] == "valid"
    assert record["evidence"]["deliveries"][0]["effect"] == "ready"
    assert record["evidence"]["gateway_request_ids"]
    assert record["result"]["credits_estimated"] is False


@pytest.mark.parametrize(
    ("body", "fault", "code", "at_fault"),
    [
        (IMAGEN, {"fault": "failed", "message": "content policy"}, "generation_failed", "gateway"),
        (ULTRA, "refused", "gateway_refused", "request"),
        (ULTRA, "failed_in_200", "gateway_refused", "request"),
        (IMAGEN, {"fault": "expired_link", "forever": True, "status": 410}, "image_expired", "image"),
    ],
)
def test_what_cannot_succeed_fails_with_its_reason(
    live: Live, body: dict[str, Any], fault: Any, code: str, at_fault: str
) -> None:
    before = live.keys()
    job = live.make(body, fault=fault)
    assert job["status"] == "failed"
    assert (job["error"]["code"], job["error"]["at_fault"]) == (code, at_fault), job["error"]
    assert live.outputs(job["id"]) == []
    assert not [key for key in live.keys() - before if job["id"] in key]


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("html_image", "not_an_image"),
        ({"fault": "odd_link", "url": "http://169.254.169.254/"}, "unknown_image_host"),
        ({"fault": "expired_link", "forever": True, "status": 403}, "link_refused"),
    ],
)
def test_what_might_be_mended_fails_after_the_retention(start: Start, fault: Any, code: str) -> None:
    live = start(timing=replace(FAST, retention=1))
    job = live.make(IMAGEN, fault=fault)
    assert (job["status"], job["error"]["code"]) == ("failed", code)
    ready, failed = (event["at"] for event in job["timeline"] if event.get("status") in {"ready", "failed"})
    assert datetime.fromisoformat(failed) - datetime.fromisoformat(ready) >= timedelta(seconds=1)


def test_an_image_that_came_encoded_is_kept_as_it_was_made(live: Live) -> None:
    job = live.make(IMAGEN, fault="gzip_image")
    (output,) = live.outputs(job["id"])
    made = live.sandbox.image_bytes(job["gateway_job_id"])
    assert output["sha256"] == hashlib.sha256(made).hexdigest()
    assert "Image 0 came with gzip around it" in noted(live, job["id"])


def test_an_image_without_an_end_is_kept_after_equal_downloads(live: Live) -> None:
    job = live.make(IMAGEN, fault="unended_image")
    (output,) = live.outputs(job["id"])
    made = live.sandbox.image_bytes(job["gateway_job_id"])[:-2]
    assert output["sha256"] == hashlib.sha256(made).hexdigest()
    assert "Image 0 has no end" in noted(live, job["id"])
    tries = [event for event in job["timeline"] if event.get("code") == "image_truncated"]
    assert sum(event["times"] for event in tries) >= 2


def test_images_without_an_end_do_not_wait_for_each_other(live: Live) -> None:
    job = live.make(ULTRA, fault="unended_image", num_images=3, params={"output_format": "jpeg"})
    assert (job["status"], len(live.outputs(job["id"]))) == ("archived", 3)
    assert all(f"Image {index} has no end" in noted(live, job["id"]) for index in range(3))
    tries = [event for event in job["timeline"] if event.get("code") == "image_truncated"]
    assert sum(event["times"] for event in tries) == 3 * (len(FAST.downloads) - 1)


def noted(live: Live, job_id: str) -> str:
    """What the record says of how the images came."""
    attempts = record_of(live, job_id)["job"]["attempts"]
    return " ".join(attempt["message"] for attempt in attempts if attempt["code"] == "noted")


def test_a_link_that_only_the_callback_has_wrong_is_asked_for_again(live: Live) -> None:
    fault = {"fault": "evil_url", "url": "http://169.254.169.254/"}
    assert live.make(IMAGEN, fault=fault)["status"] == "archived"


def test_without_a_public_url_everything_is_polled(start: Start) -> None:
    live = start(callbacks=False)
    for body in (IMAGEN, ULTRA):
        job = live.make(body)
        assert (job["status"], job["found_by"]) == ("archived", "poll_only")
        assert live.sandbox.job(job["gateway_job_id"]).callback_url is None
    assert live.http.get("/v1/status").json()["found_by_polling"] == 0


def test_a_long_pause_is_not_made_up_for_in_polls(s3_server: EmbeddedS3, tmp_path: Path) -> None:
    config = SandboxConfig(latency_s=(9999, 9999), image_px=64)
    clock = Movable(system_clock)
    with SandboxServer(config) as slow, started(s3_server, tmp_path, sandbox=slow, clock=clock) as live:
        job_id = live.submit(IMAGEN)["id"]
        _theirs(live, job_id)
        clock.forward(5 * 3600)
        for _ in range(20):
            live.http.get(f"/v1/jobs/{job_id}", params={"wait": 0.1})
        asked = live.job(job_id)
        assert asked.attempts == 1
        assert asked.next_attempt_at is not None
        assert asked.next_attempt_at - clock() > 30_000


def test_only_what_is_really_sent_counts_as_submitting(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        live = start(api_in_one={"base_url": url, "concurrency": 1})
        stuck = [live.submit(ULTRA)["id"] for _ in range(4)]
        assert live.make(IMAGEN)["status"] == "archived", "another gateway's jobs go on"
        statuses = sorted(live.job(job_id).status for job_id in stuck)
        assert statuses == ["queued", "queued", "queued", "submitting"]


def test_an_image_waits_while_its_gateway_is_away(start: Start) -> None:
    idle = start(work=False)
    ledger = idle.service.resources.ledger
    job_id = str(idle.submit(IMAGEN)["id"])
    (job,) = ledger.claim("test", 1)
    job = ledger.move(job, Status.SUBMITTING, "test", keep_lease=True)
    dead = JobResult(images=(ImageRef(f"{idle.sandbox.url}/images/nobody/0.png"),))
    ledger.move(job, Status.READY, "test", gateway_job_id="mine", result=dead)
    start(apiframe={"base_url": "http://127.0.0.1:1"})
    for _ in range(200):
        if idle.job(job_id).attempts > len(FAST.downloads) + 2:
            break
        idle.http.get(f"/v1/jobs/{job_id}", params={"wait": 0.05})
    waiting = idle.job(job_id)
    assert waiting.status is Status.READY
    assert waiting.error is not None
    assert waiting.error.code == "image_unavailable"


def test_a_job_without_answer_is_given_up_after_a_day(start: Start) -> None:
    clock = Movable(system_clock)
    with SandboxServer(SandboxConfig(latency_s=(9999, 9999), image_px=64)) as slow:
        live = start(clock=clock, sandbox=slow)
        job = live.submit(IMAGEN)
        _theirs(live, job["id"])
        clock.forward(25 * 3600)
        done = live.finish(job["id"])
    assert (done["status"], done["error"]["code"]) == ("failed", "no_answer")


def test_a_job_its_gateway_has_forgotten_fails(s3_server: EmbeddedS3, tmp_path: Path) -> None:
    config = SandboxConfig(latency_s=(9999, 9999), image_px=64)
    with SandboxServer(config) as first, started(s3_server, tmp_path, sandbox=first, callbacks=False) as live:
        job = live.submit(IMAGEN)
        _theirs(live, job["id"])
    with (
        SandboxServer(QUICK) as second,
        started(s3_server, tmp_path, sandbox=second, callbacks=False) as live,
    ):
        done = live.finish(job["id"])
    assert (done["status"], done["error"]["code"]) == ("failed", "unknown_gateway_job")


def _theirs(live: Live, job_id: str) -> str:
    """Wait until a job is running, and answer the gateway's id of it."""
    for _ in range(200):
        job = live.http.get(f"/v1/jobs/{job_id}", params={"wait": 0.05}).json()
        if job["gateway_job_id"]:
            return str(job["gateway_job_id"])
    raise AssertionError(job)
