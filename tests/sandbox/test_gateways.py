"""Each stand-in, used as the gateway's documents say: by a plain client, with our verifiers."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest

from receiver import signatures
from receiver.errors import BadSignature
from receiver.sandbox import SandboxServer
from receiver.sandbox.core.stand_in import StandIn
from receiver.sandbox.gateways import STAND_INS
from receiver.sandbox.gateways.kie import Kie
from receiver.signatures import Scheme, Signed, Verifier
from tests.support.recorder import CallbackReceiver, Received
from tests.support.sandbox import FAST, PROMPT

Read = tuple[str, list[Any]]
"""A word for the state, and the images."""
BFL_SECRET = "a-secret-of-this-request"
SLOW = replace(FAST, latency_s=(60, 60))


@dataclass(frozen=True)
class Spoken:
    """How one gateway is spoken to, by its documents."""

    key: Mapping[str, str]
    """The headers with the API key."""
    submit: Callable[[httpx.Client, str], httpx.Response]
    """Submits a job that is to call back at a URL."""
    job_id: Callable[[Any], str]
    """Reads the id in the response to that."""
    poll: Callable[[httpx.Client, str], httpx.Response]
    read: Callable[[Any], Read]
    """Reads a poll."""
    words: tuple[str, str]
    """Success and failure."""
    called: Callable[[Any], Read] | None = None
    """Reads a callback, where that differs from a poll."""
    scheme: Scheme | None = None
    accepted: int = 200
    cancel: Callable[[httpx.Client, str], httpx.Response] | None = None
    cancelled: str = ""


SPOKEN: dict[str, Spoken] = {
    "replicate": Spoken(
        key={"authorization": "Bearer KEY"},
        submit=lambda client, url: client.post(
            "/v1/predictions",
            json={
                "version": "black-forest-labs/flux-schnell",
                "input": {"prompt": PROMPT, "num_outputs": 2},
                "webhook": url,
                "webhook_events_filter": ["completed"],
            },
        ),
        job_id=lambda answer: answer["id"],
        poll=lambda client, job_id: client.get(f"/v1/predictions/{job_id}"),
        read=lambda body: (body["status"], body["output"] or []),
        words=("succeeded", "failed"),
        scheme=signatures.STANDARD,
        accepted=201,
        cancel=lambda client, job_id: client.post(f"/v1/predictions/{job_id}/cancel"),
        cancelled="canceled",
    ),
    "bfl": Spoken(
        key={"x-key": "KEY"},
        submit=lambda client, url: client.post(
            "/v1/flux-2-pro",
            json={"prompt": PROMPT, "seed": 7, "webhook_url": url, "webhook_secret": BFL_SECRET},
        ),
        job_id=lambda answer: answer["id"],
        poll=lambda client, job_id: client.get("/v1/get_result", params={"id": job_id}),
        read=lambda body: (body["status"], [body["result"]["sample"]] if body.get("result") else []),
        words=("Ready", "Error"),
        scheme=signatures.BFL,
    ),
    "wavespeed": Spoken(
        key={"authorization": "Bearer KEY"},
        submit=lambda client, url: client.post(
            "/api/v3/wavespeed-ai/flux-dev",
            params={"webhook": url},
            json={"prompt": PROMPT, "num_images": 2, "seed": -1},
        ),
        job_id=lambda answer: answer["data"]["id"],
        poll=lambda client, job_id: client.get(f"/api/v3/predictions/{job_id}/result"),
        read=lambda body: (body["data"]["status"], body["data"]["outputs"]),
        called=lambda body: (body["status"], body["outputs"]),
        words=("completed", "failed"),
        scheme=signatures.WAVESPEED,
    ),
    "bria": Spoken(
        key={"api_token": "KEY"},
        submit=lambda client, url: client.post(
            "/v2/image/generate", json={"prompt": PROMPT, "sync": False, "webhook_url": url}
        ),
        job_id=lambda answer: answer["request_id"],
        poll=lambda client, job_id: client.get(f"/v2/status/{job_id}"),
        read=lambda body: (body["status"], [body["result"]["image_url"]] if "result" in body else []),
        words=("COMPLETED", "ERROR"),
        scheme=signatures.BRIA,
        accepted=202,
    ),
    "kie": Spoken(
        key={"authorization": "Bearer KEY"},
        submit=lambda client, url: client.post(
            "/api/v1/jobs/createTask",
            json={
                "model": "google/imagen4-fast",
                "callBackUrl": url,
                "input": {"prompt": PROMPT, "num_images": "2", "seed": 7},
            },
        ),
        job_id=lambda answer: answer["data"]["taskId"],
        poll=lambda client, job_id: client.get("/api/v1/jobs/recordInfo", params={"taskId": job_id}),
        read=lambda body: (
            body["data"]["state"],
            json.loads(body["data"]["resultJson"] or '{"resultUrls": []}')["resultUrls"],
        ),
        words=("success", "fail"),
        scheme=signatures.KIE,
    ),
}


def stand_in(name: str) -> type[StandIn]:
    return next(one for one in STAND_INS if one.name == name)


each = pytest.mark.parametrize("name", SPOKEN)
signing = pytest.mark.parametrize("name", [name for name in SPOKEN if SPOKEN[name].scheme])


@pytest.fixture
def speaks(sandbox: SandboxServer, name: str) -> Iterator[httpx.Client]:
    with speaking(sandbox, name) as client:
        yield client


def speaking(sandbox: SandboxServer, name: str, kind: str = "sandbox") -> httpx.Client:
    key = f"{stand_in(name).key_prefix}_{kind}"
    headers = {header: value.replace("KEY", key) for header, value in SPOKEN[name].key.items()}
    return httpx.Client(base_url=sandbox.url, headers=headers, trust_env=False)


def submitted(client: httpx.Client, name: str, url: str, fault: str = "") -> str:
    spoken = SPOKEN[name]
    client.headers["x-sandbox-fault"] = fault
    answer = spoken.submit(client, url)
    assert answer.status_code == spoken.accepted, answer.text
    return spoken.job_id(answer.json())


def read_call(name: str, call: Received) -> Read:
    return (SPOKEN[name].called or SPOKEN[name].read)(call.json)


def verified(sandbox: SandboxServer, name: str, call: Received) -> Signed | None:
    """Verify a callback as a user would: with the secret that the settings have."""
    scheme = SPOKEN[name].scheme
    assert scheme is not None
    told = sandbox.settings()[name]
    key = {"bfl": BFL_SECRET, "bria": told["api_key"]}.get(name) or told["webhook_secrets"]
    task_id = call.json["data"]["taskId"] if name == "kie" else None
    return Verifier(scheme, [key]).verify(call.headers, call.body, time.time(), task_id=task_id)


@each
def test_a_job_is_told_by_callback_and_poll(
    sandbox: SandboxServer, speaks: httpx.Client, receiver: CallbackReceiver, name: str
) -> None:
    job_id = submitted(speaks, name, receiver.url)
    call = receiver.next()
    job = sandbox.wait(job_id)
    polled = SPOKEN[name].read(SPOKEN[name].poll(speaks, job_id).json())
    assert read_call(name, call) == polled == (SPOKEN[name].words[0], list(job.images))
    for n, link in enumerate(job.images):
        assert httpx.get(link, trust_env=False).content == sandbox.image_bytes(job_id, n)
    assert receiver.none_left()


@each
def test_a_failure_is_told_by_callback_and_poll(
    sandbox: SandboxServer, speaks: httpx.Client, receiver: CallbackReceiver, name: str
) -> None:
    job_id = submitted(speaks, name, receiver.url, "failed; message=too dark")
    call = receiver.next()
    sandbox.wait(job_id)
    polled = SPOKEN[name].poll(speaks, job_id)
    assert read_call(name, call) == (SPOKEN[name].words[1], [])
    assert SPOKEN[name].read(polled.json()) == (SPOKEN[name].words[1], [])
    assert "too dark" in call.body.decode()
    assert "too dark" in polled.text


@signing
def test_callbacks_are_signed(
    sandbox: SandboxServer, speaks: httpx.Client, receiver: CallbackReceiver, name: str
) -> None:
    submitted(speaks, name, receiver.url)
    signed = verified(sandbox, name, receiver.next())
    assert signed
    assert not signed.stale
    submitted(speaks, name, receiver.url, "unsigned")
    assert verified(sandbox, name, receiver.next()) is None
    submitted(speaks, name, receiver.url, "wrong_signature")
    with pytest.raises(BadSignature):
        verified(sandbox, name, receiver.next())


@pytest.mark.parametrize("name", [name for name in SPOKEN if "stale_signature" in stand_in(name).own_faults])
def test_signatures_can_be_stale(
    sandbox: SandboxServer, speaks: httpx.Client, receiver: CallbackReceiver, name: str
) -> None:
    submitted(speaks, name, receiver.url, "stale_signature")
    signed = verified(sandbox, name, receiver.next())
    assert signed
    assert signed.stale


def code(answer: httpx.Response) -> int:
    """The status, which some gateways have in the body."""
    return int(answer.json().get("code", answer.status_code))


@each
def test_keys_credits_and_bodies_are_checked(sandbox: SandboxServer, name: str) -> None:
    for kind, status in (("unknown", 401), ("inactive", 403)):
        with speaking(sandbox, name, kind) as client:
            assert SPOKEN[name].submit(client, "http://127.0.0.1:9/").status_code == status
            assert SPOKEN[name].poll(client, "unknown").status_code == status
    with speaking(sandbox, name, "poor") as client:
        codes = [code(SPOKEN[name].submit(client, "http://127.0.0.1:9/")) for _ in range(2)]
        assert codes[1] == 402
    with speaking(sandbox, name) as client:
        assert code(SPOKEN[name].submit(client, "no url at all")) in (400, 422)
        client.headers["x-sandbox-fault"] = "rate_limited; retry_after_s=7"
        answer = SPOKEN[name].submit(client, "http://127.0.0.1:9/")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")


@pytest.mark.parametrize("name", [name for name, spoken in SPOKEN.items() if spoken.cancel])
def test_a_job_can_be_cancelled(receiver: CallbackReceiver, name: str) -> None:
    cancel = SPOKEN[name].cancel
    assert cancel is not None
    with SandboxServer(SLOW) as sandbox, speaking(sandbox, name) as client:
        job_id = submitted(client, name, receiver.url)
        assert cancel(client, job_id).is_success
        assert sandbox.wait(job_id).status == "CANCELLED"
        assert SPOKEN[name].read(SPOKEN[name].poll(client, job_id).json())[0] == SPOKEN[name].cancelled


def replicate(client: httpx.Client, input_: dict[str, Any], **more: Any) -> Any:
    body = {"version": "black-forest-labs/flux-schnell", "input": {"prompt": PROMPT, **input_}, **more}
    return client.post("/v1/predictions", json=body).json()


class TestReplicate:
    name = "replicate"

    def test_data_is_removed_after_an_hour(self) -> None:
        now = [1_800_000_000.0]
        with (
            SandboxServer(replace(FAST, clock=lambda: now[0])) as sandbox,
            speaking(sandbox, self.name) as client,
        ):
            job_id = replicate(client, {})["id"]
            (link,) = sandbox.wait(job_id).images
            now[0] += 3600
            told = client.get(f"/v1/predictions/{job_id}").json()
            assert (told["status"], told["output"], told["data_removed"]) == ("succeeded", None, True)
            assert httpx.get(link, trust_env=False).status_code == 404
            job_id = replicate(client, {"sandbox": "data_removed"})["id"]
            sandbox.wait(job_id)
            assert client.get(f"/v1/predictions/{job_id}").json()["data_removed"] is True

    def test_events_asked_for_are_told(self, sandbox: SandboxServer, receiver: CallbackReceiver) -> None:
        with speaking(sandbox, self.name) as client:
            events = ["start", "output", "completed"]
            replicate(client, {}, webhook=receiver.url, webhook_events_filter=events)
            told = [receiver.next().json for _ in events]
            assert [one["status"] for one in told] == ["processing", "processing", "succeeded"]
            assert [one["output"] is None for one in told] == [True, False, False]

    def test_some_models_give_one_url(self, sandbox: SandboxServer) -> None:
        with speaking(sandbox, self.name) as client:
            url = "/v1/models/google/imagen-4/predictions"
            job_id = client.post(url, json={"input": {"prompt": PROMPT, "seed": 3}}).json()["id"]
            (link,) = sandbox.wait(job_id).images
            told = client.get(f"/v1/predictions/{job_id}").json()
            assert (told["model"], told["output"]) == ("google/imagen-4", link)

    def test_list_and_secret(self) -> None:
        with SandboxServer(FAST) as sandbox, speaking(sandbox, self.name) as client:
            ids = [replicate(client, {"seed": n})["id"] for n in range(101)]
            first = client.get("/v1/predictions").json()
            second = client.get(first["next"]).json()
            listed = [one["id"] for one in (*first["results"], *second["results"])]
            assert (listed, second["next"]) == (ids[::-1], None)
            secret = client.get("/v1/webhooks/default/secret").json()["key"]
            assert secret == sandbox.settings()["replicate"]["webhook_secrets"]


class TestBlackForestLabs:
    name = "bfl"

    def test_without_a_webhook_there_is_a_polling_url(self, sandbox: SandboxServer) -> None:
        with speaking(sandbox, self.name) as client:
            told = client.post("/v1/flux-kontext-pro", json={"prompt": PROMPT, "aspect_ratio": "16:9"}).json()
            sandbox.wait(told["id"])
            found = client.get(told["polling_url"]).json()
            assert isinstance(found["result"]["seed"], int)
            assert "polling_url" not in SPOKEN[self.name].submit(client, "http://127.0.0.1:9/").json()

    def test_what_it_does_not_know(self, sandbox: SandboxServer) -> None:
        with speaking(sandbox, self.name) as client:
            told = client.get("/v1/get_result?id=x").json()
            assert told == {"id": "x", "status": "Task not found", "result": None}
            answer = client.post("/v1/flux-2-pro", json={"prompt": PROMPT, "aspect_ratio": "1:1"})
            assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "aspect_ratio"])


class TestKie:
    name = "kie"

    def test_its_own_faults(self, sandbox: SandboxServer, receiver: CallbackReceiver) -> None:
        with speaking(sandbox, self.name) as client:
            client.headers["x-sandbox-fault"] = "in_maintenance"
            answers = [SPOKEN[self.name].submit(client, receiver.url) for _ in range(2)]
            assert [(one.status_code, one.json()["code"]) for one in answers] == [(200, 455), (200, 200)]
            receiver.next()
            submitted(client, self.name, receiver.url, "bad_result")
            with pytest.raises(json.JSONDecodeError):
                json.loads(receiver.next().json["data"]["resultJson"])

    def test_failures_have_a_code(self, sandbox: SandboxServer, receiver: CallbackReceiver) -> None:
        with speaking(sandbox, self.name) as client:
            submitted(client, self.name, receiver.url, "failed")
            assert receiver.next().json["code"] == 501

    def test_it_need_not_sign(self, receiver: CallbackReceiver) -> None:
        with (
            SandboxServer(FAST, gateways=[Kie(signs=False)]) as sandbox,
            speaking(sandbox, self.name) as client,
        ):
            submitted(client, self.name, receiver.url)
            assert "x-webhook-signature" not in receiver.next().headers
