"""Stand in for Runware: https://runware.ai/docs/platform/webhooks.md and `task-polling.md` there."""

import json
import uuid
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from receiver.sandbox.core.callbacks import Body
from receiver.sandbox.core.config import Account
from receiver.sandbox.core.jobs import Event, SandboxJob
from receiver.sandbox.core.lifecycle import Sandbox
from receiver.sandbox.core.stand_in import Details, Received, StandIn, Uri, lacking, problems

FAULTS = {
    "item_error": "the last image is an error, in a callback of its own and in polls with HTTP 200",
    "missing_image": "neither callbacks nor polls ever name the last image",
}
CODES = {
    401: "invalidApiKey",
    402: "insufficientCredits",
    404: "taskFailedOrNotFound",
    429: "rateLimitExceeded",
}


class Task(BaseModel):
    """A task that makes an image; further fields are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True, populate_by_name=True)

    task_type: Literal["imageInference", "upscale", "removeBackground"] = Field(alias="taskType")
    task_id: str = Field(alias="taskUUID", pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
    model: str = Field(min_length=1)
    prompt: str = Field(default="", alias="positivePrompt")
    width: int = Field(default=1024, ge=128, le=2048)
    height: int = Field(default=1024, ge=128, le=2048)
    seed: int | None = None
    count: int = Field(default=1, alias="numberResults", ge=1, le=20)
    output_format: Literal["PNG", "JPG", "WEBP"] = Field(default="JPG", alias="outputFormat")
    output_type: Literal["URL"] = Field(default="URL", alias="outputType")
    delivery: Literal["async"] = Field(alias="deliveryMethod")
    callback_url: Uri | None = Field(default=None, alias="webhookURL")


class Runware(StandIn):
    """Runware. Bodies are arrays, the id is the client's, each image has an unsigned callback of its own."""

    name = "runware"
    key_prefix = "rw"
    below = "/v1"
    own_faults = FAULTS
    not_json = "The body is not an array with a task"
    unknown_job = "The task failed or was not found"
    image_fields = frozenset(["inputImage", "seedImage", "maskImage", "referenceImages"])
    model = "runware:101@1"

    def routes(self) -> list[Route]:
        """Return its one route."""
        return [self.route("/v1", self.tasks, "POST")]

    def error(self, status: int, message: str) -> Body:
        """Build the body of an error response."""
        error = {"code": CODES.get(status, "invalidRequest"), "message": message, "parameter": "taskUUID"}
        return {"errors": [error]}

    def invalid(self, details: Details) -> Response:
        """Build the response to a task that does not pass validation."""
        errors = [
            {"code": "invalidParameter", "message": ", ".join(said), "parameter": [path], "type": "string"}
            for path, said in details.items()
        ]
        return JSONResponse({"errors": errors}, 400)

    async def decode(self, _request: Request, raw: bytes) -> dict[str, Any] | None:
        """Return the one task of an array."""
        return _task(raw)

    async def tasks(self, request: Request, sandbox: Sandbox, account: Account) -> Response:
        """`POST /v1`: a submission, or a question for what became of one."""
        asked = _task(await request.body()) or {}
        if asked.get("taskType") != "getResponse":
            return await self.submit(request, sandbox, account)
        return self.told(str(asked.get("taskUUID")), sandbox, account)

    async def read(self, received: Received) -> SandboxJob | Response:
        """Validate a task."""
        body = received.body
        if details := problems(Task, body) or lacking(body, "positivePrompt", self.image_fields):
            return self.invalid(details)
        parsed = Task.model_validate(received.body)
        if received.sandbox.jobs.get(parsed.task_id):
            return self.invalid({"taskUUID": ["The taskUUID was used before"]})
        seed = received.seed() if parsed.seed is None else parsed.seed
        prompt = received.prompt(parsed.prompt, parsed.model)
        return received.job(
            id=parsed.task_id,
            model=parsed.model,
            prompt=prompt,
            cost=4 * parsed.count,
            input={name: value for name, value in received.body.items() if name != "webhookURL"},
            specs=received.specs(
                prompt, parsed.model, received.scaled(parsed.width, parsed.height), seed=seed,
                count=parsed.count, extension="png" if parsed.output_format == "PNG" else "jpg",
            ),
            callback_url=parsed.callback_url,
            seed=seed,
        )  # fmt: skip

    def accepted(self, job: SandboxJob) -> Response:
        """Build the response to a submission."""
        return JSONResponse({"data": [_ids(job)]})

    def polled(self, _sandbox: Sandbox, job: SandboxJob) -> Body:
        """Build the response to `getResponse`."""
        if not job.done:
            return {"data": [{**_ids(job), "status": "processing"}]}
        if job.status == "FAILED":
            return {"data": [], "errors": [_error(job)]}
        items, errors = _items(job, job.named())
        return {"data": items} | ({"errors": errors} if errors else {})

    def callback(self, job: SandboxJob, event: Event, links: list[Any]) -> Body:  # noqa: ARG002
        """Build the callback of a job without images: what is sent of a failure is a guess."""
        running = event == "progress"
        return {"data": [{**_ids(job), "status": "processing"}]} if running else {"errors": [_error(job)]}

    def callbacks(self, job: SandboxJob, event: Event, links: list[Any]) -> list[Body]:
        """Build a callback for each image, the last one first."""
        if event != "completed":
            return [self.callback(job, event, links)]
        items, errors = _items(job, links)
        return [{"data": [item]} for item in reversed(items)] + [{"errors": [error]} for error in errors]


def _task(raw: bytes) -> dict[str, Any] | None:
    try:
        tasks = json.loads(raw)
    except ValueError:
        return None
    return tasks[0] if isinstance(tasks, list) and len(tasks) == 1 and isinstance(tasks[0], dict) else None


def _ids(job: SandboxJob) -> Body:
    return {"taskType": job.input["taskType"], "taskUUID": job.id}


def _error(job: SandboxJob) -> Body:
    message = job.error or job.faults.message
    return {"code": "inferenceError", "message": message, "parameter": [], "type": "error", **_ids(job)}


def _items(job: SandboxJob, links: list[Any]) -> tuple[list[Body], list[Body]]:
    items: list[Body] = [
        {
            **_ids(job),
            "imageUUID": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{job.id} {n}")),
            "imageURL": link,
            "seed": (job.seed or 0) + n,
            "cost": 0.0013,
            "NSFWContent": False,
            "status": "success",
        }
        for n, link in enumerate(links)
    ]
    lacks = {"item_error", "missing_image"} & set(job.faults.fault)
    return items[:-1] if lacks else items, [_error(job)] if "item_error" in job.faults else []
