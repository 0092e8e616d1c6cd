"""Stand in for Apiframe's API v2, by its OpenAPI file and https://docs-v2.apiframe.ai.

The file is the one that its SDK carries, https://github.com/apiframe-ai/apiframe-nodejs-sdk. The Imagen
models and what edits images are checked to the letter; the parameters of other models are taken as they are.
"""

import hashlib
import io
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from receiver.sandbox.core import faults
from receiver.sandbox.core.callbacks import Body, Message, bent
from receiver.sandbox.core.config import Account
from receiver.sandbox.core.jobs import Event, SandboxJob, iso
from receiver.sandbox.core.lifecycle import Sandbox
from receiver.sandbox.core.signing import mac
from receiver.sandbox.core.stand_in import Details, Received, StandIn, Uri, problems

_FAMILIES = {
    "midjourneyParams": "midjourney",
    "nanoBananaParams": "nano-banana nano-banana-pro nano-banana-2 nano-banana-2-lite",
    "fluxParams": "flux-1.1-pro flux-1.1-pro-ultra flux-2-pro flux-2-dev flux-2-flex flux-2-max",
    "seedreamParams": "seedream-3 seedream-3.1 seedream-4 seedream-4.5 seedream-5-lite seedream-5-pro",
    "ideogramParams": "ideogram-v2 ideogram-v2-turbo ideogram-v2a ideogram-v2a-turbo ideogram-v3-balanced "
    "ideogram-v3-turbo ideogram-v3-quality ideogram-v4-balanced ideogram-v4-turbo ideogram-v4-quality "
    "ideogram-character",
    "stableDiffusionParams": "stable-diffusion-3.5-large stable-diffusion-3.5-large-turbo "
    "stable-diffusion-3.5-medium stable-diffusion-3",
    "imagenParams": "imagen-3 imagen-3-fast imagen-4 imagen-4-ultra imagen-4-fast",
    "dalleParams": "dall-e-3 dall-e-2",
    "gptImageParams": "gpt-image-1.5",
    "gptImage2Params": "gpt-image-2",
    "klingImageParams": "kling-image",
    "qwenImageParams": "qwen-image",
    "qwenImage2Params": "qwen-image-2 qwen-image-2-pro",
    "wanImageParams": "wan-image-2.6",
    "wanImage27Params": "wan-image-2.7 wan-image-2.7-pro",
    "grokImagineParams": "grok-imagine-image",
    "reveParams": "reve-create",
    "fluxLoraParams": "flux-lora",
}
FAMILY: Mapping[str, str] = {model: block for block, models in _FAMILIES.items() for model in models.split()}
"""Image models, and the name of each one's parameter block."""
NEEDS_PARAMS = ("ideogram-character", "flux-lora")
LONG_PROMPTS = ("wan-image-2.7", "wan-image-2.7-pro")

SignatureKey = Literal["raw", "hex", "none"]
SIGNATURE_KEYS: tuple[SignatureKey, ...] = get_args(SignatureKey)
COSTS: Mapping[str, int] = {"imagen-4-fast": 4, "imagen-3-fast": 4, "imagen-4-ultra": 12}
"""Credits for a job; 8 for a model that is not here. Only the first is published."""
MOST_UPLOAD = 25 * 2**20
"""The largest image that may be uploaded, in bytes."""
LARGEST_PX = 4096
"""The longest side of an upscaled image in the sandbox, so that it is drawn within seconds."""


class _Strict(BaseModel):
    # What may be left out has a default here that nothing uses: in the schema null is no value.
    model_config = ConfigDict(extra="forbid", strict=True)


class ImagenParams(_Strict):
    """The parameter block of the five Imagen models."""

    aspect_ratio: Literal["1:1", "9:16", "16:9", "3:4", "4:3"] = "1:1"
    image_size: Literal["1K", "2K"] = "1K"
    output_format: Literal["jpg", "png"] = "jpg"


class FluxFillParams(_Strict):
    """The parameter block of `POST /v2/images/edit`."""

    image: Uri
    prompt: str = Field(min_length=1, max_length=2000)
    mode: Literal["inpaint", "outpaint"]
    mask: Uri = ""
    outpaint: Literal[
        "Zoom out 1.5x", "Zoom out 2x", "Make square",
        "Left outpaint", "Right outpaint", "Top outpaint", "Bottom outpaint",
    ] = "Make square"  # fmt: skip
    guidance: float = Field(default=3, ge=2, le=5)
    output_format: Literal["jpg", "png"] = "jpg"
    prompt_upsampling: bool = False
    safety_tolerance: int = Field(default=2, ge=1, le=6)
    seed: int = 0
    steps: int = Field(default=50, ge=1, le=50)


class TopazUpscaleParams(_Strict):
    """The parameter block of Topaz in `POST /v2/images/upscale`."""

    image: Uri
    model_type: Literal[
        "standard-v2", "low-res-v2", "cgi", "high-fidelity-v2", "text-refine", "redefine"
    ] = "standard-v2"  # fmt: skip
    upscale_factor: Literal[1, 2, 4, 6] = 2
    face_enhance: bool = False
    face_enhance_creativity: float = Field(default=0, ge=0, le=1)
    face_enhance_strength: float = Field(default=0.8, ge=0, le=1)
    output_format: Literal["jpg", "png"] = "jpg"
    seed: int = 0


class ClarityUpscaleParams(_Strict):
    """The parameter block of Clarity in `POST /v2/images/upscale`."""

    image: Uri
    prompt: str = Field(default="", max_length=2000)
    negative_prompt: str = Field(default="", max_length=2000)
    scale_factor: Literal[1, 2, 4, 8] = 2
    creativity: float = Field(default=0.35, ge=0, le=1)
    dynamic: float = Field(default=6, ge=1, le=50)
    num_inference_steps: int = Field(default=18, ge=1, le=100)
    resemblance: float = Field(default=0.6, ge=0, le=3)
    sharpen: float = Field(default=0, ge=0, le=10)
    output_format: Literal["png", "jpg", "webp"] = "png"
    seed: int = 0


class BriaBgRemoveParams(_Strict):
    """The parameter block of Bria in `POST /v2/images/background-remove`."""

    image: Uri
    content_moderation: bool = False


class Lab851BgRemoveParams(_Strict):
    """The parameter block of 851-labs in `POST /v2/images/background-remove`."""

    image: Uri
    background_type: Literal["rgba", "map", "green", "white", "blur", "overlay"] = "rgba"
    format: Literal["png", "jpg"] = "png"
    reverse: bool = False
    threshold: float = Field(default=0, ge=0, le=1)


FROM_IMAGES: Mapping[str, Mapping[str, tuple[str, type[_Strict]]]] = {
    "/v2/images/edit": {"flux-fill-pro": ("fluxFillParams", FluxFillParams)},
    "/v2/images/upscale": {
        "topaz-image-upscale": ("topazUpscaleParams", TopazUpscaleParams),
        "clarity-upscale": ("clarityUpscaleParams", ClarityUpscaleParams),
    },
    "/v2/images/background-remove": {
        "bria-bg-remove": ("briaBgRemoveParams", BriaBgRemoveParams),
        "851-bg-remove": ("lab851BgRemoveParams", Lab851BgRemoveParams),
    },
}
"""The routes that make images of images: each one's models, with their parameter blocks."""


class Callback(_Strict):
    """The fields that all jobs share."""

    model: str
    webhook_url: Uri | None = Field(default=None, alias="webhookUrl")
    webhook_events: list[Literal["progress", "completed", "failed"]] = Field(
        default=["completed", "failed"], alias="webhookEvents", min_length=1
    )


class Generation(Callback):
    """The fields that all image models share."""

    prompt: str = Field(min_length=1, max_length=5000)


@dataclass(frozen=True)
class Apiframe(StandIn):
    """Apiframe."""

    signature_key: SignatureKey = "raw"
    """What keys its HMAC: the digest of the API key as bytes, as hex text, or nothing is signed."""
    bare_result: bool = False
    """The older shape: `result` is one URL as text and not `{"images": [...]}`."""

    name = "apiframe"
    key_prefix = "afk"
    below = "/v2/"
    idempotent = True
    not_json = "Invalid JSON"
    unknown_job = "Job not found"
    own_faults = faults.SIGNED
    model = "imagen-4-fast"

    def routes(self) -> list[Route]:
        """Return its routes."""
        return [
            self.route("/v2/images/generate", self.submit, "POST"),
            *(self.route(path, self.submit, "POST") for path in FROM_IMAGES),
            self.route("/v2/uploads", self.upload, "POST"),
            self.route("/v2/jobs", self.page),
            self.route("/v2/jobs/{id}", self.poll),
            self.route("/v2/me", self.me),
        ]

    def error(self, status: int, message: str) -> Body:  # noqa: ARG002
        """Build the body of an error response."""
        return {"error": message}

    def invalid(self, details: Details) -> Response:
        """Build the response to a body that does not pass validation."""
        return self.refuse(400, "Validation failed", details=details)

    def bad_fault(self, message: str) -> Response:
        """Build the response to a submission that asks for a fault that there is not."""
        return self.invalid({"sandbox": [message]})

    def too_poor(self, cost: int, left: int) -> Response:
        """Build the response to a submission that the account cannot pay."""
        return self.refuse(402, "Insufficient credits", creditsRequired=cost, creditsAvailable=left)

    def stamp(self) -> dict[str, str]:
        """Return the request id that is in every response."""
        return {"x-request-id": str(uuid.uuid4())}

    def key_of(self, request: Request) -> str | None:
        """Return the key in `X-API-Key` or `Authorization: Bearer`."""
        return request.headers.get("x-api-key") or super().key_of(request)

    async def read(self, received: Received) -> SandboxJob | Response:
        """Validate a submission."""
        key = received.key
        if key is not None and not 1 <= len(key) <= 255:
            return self.invalid({"Idempotency-Key": ["At most 255 characters"]})
        models = FROM_IMAGES.get(received.request.url.path)
        return self._generation(received) if models is None else await self._edit(received, models)

    def _generation(self, received: Received) -> SandboxJob | Response:
        body = received.body
        model = body.get("model")
        block = FAMILY.get(model) if isinstance(model, str) else None
        if not isinstance(model, str) or block is None:
            return self.invalid({"model": ["Invalid discriminator value"]})
        common = {name: value for name, value in body.items() if name != block}
        params = body.get(block, {})
        details = _common_problems(Generation, common)
        if not details and len(body["prompt"]) > 2000 and model not in LONG_PROMPTS:
            details["prompt"] = ["String must contain at most 2000 character(s)"]
        if not isinstance(params, dict):
            details[block] = ["Expected object"]
        elif block == "imagenParams":
            details |= problems(ImagenParams, params, f"{block}.")
        elif model in NEEDS_PARAMS and block not in body:
            details[block] = ["Required"]
        if details:
            return self.invalid(details)
        side = 2 if params.get("image_size") == "2K" else 1
        size = received.shaped(str(params.get("aspect_ratio", "1:1")), side)
        return _job(received, Generation.model_validate(common), body["prompt"], params, size, "jpg")

    async def _edit(
        self, received: Received, models: Mapping[str, tuple[str, type[_Strict]]]
    ) -> SandboxJob | Response:
        model = received.body.get("model")
        if not isinstance(model, str) or model not in models:
            return self.invalid({"model": ["Invalid discriminator value"]})
        block, shape = models[model]
        common = {name: value for name, value in received.body.items() if name != block}
        params, details = received.body.get(block), _common_problems(Callback, common)
        if not isinstance(params, dict):
            details[block] = ["Required"]
            return self.invalid(details)
        details |= problems(shape, params, f"{block}.")
        needed = {"inpaint": "mask", "outpaint": "outpaint"}
        if not details and needed.get(params.get("mode", ""), "image") not in params:
            details[f"{block}.{needed[params['mode']]}"] = ["Required"]
        data = None if details else await received.fetch(params["image"])
        if data is None:
            return self.invalid(details or {f"{block}.image": ["The image could not be loaded"]})
        image = Image.open(io.BytesIO(data))
        factor = params.get("upscale_factor") or params.get("scale_factor") or 2 if "upscale" in model else 1
        factor = min(float(factor), LARGEST_PX / max(image.size))
        size = round(image.width * factor), round(image.height * factor)
        prompt = params.get("prompt") or f"{model} of {params['image']}"
        usual = "png" if model in ("clarity-upscale", "bria-bg-remove", "851-bg-remove") else "jpg"
        job = _job(received, Callback.model_validate(common), prompt, params, size, usual)
        job.inputs = (hashlib.sha256(data).hexdigest(),)
        return job

    def accepted(self, job: SandboxJob) -> Response:
        """Build the response to a submission."""
        return JSONResponse({"jobId": job.id, "status": job.status}, 202)

    def finished(self, sandbox: Sandbox, job: SandboxJob) -> Response:
        """Build a response to a submission with the images."""
        return JSONResponse({**self._shown(sandbox, job), "jobId": job.id})

    def polled(self, sandbox: Sandbox, job: SandboxJob) -> Body:
        """Build the body of `GET /v2/jobs/{id}`."""
        return {**self._shown(sandbox, job), "input": job.input}

    def find(self, job_id: str, sandbox: Sandbox, account: Account) -> SandboxJob | Response:
        """Return a job that is polled; ids are UUIDs."""
        try:
            return super().find(str(uuid.UUID(job_id)), sandbox, account)
        except ValueError:
            return self.refuse(400, "Invalid job id")

    async def page(self, request: Request, sandbox: Sandbox, account: Account) -> Response:
        """`GET /v2/jobs`, newest first."""
        query = request.query_params
        limit, status = query.get("limit", "20"), query.get("status")
        states = ("QUEUED", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED")
        if not (limit.isdecimal() and 1 <= int(limit) <= 100):
            return self.invalid({"limit": ["A number from 1 to 100"]})
        if status is not None and status not in states:
            return self.invalid({"status": [f"One of {', '.join(states)}"]})
        if query.get("scope") == "team":
            return self.refuse(403, "Only admins may see the whole team's jobs")
        wanted = query.get("model"), query.get("search")
        found = [job for job in sandbox.jobs.latest(account) if _fits(job, status, *wanted)]
        cursor = query.get("cursor")
        if cursor is not None:
            place = next((n for n, job in enumerate(found, 1) if job.id == cursor), None)
            if place is None:
                return self.invalid({"cursor": ["Invalid cursor"]})
            found = found[place:]
        shown = found[: int(limit)]
        more = len(found) > len(shown)
        return JSONResponse(
            {
                "jobs": [bent(job, self._shown(sandbox, job)) for job in shown],
                "nextCursor": shown[-1].id if more else None,
                "hasMore": more,
            }
        )

    async def me(self, _request: Request, sandbox: Sandbox, account: Account) -> Response:
        """`GET /v2/me`: whose key this is, and the credits that are left."""
        ids = {
            name: str(uuid.uuid5(uuid.NAMESPACE_OID, name + account.key)) for name in ("user", "team", "key")
        }
        team = {"name": "Sandbox", "plan": "sandbox", "customerId": None}
        return JSONResponse(
            {
                "user": {"id": ids["user"], "email": "sandbox@example.com", "role": "OWNER"},
                "team": {"id": ids["team"], **team, "credits": sandbox.jobs.balance(account)},
                "apiKey": {"id": ids["key"], "name": "sandbox", "prefix": account.key[:8]},
            }
        )

    async def upload(self, request: Request, sandbox: Sandbox, _account: Account) -> Response:
        """`POST /v2/uploads`: one image as `file`, to be named in submissions for an hour or two."""
        async with request.form(max_files=1) as form:
            file = form.get("file")
            data = b"" if file is None or isinstance(file, str) else await file.read()
        try:
            kind = Image.open(io.BytesIO(data)).get_format_mimetype()
        except (UnidentifiedImageError, OSError):
            return self.invalid({"file": ["No file, or its type is not supported"]})
        if len(data) > MOST_UPLOAD:
            return self.invalid({"file": ["At most 25 MB"]})
        upload_id = sandbox.keep(data)
        expires = datetime.fromtimestamp(sandbox.config.clock(), UTC) + timedelta(hours=1)
        url = f"{request.url.scheme}://{request.url.netloc}/uploads/{upload_id}"
        told = {"kind": "image", "contentType": kind, "byteSize": len(data), "expiresAt": expires.isoformat()}
        return JSONResponse({"id": upload_id, "url": url, **told}, 201)

    def callback(self, job: SandboxJob, event: Event, links: list[Any]) -> Body:
        """Build a webhook: https://docs-v2.apiframe.ai/docs/webhooks."""
        body: Body = {"event": event, "jobId": job.id}
        if event == "progress":
            return {**body, "status": "PROCESSING", "progress": job.so_far, "model": job.model}
        if event == "failed":
            return {**body, "status": "FAILED", "error": job.error, "model": job.model}
        return {
            **body,
            "status": "COMPLETED",
            "progress": 100,
            "result": self._result(links),
            "model": job.model,
            "creditCost": job.cost,
            "completedAt": job.done_at,
        }

    def headers(self, event: Event) -> dict[str, str]:
        """Return the header that names the event."""
        return {"x-webhook-event": event}

    def key(self, job: SandboxJob) -> bytes | None:
        """Return the API key, of which the key of the HMAC is made."""
        return None if self.signature_key == "none" else job.account.key.encode()

    def sign(self, key: bytes, message: Message) -> dict[str, str]:
        """Return `X-Webhook-Signature`: an HMAC keyed by the API key's SHA-256, raw or in hex."""
        digest = hashlib.sha256(key)
        form = digest.hexdigest().encode() if self.signature_key == "hex" else digest.digest()
        return {"x-webhook-signature": f"sha256={mac(form, message.body).hex()}"}

    def _result(self, links: list[Any]) -> Any:
        return links[0] if self.bare_result else {"images": links}

    def _shown(self, sandbox: Sandbox, job: SandboxJob) -> Body:
        return {
            "id": job.id,
            "status": job.status,
            "model": job.model,
            "progress": job.progress,
            "result": self._result(job.named()) if job.status == "COMPLETED" else None,
            "error": job.error,
            "creditCost": job.cost,
            "webhookStatus": job.webhook_status,
            "createdAt": iso(job.created_at),
            "completedAt": job.done_at,
            "expired": sandbox.expired(job),
        }


def _common_problems(shape: type[Callback], common: dict[str, Any]) -> Details:
    details = problems(shape, common)
    # The schema has no null.
    for name in ("webhookUrl", "webhookEvents"):
        if name in common and common[name] is None:
            details[name] = ["Expected a value, received null"]
    return details


def _job(
    received: Received, parsed: Callback, prompt: str, params: Body, size: tuple[int, int], usual: str
) -> SandboxJob:
    """Build a job; `usual` is the image format where none is asked for."""
    wanted = params.get("output_format", params.get("format", usual))
    extension = "png" if wanted == "png" or "bytes" in received.asked else "jpg"
    return received.job(
        id=str(uuid.uuid4()),
        model=parsed.model,
        prompt=prompt,
        cost=COSTS.get(parsed.model, 8),
        input={"prompt": prompt, **params},
        specs=received.specs(prompt, parsed.model, size, seed=params.get("seed"), extension=extension),
        callback_url=parsed.webhook_url,
        events=parsed.webhook_events,
    )


def _fits(job: SandboxJob, status: str | None, model: str | None, search: str | None) -> bool:
    return status in (None, job.status) and model in (None, job.model) and search in (None, job.id)
