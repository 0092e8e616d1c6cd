"""The sandbox's API in One, over HTTP."""

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from receiver.sandbox import SandboxServer
from tests.support.recorder import CallbackReceiver
from tests.support.sandbox import FAST, PROMPT, ask_one, connect, credits_of, take_one


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
        ({"sandbox": "unsigned"}, 400, "apiframe only"),
        ({"sandbox": 7}, 400, "sandbox"),
        ({"sandbox": {"dialect": "klingon"}}, 400, "dialect"),
    ],
)
def test_wrong_fields_are_refused_by_name(
    one: httpx.Client, fields: dict[str, Any], status: int, named: str
) -> None:
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
def test_submitting_needs_an_active_key_with_credits(
    one: httpx.Client, headers: dict[str, str], status: int
) -> None:
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
        SandboxServer(replace(FAST, reports_seed=False)) as sandbox,
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


def test_the_kie_dialect_has_json_inside_json(one: httpx.Client, receiver: CallbackReceiver) -> None:
    task_id = take_one(one, callback_url=receiver.url, num_images=2, sandbox={"dialect": "kie"})
    body = receiver.next().json
    assert (body["code"], body["data"]["taskId"], body["data"]["state"]) == (200, task_id, "success")
    assert len(json.loads(body["data"]["resultJson"])["resultUrls"]) == 2
    assert json.loads(body["data"]["param"])["input"]["prompt"] == PROMPT


def test_the_kling_dialect_tells_every_change(one: httpx.Client, receiver: CallbackReceiver) -> None:
    task_id = take_one(one, callback_url=receiver.url, sandbox={"dialect": "kling"})
    bodies = [receiver.next().json for _ in range(4)]
    assert [body["task_status"] for body in bodies] == ["processing"] * 3 + ["succeed"]
    assert {body["task_id"] for body in bodies} == {task_id}
    (image,) = bodies[-1]["task_result"]["images"]
    assert (image["index"], image["url"].endswith("/0.png")) == (0, True)


def test_the_evolink_dialect_is_a_task_object(one: httpx.Client, receiver: CallbackReceiver) -> None:
    task_id = take_one(one, callback_url=receiver.url, sandbox={"dialect": "evolink"})
    body = receiver.next().json
    assert (body["id"], body["status"], body["progress"]) == (task_id, "completed", 100)
    assert len(body["results"]) == 1


@pytest.mark.parametrize(("images", "keys"), [(1, {"image_url"}), (2, {"image_url", "image_urls"})])
def test_the_flat_dialect_is_flat(
    one: httpx.Client, receiver: CallbackReceiver, images: int, keys: set[str]
) -> None:
    take_one(one, callback_url=receiver.url, num_images=images, sandbox={"dialect": "flat"})
    body = receiver.next().json
    assert (body["status"], set(body["data"])) == ("success", keys)


@pytest.mark.parametrize(
    ("dialect", "told"),
    [
        ("envelope", {"data.status": "failed", "data.error.message": "too dark"}),
        ("kie", {"code": 501, "data.state": "fail", "data.failMsg": "too dark"}),
        ("kling", {"task_status": "failed", "task_status_msg": "too dark"}),
        ("evolink", {"error.message": "too dark"}),
        ("flat", {"status": "error", "message": "too dark"}),
    ],
)
def test_a_failure_is_told_in_every_dialect(
    sandbox: SandboxServer, one: httpx.Client, receiver: CallbackReceiver, dialect: str, told: dict[str, Any]
) -> None:
    wish = {"fault": "failed", "message": "too dark", "dialect": dialect}
    before = credits_of(sandbox, "aio_sandbox")
    sandbox.wait(take_one(one, callback_url=receiver.url, sandbox=wish))
    while not receiver.none_left():
        last = receiver.next().json
    for path, word in told.items():
        found = last
        for part in path.split("."):
            found = found[part]
        assert found == word, path
    assert credits_of(sandbox, "aio_sandbox") == before
