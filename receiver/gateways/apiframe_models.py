"""Parameters of Apiframe's image models, from its OpenAPI file of 2026-07-16 (version 2.0.0).

https://github.com/apiframe-ai/apiframe-nodejs-sdk/blob/main/openapi.json

Each model takes one block of parameters, named for its family, and refuses other keys. Only what is needed
to place our own fields, and to validate choices before the gateway does, is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Family:
    """One block of parameters, and the models that take it."""

    block: str
    models: tuple[str, ...]
    places: Mapping[str, str]
    """Where our fields go: our name to the block's key. What is not here cannot be expressed."""
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The block's keys that take only these texts."""
    seeds: tuple[int, int] | None = None
    """The least and the greatest seed, where there are bounds."""
    most_images: int = 1
    most_negative: int | None = None
    """The longest negative prompt, where there is a bound."""
    most_prompt: int = 2000
    ratio_pattern: bool = False
    """Whether an aspect ratio must be two numbers around a colon."""
    required: tuple[str, ...] = ()
    one_image: bool = True
    """Whether a job without a count makes one image, so that asking for one is nothing to express."""


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _same(*names: str, **renamed: str) -> Mapping[str, str]:
    return {**{name: name for name in names}, **renamed}


_WIDE_RATIOS = _split("1:1 2:3 3:2 3:4 4:3 9:16 16:9 21:9")
_SQUARISH_RATIOS = _split("1:1 3:2 2:3")
_PHOTO_RATIOS = _split("16:9 9:16 1:1 4:3 3:4 3:2 2:3")
_SIGNED_32 = (0, 2147483647)
_FLUX_FORMATS = {"output_format": _split("jpg png webp")}
_IDEOGRAM_CHOICES = {
    "magic_prompt_option": _split("Auto On Off"),
    "rendering_speed": _split("default turbo quality"),
}
_GPT_CHOICES = {
    "aspect_ratio": _SQUARISH_RATIOS,
    "output_format": _split("png jpeg webp"),
    "quality": _split("low medium high auto"),
}

FAMILIES: tuple[Family, ...] = (
    Family(
        "imagenParams",
        _split("imagen-3 imagen-3-fast imagen-4 imagen-4-ultra imagen-4-fast"),
        _same("aspect_ratio"),
        {
            "aspect_ratio": _split("1:1 9:16 16:9 3:4 4:3"),
            "image_size": _split("1K 2K"),
            "output_format": _split("jpg png"),
        },
    ),
    Family(
        "midjourneyParams",
        _split("midjourney"),
        _same("aspect_ratio"),
        ratio_pattern=True,
        one_image=False,
    ),
    Family(
        "nanoBananaParams",
        _split("nano-banana nano-banana-pro nano-banana-2 nano-banana-2-lite"),
        _same("aspect_ratio"),
        {"output_format": _split("jpg png webp"), "resolution": _split("512px 1K 2K 4K")},
    ),
    Family(
        "fluxParams",
        _split("flux-1.1-pro flux-1.1-pro-ultra flux-2-dev"),
        _same("aspect_ratio", "seed"),
        _FLUX_FORMATS,
        ratio_pattern=True,
    ),
    Family(
        "fluxParams",
        _split("flux-2-pro flux-2-flex flux-2-max"),
        _same("aspect_ratio", "seed"),
        {**_FLUX_FORMATS, "resolution": _split("0.5MP 1MP 2MP 4MP match_input_image")},
        ratio_pattern=True,
    ),
    Family(
        "seedreamParams",
        _split("seedream-3 seedream-3.1 seedream-4 seedream-4.5 seedream-5-lite seedream-5-pro"),
        _same("aspect_ratio", "seed"),
        {"output_format": _split("jpg png")},
    ),
    Family(
        "ideogramParams",
        _split("ideogram-v2 ideogram-v2-turbo ideogram-v2a ideogram-v2a-turbo")
        + _split("ideogram-v3-balanced ideogram-v3-turbo ideogram-v3-quality")
        + _split("ideogram-v4-balanced ideogram-v4-turbo ideogram-v4-quality"),
        _same("aspect_ratio", "negative_prompt", "seed"),
        _IDEOGRAM_CHOICES,
    ),
    Family(
        "ideogramParams",
        _split("ideogram-character"),
        _same("aspect_ratio", "negative_prompt", "seed"),
        _IDEOGRAM_CHOICES,
        required=("character_reference_image",),
    ),
    Family(
        "stableDiffusionParams",
        _split("stable-diffusion-3.5-large stable-diffusion-3.5-large-turbo")
        + _split("stable-diffusion-3.5-medium stable-diffusion-3"),
        _same("aspect_ratio", "negative_prompt", "seed"),
        {
            "aspect_ratio": _split("1:1 16:9 21:9 3:2 2:3 4:5 5:4 9:16 9:21"),
            "output_format": _split("webp jpg png"),
        },
        most_negative=2000,
    ),
    Family(
        "dalleParams",
        _split("dall-e-3 dall-e-2"),
        _same("aspect_ratio"),
        {"aspect_ratio": _SQUARISH_RATIOS, "style": _split("vivid natural")},
    ),
    Family(
        "gptImageParams",
        _split("gpt-image-1.5"),
        _same("aspect_ratio", num_images="number_of_images"),
        {
            **_GPT_CHOICES,
            "background": _split("auto transparent opaque"),
            "input_fidelity": _split("low high"),
        },
        most_images=10,
    ),
    Family(
        "gptImage2Params",
        _split("gpt-image-2"),
        _same("aspect_ratio", num_images="number_of_images"),
        {**_GPT_CHOICES, "background": _split("auto opaque"), "moderation": _split("auto low")},
        most_images=10,
    ),
    Family(
        "klingImageParams",
        _split("kling-image"),
        _same("aspect_ratio", "negative_prompt", num_images="n"),
        {"aspect_ratio": _PHOTO_RATIOS, "model_name": _split("kling-v1 kling-v1-5 kling-v2")},
        most_images=4,
        most_negative=2500,
    ),
    Family(
        "qwenImageParams",
        _split("qwen-image"),
        _same("negative_prompt", "num_images", "seed"),
        {
            "acceleration": _split("none regular high"),
            "image_size": _split("square square_hd portrait_4_3 portrait_16_9 landscape_4_3 landscape_16_9"),
            "output_format": _split("png jpeg"),
            "task_type": _split("text-to-image image-to-image image-edit"),
        },
        most_images=4,
        most_negative=500,
    ),
    Family(
        "qwenImage2Params",
        _split("qwen-image-2 qwen-image-2-pro"),
        _same("aspect_ratio", "negative_prompt", "seed"),
        {"aspect_ratio": (*_WIDE_RATIOS, "2:1", "1:2")},
        most_negative=500,
    ),
    Family(
        "wanImageParams",
        _split("wan-image-2.6"),
        _same("aspect_ratio", "negative_prompt", "seed"),
        {"aspect_ratio": _WIDE_RATIOS},
        seeds=_SIGNED_32,
        most_negative=500,
    ),
    Family(
        "wanImage27Params",
        _split("wan-image-2.7 wan-image-2.7-pro"),
        _same("aspect_ratio", "seed"),
        {"aspect_ratio": _WIDE_RATIOS},
        seeds=_SIGNED_32,
        most_prompt=5000,
    ),
    Family(
        "grokImagineParams",
        _split("grok-imagine-image"),
        _same("aspect_ratio"),
        {"aspect_ratio": _split("1:1 2:3 3:2 16:9 9:16")},
    ),
    Family(
        "reveParams",
        _split("reve-create"),
        _same("aspect_ratio", "seed"),
        {"aspect_ratio": _PHOTO_RATIOS},
    ),
    Family(
        "fluxLoraParams",
        _split("flux-lora"),
        _same("aspect_ratio", "seed", num_images="num_outputs"),
        {"aspect_ratio": _PHOTO_RATIOS, "output_format": _split("png jpg webp")},
        most_images=4,
        required=("loraId",),
    ),
)

BY_MODEL: Mapping[str, Family] = MappingProxyType({m: family for family in FAMILIES for m in family.models})
