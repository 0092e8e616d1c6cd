"""Stand in for Ideogram 4: https://developer.ideogram.ai and `ideogram-api/webhooks` there."""

import json
import uuid
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from receiver.sandbox.core import faults
from receiver.sandbox.core.callbacks import Body, Message
from receiver.sandbox.core.config import Account
from receiver.sandbox.core.jobs import Event, SandboxJob, iso
from receiver.sandbox.core.lifecycle import Sandbox
from receiver.sandbox.core.signing import four_lines, jwk, secret_of
from receiver.sandbox.core.stand_in import Details, Received, StandIn, Uri, problems

FAULTS = {
    **faults.DATED,
    "unsafe_image": "the image is withheld: `is_image_safe` is false, and its `url` is null",
    "changed_prompt": "the prompt in callbacks and polls is another than the one that was sent",
}
KEY, KEY_ID, USER = secret_of("ideogram"), "sandbox-key-1", "sandbox-user"
WORDS = {"COMPLETED": "completed", "FAILED": "failed", "CANCELLED": "failed"}


class Form(BaseModel):
    """The fields of the form, with the parameter of the query."""

    model_config = ConfigDict(extra="forbid")

    text_prompt: str = Field(min_length=1)
    resolution: str = Field(default="2048x2048", pattern=r"^\d{3,4}x\d{3,4}$")
    rendering_speed: Literal["TURBO", "DEFAULT", "QUALITY"] = "DEFAULT"
    enable_copyright_detection: bool = False
    webhook_url: Uri | None = None


class Ideogram(StandIn):
    """Ideogram. It takes a form, has no seed or count to send, and calls back for successes only."""

    name = "ideogram"
    key_prefix = "ideo"
    below = "/v1/generations/"
    key_header, key_scheme = "api-key", ""
    own_faults = FAULTS
    not_json = "The body is not a form"
    model = "ideogram-v4"

    def routes(self) -> list[Route]:
        """Return its routes."""
        return [
            Route("/v1/.well-known/jwks.json", self.keys),
            self.route("/v1/{model}/async/generate", self.submit, "POST"),
            self.route("/v1/generations/{id}", self.poll),
        ]

    def error(self, status: int, message: str) -> Body:  # noqa: ARG002
        """Build the body of an error response."""
        return {"error": message}

    def invalid(self, details: Details) -> Response:
        """Build the response to a form that does not pass validation."""
        return self.refuse(400, "; ".join(f"{path}: {', '.join(said)}" for path, said in details.items()))

    async def decode(self, request: Request, _raw: bytes) -> dict[str, Any] | None:
        """Return the fields of a form; what is asked of the sandbox may be JSON in one of them."""
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            return None
        fields = {name: value for name, value in (await request.form()).items() if isinstance(value, str)}
        wish = fields.get("sandbox", "")
        return fields | ({"sandbox": json.loads(wish)} if wish.startswith("{") else {})

    async def read(self, received: Received) -> SandboxJob | Response:
        """Validate a form. Plain http is for loopback only, as nothing there can have a certificate."""
        body = received.body | dict(received.request.query_params)
        details = problems(Form, body)
        url = urlsplit(body.get("webhook_url", ""))
        if url.scheme == "http" and url.hostname not in ("127.0.0.1", "localhost", "::1"):
            details["webhook_url"] = ["webhook_url must use HTTPS"]
        if details:
            return self.invalid(details)
        parsed = Form.model_validate(body)
        model, seed = received.request.path_params["model"], received.seed()
        width, height = (int(side) for side in parsed.resolution.split("x"))
        return received.job(
            id=uuid.uuid4().hex,
            model=model,
            prompt=parsed.text_prompt,
            cost=4,
            input=received.body,
            specs=received.specs(
                parsed.text_prompt, model, received.scaled(width // 2, height // 2), seed=seed
            ),
            callback_url=parsed.webhook_url,
            events={"completed"},
            seed=seed,
            options={"resolution": parsed.resolution},
        )

    def accepted(self, job: SandboxJob) -> Response:
        """Build the response to a submission."""
        return JSONResponse({"generation_id": job.id})

    def polled(self, _sandbox: Sandbox, job: SandboxJob) -> Body:
        """Build a generation."""
        body = {**_generation(job, job.named()), "status": WORDS.get(job.status, "pending")}
        if job.status == "COMPLETED":
            return {**body, "response_type": "image"}
        del body["data"]
        return body | ({"error": job.error} if job.error else {})

    def callback(self, job: SandboxJob, event: Event, links: list[Any]) -> Body:  # noqa: ARG002
        """Build a callback: it has no status."""
        return _generation(job, links)

    async def keys(self, _request: Request) -> Response:
        """`GET /v1/.well-known/jwks.json`."""
        return JSONResponse({"keys": [jwk(KEY, kid=KEY_ID)]})

    def settings(self, account: Account, url: str) -> dict[str, str]:  # noqa: ARG002
        """Return where its keys are."""
        return {"keys_url": f"{url}/v1/.well-known/jwks.json"}

    def key(self, job: SandboxJob) -> bytes | None:  # noqa: ARG002
        """Return the private key."""
        return KEY

    def sign(self, key: bytes, message: Message) -> dict[str, str]:
        """Return an Ed25519 signature with what it covers."""
        generation_id, sent_at = message.job.id, message.sent_at
        return {
            "x-ideogram-webhook-generation-id": generation_id,
            "x-ideogram-webhook-user-id": USER,
            "x-ideogram-webhook-timestamp": str(sent_at),
            "x-ideogram-webhook-key-id": KEY_ID,
            "x-ideogram-webhook-signature": four_lines(key, generation_id, USER, sent_at, message.body),
        }


def _generation(job: SandboxJob, links: list[Any]) -> Body:
    safe = "unsafe_image" not in job.faults
    prompt = f"{job.prompt}, in rich detail" if "changed_prompt" in job.faults else job.prompt
    more = {"prompt": prompt, "resolution": job.options["resolution"], "seed": job.seed}
    images = [{"url": link if safe else None, "is_image_safe": safe, **more} for link in links]
    return {"generation_id": job.id, "created": iso(job.created_at), "data": images}
