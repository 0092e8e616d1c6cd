"""Stand in for Black Forest Labs: https://docs.bfl.ml and https://api.bfl.ai/openapi.json.

The signature of its callbacks is that of https://github.com/black-forest-labs/skills, which is not a document
of the API itself.
"""

import uuid
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from receiver.sandbox.core import faults
from receiver.sandbox.core.callbacks import Body, Message
from receiver.sandbox.core.config import Account
from receiver.sandbox.core.jobs import Event, SandboxJob, iso
from receiver.sandbox.core.lifecycle import Sandbox
from receiver.sandbox.core.signing import mac
from receiver.sandbox.core.stand_in import Details, Received, StandIn, Uri, fastapi_errors, problems

NOT_FOUND = "Task not found"
MOST_PX = 4 * 1024 * 1024


class Generation(BaseModel):
    """A request; which of these fields a model takes is its own."""

    model_config = ConfigDict(extra="ignore", strict=True)

    prompt: str
    width: int | None = Field(default=None, ge=0, le=4096)
    height: int | None = Field(default=None, ge=0, le=4096)
    aspect_ratio: str | None = Field(default=None, pattern=r"^\d+:\d+$")
    seed: int | None = None
    output_format: str = Field(default="jpeg", pattern="^(jpeg|png)$")
    webhook_url: Uri | None = Field(default=None, max_length=2083)
    webhook_secret: str | None = None


class BlackForestLabs(StandIn):
    """Black Forest Labs. Its links die after ten minutes, and each request has a secret of its own."""

    name = "bfl"
    key_prefix = "bfl"
    below = "/v1/get_result"
    key_header, key_scheme = "x-key", ""
    own_faults = faults.SIGNED
    image_fields = frozenset(["input_image", *(f"input_image_{n}" for n in range(2, 9)), "image", "mask"])
    model = "flux-2-pro"
    life_s = 600
    retry_delays_s = (1, 5, 30)

    def routes(self) -> list[Route]:
        """Return its two routes; each model has a path of its own."""
        return [
            self.route("/v1/get_result", self.result),
            self.route("/v1/{model}", self.submit, "POST"),
        ]

    def error(self, status: int, message: str) -> Body:  # noqa: ARG002
        """Build the body of an error response."""
        return {"detail": message}

    def invalid(self, details: Details) -> Response:
        """Build the response to a body that does not pass validation."""
        return JSONResponse(fastapi_errors(details), 422)

    async def read(self, received: Received) -> SandboxJob | Response:
        """Validate a request to a model's path."""
        model = received.request.path_params["model"]
        if not model.startswith("flux-"):
            return self.refuse(404, "Not Found")
        details = problems(Generation, received.body)
        if "flux-2" in model and "aspect_ratio" in received.body:
            details["aspect_ratio"] = ["Extra inputs are not permitted"]
        if details:
            return self.invalid(details)
        parsed = Generation.model_validate(received.body)
        if parsed.width and parsed.height:
            size = received.scaled(parsed.width, parsed.height)
        else:
            size = received.shaped(parsed.aspect_ratio or "1:1")
        seed = received.seed(32) if parsed.seed is None else parsed.seed
        extension = "png" if parsed.output_format == "png" else "jpg"
        return received.job(
            id=str(uuid.uuid4()),
            model=model,
            prompt=parsed.prompt,
            cost=4,
            input={key: value for key, value in received.body.items() if not key.startswith("webhook_")},
            specs=received.specs(parsed.prompt, model, size, seed=seed, extension=extension),
            callback_url=parsed.webhook_url,
            seed=seed,
            options={"secret": parsed.webhook_secret},
        )

    def accepted(self, job: SandboxJob) -> Response:
        """Build the response to a submission: one with a webhook has no `polling_url`."""
        told: Body = {"id": job.id, "cost": float(job.cost), "output_mp": 1.0}
        if job.callback_url:
            return JSONResponse({**told, "status": "Pending", "webhook_url": job.callback_url})
        return JSONResponse({**told, "polling_url": f"{job.base_url}/v1/get_result?id={job.id}"})

    async def result(self, request: Request, sandbox: Sandbox, account: Account) -> Response:
        """`GET /v1/get_result?id=`."""
        job_id = request.query_params.get("id", "")
        if sandbox.jobs.get(job_id, account) is None:
            return JSONResponse({"id": job_id, "status": NOT_FOUND, "result": None})
        return self.told(job_id, sandbox, account)

    def polled(self, _sandbox: Sandbox, job: SandboxJob) -> Body:
        """Build a result."""
        word = {"COMPLETED": "Ready", "FAILED": "Error"}.get(job.status, "Pending")
        made = _result(job, job.named()) if word == "Ready" else None
        details = {"error": job.error} if job.error else None
        return {
            "id": job.id,
            "status": word,
            "result": made,
            "progress": job.progress / 100,
            "details": details,
        }

    def callback(self, job: SandboxJob, event: Event, links: list[Any]) -> Body:
        """Build a callback."""
        told: Body = {"id": job.id, "timestamp": job.done_at or iso(job.created_at)}
        if event == "completed":
            return {**told, "status": "Ready", "result": _result(job, links)}
        if event == "progress":
            return {**told, "status": "Pending"}
        return {**told, "status": "Error", "error": "generation_failed", "message": job.error}

    def key(self, job: SandboxJob) -> bytes | None:
        """Return the secret that the request brought."""
        secret = job.options["secret"]
        return None if secret is None else str(secret).encode()

    def sign(self, key: bytes, message: Message) -> dict[str, str]:
        """Return the HMAC over the body."""
        return {"x-bfl-signature": f"sha256={mac(key, message.body).hex()}"}


def _result(job: SandboxJob, links: list[Any]) -> Body:
    return {"sample": links[0] if links else None, "prompt": job.prompt, "seed": job.seed, "duration": 0.5}
