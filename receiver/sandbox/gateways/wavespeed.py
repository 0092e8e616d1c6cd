"""Stand in for WaveSpeedAI: https://wavespeed.ai/docs/how-to-use-webhooks and `verify-webhooks` there."""

import uuid
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from receiver.sandbox.core import faults
from receiver.sandbox.core.callbacks import Body, Message
from receiver.sandbox.core.config import Account
from receiver.sandbox.core.jobs import Event, SandboxJob, State, iso
from receiver.sandbox.core.lifecycle import Sandbox
from receiver.sandbox.core.signing import mac, standard, whsec
from receiver.sandbox.core.stand_in import STATE_AFTER, Received, StandIn, Uri, lacking, problems

WORDS: Mapping[State, str] = {
    "QUEUED": "created",
    "PROCESSING": "processing",
    "COMPLETED": "completed",
    "FAILED": "failed",
    "CANCELLED": "cancelled",
}


class Prediction(BaseModel):
    """A model's input; its own further fields are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)

    prompt: str = ""
    seed: int = Field(default=-1, ge=-1)
    size: str = Field(default="1024*1024", pattern=r"^\d{2,4}\*\d{2,4}$")
    aspect_ratio: str | None = None
    num_images: int = Field(default=1, ge=1, le=4)
    webhook: Uri | None = None


class WaveSpeed(StandIn):
    """WaveSpeedAI. Responses are in an envelope, callbacks are not."""

    name = "wavespeed"
    key_prefix = "ws"
    below = "/api/v3/"
    own_faults = faults.DATED
    image_fields = frozenset(["image", "images"])
    model = "wavespeed-ai/flux-dev"

    def routes(self) -> list[Route]:
        """Return its routes; each model has a path of its own."""
        return [
            self.route("/api/v3/webhook/secret", self.secret),
            self.route("/api/v3/predictions/{id}/result", self.poll),
            self.route("/api/v3/{vendor}/{model:path}", self.submit, "POST"),
        ]

    def error(self, status: int, message: str) -> Body:
        """Build the body of an error response."""
        return {"code": status, "message": message}

    async def read(self, received: Received) -> SandboxJob | Response:
        """Validate a prediction; the webhook is in the query."""
        path, query = received.request.path_params, received.request.query_params
        body = received.body | ({"webhook": query["webhook"]} if "webhook" in query else {})
        if details := problems(Prediction, body) or lacking(body, "prompt", self.image_fields):
            return self.invalid(details)
        parsed = Prediction.model_validate(body)
        width, height = (int(side) for side in parsed.size.split("*"))
        size = received.shaped(parsed.aspect_ratio) if parsed.aspect_ratio else received.scaled(width, height)
        model = f"{path['vendor']}/{path['model']}"
        prompt = received.prompt(parsed.prompt, model)
        return received.job(
            id=uuid.uuid4().hex,
            model=model,
            prompt=prompt,
            cost=4 * parsed.num_images,
            input=received.body,
            specs=received.specs(prompt, model, size, seed=parsed.seed, count=parsed.num_images),
            callback_url=parsed.webhook,
            seed=parsed.seed,
        )

    def accepted(self, job: SandboxJob) -> Response:
        """Build the response to a submission."""
        return JSONResponse(_envelope(_prediction(job, job.status, [])))

    def polled(self, _sandbox: Sandbox, job: SandboxJob) -> Body:
        """Build the response to a poll."""
        return _envelope(_prediction(job, job.status, job.named()))

    def callback(self, job: SandboxJob, event: Event, links: list[Any]) -> Body:
        """Build a callback: the prediction itself."""
        return _prediction(job, STATE_AFTER[event], links)

    async def secret(self, _request: Request, _sandbox: Sandbox, account: Account) -> Response:
        """`GET /api/v3/webhook/secret`."""
        return JSONResponse(_envelope({"secret": whsec(account.key)}))

    def settings(self, account: Account, url: str) -> dict[str, str]:  # noqa: ARG002
        """Return the secret of its callbacks."""
        return {"webhook_secrets": whsec(account.key)}

    def key(self, job: SandboxJob) -> bytes | None:
        """Return the secret without what it begins with, as text."""
        return whsec(job.account.key).removeprefix("whsec_").encode()

    def sign(self, key: bytes, message: Message) -> dict[str, str]:
        """Return headers like those of Standard Webhooks, with a signature in hex."""
        signature = mac(key, message.id, message.sent_at, message.body).hex()
        return standard(message.id, message.sent_at, f"v3,{signature}")


def _envelope(data: Body) -> Body:
    return {"code": 200, "message": "success", "data": data}


def _prediction(job: SandboxJob, state: State, links: list[Any]) -> Body:
    done = state == "COMPLETED"
    return {
        "id": job.id,
        "model": job.model,
        "input": {"seed": job.seed, **job.input},
        "outputs": links if done else [],
        "urls": {"get": f"{job.base_url}/api/v3/predictions/{job.id}/result"},
        "status": WORDS[state],
        "created_at": iso(job.created_at),
        "error": job.error or "" if state == "FAILED" else "",
        "has_nsfw_contents": [False for _ in links] if done else [],
        "timings": {"inference": 500 if done else 0},
    }
