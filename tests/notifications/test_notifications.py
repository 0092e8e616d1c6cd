"""Notifications of a whole service: the application, the API, the commands and the bucket."""

import json
import re
import subprocess
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.sandbox import SandboxServer
from receiver.schemas.notification import Message
from tests.api.test_openapi import closed, document, held_to
from tests.docs.test_readme import example
from tests.support.live import IMAGEN, ULTRA, Live, Start
from tests.support.notifications import SECRET, Application, Told
from tests.support.processes import environment, free_port, serving
from tests.support.recorder import Answer
from tests.support.running import command, data
from tests.support.sandbox import mend
from tests.telemetry.test_metrics import value

NOTIFY = {"secrets": [SECRET], "allow_networks": ["127.0.0.0/8"]}


@pytest.fixture(scope="module")
def notifying(start_shared: Start) -> Live:
    return start_shared(notify=NOTIFY)


def listed(live: Live, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = live.http.get("/v1/notifications", params=query).json()["notifications"]
    return found


def settled(live: Live, job_id: str, *states: str) -> dict[str, Any]:
    """The latest notification of a job, once it is in one of these states."""
    for _ in range(1000):
        found = listed(live, job=job_id)
        if found and found[0]["state"] in (states or ("delivered",)):
            return found[0]
        threading.Event().wait(0.01)
    raise AssertionError(listed(live, job=job_id))


def test_an_application_is_told_what_the_api_shows(notifying: Live) -> None:
    with Application() as app:
        job = notifying.make(ULTRA, num_images=2, tags={"k": "v"}, notify_url=f"{app.url}?key=hidden-key")
        told = app.next()
        one = settled(notifying, job["id"])
    message = told.verified(SECRET)
    assert (message["type"], told.path) == ("job.archived", "/hook?key=hidden-key")
    shown = notifying.http.get(f"/v1/jobs/{job['id']}").json()
    (event,) = [event for event in shown["timeline"] if event["event"] == "notified"]
    del shown["timeline"]
    assert message["data"]["job"] == shown
    assert message["timestamp"] == shown["updated_at"]
    TypeAdapter(Message).validate_python(message)
    for path, url in (("/v1/notifications", ""), ("/v1/jobs/{id}", f"/v1/jobs/{job['id']}")):
        held_to(closed(document(notifying)), path, notifying.http.get(url or path))
    images = [output.pop("image") for output in message["data"]["outputs"]]
    assert message["data"]["outputs"] == notifying.outputs(job["id"])
    assert notifying.http.get(images[1], follow_redirects=True).content.startswith(b"\x89PNG")
    assert (event["notification"], event["state"], event["attempts"]) == (one["id"], "delivered", 1)
    assert (one["id"], one["type"]) == (told.id, "job.archived")
    assert one["host"] == f"127.0.0.1:{app.port}"
    record = notifying.bucket.archive.read_record(notifying.job(job["id"]))
    assert record["job"]["notify_url"] == f"http://127.0.0.1:{app.port}", "its host alone"
    assert not re.search("hidden-key|/hook", json.dumps([record, listed(notifying)]))


def test_the_receiver_in_the_guide_takes_it(notifying: Live) -> None:
    with Application() as app:
        job = notifying.make(IMAGEN, notify_url=app.url)
        told = app.next()
    known: dict[str, Any] = {}
    exec(re.sub('whsec_[^"]+', SECRET, example("notifications", "standardwebhooks")), known)
    assert known["take"](dict(told.headers), told.body) == (
        f"job.archived ['/v1/outputs/{job['outputs'][0]['id']}/image']"
    )


def test_the_secret_is_taken_out_of_whatever_is_logged(notifying: Live) -> None:
    redactor = notifying.service.resources.redactor
    for form in (SECRET, SECRET.removeprefix("whsec_")):
        assert form not in redactor.text(f"signed with {form}.")
    assert SECRET not in repr(notifying.settings)


def test_a_retry_is_told_too(notifying: Live) -> None:
    with Application() as app:
        url = {"notify_url": app.url}
        job = notifying.make(IMAGEN, fault={"fault": "expired_link", "forever": True}, **url)
        assert app.next().verified()["type"] == "job.failed"
        mend(notifying.sandbox, notifying.job(job["id"]).gateway_job_id or "")
        assert notifying.http.post(f"/v1/jobs/{job['id']}/retry").status_code == 200
        notifying.finish(job["id"])
        second = app.next()
        assert (second.id, second.verified()["type"]) == (f"msg_{job['id']}_2", "job.archived")


def asked_with_key(live: Live, number: int, **more: Any) -> httpx.Response:
    return live.http.post("/v1/jobs", json=IMAGEN | more, headers={"idempotency-key": f"k-{number}"})


def test_the_setting_is_for_jobs_that_name_no_url(start: Start) -> None:
    with Application() as app, Application() as other:
        first = start(notify={**NOTIFY, "url": app.url}, work=False)
        asked: list[dict[str, Any]] = [{}, *({"notify_url": url} for url in (None, "", other.url))]
        jobs = [asked_with_key(first, n, **more).json() for n, more in enumerate(asked)]
        urls = [first.job(job["id"]).notify_url for job in jobs]
        assert urls == [app.url, app.url, None, other.url]
        changed = start(notify={**NOTIFY, "url": other.url}, work=False, s3={"bucket": "t-changed-default"})
        for n, more in enumerate(asked):
            answer = asked_with_key(changed, n, **more)
            assert (answer.status_code, answer.json()["id"]) == (200, jobs[n]["id"]), "the same request"
        answer = asked_with_key(changed, 3, notify_url=app.url)
        assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_conflict")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://app.invalid/hook", None),
        ("https://10.0.0.1/hook", "private"),
        ("x" * 2049, "2048"),
        (7, "text"),
    ],
)
def test_a_url_that_cannot_be_is_refused_and_named(notifying: Live, url: Any, why: str | None) -> None:
    answer = notifying.http.post("/v1/jobs", json={**IMAGEN, "notify_url": url})
    if why is None:
        assert answer.status_code == 202, "where it leads is seen at each try"
        return
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    (fault,) = answer.json()["faults"]
    assert fault["field"] == "notify_url"
    assert why in fault["message"]


def test_loopback_is_refused_unless_it_is_allowed(live: Live) -> None:
    answer = live.http.post("/v1/jobs", json={**IMAGEN, "notify_url": "http://127.0.0.1:1/"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "DARKROOM_NOTIFY__ALLOW_NETWORKS" in answer.json()["detail"]


def test_what_is_given_up_is_replayed_by_command(notifying: Live, tmp_path: Path) -> None:
    with Application(*[Answer(410)] * 3) as app:
        ids = [notifying.make(IMAGEN, notify_url=app.url)["id"] for _ in range(3)]
        gone = [settled(notifying, job_id, "failed")["id"] for job_id in ids]
        assert {one["code"] for one in listed(notifying, state="failed")} == {"receiver_gone"}
        notifying.service.health.forget()
        assert "3 failed for good" in notifying.http.get("/readyz").json()["warnings"]["notifications"]
        page = notifying.service.metrics.page()
        assert value(page, "darkroom_notifications_failed") == 3
        assert (value(page, "darkroom_notifications_total", outcome="receiver_gone") or 0) >= 3

        def darkroom(*words: str) -> subprocess.CompletedProcess[str]:
            return command("notifications", *words, DARKROOM_URL=notifying.url)

        table = darkroom("--failed").stdout
        assert all(one in table for one in gone)
        assert "receiver_gone: 127.0.0.1" in table
        assert data(darkroom("--job", ids[0], "--json")) == listed(notifying, job=ids[0])
        for words, code in ((("--failed", "--since", "7d"), 2), (("--failed", "--dry-run"), 0)):
            before = darkroom("replay", *words)
            assert (before.returncode, len(listed(notifying, state="failed"))) == (code, 3)
        assert "3 notifications: 3 to 127.0.0.1" in before.stderr
        one = darkroom("replay", gone[0], f"{ids[0]}.9", "--json")
        assert (one.returncode, [again["id"] for again in data(one)["notifications"]]) == (1, [gone[0]])
        assert data(one)["refused"][0]["code"] == "not_found"
        assert settled(notifying, ids[0])["attempts"] == 1
        rest = darkroom("replay", "--failed", "--since", "7d", "--yes")
        assert (rest.returncode, "Sending 2 notifications again" in rest.stderr) == (0, True)
        assert [settled(notifying, job_id)["state"] for job_id in ids] == ["delivered"] * 3
    assert darkroom("replay").returncode == 2


def test_lists_are_paged_by_key(notifying: Live) -> None:
    with Application() as app:
        for _ in range(3):
            settled(notifying, notifying.make(IMAGEN, notify_url=app.url)["id"])
    every = [one["id"] for one in listed(notifying)]
    assert every == sorted(every, reverse=True)
    paged, path = [], "/v1/notifications?limit=2&since=1h"
    while path:
        answer = notifying.http.get(path)
        paged += [one["id"] for one in answer.json()["notifications"]]
        path = answer.links.get("next", {}).get("url", "")
    assert paged == every
    assert listed(notifying, since="2100-01-01") == []
    assert notifying.http.get("/v1/notifications", params={"cursor": "x"}).status_code == 422


def test_a_service_killed_after_it_sent_sends_again(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path: Path
) -> None:
    never, told = threading.Event(), list[Told]()
    with Application(Answer(until=never)) as app:
        notify = {"DARKROOM_NOTIFY__ALLOW_NETWORKS": "127.0.0.0/8", "DARKROOM_NOTIFY__URL": app.url}
        notify |= {"DARKROOM_NOTIFY__TIMEOUT": "1", "DARKROOM_WORKER__FIRST_POLL": "0.2"}
        variables = environment(s3_server, sandbox, tmp_path, free_port(), **notify)
        with serving(variables, tmp_path) as process:
            with httpx.Client(base_url=process.url, trust_env=False) as http:
                assert http.post("/v1/jobs", json=IMAGEN).status_code == 202
            told.append(app.next(30))
            process.child.kill()
        never.set()
        with serving(variables, tmp_path) as process:
            told.append(app.next(30))
            with httpx.Client(base_url=process.url, trust_env=False) as http:
                for _ in range(1000):
                    (one,) = http.get("/v1/notifications").json()["notifications"]
                    if one["state"] == "delivered":
                        break
                    threading.Event().wait(0.01)
        secret = command("notifications", "secret", DARKROOM_DATA_DIR=str(tmp_path / "data"))
        assert (told[0].id, told[0].body) == (told[1].id, told[1].body)
        assert told[1].verified(secret.stdout.strip())["type"] == "job.archived"
        assert (one["state"], one["attempts"]) == ("delivered", 1)
        log = process.log.read_text()
        assert secret.stdout.strip().removeprefix("whsec_") not in log
        assert "/hook" not in log
