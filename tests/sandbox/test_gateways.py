"""Each stand-in, used as the gateway's documents say: by a plain client, with our verifiers."""

import base64
import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest

from receiver import signatures
from receiver.errors import BadSignature
from receiver.gateways.registry import BY_NAME
from receiver.sandbox import SandboxServer
from receiver.sandbox.core.signing import four_lines, jwk
from receiver.sandbox.core.stand_in import StandIn
from receiver.sandbox.gateways import NAMES, STAND_INS
from receiver.sandbox.gateways.kie import Kie
from receiver.sandbox.gateways.magnific import Magnific
from receiver.signatures import KEY_SCHEMES, Scheme, Signed, Verifier, public_keys
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
    tells_failures: bool = True
    progress: int = 0
    """How many callbacks come before the last one."""


def urls(output: Any) -> list[Any]:
    """Read the images of fal's output."""
    return [image["url"] for image in output.get("images", ())]


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
    "fal": Spoken(
        key={"authorization": "Key KEY"},
        submit=lambda client, url: client.post(
            "/fal-ai/flux/dev", params={"fal_webhook": url}, json={"prompt": PROMPT, "num_images": 2}
        ),
        job_id=lambda answer: answer["request_id"],
        poll=lambda client, job_id: client.get(f"/fal-ai/flux/requests/{job_id}"),
        read=lambda body: ("OK" if "images" in body else "ERROR", urls(body)),
        called=lambda body: (body["status"], urls(body["payload"])),
        words=("OK", "ERROR"),
        cancel=lambda client, job_id: client.put(f"/fal-ai/flux/requests/{job_id}/cancel"),
        cancelled="ERROR",
    ),
    "ideogram": Spoken(
        key={"api-key": "KEY"},
        submit=lambda client, url: client.post(
            "/v1/ideogram-v4/async/generate",
            params={"webhook_url": url},
            files={"text_prompt": (None, PROMPT), "resolution": (None, "2560x1440")},
        ),
        job_id=lambda answer: answer["generation_id"],
        poll=lambda client, job_id: client.get(f"/v1/generations/{job_id}"),
        read=lambda body: (body["status"], [one["url"] for one in body.get("data", ())]),
        called=lambda body: ("completed", [one["url"] for one in body["data"]]),
        words=("completed", "failed"),
        tells_failures=False,
    ),
    "runware": Spoken(
        key={"authorization": "Bearer KEY"},
        submit=lambda client, url: client.post(
            "/v1",
            json=[
                {
                    "taskType": "imageInference",
                    "taskUUID": str(uuid.uuid4()),
                    "model": "runware:101@1",
                    "positivePrompt": PROMPT,
                    "numberResults": 1,
                    "deliveryMethod": "async",
                    "webhookURL": url,
                }
            ],
        ),
        job_id=lambda answer: answer["data"][0]["taskUUID"],
        poll=lambda client, job_id: client.post(
            "/v1", json=[{"taskType": "getResponse", "taskUUID": job_id}]
        ),
        read=lambda body: (
            "error" if body.get("errors") else body["data"][0]["status"],
            [one["imageURL"] for one in body.get("data", ())],
        ),
        words=("success", "error"),
    ),
    "magnific": Spoken(
        key={"x-magnific-api-key": "KEY"},
        submit=lambda client, url: client.post(
            "/v1/ai/mystic",
            json={"prompt": PROMPT, "aspect_ratio": "widescreen_16_9", "webhook_url": url},
        ),
        job_id=lambda answer: answer["data"]["task_id"],
        poll=lambda client, job_id: client.get(f"/v1/ai/mystic/{job_id}"),
        read=lambda body: (body["data"]["status"], body["data"]["generated"]),
        called=lambda body: (body["status"], body["generated"]),
        words=("COMPLETED", "FAILED"),
        scheme=signatures.FREEPIK,
        progress=2,
    ),
    "runpod": Spoken(
        key={"authorization": "Bearer KEY"},
        submit=lambda client, url: client.post(
            "/v2/an-endpoint/run",
            json={"input": {"prompt": PROMPT, "num_images": 2}, "webhook": url, "s3Config": {}},
        ),
        job_id=lambda answer: answer["id"],
        poll=lambda client, job_id: client.get(f"/v2/an-endpoint/status/{job_id}"),
        read=lambda body: (
            body["status"],
            [image["data"] for image in body.get("output", {}).get("images", ())],
        ),
        words=("COMPLETED", "FAILED"),
        cancel=lambda client, job_id: client.post(f"/v2/an-endpoint/cancel/{job_id}"),
        cancelled="CANCELLED",
    ),
}


def stand_in(name: str) -> type[StandIn]:
    return next(one for one in STAND_INS if one.name == name)


each = pytest.mark.parametrize("name", SPOKEN)
signing = pytest.mark.parametrize(
    "name", [name for name in SPOKEN if "unsigned" in stand_in(name).own_faults]
)


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


def last_call(receiver: CallbackReceiver, name: str) -> Received:
    for _ in range(SPOKEN[name].progress):
        receiver.next()
    return receiver.next()


def read_call(name: str, call: Received) -> Read:
    return (SPOKEN[name].called or SPOKEN[name].read)(call.json)


def verified(sandbox: SandboxServer, name: str, call: Received) -> Signed | None:
    """Verify a callback as a user would: with the secret that the settings have."""
    scheme, told = SPOKEN[name].scheme, sandbox.settings()[name]
    if scheme is None:
        keys = public_keys(httpx.get(told["keys_url"], trust_env=False).json())
        return KEY_SCHEMES[name].verify(call.headers, call.body, time.time(), keys)
    key = {"bfl": BFL_SECRET, "bria": told["api_key"]}.get(name) or told["webhook_secrets"]
    task_id = call.json["data"]["taskId"] if name == "kie" else None
    return Verifier(scheme, [key]).verify(call.headers, call.body, time.time(), task_id=task_id)


def test_every_gateway_has_a_stand_in() -> None:
    assert set(BY_NAME) <= set(NAMES)


@each
def test_a_job_is_told_by_callback_and_poll(
    sandbox: SandboxServer, speaks: httpx.Client, receiver: CallbackReceiver, name: str
) -> None:
    job_id = submitted(speaks, name, receiver.url)
    call = last_call(receiver, name)
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
    sandbox.wait(job_id)
    polled = SPOKEN[name].poll(speaks, job_id)
    assert SPOKEN[name].read(polled.json()) == (SPOKEN[name].words[1], [])
    assert "too dark" in polled.text
    if SPOKEN[name].tells_failures:
        call = last_call(receiver, name)
        assert read_call(name, call) == (SPOKEN[name].words[1], [])
        assert "too dark" in call.body.decode()
    assert receiver.none_left()


@signing
def test_callbacks_are_signed(
    sandbox: SandboxServer, speaks: httpx.Client, receiver: CallbackReceiver, name: str
) -> None:
    submitted(speaks, name, receiver.url)
    signed = verified(sandbox, name, last_call(receiver, name))
    assert signed
    assert not signed.stale
    submitted(speaks, name, receiver.url, "unsigned")
    assert verified(sandbox, name, last_call(receiver, name)) is None
    submitted(speaks, name, receiver.url, "wrong_signature")
    with pytest.raises(BadSignature):
        verified(sandbox, name, last_call(receiver, name))


@pytest.mark.parametrize("name", [name for name in SPOKEN if "stale_signature" in stand_in(name).own_faults])
def test_signatures_can_be_stale(
    sandbox: SandboxServer, speaks: httpx.Client, receiver: CallbackReceiver, name: str
) -> None:
    submitted(speaks, name, receiver.url, "stale_signature")
    signed = verified(sandbox, name, last_call(receiver, name))
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


@pytest.mark.parametrize(
    ("first", "signature"),
    [
        (
            "req-1",
            "87854697ad095fbafd76289d6ec10d4edf0596f6bd77b59dc7aafee3548d0e86"
            "768dc5bebda39abccd1780305f5330d19386d8be42b3f86262b9ed3f8f80a100",
        ),
        (
            "gen-1",
            "1f807e51cd17d2202c8a3c5023ac4096b7f99817feae263c895531e7d4178b3f"
            "9c65e5059c31de9beee530c522df108e55c6ee0906cebeb96fa1cb5d39279d01",
        ),
    ],
)
def test_four_lines_are_signed_as_known(first: str, signature: str) -> None:
    key, body = bytes(range(32)), b'{"hello":"world"}'
    assert four_lines(key, first, "user-1", 1763769600, body) == signature
    assert jwk(key)["x"] == "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"


class TestFal:
    name = "fal"

    def test_a_poll_takes_two_steps(self) -> None:
        with SandboxServer(SLOW) as sandbox, speaking(sandbox, self.name) as client:
            told = SPOKEN[self.name].submit(client, "http://127.0.0.1:9/").json()
            answer = client.get(told["status_url"])
            assert (answer.status_code, answer.json()["status"]) == (202, "IN_PROGRESS")
            assert client.get(told["response_url"]).status_code == 400
            assert client.get(told["response_url"].replace("/flux/", "/flux/dev/")).status_code == 404
            client.put(told["cancel_url"])
            answer = client.get(told["status_url"])
            assert (answer.status_code, answer.json()["status"]) == (200, "COMPLETED")
            assert answer.json()["error"]
            assert client.put(told["cancel_url"]).json() == {"status": "ALREADY_COMPLETED"}
            assert client.put("/fal-ai/flux/requests/x/cancel").json() == {"status": "NOT_FOUND"}

    def test_routes_of_a_request_have_the_first_parts_of_its_model(self, sandbox: SandboxServer) -> None:
        with speaking(sandbox, self.name) as client:
            told = client.post("/workflows/me/flow/v2", json={"prompt": PROMPT}).json()
            assert told["response_url"] == f"{sandbox.url}/workflows/me/flow/requests/{told['request_id']}"
            link = sandbox.wait(told["request_id"]).images[0]
            told = client.post("/fal-ai/clarity-upscaler", json={"image_url": link}).json()
            (link,) = sandbox.wait(told["request_id"]).images
            assert client.get(told["response_url"]).json()["image"]["url"] == link

    def test_a_failure_has_the_model_s_own_status(self, sandbox: SandboxServer) -> None:
        with speaking(sandbox, self.name) as client:
            job_id = submitted(client, self.name, "http://127.0.0.1:9/", "failed+no_callback; message=no")
            sandbox.wait(job_id)
            answer = SPOKEN[self.name].poll(client, job_id)
            assert (answer.status_code, answer.json()["detail"][0]["msg"]) == (422, "no")

    def test_a_new_key_is_published_once_it_is_used(self, receiver: CallbackReceiver) -> None:
        with SandboxServer(FAST) as sandbox, speaking(sandbox, self.name) as client:
            keys_url = sandbox.settings()[self.name]["keys_url"]
            assert len(httpx.get(keys_url, trust_env=False).json()["keys"]) == 1
            submitted(client, self.name, receiver.url, "rotated_key")
            signed = verified(sandbox, self.name, receiver.next())
            assert signed
            assert signed.key_index == 1

    def test_its_own_faults(self, sandbox: SandboxServer, receiver: CallbackReceiver) -> None:
        with speaking(sandbox, self.name) as client:
            job_id = submitted(client, self.name, receiver.url, "retried_inside+payload_error")
            told = receiver.next().json
            assert told["request_id"] == job_id != told["gateway_request_id"]
            assert (told["status"], told["payload"]) == ("OK", None)
            assert told["payload_error"]


class TestIdeogram:
    name = "ideogram"

    def test_its_own_faults(self, sandbox: SandboxServer, receiver: CallbackReceiver) -> None:
        with speaking(sandbox, self.name) as client:
            submitted(client, self.name, receiver.url, "unsafe_image+changed_prompt")
            (image,) = receiver.next().json["data"]
            assert (image["is_image_safe"], image["url"]) == (False, None)
            assert image["prompt"] != PROMPT

    @pytest.mark.parametrize(
        ("url", "fields"),
        [
            ("http://archive.example/", {}),
            ("http://127.0.0.1/", {"rendering_speed": "FLASH"}),
            ("http://127.0.0.1/", {"seed": "7"}),
        ],
    )
    def test_what_it_refuses(self, sandbox: SandboxServer, url: str, fields: dict[str, str]) -> None:
        form = {name: (None, value) for name, value in {"text_prompt": PROMPT, **fields}.items()}
        path = "/v1/ideogram-v4/async/generate"
        with speaking(sandbox, self.name) as client:
            assert client.post(path, params={"webhook_url": url}, files=form).status_code == 400
            assert client.post(path, params={"webhook_url": url}, json={}).status_code == 400


class TestRunware:
    name = "runware"

    @pytest.mark.parametrize(
        ("fault", "images", "errors"), [("", 3, 0), ("item_error", 2, 1), ("missing_image", 2, 0)]
    )
    def test_each_image_has_a_callback(
        self, sandbox: SandboxServer, receiver: CallbackReceiver, fault: str, images: int, errors: int
    ) -> None:
        task = {
            "taskType": "imageInference",
            "taskUUID": str(uuid.uuid4()),
            "model": "runware:101@1",
            "positivePrompt": PROMPT,
            "numberResults": 3,
            "deliveryMethod": "async",
            "webhookURL": receiver.url,
        }
        with speaking(sandbox, self.name) as client:
            client.headers["x-sandbox-fault"] = fault
            assert client.post("/v1", json=[task]).status_code == 200
            calls = [receiver.next().json for _ in range(images + errors)]
            named = [item["imageUUID"] for call in calls for item in call.get("data", ())]
            assert len(set(named)) == images
            assert sum("errors" in call for call in calls) == errors
            sandbox.wait(str(task["taskUUID"]))
            polled = SPOKEN[self.name].poll(client, str(task["taskUUID"])).json()
            assert {item["imageUUID"] for item in polled["data"]} == set(named)
            assert ("errors" in polled) == bool(errors)
            answer = client.post("/v1", json=[task])
            assert (answer.status_code, answer.json()["errors"][0]["parameter"]) == (400, ["taskUUID"])
            assert receiver.none_left()


class TestMagnific:
    name = "magnific"

    def test_changes_are_told_in_turn(self, sandbox: SandboxServer, receiver: CallbackReceiver) -> None:
        with speaking(sandbox, self.name) as client:
            submitted(client, self.name, receiver.url, "task_status")
            told = [receiver.next().json["task_status"] for _ in range(3)]
            assert told == ["CREATED", "IN_PROGRESS", "COMPLETED"]

    def test_the_key_may_be_the_decoded_secret(self, receiver: CallbackReceiver) -> None:
        with (
            SandboxServer(FAST, gateways=[Magnific(key_form="base64")]) as sandbox,
            speaking(sandbox, self.name) as client,
        ):
            submitted(client, self.name, receiver.url)
            secret = sandbox.settings()[self.name]["webhook_secrets"]
            call = last_call(receiver, self.name)
            assert Verifier(signatures.FREEPIK, [secret]).verify(call.headers, call.body, time.time())


class TestRunPod:
    name = "runpod"
    body: Mapping[str, Any] = {"input": {"prompt": PROMPT, "num_images": 2}}

    def test_images_are_in_the_answers(self, sandbox: SandboxServer, receiver: CallbackReceiver) -> None:
        with speaking(sandbox, self.name) as client:
            client.headers["x-sandbox-fault"] = "output_errors; message=out of memory"
            job_id = client.post("/v2/x/run", json={**self.body, "webhook": receiver.url}).json()["id"]
            told = receiver.next().json
            (image,) = told["output"]["images"]
            assert (image["type"], told["output"]["errors"]) == ("base64", ["out of memory"])
            assert base64.b64decode(image["data"]) == sandbox.image_bytes(job_id)
            assert SPOKEN[self.name].poll(client, job_id).json() == told

    def test_a_job_is_kept_for_half_an_hour(self) -> None:
        now = [1_800_000_000.0]
        with (
            SandboxServer(replace(FAST, clock=lambda: now[0])) as sandbox,
            speaking(sandbox, self.name) as client,
        ):
            job_id = client.post("/v2/x/run", json=self.body).json()["id"]
            sandbox.wait(job_id)
            assert SPOKEN[self.name].poll(client, job_id).status_code == 200
            now[0] += 1800
            assert SPOKEN[self.name].poll(client, job_id).status_code == 404


EDITS: dict[str, Callable[[httpx.Client, str], httpx.Response]] = {
    "replicate": lambda client, image: client.post(
        "/v1/predictions", json={"version": "a/upscaler", "input": {"image": image}}
    ),
    "bfl": lambda client, image: client.post(
        "/v1/flux-kontext-pro", json={"prompt": "a hat", "input_image": image}
    ),
    "wavespeed": lambda client, image: client.post("/api/v3/wavespeed-ai/upscaler", json={"image": image}),
    "bria": lambda client, image: client.post("/v2/image/edit/remove_background", json={"image": image}),
    "kie": lambda client, image: client.post(
        "/api/v1/jobs/createTask",
        json={"model": "recraft/crisp-upscale", "input": {"image": image}},
    ),
    "fal": lambda client, image: client.post("/fal-ai/clarity-upscaler", json={"image_url": image}),
    "runware": lambda client, image: client.post(
        "/v1",
        json=[
            {
                "taskType": "removeBackground",
                "taskUUID": str(uuid.uuid4()),
                "model": "runware:109@1",
                "inputImage": image,
                "deliveryMethod": "async",
            }
        ],
    ),
    "magnific": lambda client, image: client.post("/v1/ai/image-upscaler", json={"image": image}),
}


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("form", ["link", "base64"])
def test_images_are_made_of_images(sandbox: SandboxServer, name: str, form: str) -> None:
    with speaking(sandbox, name) as client:
        first = submitted(client, name, "http://127.0.0.1:9/", "no_callback")
        (link, *_) = sandbox.wait(first).images
        picture = sandbox.image_bytes(first)
        answer = EDITS[name](client, link if form == "link" else base64.b64encode(picture).decode())
        assert answer.is_success, answer.text
        job = sandbox.wait(SPOKEN[name].job_id(answer.json()))
        assert (job.status, job.inputs) == ("COMPLETED", (hashlib.sha256(picture).hexdigest(),))
        refused = EDITS[name](client, "http://127.0.0.1:9/")
        assert code(refused) in (400, 422), refused.text
