import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from receiver.errors import (
    BadSignature,
    GarbledAnswer,
    GatewayError,
    GatewayRefused,
    GatewayUnauthorized,
    SettingsError,
)
from receiver.gateways.apiframe import TABLE, Apiframe
from receiver.gateways.base import State
from receiver.gateways.table import Signing
from storage.models import JobRequest, Verdict
from tests.support.gateway_samples import a_job, adapter
from tests.unit.test_signatures import APIFRAME_HEX, APIFRAME_RAW, BODY_A

CALLBACK = "https://archive.example/callbacks/apiframe/token"
GATEWAY = adapter(Apiframe, "afk_test_key")


def asked(**fields: Any) -> JobRequest:
    return JobRequest(**{"model": "imagen-4-fast", "prompt": "a red kite", **fields})


def body_of(callback_url: str | None = None, gateway: Apiframe = GATEWAY, **request: Any) -> Any:
    return json.loads(gateway.submit_request(a_job(**request), callback_url).content)


def verify(gateway: Apiframe, headers: dict[str, str], body: bytes = BODY_A) -> Verdict:
    return gateway.verify(headers, body, now_s=0)


def test_a_submission_has_apiframes_words() -> None:
    job = a_job(aspect_ratio="16:9", params={"image_size": "2K", "sandbox": {"fault": "late"}})
    request = GATEWAY.submit_request(job, CALLBACK)
    assert (request.method, str(request.url)) == ("POST", "https://api.apiframe.ai/v2/images/generate")
    assert request.headers["x-api-key"] == "afk_test_key"
    assert request.headers["idempotency-key"] == job.id
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.content) == {
        "model": "imagen-4-fast",
        "prompt": "a red kite",
        "webhookUrl": CALLBACK,
        "webhookEvents": ["completed", "failed"],
        "imagenParams": {"image_size": "2K", "sandbox": {"fault": "late"}, "aspect_ratio": "16:9"},
    }


def test_callback_field_and_address_are_settings() -> None:
    gateway = adapter(Apiframe, "afk_test_key", base_url="http://127.0.0.1:9/", callback_field="webhook_url")
    assert gateway.submit_request(a_job(), CALLBACK).url == "http://127.0.0.1:9/v2/images/generate"
    body = body_of(CALLBACK, gateway)
    assert body["webhook_url"] == CALLBACK
    assert "webhookUrl" not in body
    assert body_of() == {"model": "imagen-4-fast", "prompt": "a red kite"}, "no callback, no events"


@pytest.mark.parametrize(
    ("request_fields", "block"),
    [
        ({"model": "flux-2-pro", "seed": "9007199254740993"}, {"fluxParams": {"seed": 9007199254740993}}),
        ({"model": "kling-image", "num_images": 3}, {"klingImageParams": {"n": 3}}),
        ({"model": "gpt-image-2", "num_images": 2}, {"gptImage2Params": {"number_of_images": 2}}),
        ({"model": "qwen-image", "negative_prompt": "fog"}, {"qwenImageParams": {"negative_prompt": "fog"}}),
        ({"model": "imagen-4", "num_images": 1}, {}),
        ({"model": "imagen-4", "seed": "7", "ignored": ("seed",)}, {}),
        ({"model": "brand-new", "params": {"newParams": {"seed": 7}}}, {"newParams": {"seed": 7}}),
        ({"model": "brand-new"}, {}),
    ],
)
def test_each_model_has_its_own_block(request_fields: dict[str, Any], block: dict[str, Any]) -> None:
    body = body_of(**request_fields)
    assert {name: value for name, value in body.items() if name not in ("model", "prompt")} == block
    assert body["model"] == request_fields["model"]


def test_params_never_replace_what_darkroom_sends() -> None:
    body = body_of(CALLBACK, model="brand-new", params={"prompt": "x", "webhookUrl": "https://evil.example/"})
    assert (body["prompt"], body["webhookUrl"]) == ("a red kite", CALLBACK)


@pytest.mark.parametrize(
    ("request_fields", "names"),
    [
        ({}, []),
        ({"num_images": 1, "aspect_ratio": "1:1"}, []),
        ({"num_images": 2}, ["num_images"]),
        ({"seed": "7", "negative_prompt": "fog"}, ["negative_prompt", "seed"]),
        ({"model": "flux-2-pro", "seed": "7", "negative_prompt": "fog"}, ["negative_prompt"]),
        ({"model": "qwen-image", "aspect_ratio": "1:1", "num_images": 2}, ["aspect_ratio"]),
        ({"model": "midjourney", "num_images": 1}, ["num_images"]),
        ({"model": "brand-new"}, []),
        ({"model": "brand-new", "seed": "7", "num_images": 1}, ["num_images", "seed"]),
    ],
)
def test_what_cannot_be_expressed_is_named(request_fields: dict[str, Any], names: list[str]) -> None:
    found = GATEWAY.unsupported(asked(**request_fields))
    assert list(found) == names
    assert all(request_fields.get("model", "imagen-4-fast") in reason for reason in found.values())


@pytest.mark.parametrize(
    ("request_fields", "names"),
    [
        ({"prompt": "x" * 2000, "aspect_ratio": "3:4", "params": {"image_size": "2K", "new_key": 1}}, []),
        ({"params": {"sandbox": "late"}}, []),
        ({"prompt": ""}, ["prompt"]),
        ({"prompt": "x" * 2001}, ["prompt"]),
        ({"model": "wan-image-2.7", "prompt": "x" * 5000}, []),
        ({"model": "brand-new", "prompt": "x" * 2001}, []),
        ({"aspect_ratio": "2:1"}, ["aspect_ratio"]),
        ({"aspect_ratio": "2:1", "ignored": ("aspect_ratio",)}, []),
        ({"model": "flux-2-pro", "aspect_ratio": "2:1"}, []),
        ({"model": "flux-2-pro", "aspect_ratio": "wide"}, ["aspect_ratio"]),
        ({"model": "seedream-4", "aspect_ratio": "match_input_image"}, []),
        ({"params": {"image_size": "8K"}}, ["params.image_size"]),
        ({"params": {"output_format": ["png"]}}, ["params.output_format"]),
        ({"params": {"model": "x", "webhook_url": "x"}}, ["params.model", "params.webhook_url"]),
        ({"params": {"imagenParams": {}}}, ["params.imagenParams"]),
        ({"params": {"seed": 7}}, ["params.seed"]),
        ({"params": {"x": float("nan")}}, ["params"]),
        ({"params": {"x": b"bytes"}}, ["params"]),
        ({"model": "flux-2-pro", "seed": "a red seed"}, ["seed"]),
        ({"model": "flux-2-pro", "seed": "-7"}, []),
        ({"model": "flux-2-pro", "seed": "1_000"}, ["seed"]),
        ({"model": "flux-2-pro", "seed": "٣"}, ["seed"]),
        ({"model": "wan-image-2.6", "seed": "2147483648"}, ["seed"]),
        ({"model": "wan-image-2.6", "negative_prompt": "x" * 501}, ["negative_prompt"]),
        ({"model": "kling-image", "num_images": 5}, ["num_images"]),
        ({"num_images": 0}, ["num_images"]),
        ({"model": "kling-image", "params": {"n": 2}}, ["params.n"]),
        ({"model": "flux-lora"}, ["params.loraId"]),
        ({"model": "ideogram-character", "params": {"character_reference_image": "https://x.example/"}}, []),
        ({"model": "brand-new", "params": {"webhookUrl": "x", "seed": 7}}, ["params.webhookUrl"]),
    ],
)
def test_what_apiframe_would_refuse_is_named(request_fields: dict[str, Any], names: list[str]) -> None:
    assert [fault["field"] for fault in GATEWAY.faults(asked(**request_fields))] == names


def test_every_model_of_the_schema_is_known() -> None:
    assert len(TABLE.by_model) == 51
    assert {model for model in TABLE.by_model if model.startswith("imagen")} == {
        *("imagen-3", "imagen-3-fast", "imagen-4", "imagen-4-fast", "imagen-4-ultra")
    }


@pytest.mark.parametrize("signature", [APIFRAME_RAW, APIFRAME_HEX])
def test_callbacks_survive_a_change_of_keys(signature: str) -> None:
    gateway = adapter(Apiframe, "afk_new", previous_api_keys=["afk_older", "afk_test_key"])
    headers = {"x-webhook-signature": f"sha256={signature}"}
    assert verify(GATEWAY, headers) is verify(gateway, headers) is Verdict.VALID
    with pytest.raises(BadSignature, match="DARKROOM_GATEWAYS__APIFRAME__PREVIOUS_API_KEYS"):
        verify(adapter(Apiframe, "afk_new"), headers)
    with pytest.raises(BadSignature):
        verify(gateway, headers, BODY_A + b" ")


def test_a_missing_signature_is_a_matter_of_settings() -> None:
    assert verify(GATEWAY, {}) is Verdict.ABSENT
    strict = type(
        "Strict",
        (Apiframe,),
        {"table": replace(TABLE, signing=Signing("apiframe-v2", "api-key", required=True))},
    )
    with pytest.raises(BadSignature):
        verify(adapter(strict, "afk_test_key"), {})


def test_details_come_without_links_and_tokens() -> None:
    details = {"webhookUrl": [f"{CALLBACK} is not reachable", "https://x.example/a.png?signature=secret"]}
    answer = httpx.Response(400, json={"error": "Validation failed", "details": details})
    with pytest.raises(GatewayRefused) as caught:
        GATEWAY.read_submission(answer)
    assert caught.value.details == {
        "webhookUrl": [
            "https://archive.example/callbacks/apiframe/[removed] is not reachable",
            "https://x.example/a.png?[removed]",
        ]
    }
    assert "callbacks/apiframe/token" not in str(caught.value)


def test_previous_keys_are_not_repeated_either() -> None:
    gateway = adapter(Apiframe, "afk_new", previous_api_keys=["afk_older"])
    with pytest.raises(GatewayUnauthorized) as caught:
        gateway.read_submission(httpx.Response(401, json={"error": "Unknown key afk_older or afk_new"}))
    assert "Unknown key [removed] or [removed]" in str(caught.value)


@pytest.mark.parametrize("key", ["afk test", "afk_\nx", "afk_é"])
def test_a_key_that_cannot_be_sent_names_its_setting(key: str) -> None:
    with pytest.raises(SettingsError, match="DARKROOM_GATEWAYS__APIFRAME__API_KEY") as caught:
        adapter(Apiframe, key)
    assert "afk" not in str(caught.value)
    with pytest.raises(SettingsError, match="DARKROOM_GATEWAYS__APIFRAME__PREVIOUS_API_KEYS"):
        adapter(Apiframe, "afk_new", previous_api_keys=[key])


def page(*jobs: Any, **more: Any) -> httpx.Response:
    return httpx.Response(200, json={"jobs": list(jobs), "nextCursor": None, "hasMore": False, **more})


def test_one_answer_tells_of_many_jobs() -> None:
    done = {"id": "a", "status": "COMPLETED", "result": {"images": ["https://cdn.apiframe.ai/1.png"]}}
    listing = adapter(Apiframe, "key").read_list(
        page(done, {"id": "b", "status": "PROCESSING"}, {"id": "c", "status": "FAILED", "error": "policy"})
    )
    states = {job_id: completion.state for job_id, completion in listing.completions.items()}
    assert states == {"a": State.SUCCEEDED, "b": State.RUNNING, "c": State.FAILED}
    assert listing.completions["a"].images[0].url == "https://cdn.apiframe.ai/1.png"
    assert listing.next_cursor is None


def test_what_cannot_be_read_in_a_list_is_left_out() -> None:
    bad = [None, 7, "x", {}, {"id": [5], "status": "COMPLETED"}, {"id": "d"}, {"id": "e", "status": [1]}]
    images = {"id": "f", "status": "COMPLETED", "result": {"images": [{"no": "link"}]}}
    listing = adapter(Apiframe, "key").read_list(page(*bad, images, {"id": "g", "status": "QUEUED"}))
    assert set(listing.completions) == {"g"}
    assert adapter(Apiframe, "key").read_list(httpx.Response(200, json={"jobs": "none"})).completions == {}


def test_a_list_goes_on_by_its_cursor() -> None:
    gateway = adapter(Apiframe, "key")
    first, second = gateway.list_request(None), gateway.list_request("ab/../c d")
    assert first is not None
    assert second is not None
    assert str(first.url) == "https://api.apiframe.ai/v2/jobs?limit=100"
    assert second.url.params["cursor"] == "ab/../c d"
    assert gateway.read_list(page(nextCursor="next", hasMore=True)).next_cursor == "next"
    assert gateway.read_list(page(nextCursor="next", hasMore=False)).next_cursor is None


@pytest.mark.parametrize("status", [401, 429, 500])
def test_a_list_that_is_refused_is_an_error(status: int) -> None:
    with pytest.raises(GatewayError):
        adapter(Apiframe, "key").read_list(httpx.Response(status, json={"error": "no"}))
    with pytest.raises(GarbledAnswer):
        adapter(Apiframe, "key").read_list(httpx.Response(200, content=b"<html>"))
