"""Stand in for fal.ai: https://fal.ai/docs/documentation/model-apis/inference/queue and `webhooks` there."""

import uuid
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from receiver.sandbox.core import faults
from receiver.sandbox.core.callbacks import Body, Message, bent
from receiver.sandbox.core.config import Account
from receiver.sandbox.core.jobs import Event, SandboxJob
from receiver.sandbox.core.lifecycle import Sandbox
from receiver.sandbox.core.signing import four_lines, jwk, secret_of
from receiver.sandbox.core.stand_in import Details, Received, StandIn, Uri, fastapi_errors, lacking, problems

FAULTS = {
    **faults.DATED,
    "rotated_key": "callbacks are signed with a new key, which the keys route has from then on",
    "retried_inside": "`gateway_request_id` is another than `request_id`",
    "payload_error": "callbacks have no payload, because it could not be serialised",
}
KEYS = secret_of("fal, the first key"), secret_of("fal, the second key")
USER = "sandbox-user"
ONE_IMAGE = ("upscaler", "rembg", "background/remove")
"""How models end whose result has one image, not a list."""
SIZES: Mapping[str, tuple[int, int]] = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}


class _ModelConvertor(StringConvertor):
    # Any owner and app, but nothing that another gateway of the same sandbox could have.
    regex = r"(?!v\d+/|api/|images/|uploads/|sandbox/|\.)[^/]+/.+"


register_url_convertor("model", _ModelConvertor())


class Input(BaseModel):
    """A model's input; further fields are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)

    prompt: str | None = None
    seed: int | None = None
    num_images: int = Field(default=1, ge=1, le=4)
    image_size: str | dict[str, int] = "landscape_4_3"
    aspect_ratio: str | None = None
    output_format: str = Field(default="jpeg", pattern="^(jpeg|png)$")
    fal_webhook: Uri | None = None


class Fal(StandIn):
    """fal.ai. A poll takes two steps, and the routes of a request have the first two parts of its model."""

    name = "fal"
    key_prefix = "fal"
    below = "/fal-ai/"
    key_scheme = "Key "
    own_faults = FAULTS
    image_fields = frozenset(["image_url", "image_urls", "mask_url"])
    model = "fal-ai/flux/dev"
    life_s = 7 * 24 * 3600
    retry_delays_s = (15, 30, 60, 120, 240, 480, 960, 1800, 3600)

    def routes(self) -> list[Route]:
        """Return its routes; the path of a model could be any."""
        return [
            Route("/.well-known/jwks.json", self.keys),
            self.route("/{app:model}/requests/{id}/status", self.status),
            self.route("/{app:model}/requests/{id}/cancel", self.cancel, "PUT"),
            self.route("/{app:model}/requests/{id}", self.result),
            self.route("/{model:model}", self.submit, "POST"),
        ]

    def error(self, status: int, message: str) -> Body:  # noqa: ARG002
        """Build the body of an error response."""
        return {"detail": message}

    def invalid(self, details: Details) -> Response:
        """Build the response to a body that does not pass validation."""
        return JSONResponse(fastapi_errors(details), 422)

    def stamp(self) -> dict[str, str]:
        """Return the header that tells its own responses from those of a proxy."""
        return {"x-fal-request-id": str(uuid.uuid4())}

    async def read(self, received: Received) -> SandboxJob | Response:
        """Validate a model's input; the webhook is in the query."""
        model, query = received.request.path_params["model"], received.request.query_params
        body = received.body | ({"fal_webhook": query["fal_webhook"]} if "fal_webhook" in query else {})
        details = problems(Input, body) or lacking(body, "prompt", self.image_fields)
        if isinstance(body.get("image_size"), str) and body["image_size"] not in SIZES:
            details["image_size"] = [f"Input should be one of {', '.join(SIZES)}"]
        if details:
            return self.invalid(details)
        parsed = Input.model_validate(body)
        wanted = parsed.image_size
        pixels = SIZES[wanted] if isinstance(wanted, str) else (wanted["width"], wanted["height"])
        size = received.shaped(parsed.aspect_ratio) if parsed.aspect_ratio else received.scaled(*pixels)
        prompt = received.prompt(parsed.prompt, model)
        seed = received.seed(62) if parsed.seed is None else parsed.seed
        extension = "png" if parsed.output_format == "png" else "jpg"
        return received.job(
            id=str(uuid.uuid4()),
            model=model,
            prompt=prompt,
            cost=4 * parsed.num_images,
            input=received.body,
            specs=received.specs(
                prompt, model, size, seed=seed, count=parsed.num_images, extension=extension
            ),
            callback_url=parsed.fal_webhook,
            seed=seed,
        )

    def accepted(self, job: SandboxJob) -> Response:
        """Build the response to a submission."""
        return JSONResponse({**_links(job), "status": "IN_QUEUE", "queue_position": 0, **_ids(job)})

    async def status(self, request: Request, sandbox: Sandbox, account: Account) -> Response:
        """`GET /{owner}/{app}/requests/{id}/status`: 202 until it is done."""
        job = self._asked(request, sandbox, account)
        if isinstance(job, Response):
            return job
        told: Body = {"status": _word(job), "request_id": job.id, **_links(job), "logs": None}
        if job.done:
            told["metrics"] = {"inference_time": 0.5}
        if job.status in ("FAILED", "CANCELLED"):
            told |= {"error": job.error or "Request was cancelled", "error_type": "request_failed"}
        return JSONResponse(bent(job, told), 200 if job.done else 202)

    async def result(self, request: Request, sandbox: Sandbox, account: Account) -> Response:
        """`GET /{owner}/{app}/requests/{id}`: the bare output, or the model's own error."""
        job = self._asked(request, sandbox, account)
        if isinstance(job, Response):
            return job
        if not job.done:
            return self.refuse(400, "Request is still in progress")
        if job.status != "COMPLETED":
            return JSONResponse(_failure(job), 422)
        return JSONResponse(bent(job, self.polled(sandbox, job)))

    async def cancel(self, request: Request, sandbox: Sandbox, account: Account) -> Response:
        """`PUT /{owner}/{app}/requests/{id}/cancel`."""
        job = self._asked(request, sandbox, account)
        if isinstance(job, Response):
            return JSONResponse({"status": "NOT_FOUND"}, 404)
        stopped = sandbox.cancel(job)
        word = "CANCELLATION_REQUESTED" if stopped else "ALREADY_COMPLETED"
        return JSONResponse({"status": word}, 202 if stopped else 400)

    async def keys(self, request: Request) -> Response:
        """`GET /.well-known/jwks.json`: a new key beside the first, once it is in use."""
        sandbox: Sandbox = request.app.state.sandbox
        rotated = any("rotated_key" in job.fault for job in sandbox.jobs.reports())
        return JSONResponse({"keys": [jwk(key) for key in (KEYS if rotated else KEYS[:1])]})

    def polled(self, _sandbox: Sandbox, job: SandboxJob) -> Body:
        """Build a result."""
        return _output(job, job.named())

    def callback(self, job: SandboxJob, event: Event, links: list[Any]) -> Body:
        """Build a callback: the result is its payload."""
        told: Body
        if event == "failed":
            told = {"status": "ERROR", "error": "Invalid status code: 422", "payload": _failure(job)}
        elif event == "progress":
            told = {"status": "IN_PROGRESS", "payload": None}
        elif "payload_error" in job.faults:
            problem = "Response payload is not JSON serializable"
            told = {"status": "OK", "payload": None, "payload_error": problem}
        else:
            told = {"status": "OK", "payload": _output(job, links)}
        return {**_ids(job), **told}

    def settings(self, account: Account, url: str) -> dict[str, str]:  # noqa: ARG002
        """Return where its keys are."""
        return {"keys_url": f"{url}/.well-known/jwks.json"}

    def key(self, job: SandboxJob) -> bytes | None:
        """Return one of the two private keys."""
        return KEYS["rotated_key" in job.faults]

    def sign(self, key: bytes, message: Message) -> dict[str, str]:
        """Return an Ed25519 signature with what it covers."""
        request_id = message.job.id
        return {
            "x-fal-webhook-request-id": request_id,
            "x-fal-webhook-user-id": USER,
            "x-fal-webhook-timestamp": str(message.sent_at),
            "x-fal-webhook-signature": four_lines(key, request_id, USER, message.sent_at, message.body),
        }

    def _asked(self, request: Request, sandbox: Sandbox, account: Account) -> SandboxJob | Response:
        job = self.find(request.path_params["id"], sandbox, account)
        if isinstance(job, SandboxJob) and request.path_params["app"] != _app(job):
            return self.refuse(404, self.unknown_job)
        return job


def _app(job: SandboxJob) -> str:
    parts = job.model.split("/")
    return "/".join(parts[: 3 if parts[0] in ("workflows", "comfy") else 2])


def _links(job: SandboxJob) -> dict[str, str]:
    url = f"{job.base_url}/{_app(job)}/requests/{job.id}"
    return {"response_url": url, "status_url": f"{url}/status", "cancel_url": f"{url}/cancel"}


def _ids(job: SandboxJob) -> dict[str, str]:
    again = str(uuid.uuid5(uuid.NAMESPACE_OID, job.id))
    return {"request_id": job.id, "gateway_request_id": again if "retried_inside" in job.faults else job.id}


def _word(job: SandboxJob) -> str:
    return "COMPLETED" if job.done else "IN_QUEUE" if job.status == "QUEUED" else "IN_PROGRESS"


def _failure(job: SandboxJob) -> Body:
    return fastapi_errors({"prompt": [job.error or "Request was cancelled"]})


def _output(job: SandboxJob, links: list[Any]) -> Body:
    images = [
        {"url": link, "content_type": spec.media_type, "width": spec.width, "height": spec.height}
        for link, spec in zip(links, job.specs, strict=False)
    ]
    if job.model.endswith(ONE_IMAGE):
        return {"image": images[0] if images else None}
    return {
        "images": images,
        "seed": job.seed,
        "prompt": job.prompt,
        "has_nsfw_concepts": [False for _ in images],
        "timings": {"inference": 0.5},
    }
