import json
from base64 import b64decode
from typing import Any

import httpx
import pytest

from receiver.errors import GatewayError
from receiver.gateways.api_in_one import PRICES, ApiInOne
from receiver.gateways.api_in_one_shapes import SHAPES
from receiver.gateways.base import State
from receiver.gateways.image_answers import as_json
from storage.models import JobRequest, Verdict
from tests.support.gateway_samples import a_job, adapter, cases
from tests.unit.test_media import picture

CALLBACK = "https://archive.example/callbacks/api-in-one/token"
GATEWAY = adapter(ApiInOne, "aio_test_key")


def asked(**fields: Any) -> JobRequest:
    return JobRequest(**{"model": "imagen4", "prompt": "a red kite", **fields})


def submitted(callback_url: str | None = None, **request: Any) -> httpx.Request:
    return GATEWAY.submit_request(a_job("api-in-one", **{"model": "imagen4", **request}), callback_url)


def test_every_dialect_has_a_sample() -> None:
    for dialect in SHAPES:
        assert f"callback_{dialect.replace('-', '_')}" in cases("api_in_one")


def test_a_submission_has_the_gateways_words() -> None:
    request = submitted(
        CALLBACK,
        aspect_ratio="4:3",
        negative_prompt="fog",
        num_images=2,
        seed="9007199254740993",
        params={"quality": "high", "sandbox": {"dialect": "kie"}},
    )
    assert (request.method, str(request.url)) == ("POST", "https://apiin.one/api/v1/images/generations")
    assert request.headers["authorization"] == "Bearer aio_test_key"
    assert request.headers["content-type"] == "application/json"
    assert "idempotency-key" not in request.headers
    assert json.loads(request.content) == {
        "model": "imagen4",
        "prompt": "a red kite",
        "aspect_ratio": "4:3",
        "negative_prompt": "fog",
        "num_images": 2,
        "seed": 9007199254740993,
        "callback_url": CALLBACK,
        "quality": "high",
        "sandbox": {"dialect": "kie"},
    }


def test_params_never_replace_what_darkroom_sends() -> None:
    params = {"model": "x", "prompt": "x", "callback_url": "https://evil.example/", "seed": 1}
    body = json.loads(submitted(CALLBACK, seed="7", params=params).content)
    least = {"model": "imagen4", "prompt": "a red kite"}
    assert body == {**least, "callback_url": CALLBACK, "seed": 7}
    assert json.loads(submitted().content) == least
    assert json.loads(submitted(seed="7", ignored=("seed",)).content) == least


@pytest.mark.parametrize("model", [*PRICES, "brand-new"])
def test_nothing_is_unsupported(model: str) -> None:
    everything = asked(model=model, seed="7", negative_prompt="fog", num_images=2, aspect_ratio="1:1")
    assert GATEWAY.unsupported(everything) == {}


@pytest.mark.parametrize(
    ("request_fields", "names"),
    [
        ({"prompt": "x" * 5000, "aspect_ratio": "9:16", "num_images": 4, "seed": "0"}, []),
        ({"prompt": "xx"}, ["prompt"]),
        ({"prompt": "x" * 5001}, ["prompt"]),
        ({"model": "imagen4-ultra", "aspect_ratio": "21:9"}, ["aspect_ratio"]),
        ({"model": "grok-imagine", "aspect_ratio": "21:9"}, []),
        ({"num_images": 0}, ["num_images"]),
        ({"seed": "a red seed"}, ["seed"]),
        ({"seed": "1.5"}, ["seed"]),
        ({"params": {"quality": "high", "sandbox": "late"}}, []),
        ({"params": {"model": "x", "callback_url": "x"}}, ["params.model", "params.callback_url"]),
        ({"params": {"seed": 7, "num_images": 2}}, ["params.num_images", "params.seed"]),
        ({"params": {"x": float("inf")}}, ["params"]),
    ],
)
def test_what_the_gateway_would_refuse_is_named(request_fields: dict[str, Any], names: list[str]) -> None:
    assert [fault["field"] for fault in GATEWAY.faults(asked(**request_fields))] == names


@pytest.mark.parametrize(
    ("request_fields", "cost"),
    [
        ({}, 8.0),
        ({"model": "imagen4-fast", "num_images": 3}, 12.0),
        ({"model": "imagen4-ultra", "num_images": 1}, 12.0),
        ({"model": "gpt-image-1.5-official"}, 10.0),
        ({"model": "brand-new"}, None),
    ],
)
def test_costs_follow_the_published_prices(request_fields: dict[str, Any], cost: float | None) -> None:
    assert GATEWAY.estimate(asked(**request_fields)) == cost


def test_nothing_is_signed() -> None:
    assert GATEWAY.verify({}, b"", now_s=0) is Verdict.UNSUPPORTED
    assert GATEWAY.verify({"x-webhook-signature": "sha256=00"}, b"{}", now_s=0) is Verdict.UNSUPPORTED


@pytest.mark.parametrize(
    ("code", "taken"),
    [
        *((code, True) for code in (200, "200", 0, 201, None, "success", True)),
        *((code, False) for code in (1, "422", 500, -1000, 451)),
    ],
)
def test_a_good_code_or_none_takes_the_job(code: object, taken: bool) -> None:
    answer = httpx.Response(200, json={"code": code, "data": {"task_id": "n47a_imagen4"}})
    if taken:
        assert GATEWAY.read_submission(answer).gateway_job_id == "n47a_imagen4"
        return
    with pytest.raises(GatewayError):
        GATEWAY.read_submission(answer)


@pytest.mark.parametrize("word", ["completed", "COMPLETED", "Success", "succeed", " done "])
def test_status_words_have_no_case(word: str) -> None:
    body = json.dumps(
        {"data": {"task_id": "t", "status": word, "output": {"image_urls": ["https://x.example/"]}}}
    )
    assert GATEWAY.read_callback(body.encode()).state is State.SUCCEEDED


IMAGE = "iVBORw0KGgo" + "A" * 60
LINK = "https://cdn.example/a.png"


@pytest.mark.parametrize(
    ("body", "task", "images"),
    [
        ({"created": 1, "data": [{"b64_json": IMAGE}]}, None, 1),
        ({"created": 1, "data": [{"b64_json": IMAGE}, {"b64_json": IMAGE + "B"}]}, None, 2),
        (
            {"code": 200, "data": {"task_id": "t", "status": "completed", "output": {"image_urls": [LINK]}}},
            "t",
            1,
        ),
        ({"code": 200, "data": {"task_id": "t", "status": "success", "b64_json": IMAGE}}, "t", 1),
        ({"code": 200, "data": {"task_id": "t", "status": "SUCCESS"}}, "t", 0),
        ({"code": 200, "data": {"task_id": "t", "status": "processing", "image_url": LINK}}, "t", 0),
        ({"code": 200, "data": {"task_id": "t", "status": 7.5}}, "t", 0),
    ],
)
def test_an_answer_may_have_the_result_already(body: Any, task: str | None, images: int) -> None:
    """ "Success" without an image may mean that it was accepted."""
    submission = GATEWAY.read_submission(httpx.Response(200, json=body))
    assert submission.gateway_job_id == task
    assert len(submission.result.images if submission.result else ()) == images
    if images:
        assert GATEWAY.read_answer(json.dumps(body).encode(), a_job()) == submission.result


def test_an_answer_without_a_task_or_an_image_is_no_submission() -> None:
    with pytest.raises(GatewayError, match="no task_id"):
        GATEWAY.read_submission(httpx.Response(200, json={"created": 1, "data": []}))


PNG = picture("PNG", (9, 7))
FORM = b'--b\r\n\r\n{"seed": 7}\r\n--b\r\nContent-Type: image/png\r\n\r\n' + PNG + b"\r\n--b--\r\n"


@pytest.mark.parametrize(("content", "seed"), [(PNG, None), (FORM, "7")])
def test_an_answer_may_be_an_image_or_multipart(content: bytes, seed: str | None) -> None:
    result = GATEWAY.read_submission(httpx.Response(200, content=as_json(content))).result
    assert result is not None
    assert result.seed == seed
    (image,) = result.images
    assert b64decode(image.url.partition(",")[2]) == PNG


@pytest.mark.parametrize(
    "content", [b'{"code": 200}', b"", b"<html>", FORM[:-9], b"--b\r\n\r\nwords\r\n--b--"]
)
def test_any_other_answer_stays_as_it_is(content: bytes) -> None:
    assert as_json(content) == content
