"""The callbacks of the sandbox's Apiframe."""

from dataclasses import replace
from typing import Any

import httpx
import pytest

from receiver.sandbox import Account, SandboxServer
from receiver.sandbox.gateways.apiframe import Apiframe
from tests.support.recorder import CallbackReceiver
from tests.support.sandbox import FAST, PROMPT, apiframe_signature, connect, credits_of, take


def test_a_failed_job_costs_nothing(receiver: CallbackReceiver) -> None:
    config = replace(FAST, accounts=(Account("afk_one", "apiframe", credits=4),))
    with SandboxServer(config) as sandbox, connect(sandbox) as client:
        key = {"x-api-key": "afk_one"}
        wish = {"sandbox": {"fault": "failed", "message": "no"}}
        job_id = take(client, key, webhookUrl=receiver.url, imagenParams=wish)
        assert receiver.next().json == {
            "event": "failed",
            "jobId": job_id,
            "status": "FAILED",
            "error": "no",
            "model": "imagen-4-fast",
        }
        job = client.get(f"/v2/jobs/{job_id}", headers=key).json()
        assert (job["status"], job["error"], job["creditCost"]) == ("FAILED", "no", 0)
        assert (job["result"], job["input"]) == (None, {"prompt": PROMPT})
        assert credits_of(sandbox, "afk_one") == 4


def test_progress_and_completion_are_told_in_order(
    sandbox: SandboxServer, client: httpx.Client, receiver: CallbackReceiver
) -> None:
    events = ["progress", "completed", "failed"]
    job_id = take(client, webhookUrl=f"{receiver.url}?a=1", webhookEvents=events)
    callbacks = [receiver.next() for _ in range(4)]
    assert [call.headers["x-webhook-event"] for call in callbacks] == ["progress"] * 3 + ["completed"]
    assert callbacks[0].path == "/callbacks/token?a=1"
    assert callbacks[0].json == {
        "event": "progress",
        "jobId": job_id,
        "status": "PROCESSING",
        "progress": 10,
        "model": "imagen-4-fast",
    }
    last = callbacks[-1].json
    assert last.pop("completedAt").endswith("Z")
    assert last == {
        "event": "completed",
        "jobId": job_id,
        "status": "COMPLETED",
        "progress": 100,
        "result": {"images": [f"{sandbox.url}/images/{job_id}/0.jpg"]},
        "model": "imagen-4-fast",
        "creditCost": 4,
    }
    assert sandbox.wait(job_id).webhook_status == "delivered"


def test_only_the_events_asked_for_are_sent(
    sandbox: SandboxServer, client: httpx.Client, receiver: CallbackReceiver
) -> None:
    job = sandbox.wait(take(client, webhookUrl=receiver.url, webhookEvents=["failed"]))
    assert (job.status, job.webhook_status, job.callbacks) == ("COMPLETED", "pending", ())


@pytest.mark.parametrize("form", ["raw", "hex"])
def test_callbacks_are_signed_over_the_raw_body(receiver: CallbackReceiver, form: Any) -> None:
    with (
        SandboxServer(FAST, gateways=[Apiframe(signature_key=form)]) as sandbox,
        connect(sandbox, x_api_key="afk_sandbox") as client,
    ):
        take(client, webhookUrl=receiver.url)
        call = receiver.next()
    assert call.headers["x-webhook-signature"] == apiframe_signature(call.body, "afk_sandbox", form)


def test_signing_can_be_off_and_results_bare(receiver: CallbackReceiver) -> None:
    config = replace(FAST, public_url="https://cdn.example/")
    apiframe = Apiframe(signature_key="none", bare_result=True)
    with SandboxServer(config, gateways=[apiframe]) as sandbox, connect(sandbox) as client:
        job_id = take(client, {"x-api-key": "afk_sandbox"}, webhookUrl=receiver.url)
        call = receiver.next()
    assert "x-webhook-signature" not in call.headers
    assert call.json["result"] == f"https://cdn.example/images/{job_id}/0.jpg"


@pytest.mark.parametrize(
    ("statuses", "sent", "verdict"),
    [
        ([500, 204], [500, 204], "delivered"),
        ([500, 404, 503], [500, 404, 503], "failed"),
        ([301, 307], [301, 307, 200], "delivered"),
    ],
)
def test_callbacks_are_retried_and_never_redirected(
    sandbox: SandboxServer, client: httpx.Client, statuses: list[int], sent: list[int], verdict: str
) -> None:
    with CallbackReceiver(*statuses) as receiver:
        job = sandbox.wait(take(client, webhookUrl=receiver.url))
        paths = {receiver.next().path for _ in sent}
    assert [call.status for call in job.callbacks] == sent
    assert [call.attempt for call in job.callbacks] == list(range(1, len(sent) + 1))
    assert job.webhook_status == verdict
    assert paths == {"/callbacks/token"}


def test_a_receiver_that_is_not_there_is_written_down(sandbox: SandboxServer, client: httpx.Client) -> None:
    job = sandbox.wait(take(client, webhookUrl="http://127.0.0.1:9/"))
    assert [(call.status, call.problem) for call in job.callbacks] == [(None, "ConnectError")] * 3
    assert job.webhook_status == "failed"
