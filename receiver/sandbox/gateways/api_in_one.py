"""Stand in for API in One, as far as https://apiin.one/docs describes it. Error bodies are a guess.

Its callback is not documented. `envelope` is the likeliest: the same as its task route. The others are those
of gateways that are resold under many names (kie.ai, Kling, EvoLink) and a plain one.
"""

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from receiver.sandbox.core.callbacks import Body
from receiver.sandbox.core.jobs import Event, SandboxJob
from receiver.sandbox.core.lifecycle import Sandbox
from receiver.sandbox.core.stand_in import Received, StandIn, Uri, problems

Dialect = Literal["envelope", "kie", "kling", "evolink", "flat"]
DIALECTS: tuple[Dialect, ...] = get_args(Dialect)

CREDITS: Mapping[str, int] = {
    "imagen4-fast": 4,
    "imagen4": 8,
    "imagen4-ultra": 12,
    "grok-imagine": 5,
    "kling-image-o1": 6,
    "ideogram-v3": 8,
    "gpt-image-1.5-official": 10,
}
"""Models and their credits for each image."""

FAULTS = {
    "failed_in_200": "the submit request gets HTTP 200 and an error inside",
    "withheld_image": "the second image is null in the list, with `message` as the reason",
}


class Generation(BaseModel):
    """A request, by https://apiin.one/model/imagen-4; fields of other models are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)

    model: str = "imagen4"
    prompt: str = Field(min_length=3, max_length=5000)
    aspect_ratio: Literal["1:1", "9:16", "16:9", "3:4", "4:3"] = "1:1"
    negative_prompt: str | None = None
    num_images: int = Field(default=1, ge=1, le=4)
    seed: int | None = None
    callback_url: Uri | None = None


@dataclass(frozen=True)
class ApiInOne(StandIn):
    """API in One. Its callbacks are not signed."""

    dialect: Dialect = "envelope"
    """The shape of callbacks, unless a job asks for another."""
    reports_seed: bool = True
    """Whether it repeats the seed that it was given."""

    name = "api-in-one"
    key_prefix = "aio"
    below = "/api/v1/"
    unknown_job = "Task not found"
    own_faults = FAULTS
    model = "imagen4-fast"

    def routes(self) -> list[Route]:
        """Return its two routes."""
        return [
            self.route("/api/v1/images/generations", self.submit, "POST"),
            self.route("/api/v1/tasks/{id}", self.poll),
        ]

    def error(self, status: int, message: str) -> Body:
        """Build the body of an error response: the HTTP status again as `code`, and no data."""
        return {"code": status, "message": message, "data": None}

    def key_of(self, request: Request) -> str | None:
        """Return the API key; only the bearer form is documented."""
        return super().key_of(request) if "x-api-key" not in request.headers else None

    async def read(self, received: Received) -> SandboxJob | Response:
        """Validate `POST /api/v1/images/generations`."""
        body, asked = received.body, received.asked
        if asked.dialect not in (None, *DIALECTS):
            return self.bad_fault(f"sandbox.dialect: one of {', '.join(DIALECTS)}")
        details = problems(Generation, body)
        if "model" in body and body["model"] not in CREDITS:
            details["model"] = [f"unknown model; there are {', '.join(CREDITS)}"]
        if details:
            return self.invalid(details)
        if "failed_in_200" in asked:
            return JSONResponse({"code": 500, "message": asked.message, "data": None})
        parsed, dialect = Generation.model_validate(body), asked.dialect or self.dialect
        extension = "jpg" if body.get("output_format") == "jpeg" else "png"
        return received.job(
            id=f"n47{uuid.uuid4().hex[:12]}_{parsed.model}",
            model=parsed.model,
            prompt=parsed.prompt,
            cost=CREDITS[parsed.model] * parsed.num_images,
            input={name: value for name, value in body.items() if name != "callback_url"},
            specs=received.specs(
                parsed.prompt, parsed.model, received.shaped(parsed.aspect_ratio), seed=parsed.seed,
                count=parsed.num_images, extension=extension,
            ),
            callback_url=parsed.callback_url,
            events={"completed", "failed"} | ({"progress"} if dialect == "kling" else set()),
            seed=parsed.seed if self.reports_seed else None,
            options={"dialect": dialect},
        )  # fmt: skip

    def accepted(self, job: SandboxJob) -> Response:
        """Build the response to a submission: 200, not 202."""
        data = {"task_id": job.id, "status": "IN_PROGRESS"}
        return JSONResponse({"code": 200, "message": "success", "data": data})

    def finished(self, _sandbox: Sandbox, job: SandboxJob) -> Response:
        """Build OpenAI's response, without a task: https://platform.openai.com/docs/api-reference/images."""
        images = [{"b64_json": uri.partition(",")[2]} for uri in job.inline]
        return JSONResponse({"created": round(job.created_at), "data": images})

    def polled(self, _sandbox: Sandbox, job: SandboxJob) -> Body:
        """Build the task."""
        events: dict[str, Event] = {"COMPLETED": "completed", "FAILED": "failed"}
        return envelope(job, events.get(job.status, "progress"), job.named())

    def callback(self, job: SandboxJob, event: Event, links: list[Any]) -> Body:
        """Build a callback in the shape that its job asked for."""
        return SHAPES[job.options["dialect"]](job, event, links)


def envelope(job: SandboxJob, event: Event, links: list[Any]) -> Body:
    """Build the task, as its task route returns it."""
    words = {"progress": "IN_PROGRESS", "completed": "completed", "failed": "failed"}
    data: Body = {"task_id": job.id, "status": words[event], "model": job.model, "error": None}
    if event == "completed":
        data["output"] = {"image_urls": links}
        if "withheld_image" in job.faults:
            data["output"] = {
                "image_urls": [None if n == 1 else link for n, link in enumerate(links)],
                "reasons": [job.faults.message if n == 1 else None for n in range(len(links))],
            }
    if event == "failed":
        data["error"] = {"message": job.error}
    if job.seed is not None:
        data["seed"] = job.seed
    return {"code": 200, "message": "success", "data": data}


def kie(job: SandboxJob, event: Event, links: list[Any]) -> Body:
    """Build kie.ai's: JSON as text inside JSON, and 501 for a failure: https://docs.kie.ai."""
    words = {"progress": "generating", "completed": "success", "failed": "fail"}
    failed = event == "failed"
    data = {
        "taskId": job.id,
        "model": job.model,
        "state": words[event],
        "param": json.dumps({"input": job.input}),
        "resultJson": json.dumps({"resultUrls": links}) if event == "completed" else None,
        "failCode": "501" if failed else None,
        "failMsg": job.error,
        "createTime": round(job.created_at * 1000),
        "completeTime": None if job.completed_at is None else round(job.completed_at * 1000),
        "creditsConsumed": job.cost,
    }
    return {
        "code": 501 if failed else 200,
        "msg": job.error if failed else "Playground task completed successfully.",
        "data": data,
    }


def kling(job: SandboxJob, event: Event, links: list[Any]) -> Body:
    """Build Kling's, resold by many: `succeed` without an ending, and a callback at every change."""
    words = {"progress": "processing", "completed": "succeed", "failed": "failed"}
    updated_at = job.completed_at or job.created_at
    return {
        "task_id": job.id,
        "task_status": words[event],
        "task_status_msg": job.error or "",
        "created_at": round(job.created_at * 1000),
        "updated_at": round(updated_at * 1000),
        "task_result": {
            "images": [{"index": n, "url": url} for n, url in enumerate(links)]
            if event == "completed"
            else []
        },
    }


def evolink(job: SandboxJob, event: Event, links: list[Any]) -> Body:
    """Build EvoLink's task object: https://docs.evolink.ai."""
    words = {"progress": "processing", "completed": "completed", "failed": "failed"}
    body: Body = {
        "id": job.id,
        "object": "image.generation.task",
        "model": job.model,
        "status": words[event],
        "progress": job.so_far if event == "progress" else 100,
        "created": round(job.created_at),
        "results": links if event == "completed" else [],
        "task_info": {},
        "usage": {},
    }
    if event == "failed":
        body["error"] = {"code": "generation_failed", "message": job.error}
    return body


def flat(job: SandboxJob, event: Event, links: list[Any]) -> Body:
    """Build a plain one: `data.image_url` and a word for the status."""
    words = {"progress": "processing", "completed": "success", "failed": "error"}
    data: Body = {}
    if event == "completed":
        data = {"image_url": links[0]} if len(links) == 1 else {"image_url": links[0], "image_urls": links}
    body: Body = {"task_id": job.id, "status": words[event], "data": data}
    return {**body, "message": job.error} if event == "failed" else body


SHAPES: Mapping[str, Callable[[SandboxJob, Event, list[Any]], Body]] = {
    "envelope": envelope,
    "kie": kie,
    "kling": kling,
    "evolink": evolink,
    "flat": flat,
}
