"""Stand in for Magnific, which was Freepik's API: https://docs.freepik.com/webhooks."""

import base64
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
from receiver.sandbox.core.signing import base64_mac, secret_of, standard
from receiver.sandbox.core.stand_in import STATE_AFTER, Received, StandIn, Uri, lacking, problems

FAULTS = {**faults.DATED, "task_status": "the state is in `task_status` instead of `status`"}
WORDS: Mapping[State, str] = {"QUEUED": "CREATED", "COMPLETED": "COMPLETED", "FAILED": "FAILED"}


class Generation(BaseModel):
    """A request; further fields are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)

    prompt: str = ""
    aspect_ratio: str = Field(default="square_1_1", pattern=r"^[a-z_]+_\d{1,2}_\d{1,2}$")
    resolution: Literal["1k", "2k", "4k"] = "1k"
    seed: int | None = None
    webhook_url: Uri | None = None


@dataclass(frozen=True)
class Magnific(StandIn):
    """Magnific. Tells each change of a task by callback, without the `data` around it that polls have."""

    key_form: Literal["text", "base64"] = "text"
    """Whether signatures are keyed by the secret's text, or by what its base64 stands for."""

    name = "magnific"
    key_prefix = "fpsx"
    below = "/v1/ai/"
    key_header, key_scheme = "x-magnific-api-key", ""
    own_faults = FAULTS
    image_fields = frozenset(
        ["image", "reference_image", "reference_images", "structure_reference", "style_reference"]
    )
    model = "mystic"

    def routes(self) -> list[Route]:
        """Return its routes: a task is polled below the path of its model."""
        found = []
        for path in ("/v1/ai/{model}", "/v1/ai/text-to-image/{model}"):
            found += [self.route(path, self.submit, "POST"), self.route(f"{path}/{{id}}", self.poll)]
        return found

    def key_of(self, request: Request) -> str | None:
        """Return the API key; the header's old name works too."""
        return request.headers.get("x-freepik-api-key") or super().key_of(request)

    def error(self, status: int, message: str) -> Body:  # noqa: ARG002
        """Build the body of an error response."""
        return {"message": message}

    async def read(self, received: Received) -> SandboxJob | Response:
        """Validate a request to a model's path."""
        body = received.body
        if details := problems(Generation, body) or lacking(body, "prompt", self.image_fields):
            return self.invalid(details)
        parsed, model = Generation.model_validate(received.body), received.request.path_params["model"]
        ratio = ":".join(parsed.aspect_ratio.rsplit("_", 2)[1:])
        size = received.shaped(ratio, 2 if parsed.resolution == "2k" else 1)
        prompt = received.prompt(parsed.prompt, model)
        return received.job(
            id=str(uuid.uuid4()),
            model=model,
            prompt=prompt,
            cost=4,
            input={key: value for key, value in received.body.items() if key != "webhook_url"},
            specs=received.specs(prompt, model, size, seed=parsed.seed),
            callback_url=parsed.webhook_url,
            events={"progress", "completed", "failed"},
        )

    def accepted(self, job: SandboxJob) -> Response:
        """Build the response to a submission."""
        return JSONResponse({"data": _task(job, "QUEUED", [])})

    def tells(self, job: SandboxJob) -> bool:
        """Return whether the task has changed: to `CREATED`, then to `IN_PROGRESS`."""
        return job.progress < 80

    def polled(self, _sandbox: Sandbox, job: SandboxJob) -> Body:
        """Build the response to a poll."""
        return {"data": _task(job, job.status, job.named())}

    def callback(self, job: SandboxJob, event: Event, links: list[Any]) -> Body:
        """Build a callback: the task itself."""
        return _task(job, "QUEUED" if job.progress == 10 else STATE_AFTER[event], links)

    def settings(self, account: Account, url: str) -> dict[str, str]:  # noqa: ARG002
        """Return the secret of its callbacks."""
        return {"webhook_secrets": _secret(account)}

    def key(self, job: SandboxJob) -> bytes | None:
        """Return the secret in its form."""
        secret = _secret(job.account)
        return base64.b64decode(secret) if self.key_form == "base64" else secret.encode()

    def sign(self, key: bytes, message: Message) -> dict[str, str]:
        """Return the headers of Standard Webhooks."""
        signature = base64_mac(key, message.id, message.sent_at, message.body)
        return standard(message.id, message.sent_at, f"v1,{signature}")


def _secret(account: Account) -> str:
    return base64.b64encode(secret_of(account.key)).decode()


def _task(job: SandboxJob, state: State, links: list[Any]) -> Body:
    done = state == "COMPLETED"
    return {
        "task_id": job.id,
        "task_status" if "task_status" in job.faults else "status": WORDS.get(state, "IN_PROGRESS"),
        "generated": links if done else [],
        "has_nsfw": [False for _ in links] if done else [],
    } | ({"error": job.error} if state == "FAILED" else {})
