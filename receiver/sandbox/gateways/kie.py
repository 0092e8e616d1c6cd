"""Stand in for Kie.ai: https://docs.kie.ai and `common-api/webhook-verification` there."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from receiver.sandbox.core import faults
from receiver.sandbox.core.callbacks import Body, Message
from receiver.sandbox.core.config import Account
from receiver.sandbox.core.jobs import Event, SandboxJob, State
from receiver.sandbox.core.lifecycle import Sandbox
from receiver.sandbox.core.signing import base64_mac, secret_of
from receiver.sandbox.core.stand_in import STATE_AFTER, Details, Received, StandIn, Uri, lacking, problems

FAULTS = {
    **faults.DATED,
    "bad_result": "the JSON inside `resultJson` is cut in the middle",
    "in_maintenance": "the submit request gets HTTP 200 and code 455 inside, `times` times",
}
WORDS: Mapping[State, str] = {"QUEUED": "waiting", "COMPLETED": "success", "FAILED": "fail"}


class Input(BaseModel):
    """The input of the Imagen models; that of others has further fields."""

    model_config = ConfigDict(extra="ignore", strict=True)

    prompt: str = Field(default="", max_length=5000)
    aspect_ratio: str = "1:1"
    num_images: Literal["1", "2", "3", "4"] = "1"
    seed: int | str | None = None


class Task(BaseModel):
    """A request."""

    model_config = ConfigDict(extra="ignore", strict=True)

    model: str = Field(min_length=1)
    callback_url: Uri | None = Field(default=None, alias="callBackUrl")
    input: Input


@dataclass(frozen=True)
class Kie(StandIn):
    """Kie.ai. Refusals are in HTTP 200, and its signature covers the task's id, not the body."""

    signs: bool = True
    """Whether a webhook key was made in its settings."""

    name = "kie"
    key_prefix = "kie"
    below = "/api/v1/jobs/"
    own_faults = FAULTS
    image_fields = frozenset(["image_urls", "image_input", "input_urls", "image"])
    model = "google/imagen4-fast"

    def routes(self) -> list[Route]:
        """Return its two routes."""
        return [
            self.route("/api/v1/jobs/createTask", self.submit, "POST"),
            self.route("/api/v1/jobs/recordInfo", self.record),
        ]

    def error(self, status: int, message: str) -> Body:
        """Build the body of an error response."""
        return {"code": status, "msg": message, "data": None}

    def invalid(self, details: Details) -> Response:
        """Build the response to a body that does not pass validation: with HTTP 200."""
        return JSONResponse(self.error(422, ", ".join(details)))

    def too_poor(self, cost: int, left: int) -> Response:
        """Build the response to a submission that the account cannot pay: with HTTP 200."""
        return JSONResponse(self.error(402, f"Credits insufficient: {cost} needed, {left} left"))

    async def read(self, received: Received) -> SandboxJob | Response:
        """Validate `POST /api/v1/jobs/createTask`."""
        body = received.body
        if details := problems(Task, body) or lacking(body, "prompt", self.image_fields):
            return self.invalid(details)
        asked, jobs = received.asked, received.sandbox.jobs
        if "in_maintenance" in asked and jobs.spend("in_maintenance", received.name, asked.times or 1):
            return JSONResponse(self.error(455, "Service in maintenance"))
        parsed = Task.model_validate(received.body)
        count, prompt = int(parsed.input.num_images), received.prompt(parsed.input.prompt, parsed.model)
        size = received.shaped(parsed.input.aspect_ratio)
        return received.job(
            id=uuid.uuid4().hex,
            model=parsed.model,
            prompt=prompt,
            cost=4 * count,
            input=received.body["input"],
            specs=received.specs(prompt, parsed.model, size, seed=parsed.input.seed, count=count),
            callback_url=parsed.callback_url,
        )

    def accepted(self, job: SandboxJob) -> Response:
        """Build the response to a submission."""
        return JSONResponse({"code": 200, "msg": "success", "data": {"taskId": job.id}})

    async def record(self, request: Request, sandbox: Sandbox, account: Account) -> Response:
        """`GET /api/v1/jobs/recordInfo?taskId=`."""
        return self.told(request.query_params.get("taskId", ""), sandbox, account)

    def polled(self, _sandbox: Sandbox, job: SandboxJob) -> Body:
        """Build the response to a poll: the words are in `message`, where callbacks have them in `msg`."""
        return {"code": 200, "message": "success", "data": _task(job, job.status, job.named())}

    def callback(self, job: SandboxJob, event: Event, links: list[Any]) -> Body:
        """Build a callback, with code 501 for a failure."""
        failed = event == "failed"
        message = job.error if failed else "Playground task completed successfully."
        return {"code": 501 if failed else 200, "msg": message, "data": _task(job, STATE_AFTER[event], links)}

    def settings(self, account: Account, url: str) -> dict[str, str]:  # noqa: ARG002
        """Return the key of its callbacks."""
        return {"webhook_secrets": secret_of(account.key).hex()}

    def key(self, job: SandboxJob) -> bytes | None:
        """Return the webhook key."""
        return secret_of(job.account.key).hex().encode() if self.signs else None

    def sign(self, key: bytes, message: Message) -> dict[str, str]:
        """Return a signature over the task's id and the time."""
        return {
            "x-webhook-timestamp": str(message.sent_at),
            "x-webhook-signature": base64_mac(key, message.job.id, message.sent_at),
        }


def _task(job: SandboxJob, state: State, links: list[Any]) -> Body:
    result = json.dumps({"resultUrls": links}) if state == "COMPLETED" else ""
    failed = state == "FAILED"
    return {
        "taskId": job.id,
        "model": job.model,
        "state": WORDS.get(state, "generating"),
        "param": json.dumps({"model": job.model, "input": job.input}),
        "resultJson": result[: len(result) // 2] if "bad_result" in job.faults else result,
        "failCode": "501" if failed else "",
        "failMsg": job.error if failed else "",
        "costTime": 500,
        "completeTime": None if job.completed_at is None else round(job.completed_at * 1000),
        "createTime": round(job.created_at * 1000),
        "creditsConsumed": job.cost,
    }
