"""What is odd about fal.ai: a poll of two steps, at a part of the model's path."""

from dataclasses import replace

import httpx
import pytest

from receiver.errors import GatewayUnavailable, UnknownGatewayJob
from receiver.gateways.base import Completion, Follow, State
from receiver.gateways.fal import Fal
from storage.models import Job
from tests.support.gateway_samples import a_job, adapter

IMAGE = {"url": "https://v3.fal.media/files/a.png", "width": 1024, "height": 1024}


def job(model: str = "fal-ai/flux/dev") -> Job:
    return replace(a_job("fal", model=model), gateway_job_id="r1")


def followed(model: str = "fal-ai/flux/dev") -> Follow:
    found = adapter(Fal, "id:secret").read_poll(httpx.Response(200, json={"status": "COMPLETED"}), job(model))
    assert isinstance(found, Follow)
    return found


@pytest.mark.parametrize(
    ("model", "app"),
    [
        ("fal-ai/flux/dev", "fal-ai/flux"),
        ("fal-ai/flux", "fal-ai/flux"),
        ("fal-ai/imagen4/preview/ultra", "fal-ai/imagen4"),
        ("workflows/someone/a-workflow", "workflows/someone/a-workflow"),
        ("comfy/someone/graph/more", "comfy/someone/graph"),
    ],
)
def test_what_is_asked_about_a_job_has_owner_and_app_alone(model: str, app: str) -> None:
    gateway, base = adapter(Fal, "id:secret"), f"https://queue.fal.run/{app}/requests/r1"
    cancel = gateway.cancel_request(job(model))
    assert cancel is not None
    assert str(gateway.poll(job(model)).url) == f"{base}/status"
    assert (cancel.method, str(cancel.url)) == ("PUT", f"{base}/cancel")
    assert str(followed(model).request.url) == base
    assert followed(model).request.headers["authorization"] == "Key id:secret"


def test_a_result_is_the_payload_of_a_callback() -> None:
    output = {"images": [IMAGE], "seed": 2**63 + 1}
    found = followed().read(httpx.Response(200, json=output))
    assert (found.state, found.gateway_job_id, found.seed) == (State.SUCCEEDED, "r1", str(2**63 + 1))
    assert ([image.url for image in found.images], found.reply) == ([IMAGE["url"]], output)


def test_images_that_stand_in_a_result_are_read_of_its_body_alone() -> None:
    body = b'{"images": [{"url": "data:image/png;base64,iVBORw0KGgo="}], "seed": 7}'
    found = adapter(Fal, "id:secret").read_answer(body, job())
    assert (found.seed, len(found.images)) == ("7", 1)


def test_a_result_that_is_an_error_of_the_model_is_a_failure() -> None:
    body = {"detail": [{"loc": ["body", "prompt"], "msg": "NSFW content detected", "type": "policy"}]}
    found = followed().read(httpx.Response(422, json=body))
    assert isinstance(found, Completion)
    assert (found.state, found.error) == (State.FAILED, "body.prompt: NSFW content detected")


@pytest.mark.parametrize(("status", "error"), [(404, UnknownGatewayJob), (503, GatewayUnavailable)])
def test_a_result_that_cannot_be_had_decides_nothing(status: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        followed().read(httpx.Response(status, json={"detail": "not now"}))
