"""`POST /v1/jobs/{id}/retry`: what it takes, what it refuses, and that a refusal changes nothing."""

from typing import Any

import pytest

from tests.support.live import IMAGEN, ULTRA, Live

NOBODY = "00000000-0000-7000-8000-000000000000"
GONE = {"fault": "expired_link", "forever": True, "status": 410}


@pytest.fixture(scope="module")
def gone(live: Live) -> dict[str, Any]:
    """A job whose image is gone for good, so that it can be retried again and again."""
    job = live.make(ULTRA | {"prompt": "gone for good"}, fault=GONE)
    assert job["error"]["code"] == "image_expired"
    return job


def post(live: Live, job_id: str, content: bytes = b"") -> tuple[int, dict[str, Any]]:
    answer = live.http.post(f"/v1/jobs/{job_id}/retry", content=content)
    told: dict[str, Any] = answer.json()
    assert answer.headers["content-type"] == (
        "application/json" if answer.is_success else "application/problem+json"
    )
    return answer.status_code, told


@pytest.mark.parametrize("content", [b"", b"{}", b'{"resubmit": false}'])
def test_a_failed_job_goes_back_to_work(live: Live, gone: dict[str, Any], content: bytes) -> None:
    status, job = post(live, gone["id"], content)
    assert (status, job["id"]) == (200, gone["id"])
    steps = [event["step"] for event in job["timeline"] if event["event"] == "attempt"]
    assert "retry" in steps
    done = live.finish(job["id"])
    assert (done["status"], done["submission"]) == ("failed", 1)
    assert done["gateway_job_id"] == gone["gateway_job_id"], "asked about again, and not submitted"


def test_a_failed_generation_is_resubmitted_if_told(live: Live) -> None:
    job = live.make(IMAGEN, fault="failed")
    for content in (b"", b"{}", b'{"resubmit": false}'):
        status, told = post(live, job["id"], content)
        assert (status, told["code"]) == (409, "needs_resubmit")
        assert "esubmit" in told["detail"]
    assert live.http.get(f"/v1/jobs/{job['id']}").json() == job
    status, again = post(live, job["id"], b'{"resubmit": true}')
    assert (status, again["submission"], again["error"]) == (200, 2, None)
    ended = live.finish(job["id"])
    made = [one for one in live.sandbox.jobs() if (one.idempotency_key or "").startswith(job["id"])]
    assert [one.idempotency_key for one in made] == [job["id"], f"{job['id']}.2"]
    assert [one.id for one in made] == [job["gateway_job_id"], ended["gateway_job_id"]]
    moves = [event["status"] for event in ended["timeline"] if event["event"] == "moved"]
    assert moves == ["queued", "submitting", "running", "failed"] * 2


@pytest.mark.parametrize("content", [b"", b'{"resubmit": true}'])
def test_only_what_failed_is_retried(live: Live, content: bytes) -> None:
    waiting, archived = live.submit(IMAGEN, fault="no_callback"), live.make(IMAGEN)
    for job in (waiting, archived):
        status, told = post(live, job["id"], content)
        assert (status, told["code"]) == (409, "not_retryable")
    assert live.http.get(f"/v1/jobs/{archived['id']}").json() == archived


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"{", "body"),
        (b"\xff", "body"),
        (b"null", "body"),
        (b"[]", "body"),
        (b'{"again": true}', "again"),
        (b'{"resubmit": "yes"}', "resubmit"),
        (b'{"resubmit": 1}', "resubmit"),
        (b'{"resubmit": null}', "resubmit"),
    ],
)
def test_what_cannot_be_read_changes_nothing(
    live: Live, gone: dict[str, Any], content: bytes, field: str
) -> None:
    before = live.http.get(f"/v1/jobs/{gone['id']}").json()
    status, told = post(live, gone["id"], content)
    assert (status, told["code"]) == (422, "invalid_request")
    assert [fault["field"] for fault in told["faults"]] == [field]
    assert live.http.get(f"/v1/jobs/{gone['id']}").json() == before


def test_a_query_or_a_body_too_long_is_refused(live: Live, gone: dict[str, Any]) -> None:
    answer = live.http.post(f"/v1/jobs/{gone['id']}/retry", params={"resubmit": "true"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    status, told = post(live, gone["id"], b" " * 2_000_000)
    assert (status, told["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("job_id", [NOBODY, "nobody", "%00", f"{NOBODY}.0"])
def test_a_job_that_is_not_there_is_told(live: Live, job_id: str) -> None:
    status, told = post(live, job_id)
    assert (status, told["code"]) == (404, "not_found")
