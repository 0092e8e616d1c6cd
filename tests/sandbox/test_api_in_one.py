"""The sandbox's API in One, over HTTP."""

from typing import Any

import httpx
import pytest

from receiver.gateways.api_in_one import ApiInOne
from receiver.gateways.base import State
from receiver.sandbox import SandboxServer
from receiver.sandbox.gateways import api_in_one
from tests.support.gateway_samples import adapter
from tests.support.recorder import CallbackReceiver
from tests.support.sandbox import FAST, ask_one, connect, credits_of, take_one


def test_a_task_is_taken_and_completes(sandbox: SandboxServer, one: httpx.Client) -> None:
    answer = ask_one(one, seed=1234, num_images=2, negative_prompt="people", aspect_ratio="3:4")
    assert answer.status_code == 200
    task_id = answer.json()["data"]["task_id"]
    assert task_id.startswith("n47")
    assert task_id.endswith("_imagen4")
    assert answer.json() == {
        "code": 200,
        "message": "success",
        "data": {"task_id": task_id, "status": "IN_PROGRESS"},
    }
    job = sandbox.wait(task_id)
    assert one.get(f"/api/v1/tasks/{task_id}").json() == {
        "code": 200,
        "message": "success",
        "data": {
            "task_id": task_id,
            "status": "completed",
            "model": "imagen4",
            "output": {"image_urls": [f"{sandbox.url}/images/{task_id}/{n}.png" for n in range(2)]},
            "seed": 1234,
            "error": None,
        },
    }
    images = [httpx.get(link, trust_env=False).content for link in job.images]
    assert images == [sandbox.image_bytes(task_id, n) for n in range(2)]
    assert images[0] != images[1]
    assert job.input["negative_prompt"] == "people"


@pytest.mark.parametrize(
    ("model", "images", "cost"),
    [("imagen4-fast", 1, 4), ("imagen4-ultra", 3, 36), ("gpt-image-1.5-official", 2, 20)],
)
def test_each_image_costs_its_model_s_credits(
    sandbox: SandboxServer, one: httpx.Client, model: str, images: int, cost: int
) -> None:
    before = credits_of(sandbox, "aio_sandbox")
    task_id = take_one(one, model=model, num_images=images, quality="high")
    assert before - credits_of(sandbox, "aio_sandbox") == cost
    assert task_id.endswith(f"_{model}")


@pytest.mark.parametrize(
    ("fields", "status", "named"),
    [
        ({"prompt": "ab"}, 422, "prompt"),
        ({"prompt": "x" * 5001}, 422, "prompt"),
        ({"model": "imagen-4"}, 422, "model"),
        ({"aspect_ratio": "2:1"}, 422, "aspect_ratio"),
        ({"num_images": 5}, 422, "num_images"),
        ({"num_images": "2"}, 422, "num_images"),
        ({"seed": "7"}, 422, "seed"),
        ({"callback_url": "ftp://x"}, 422, "callback_url"),
        ({"sandbox": "laet"}, 400, "no_callback, late"),
        ({"sandbox": "unsigned"}, 400, "no fault 'unsigned' here"),
        ({"sandbox": 7}, 400, "sandbox"),
        ({"sandbox": {"dialect": "klingon"}}, 400, "dialect"),
    ],
)
def test_bad_fields_are_named(one: httpx.Client, fields: dict[str, Any], status: int, named: str) -> None:
    answer = ask_one(one, **fields)
    assert answer.status_code == status
    assert answer.json() == {"code": status, "message": answer.json()["message"], "data": None}
    assert named in answer.json()["message"]


def test_a_body_that_is_no_json_object_is_refused(one: httpx.Client) -> None:
    assert one.post("/api/v1/images/generations", content=b"[").json()["code"] == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": ""}, 401),
        ({"authorization": "Bearer aio_unknown"}, 401),
        ({"authorization": "Bearer afk_sandbox"}, 401),
        ({"authorization": "aio_sandbox"}, 401),
        ({"authorization": "Bearer aio_inactive"}, 403),
        ({"authorization": "Bearer aio_poor"}, 402),
    ],
)
def test_submitting_needs_a_key_with_credits(one: httpx.Client, headers: dict[str, str], status: int) -> None:
    assert ask_one(one, headers).json()["code"] == status


def test_unknown_tasks_and_routes_are_404(one: httpx.Client) -> None:
    for path in ("/api/v1/tasks/n47x_imagen4", "/api/v1/nothing"):
        answer = one.get(path)
        assert (answer.status_code, answer.json()["code"], answer.json()["data"]) == (404, 404, None)
    task_id = take_one(one)
    other = one.get(f"/api/v1/tasks/{task_id}", headers={"authorization": "Bearer aio_poor"})
    assert other.status_code == 404


def test_the_seed_may_be_kept_silent() -> None:
    with (
        SandboxServer(FAST, gateways=[api_in_one.ApiInOne(reports_seed=False)]) as sandbox,
        connect(sandbox, authorization="Bearer aio_sandbox") as one,
    ):
        task_id = take_one(one, seed=7)
        sandbox.wait(task_id)
        assert "seed" not in one.get(f"/api/v1/tasks/{task_id}").json()["data"]


def test_envelope_dialect_is_the_task_itself_unsigned(one: httpx.Client, receiver: CallbackReceiver) -> None:
    task_id = take_one(one, callback_url=receiver.url, seed=3)
    call = receiver.next()
    assert call.json == one.get(f"/api/v1/tasks/{task_id}").json()
    assert not [name for name in call.headers if name.startswith("x-")]


@pytest.mark.parametrize(
    ("dialect", "calls"), [("envelope", 1), ("kie", 1), ("kling", 4), ("evolink", 1), ("flat", 1)]
)
@pytest.mark.parametrize("images", [0, 1, 2])
def test_every_dialect_tells_what_became_of_a_task(
    sandbox: SandboxServer,
    one: httpx.Client,
    receiver: CallbackReceiver,
    dialect: str,
    calls: int,
    images: int,
) -> None:
    wish = {"dialect": dialect} | ({} if images else {"fault": "failed", "message": "too dark"})
    before = credits_of(sandbox, "aio_sandbox")
    task_id = take_one(one, callback_url=receiver.url, num_images=images or 1, sandbox=wish)
    job = sandbox.wait(task_id)
    told = [adapter(ApiInOne, "aio_sandbox").read_callback(receiver.next().body) for _ in range(calls)]
    assert receiver.none_left()
    last = told.pop()
    assert {one.state for one in told} <= {State.RUNNING}
    assert last.gateway_job_id == task_id
    if images:
        assert (last.state, [image.url for image in last.images]) == (State.SUCCEEDED, list(job.images))
        assert len(job.images) == images
    else:
        assert (last.state, last.error) == (State.FAILED, "too dark")
        assert credits_of(sandbox, "aio_sandbox") == before
