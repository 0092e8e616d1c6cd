"""What is odd about Runware: the id of a task is ours, and its images come one by one."""

import json
import uuid
from dataclasses import replace
from typing import Any

import httpx
import pytest

from receiver.errors import GatewayUnauthorized
from receiver.gateways.base import Completion, State
from receiver.gateways.runware import Runware
from tests.support.gateway_samples import a_job, adapter

TASK = "3f8b1c5e-7a2d-4e6f-9b0c-1d2e3f4a5b6c"


def item(number: int) -> dict[str, Any]:
    link = f"https://im.runware.ai/{number}.jpg"
    return {"taskUUID": TASK, "imageUUID": f"image-{number}", "imageURL": link, "status": "success"}


def polled(count: int | None, body: dict[str, Any], status: int = 200) -> Completion:
    job = replace(a_job("runware", model="runware:101@1", num_images=count), gateway_job_id=TASK)
    found = adapter(Runware, "key").read_poll(httpx.Response(status, json=body), job)
    assert isinstance(found, Completion)
    return found


def test_each_submission_has_one_uuid_of_version_4() -> None:
    job, gateway = a_job("runware", model="runware:101@1"), adapter(Runware, "key")
    first, again, next_one = (
        json.loads(gateway.submit_request(one, None).content)[0]["taskUUID"]
        for one in (job, job, replace(job, submission=2))
    )
    assert first == again != next_one
    assert uuid.UUID(first).version == uuid.UUID(next_one).version == 4


@pytest.mark.parametrize("count", [None, 1, 2, 3])
def test_a_task_is_done_once_it_has_a_place_for_each_image(count: int | None) -> None:
    wanted = count or 1
    found = [polled(count, {"data": [item(n) for n in range(made)]}) for made in range(1, 4)]
    assert [one.partial for one in found] == [made < wanted for made in range(1, 4)]


def test_an_error_takes_the_place_of_an_image() -> None:
    found = polled(3, {"data": [item(0), item(1)], "errors": [{"taskUUID": TASK, "message": "flagged"}]})
    assert (found.state, found.partial) == (State.SUCCEEDED, False)
    assert [(one.index, one.reason) for one in found.withheld] == [(2, "flagged")]


def test_a_refused_key_is_no_failure_of_the_task() -> None:
    error = {"code": "invalidApiKey", "message": "no", "taskUUID": TASK}
    with pytest.raises(GatewayUnauthorized):
        polled(1, {"errors": [error]}, 401)
