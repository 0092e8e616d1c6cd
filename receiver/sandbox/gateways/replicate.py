"""Stand in for Replicate: https://replicate.com/docs/topics/webhooks and its OpenAPI file."""

import uuid
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from receiver.sandbox.core import faults
from receiver.sandbox.core.callbacks import Body, Message
from receiver.sandbox.core.config import Account
from receiver.sandbox.core.jobs import SandboxJob, State, iso
from receiver.sandbox.core.lifecycle import Sandbox
from receiver.sandbox.core.signing import base64_mac, secret_of, standard, whsec
from receiver.sandbox.core.stand_in import Received, StandIn, Uri, lacking, problems

FAULTS = {**faults.DATED, "data_removed": "polls say that it succeeded and that its data is deleted"}
WORDS: Mapping[State, str] = {
    "QUEUED": "starting",
    "PROCESSING": "processing",
    "COMPLETED": "succeeded",
    "FAILED": "failed",
    "CANCELLED": "canceled",
}
ONE_OUTPUT = ("google/imagen", "google/nano-banana")
"""Models whose output is one URL and not a list."""
PAGE = 100


class Prediction(BaseModel):
    """A request for a prediction; the input is the model's own."""

    model_config = ConfigDict(strict=True)

    version: str | None = None
    input: dict[str, Any]
    webhook: Uri | None = None
    webhook_events_filter: list[Literal["start", "output", "logs", "completed"]] = ["output", "completed"]


class Replicate(StandIn):
    """Replicate. Deletes what it made after an hour."""

    name = "replicate"
    key_prefix = "r8"
    below = "/v1/predictions"
    own_faults = FAULTS
    image_fields = frozenset(["image", "image_input", "input_image", "input_images"])
    model = "black-forest-labs/flux-schnell"
    life_s = 3600
    retry_delays_s = (0.5, 1, 2, 4, 8, 16, 32, 60)

    def routes(self) -> list[Route]:
        """Return its routes."""
        return [
            self.route("/v1/predictions", self.page),
            self.route("/v1/predictions", self.submit, "POST"),
            self.route("/v1/models/{owner}/{name}/predictions", self.submit, "POST"),
            self.route("/v1/predictions/{id}", self.poll),
            self.route("/v1/predictions/{id}/cancel", self.cancel, "POST"),
            self.route("/v1/webhooks/default/secret", self.secret),
        ]

    def error(self, status: int, message: str) -> Body:
        """Build the body of an error response: https://www.rfc-editor.org/rfc/rfc7807."""
        return {"title": "Request refused", "detail": message, "status": status}

    async def read(self, received: Received) -> SandboxJob | Response:
        """Validate a prediction."""
        details = problems(Prediction, received.body)
        path = received.request.path_params
        model = f"{path['owner']}/{path['name']}" if path else str(received.body.get("version") or "")
        if not model:
            details["version"] = ["version is required"]
        details |= lacking(received.body, "prompt", self.image_fields)
        if details:
            return self.invalid(details)
        parsed = Prediction.model_validate(received.body)
        count, prompt = (
            int(parsed.input.get("num_outputs", 1)),
            received.prompt(parsed.input.get("prompt"), model),
        )
        wanted = set(parsed.webhook_events_filter)
        size = received.shaped(str(parsed.input.get("aspect_ratio", "1:1")))
        return received.job(
            id=uuid.uuid4().hex[:26],
            model=model.partition(":")[0],
            prompt=prompt,
            cost=4 * count,
            input=parsed.input,
            specs=received.specs(
                prompt,
                model,
                size,
                seed=parsed.input.get("seed"),
                count=count,
                extension="png" if parsed.input.get("output_format") == "png" else "jpg",
            ),
            callback_url=parsed.webhook,
            events={"completed", "failed", "cancelled"} if "completed" in wanted else (),
            options={"wanted": wanted},
        )

    def accepted(self, job: SandboxJob) -> Response:
        """Build the response to a submission: the prediction, as a poll gives it."""
        return JSONResponse(self.report(job, job.status, []), 201)

    def tells(self, job: SandboxJob) -> bool:
        """Return whether `start` or `output` is told now, if that was asked for."""
        event = {10: "start", 80: "output"}.get(job.progress)
        return event in job.options["wanted"]

    def report(self, job: SandboxJob, state: State, links: list[Any]) -> Body:
        """Build the prediction: the same for submissions, polls and callbacks."""
        url = f"{job.base_url}/v1/predictions/{job.id}"
        output: Any = links if state == "COMPLETED" or job.progress >= 80 else None
        if output and job.model.startswith(ONE_OUTPUT):
            output = output[0]
        done = state in ("COMPLETED", "FAILED", "CANCELLED")
        return {
            "id": job.id,
            "model": job.model,
            "version": "hidden",
            "status": WORDS[state],
            "input": job.input,
            "output": output if state != "FAILED" else None,
            "logs": "" if state == "QUEUED" else f"Using seed: {job.input.get('seed', 1)}\n",
            "error": job.error if state == "FAILED" else None,
            "metrics": {"predict_time": 0.5, "total_time": 0.6} if done else {},
            "created_at": iso(job.created_at),
            "started_at": None if state == "QUEUED" else iso(job.created_at),
            "completed_at": job.done_at if done else None,
            "data_removed": False,
            "urls": {"get": url, "cancel": f"{url}/cancel"},
        }

    def polled(self, sandbox: Sandbox, job: SandboxJob) -> Body:
        """Build the prediction; an hour after its end it has neither input nor output."""
        body = super().polled(sandbox, job)
        if sandbox.expired(job) or ("data_removed" in job.faults and job.done):
            body |= {"input": {}, "output": None, "logs": "", "data_removed": True}
        return body

    async def page(self, request: Request, sandbox: Sandbox, account: Account) -> Response:
        """`GET /v1/predictions`, newest first, 100 a page."""
        found = list(sandbox.jobs.latest(account))
        cursor = request.query_params.get("cursor")
        start = next((n for n, job in enumerate(found, 1) if job.id == cursor), 0)
        shown, more = found[start : start + PAGE], len(found) > start + PAGE
        following = request.url.include_query_params(cursor=shown[-1].id) if more else None
        results = [self.polled(sandbox, job) for job in shown]
        return JSONResponse({"results": results, "next": following and str(following), "previous": None})

    async def cancel(self, request: Request, sandbox: Sandbox, account: Account) -> Response:
        """`POST /v1/predictions/{id}/cancel`."""
        job = self.find(request.path_params["id"], sandbox, account)
        if isinstance(job, SandboxJob):
            sandbox.cancel(job)
        return await self.poll(request, sandbox, account)

    async def secret(self, _request: Request, _sandbox: Sandbox, account: Account) -> Response:
        """`GET /v1/webhooks/default/secret`."""
        return JSONResponse({"key": whsec(account.key)})

    def settings(self, account: Account, url: str) -> dict[str, str]:  # noqa: ARG002
        """Return the secret of its callbacks."""
        return {"webhook_secrets": whsec(account.key)}

    def key(self, job: SandboxJob) -> bytes | None:
        """Return what the base64 of the secret stands for."""
        return secret_of(job.account.key)

    def sign(self, key: bytes, message: Message) -> dict[str, str]:
        """Return the headers of Standard Webhooks."""
        signature = base64_mac(key, message.id, message.sent_at, message.body)
        return standard(message.id, message.sent_at, f"v1,{signature}")
