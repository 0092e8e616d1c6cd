"""The vendors' own SDKs, in the versions of the extra `peers`, as clients of the sandbox.

What they send and accept is theirs, not what we have read of them. Each test is skipped where its package is
not installed.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from receiver.sandbox import SandboxServer
from tests.support.recorder import CallbackReceiver
from tests.support.sandbox import FAST, PROMPT

SLOW = replace(FAST, latency_s=(60, 60))

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.exhaustive,
]


@pytest.fixture
def slow() -> Iterator[SandboxServer]:
    """A sandbox whose jobs do not end by themselves."""
    with SandboxServer(SLOW) as server:
        yield server


def test_replicate(sandbox: SandboxServer, slow: SandboxServer, receiver: CallbackReceiver) -> None:
    peer: Any = pytest.importorskip("replicate")
    client = peer.Client(api_token="r8_sandbox", base_url=sandbox.url)
    made = client.predictions.create(
        version="black-forest-labs/flux-schnell",
        input={"prompt": PROMPT, "num_outputs": 2},
        webhook=receiver.url,
        webhook_events_filter=["completed"],
    )
    call = receiver.next()
    secret = client.webhooks.default.secret()
    peer.webhook.Webhooks.validate(headers=call.headers, body=call.body.decode(), secret=secret)
    made.reload()
    assert (made.status, made.output) == ("succeeded", list(sandbox.wait(made.id).images))
    one = client.models.predictions.create("google/imagen-4", input={"prompt": PROMPT})
    one.wait()
    assert [one.id, made.id] == [each.id for each in client.predictions.list().results][:2]
    client = peer.Client(api_token="r8_sandbox", base_url=slow.url)
    made = client.predictions.create(version="a/b", input={"prompt": PROMPT})
    made.cancel()
    assert made.status == "canceled"
    with pytest.raises(peer.exceptions.ReplicateError) as caught:
        peer.Client(api_token="wrong", base_url=slow.url).predictions.get("x")
    assert caught.value.status == 401


def test_fal(
    sandbox: SandboxServer, slow: SandboxServer, receiver: CallbackReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer: Any = pytest.importorskip("fal_client")
    # Its own setting is a host only, behind https.
    monkeypatch.setattr(peer.client, "QUEUE_URL_FORMAT", f"{sandbox.url}/")
    client = peer.SyncClient(key="fal_sandbox")
    handle = client.submit("fal-ai/flux/dev", {"prompt": PROMPT}, webhook_url=receiver.url)
    assert receiver.next().json["request_id"] == handle.request_id
    result = handle.get()
    assert isinstance(handle.status(), peer.Completed)
    assert [image["url"] for image in result["images"]] == list(sandbox.wait(handle.request_id).images)
    failed = client.submit("fal-ai/flux/dev", {"prompt": PROMPT, "sandbox": "failed"})
    with pytest.raises(peer.client.FalClientHTTPError):
        failed.get()
    monkeypatch.setattr(peer.client, "QUEUE_URL_FORMAT", f"{slow.url}/")
    handle = peer.SyncClient(key="fal_sandbox").submit("fal-ai/flux/dev", {"prompt": PROMPT})
    assert isinstance(handle.status(), peer.InProgress)
    handle.cancel()
    assert slow.wait(handle.request_id).status == "CANCELLED"


def test_wavespeed(sandbox: SandboxServer, receiver: CallbackReceiver) -> None:
    peer: Any = pytest.importorskip("wavespeed")
    client = peer.Client(api_key="ws_sandbox", base_url=sandbox.url)
    model = f"wavespeed-ai/flux-dev?webhook={receiver.url}"
    found = client.run(model, {"prompt": PROMPT, "num_images": 2})
    call = receiver.next().json
    assert found["outputs"] == call["outputs"] == list(sandbox.wait(call["id"]).images)


def test_bria(sandbox: SandboxServer, receiver: CallbackReceiver) -> None:
    peer: Any = pytest.importorskip("bria_client")
    verify = pytest.importorskip("bria_client.toolkit").verify_webhook_signature
    client = peer.BriaSyncClient(base_url=sandbox.url, api_token="bria_sandbox")
    sent = client.submit("image/generate", {"prompt": PROMPT}, webhook_url=receiver.url)
    call = receiver.next()
    signed = [call.headers[f"bria-webhook-{name}"] for name in ("id", "timestamp", "signature")]
    assert verify(call.body, *signed, "bria_sandbox")
    assert not verify(call.body + b" ", *signed, "bria_sandbox")
    found = client.poll(sent)
    assert found.result.image_url == sandbox.wait(sent.request_id).images[0]


def test_runware(sandbox: SandboxServer) -> None:
    peer: Any = pytest.importorskip("runware")

    async def run() -> Any:
        client = peer.Runware(api_key="rw_sandbox", transport="rest", http_base_url=f"{sandbox.url}/v1")
        try:
            return await client.run(
                {
                    "taskType": "imageInference",
                    "model": "runware:101@1",
                    "positivePrompt": PROMPT,
                    "numberResults": 2,
                }
            )
        finally:
            await client.close()

    found = asyncio.run(run())
    assert [one["imageURL"] for one in found] == list(sandbox.wait(found[0]["taskUUID"]).images)


def test_runpod(sandbox: SandboxServer, slow: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    peer: Any = pytest.importorskip("runpod")
    monkeypatch.setattr(peer, "api_key", "rpa_sandbox")
    monkeypatch.setattr(peer, "endpoint_url_base", f"{sandbox.url}/v2")
    job = peer.Endpoint("an-endpoint").run({"input": {"prompt": PROMPT}})
    (image,) = job.output(timeout=10)["images"]
    assert image["type"] == "base64"
    monkeypatch.setattr(peer, "endpoint_url_base", f"{slow.url}/v2")
    job = peer.Endpoint("an-endpoint").run({"input": {"prompt": PROMPT}})
    job.cancel()
    assert slow.wait(job.job_id).status == "CANCELLED"
