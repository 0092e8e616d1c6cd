"""Retries: failed and partial jobs go back to the step that failed, and are paid for again only when told."""

from typing import Any

import pytest

from receiver.errors import NeedsResubmit, NotRetryable
from tests.callbacks.test_callbacks import completed, signed
from tests.jobs.test_life import record_of
from tests.support.live import IMAGEN, ULTRA, Live, Start
from tests.support.sandbox import mend


def retry(live: Live, job_id: str, **how: Any) -> dict[str, Any]:
    live.parts.retrier.retry(job_id, **how)
    live.parts.worker.wake()
    return live.finish(job_id)


def statuses(job: dict[str, Any]) -> list[str]:
    return [event["status"] for event in job["timeline"] if event["event"] == "moved"]


@pytest.mark.parametrize("body", [IMAGEN, ULTRA], ids=["apiframe", "api-in-one"])
def test_a_failed_download_is_retried_at_no_cost(start: Start, body: dict[str, Any]) -> None:
    # Six issues of the links are dead, which is more than are tried before the job is given up.
    live = start()
    job = live.make(body, fault={"fault": "expired_link", "times": 6})
    assert (job["status"], job["error"]["code"]) == ("failed", "image_expired")
    made = len(live.sandbox.jobs())
    for _ in range(6):
        job = retry(live, job["id"])
        if job["status"] == "archived":
            break
    assert job["status"] == "archived", job["error"]
    assert job["error"] is None
    assert len(live.sandbox.jobs()) == made, "submitted again, and so paid for again"
    assert record_of(live, job["id"])["outputs"][0]["sha256"] == live.outputs(job["id"])[0]["sha256"]


def test_a_retry_of_a_partial_job_writes_a_new_record(start: Start) -> None:
    live = start()
    job = live.make(ULTRA | {"num_images": 3}, fault="partial_images")
    first = record_of(live, job["id"])
    assert (job["status"], len(first["outputs"])) == ("partial", 2)
    again = retry(live, job["id"])
    assert again["status"] == "partial", "still not to be had"
    mend(live.sandbox, job["gateway_job_id"])
    whole = retry(live, job["id"])
    latest = record_of(live, job["id"])
    assert whole["status"] == "archived"
    assert [output["index"] for output in live.outputs(job["id"])] == [0, 1, 2]
    assert (latest["job"]["status"], len(latest["outputs"])) == ("archived", 3)
    assert latest["supersedes"].endswith(f"{job['id']}.2.json")
    assert live.http.get(f"/v1/outputs/{job['outputs'][0]['id']}/record").json() == latest
    assert statuses(whole)[-3:] == ["running", "ready", "archived"]
    records = [key for key in sorted(live.keys()) if job["id"] in key and "records/" in key]
    assert len(records) == 3, "none is written over"


@pytest.mark.exhaustive
def test_a_callback_of_an_old_submission_is_late(start: Start) -> None:
    live = start()
    job = live.make(IMAGEN, fault="failed")
    before = live.callback_url(job["id"])
    again = retry(live, job["id"], resubmit=True)
    body = completed(job["gateway_job_id"], f"{live.sandbox.url}/images/{job['gateway_job_id']}/0.jpg")
    answer = live.http.post(before, content=body, headers=signed(body))
    assert answer.json() == {"status": "accepted"}
    assert live.service.resources.ledger.deliveries(job["id"])[-1].effect == "late"
    assert live.http.get(f"/v1/jobs/{job['id']}").json()["status"] == again["status"]
    assert live.callback_url(job["id"]) != before


@pytest.mark.parametrize("resubmit", [False, pytest.param(True, marks=pytest.mark.exhaustive)])
def test_an_unconfirmed_submission_is_not_sent_again(start: Start, resubmit: bool) -> None:
    live = start()
    job = live.make(ULTRA, fault={"fault": "lost_answer+no_callback", "times": 1})
    assert job["error"]["code"] == "submission_unconfirmed"
    made = len(live.sandbox.jobs())
    if resubmit:
        retry(live, job["id"], resubmit=True)
        assert len(live.sandbox.jobs()) == made + 1
    else:
        with pytest.raises(NeedsResubmit, match="no id"):
            live.parts.retrier.retry(job["id"])
        assert len(live.sandbox.jobs()) == made


def test_a_callback_after_the_end_serves_a_retry(start: Start) -> None:
    live = start()
    fault = {"fault": "lost_answer+late", "times": 1, "delay_s": 9}
    job = live.make(ULTRA | {"prompt": "a callback after the end"}, fault=fault)
    assert job["error"]["code"] == "submission_unconfirmed"
    (theirs,) = [one for one in live.sandbox.jobs() if one.prompt == "a callback after the end"]
    live.sandbox.wait(theirs.id, 15)
    assert live.service.resources.ledger.deliveries(job["id"])[0].effect == "late"
    again = retry(live, job["id"])
    assert again["status"] == "archived"
    assert again["gateway_job_id"] == theirs.id


def test_a_partial_job_is_not_submitted_again(live: Live) -> None:
    job = live.make(ULTRA | {"num_images": 2}, fault="partial_images")
    with pytest.raises(NotRetryable, match="a new job"):
        live.parts.retrier.retry(job["id"], resubmit=True)
