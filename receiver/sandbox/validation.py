"""Validate submissions as Apiframe and API in One document them.

Apiframe: the OpenAPI file that its SDK carries, https://github.com/apiframe-ai/apiframe-nodejs-sdk. The
Imagen models are checked to the letter; the parameter blocks of other models are accepted as they are.
API in One: the fields of https://apiin.one/model/imagen-4.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

Details = dict[str, list[str]]
"""Validation errors by JSON path."""

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
"""Apiframe's image models, and the name of each one's parameter block."""
NEEDS_PARAMS = ("ideogram-character", "flux-lora")
LONG_PROMPTS = ("wan-image-2.7", "wan-image-2.7-pro")

COSTS: Mapping[str, int] = {"imagen-4-fast": 4, "imagen-3-fast": 4, "imagen-4-ultra": 12}
"""Apiframe's credits for a job; 8 for a model that is not here. Only the first is published."""

CREDITS: Mapping[str, int] = {
    "imagen4-fast": 4,
    "imagen4": 8,
    "imagen4-ultra": 12,
    "grok-imagine": 5,
    "kling-image-o1": 6,
    "ideogram-v3": 8,
    "gpt-image-1.5-official": 10,
}
"""API in One's models and their credits for each image."""


def _uri(text: str) -> str:
    if not re.match(r"https?://[^/\s]+", text):
        raise ValueError("Invalid url")
    return text


Uri = Annotated[str, AfterValidator(_uri)]
AspectRatio = Literal["1:1", "9:16", "16:9", "3:4", "4:3"]


class ImagenParams(BaseModel):
    """The parameter block of the five Imagen models."""

    model_config = ConfigDict(extra="forbid", strict=True)

    aspect_ratio: AspectRatio = "1:1"
    image_size: Literal["1K", "2K"] = "1K"
    output_format: Literal["jpg", "png"] = "jpg"


class ApiframeRequest(BaseModel):
    """The fields that all of Apiframe's image models share."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str
    prompt: str = Field(min_length=1, max_length=5000)
    webhook_url: Uri | None = Field(default=None, alias="webhookUrl")
    webhook_events: list[Literal["progress", "completed", "failed"]] = Field(
        default=["completed", "failed"], alias="webhookEvents", min_length=1
    )

    @property
    def cost(self) -> int:
        """The credits for the job."""
        return COSTS.get(self.model, 8)


class ApiInOneRequest(BaseModel):
    """A request to API in One's image route; fields of its other models are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)

    model: str = "imagen4"
    prompt: str = Field(min_length=3, max_length=5000)
    aspect_ratio: AspectRatio = "1:1"
    negative_prompt: str | None = None
    num_images: int = Field(default=1, ge=1, le=4)
    seed: int | None = None
    callback_url: Uri | None = None

    @property
    def cost(self) -> int:
        """The credits for the job."""
        return CREDITS[self.model] * self.num_images


def apiframe(body: dict[str, Any]) -> tuple[ApiframeRequest, dict[str, Any]] | Details:
    """Parse a submission to Apiframe: its common fields and its parameter block, or the errors."""
    model = body.get("model")
    block = FAMILY.get(model) if isinstance(model, str) else None
    if not isinstance(model, str) or block is None:
        return {"model": ["Invalid discriminator value"]}
    common = {name: value for name, value in body.items() if name != block}
    params = body.get(block, {})
    details = _problems(ApiframeRequest, common)
    # The schema has no null.
    for name in ("webhookUrl", "webhookEvents"):
        if name in body and body[name] is None:
            details[name] = ["Expected a value, received null"]
    if not details and len(body["prompt"]) > 2000 and model not in LONG_PROMPTS:
        details["prompt"] = ["String must contain at most 2000 character(s)"]
    if not isinstance(params, dict):
        details[block] = ["Expected object"]
    elif block == "imagenParams":
        details |= _problems(ImagenParams, params, f"{block}.")
    elif model in NEEDS_PARAMS and block not in body:
        details[block] = ["Required"]
    return details or (ApiframeRequest.model_validate(common), params)


def api_in_one(body: dict[str, Any]) -> ApiInOneRequest | Details:
    """Parse a submission to API in One, or return the errors."""
    details = _problems(ApiInOneRequest, body)
    if "model" in body and body["model"] not in CREDITS:
        details["model"] = [f"unknown model; there are {', '.join(CREDITS)}"]
    return details or ApiInOneRequest.model_validate(body)


def _problems(shape: type[BaseModel], value: dict[str, Any], prefix: str = "") -> Details:
    try:
        shape.model_validate(value)
    except ValidationError as error:
        details: Details = {}
        for problem in error.errors():
            path = prefix + ".".join(str(part) for part in problem["loc"])
            details.setdefault(path, []).append(problem["msg"])
        return details
    return {}
