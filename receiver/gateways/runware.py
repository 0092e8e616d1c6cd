"""Runware: https://runware.ai/docs/platform/webhooks.md and `task-polling.md` there.

The id of a task is ours, bodies are arrays, and each image has a callback of its own.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from receiver.gateways import parsing, refusals
from receiver.gateways.adapter import Adapter
from receiver.gateways.base import Completion, Follow, State, Submission
from receiver.gateways.requests import given, sizes
from receiver.gateways.table import Accept, Call, Callback, Errors, Family, Read, Submit, Table
from storage.models import Job

if TYPE_CHECKING:
    import httpx

NOT_FOUND = "taskFailedOrNotFound"
CODES = {"invalidApiKey": 401, "insufficientCredits": 402, "rateLimitExceeded": 429, NOT_FOUND: 404}
"""What its codes are as HTTP statuses; all others are about the task."""


def _listed(data: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = data.get(name)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _task(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an array of items says of their task: an image that comes twice is one."""
    items, errors = _listed(data, "data"), _listed(data, "errors")
    errors += [one for one in items if one.get("status") == "error"]
    images = {str(one.get("imageUUID") or one["imageURL"]): one for one in items if one.get("imageURL")}
    # While one of them is under way, or says what is not known, the task is.
    ways = [one["status"] for one in items if one.get("status") not in (None, "success", "error")]
    status = ways[0] if ways else "success" if images else "error" if errors else None
    costs = [cost for one in items if (cost := parsing.amount(one.get("cost"))) is not None]
    return {
        "id": next((one["taskUUID"] for one in [*items, *errors] if one.get("taskUUID")), None),
        "status": status,
        "seed": next(iter(images.values())).get("seed") if len(images) == 1 else None,
        "images": [*images.values(), *({"error": {"message": one.get("message")}} for one in errors)],
        "error": next((one.get("message") for one in errors), None),
        "cost": round(sum(costs), 6) if costs else None,
    }


# Each image has a seed, that of the only one is the job's. It charges dollars: they are its credits.
_READ = Read(unwrap=_task, images="images", seed="seed", model="", error="error", credits="cost")
_PLACES = {
    "aspect_ratio": "width:map.width height:map.height",
    "num_images": "numberResults",
    "seed": "seed",
}
_FORMATS = {"outputFormat": ("JPG", "PNG", "WEBP")}

TABLE = Table(
    name="runware",
    title="Runware",
    docs="https://runware.ai/docs/platform/webhooks",
    base_url="https://api.runware.ai",
    submit=Submit(
        "/v1",
        {
            "taskType": "imageInference",
            "taskUUID": "{task_id}",
            "model": "{model}",
            "positivePrompt": "{prompt}",
            "outputType": "URL",
            "deliveryMethod": "async",
            "includeCost": True,
        },
        kind="json-array",
    ),
    callback=Callback(body="webhookURL"),
    accept=Accept(id="taskUUID", result=False),
    read=(_READ,),
    poll=Call("/v1", "POST", {"taskType": "getResponse", "taskUUID": "{id}"}),
    read_poll=(_READ,),
    errors=Errors(words="errors || error || message"),
    # In multiples of 64, about a megapixel.
    maps={
        "aspect_ratio": sizes(
            "1:1=1024x1024 16:9=1344x768 4:3=1152x896 3:2=1216x832 5:4=1280x1024 21:9=1536x640"
        )
    },
    families=(
        # FLUX.1 schnell and dev, which know no negative prompt.
        Family(("runware:100@1", "runware:101@1"), _PLACES, choices=_FORMATS, most_images=20),
    ),
    # Each model has a schema; these two are in all of them.
    others=Family((), {"num_images": "numberResults", "seed": "seed"}, choices=_FORMATS, most_images=20),
    terminal_only=False,
    sure={"callback": "likely", "failure": "guessed", "life": "guessed", "models": "likely"},
)


class Runware(Adapter):
    """Runware."""

    table = TABLE

    def body(self, job: Job, callback_url: str | None) -> dict[str, Any]:
        """Return the task; the known models need a size."""
        size = {"width": 1024, "height": 1024} if job.request.model in self.table.by_model else {}
        return size | super().body(job, callback_url)

    def read_submission(self, response: httpx.Response) -> Submission:
        """Parse the response to a submission: a refusal may come with HTTP 200."""
        data = refusals.decoded(response)
        if response.is_success and not _listed(data, "data") and (errors := _listed(data, "errors")):
            code = CODES.get(str(errors[0].get("code")), HTTPStatus.BAD_REQUEST)
            raise refusals.refusal(self._info, response, code=code)
        return super().read_submission(response)

    def accepted_id(self, data: dict[str, Any]) -> str | None:
        """Return the task's id, which is the one that we gave it."""
        return parsing.name(_task(data)["id"])

    def read_callback(self, body: bytes) -> Completion:
        """Parse a callback, which has one image: how many follow is not in it, so that a poll must tell."""
        found = super().read_callback(body)
        return replace(found, partial=found.state is not State.RUNNING)

    def read_poll(self, response: httpx.Response, job: Job) -> Completion | Follow:
        """Parse what became of a task, which has all its images once there is a place for each."""
        data = refusals.decoded(response)
        error = next(iter(_listed(data, "errors")), {})
        if error.get("code") == NOT_FOUND:
            raise refusals.refusal(self._info, response, polling=True, code=HTTPStatus.NOT_FOUND)
        refused = not response.is_success and error.get("code") in CODES
        if response.status_code == HTTPStatus.BAD_REQUEST and not refused and error.get("taskUUID"):
            return self.read_callback(response.content)  # The task failed.
        found = super().read_poll(response, job)
        assert isinstance(found, Completion)
        places = len(found.images) + len(found.withheld)
        lacks = found.state is State.SUCCEEDED and places < given(job.request).get("num_images", 1)
        return replace(found, partial=lacks)

    def _values(self, job: Job, callback_url: str | None) -> dict[str, Any]:
        # A UUID of version 4, which is what it takes; the same again for the same submission.
        digest = hashlib.sha256(job.submission_id.encode()).digest()
        task_id = str(uuid.UUID(bytes=digest[:16], version=4))
        return {**super()._values(job, callback_url), "task_id": task_id}
