"""Stand in for Bria: https://docs.bria.ai/webhooks and `getting-started/async-requests` there."""

import uuid
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from receiver.sandbox.core import faults
from receiver.sandbox.core.callbacks import Body, Message
from receiver.sandbox.core.jobs import SandboxJob, State
from receiver.sandbox.core.signing import base64_mac, mac
from receiver.sandbox.core.stand_in import Received, StandIn, Uri, lacking, problems

WORDS: Mapping[State, str] = {"COMPLETED": "COMPLETED", "FAILED": "ERROR", "CANCELLED": "ERROR"}


class Generation(BaseModel):
    """A request; further fields are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)

    prompt: str = Field(default="", validation_alias=AliasChoices("prompt", "instruction"))
    sync: bool = False
    seed: int | None = None
    aspect_ratio: Literal["1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9"] = "1:1"
    negative_prompt: str | None = None
    webhook_url: Uri | None = None


class Bria(StandIn):
    """Bria. Callbacks are what polls tell, and may be signed with two tokens."""

    name = "bria"
    key_prefix = "bria"
    below = "/v2/status/"
    key_header, key_scheme = "api_token", ""
    own_faults = faults.DATED
    unknown_job = "Request not found"
    image_fields = frozenset(["image", "images", "mask"])
    model = "image/generate"
    retry_delays_s = (5, 60, 600, 2000)

    def routes(self) -> list[Route]:
        """Return its routes."""
        return [
            self.route("/v2/image/generate", self.submit, "POST"),
            self.route("/v2/image/generate/lite", self.submit, "POST"),
            self.route("/v2/image/edit/{operation:path}", self.submit, "POST"),
            self.route("/v2/image/edit", self.submit, "POST"),
            self.route("/v2/status/{id}", self.poll),
        ]

    def error(self, status: int, message: str) -> Body:
        """Build the body of an error response."""
        error = {"code": status, "message": message, "details": message}
        return {"error": error, "request_id": uuid.uuid4().hex}

    async def read(self, received: Received) -> SandboxJob | Response:
        """Validate `POST /v2/image/generate`."""
        body = received.body
        if details := problems(Generation, body) or lacking(body, "prompt", self.image_fields):
            return self.invalid(details)
        parsed = Generation.model_validate(received.body)
        seed = received.seed() if parsed.seed is None else parsed.seed
        model = received.request.url.path.removeprefix("/v2/")
        prompt = received.prompt(parsed.prompt, model)
        return received.job(
            id=uuid.uuid4().hex,
            model=model,
            prompt=prompt,
            cost=4,
            input={key: value for key, value in received.body.items() if key != "webhook_url"},
            specs=received.specs(prompt, model, received.shaped(parsed.aspect_ratio), seed=seed),
            callback_url=parsed.webhook_url,
            seed=seed,
        )

    def accepted(self, job: SandboxJob) -> Response:
        """Build the response to a submission."""
        told = {"request_id": job.id, "status_url": f"{job.base_url}/v2/status/{job.id}"}
        return JSONResponse(told, 202)

    def report(self, job: SandboxJob, state: State, links: list[Any]) -> Body:
        """Build what polls and callbacks tell."""
        body: Body = {"request_id": job.id, "status": WORDS.get(state, "IN_PROGRESS")}
        if state == "COMPLETED":
            body["result"] = {"image_url": links[0] if links else None, "seed": job.seed}
        if state == "FAILED":
            body["error"] = {"code": 500, "message": job.error, "details": job.error}
        return body

    def key(self, job: SandboxJob) -> bytes | None:
        """Return the API token, of which the key is made."""
        return job.account.key.encode()

    def sign(self, key: bytes, message: Message) -> dict[str, str]:
        """Return a signature with the token, behind one with another token of the account."""
        made = [
            base64_mac(mac(token, "bria-webhook-signing-v1"), message.job.id, message.sent_at, message.body)
            for token in (b"another-token-of-the-account", key)
        ]
        return {
            "bria-webhook-id": message.job.id,
            "bria-webhook-timestamp": str(message.sent_at),
            "bria-webhook-signature": ",".join(f"v1={signature}" for signature in made),
        }
