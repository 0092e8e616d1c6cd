"""`POST /v1/jobs/batch`: each job judged by itself, all of a batch in one transaction."""

import json
import threading
from typing import Any

import httpx
import pytest

from tests.support.live import IMAGEN, ULTRA, Live


def batch(live: Live, *jobs: Any, **more: Any) -> list[dict[str, Any]]:
    answer = live.http.post("/v1/jobs/batch", json={"jobs": jobs, **more})
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    assert len(results) == len(jobs)
    return results


def accepted(live: Live) -> int:
    count: int = live.http.get("/v1/status").json()["accepted"]
    return count


def named(problem: dict[str, Any]) -> set[str]:
    return {fault["field"] for fault in problem["faults"]}


def test_a_batch_is_accepted_and_worked_on(live: Live) -> None:
    before = accepted(live)
    results = batch(live, IMAGEN | {"prompt": "first of two"}, ULTRA | {"prompt": "second of two"})
    assert [(one["created"], one["problem"]) for one in results] == [(True, None)] * 2
    assert [one["job"]["request"]["prompt"] for one in results] == ["first of two", "second of two"]
    assert accepted(live) == before + 2
    assert [live.finish(one["job"]["id"])["status"] for one in results] == ["archived"] * 2
    newest = [job["id"] for job in live.http.get("/v1/jobs", params={"limit": 2}).json()["jobs"]]
    assert newest == [one["job"]["id"] for one in reversed(results)]


@pytest.mark.parametrize(
    ("bad", "code", "fields"),
    [
        (IMAGEN | {"prompt": ""}, "invalid_request", {"prompt"}),
        (IMAGEN | {"prompt": 7, "num_images": "two"}, "invalid_request", {"prompt", "num_images"}),
        (IMAGEN | {"aspect_ratio": "2:7"}, "invalid_request", {"aspect_ratio"}),
        (IMAGEN | {"seed": 7}, "unsupported_parameter", {"seed"}),
        (IMAGEN | {"gateway": "dall-e"}, "unknown_gateway", {"gateway"}),
        (IMAGEN | {"notify_url": "http://10.0.0.1/hook"}, "invalid_request", {"notify_url"}),
        (IMAGEN | {"idempotency_key": "a b"}, "invalid_request", {"idempotency_key"}),
        (IMAGEN | {"idempotency_key": ""}, "invalid_request", {"idempotency_key"}),
        (IMAGEN | {"idempotency_key": "x" * 256}, "invalid_request", {"idempotency_key"}),
        (IMAGEN | {"idempotency_key": 2}, "invalid_request", {"idempotency_key"}),
        (["not", "an", "object"], "invalid_request", {"body"}),
        (None, "invalid_request", {"body"}),
    ],
)
@pytest.mark.parametrize("dry_run", [True, False])
def test_a_bad_job_is_told_and_stops_no_other(
    live: Live, bad: Any, code: str, fields: set[str], dry_run: bool
) -> None:
    before = accepted(live)
    first, second, third = batch(live, IMAGEN, bad, ULTRA, dry_run=dry_run)
    assert (second["created"], second["job"]) == (False, None)
    assert (second["problem"]["code"], named(second["problem"])) == (code, fields)
    assert [first["created"], third["created"]] == [not dry_run] * 2
    assert [first["problem"], third["problem"]] == [None, None]
    assert accepted(live) - before == (0 if dry_run else 2)


def test_a_key_of_its_own_makes_a_job_once(live: Live) -> None:
    rows = [IMAGEN | {"idempotency_key": f"batch-{number}"} for number in range(3)]
    first = batch(live, *rows[:2])
    assert [one["job"] and one["job"]["id"] for one in batch(live, *rows, dry_run=True)] == [
        *(one["job"]["id"] for one in first), None,
    ]  # fmt: skip
    again = batch(live, *rows)
    assert [one["created"] for one in again] == [False, False, True]
    assert [one["job"]["id"] for one in again[:2]] == [one["job"]["id"] for one in first]
    same = live.http.post("/v1/jobs", json=IMAGEN, headers={"idempotency-key": "batch-0"})
    assert (same.status_code, same.json()["id"]) == (200, first[0]["job"]["id"])


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_key_used_for_another_job_is_a_conflict(live: Live, dry_run: bool) -> None:
    key = f"taken-{dry_run}"
    live.http.post("/v1/jobs", json=IMAGEN, headers={"idempotency-key": key})
    other, fine = batch(live, ULTRA | {"idempotency_key": key}, IMAGEN, dry_run=dry_run)
    assert (other["problem"]["code"], other["problem"]["status"]) == ("idempotency_conflict", 409)
    assert fine["problem"] is None


def test_one_key_twice_in_a_batch_is_one_job(live: Live) -> None:
    one, same, other = batch(
        live,
        IMAGEN | {"idempotency_key": "twice"},
        IMAGEN | {"idempotency_key": "twice"},
        ULTRA | {"idempotency_key": "twice"},
    )
    assert (one["created"], same["created"], same["job"]["id"]) == (True, False, one["job"]["id"])
    assert other["problem"]["code"] == "idempotency_conflict"


def test_the_same_batch_at_once_is_one_batch(live: Live) -> None:
    before = accepted(live)
    rows = [IMAGEN | {"prompt": f"at once {n}", "idempotency_key": f"at-once-{n}"} for n in range(30)]
    ids: list[tuple[str, ...]] = []

    def send() -> None:
        answer = httpx.post(f"{live.url}/v1/jobs/batch", json={"jobs": rows}, timeout=30)
        ids.append(tuple(one["job"]["id"] for one in answer.json()["results"]))

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert (len(ids), len(set(ids))) == (4, 1)
    assert accepted(live) == before + 30
    assert live.http.get("/v1/status").json()["balanced"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"jobs": []}, "jobs"),
        ({"jobs": [IMAGEN] * 101}, "jobs"),
        ({"jobs": IMAGEN}, "jobs"),
        ({"rows": [IMAGEN]}, "jobs"),
        ({"jobs": [IMAGEN], "dry_run": "no"}, "dry_run"),
        ([IMAGEN], "body"),
    ],
)
def test_what_is_no_batch_is_refused_whole(live: Live, body: Any, told: str) -> None:
    before = accepted(live)
    answer = live.http.post("/v1/jobs/batch", json=body)
    assert answer.status_code == 422
    assert told in named(answer.json())
    assert accepted(live) == before


def test_a_batch_that_is_too_long_is_refused(live: Live) -> None:
    long = json.dumps({"jobs": [IMAGEN | {"params": {"x": "x" * 8_400_000}}]})
    answer = live.http.post("/v1/jobs/batch", content=long)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_a_number_that_json_cannot_hold_spoils_one_row(live: Live) -> None:
    good, bad = json.dumps(IMAGEN), json.dumps(IMAGEN | {"params": {"a": 7}}).replace("7", "1e999")
    answer = live.http.post("/v1/jobs/batch", content=f'{{"jobs": [{bad}, {good}]}}')
    first, second = answer.json()["results"]
    assert (named(first["problem"]), second["created"]) == ({"params"}, True)


def test_a_batch_is_nothing_to_get(live: Live) -> None:
    answer = live.http.get("/v1/jobs/batch")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert live.http.get("/v1/jobs/batches").status_code == 404
