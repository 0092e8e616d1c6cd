"""Parameters of Apiframe's image models, from its OpenAPI file of 2026-07-16 (version 2.0.0).

https://github.com/apiframe-ai/apiframe-nodejs-sdk/blob/main/openapi.json

Each model takes one block of parameters, named for its family, and refuses other keys. Only what is needed
to place our own fields, and to validate choices before the gateway does, is here.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from receiver.gateways.table import Family

MOST_PROMPT = 2000


def _family(
    block: str, models: str, places: str, choices: Mapping[str, str] = MappingProxyType({}), **more: Any
) -> Family:
    """Return a family from texts: names with spaces between them, and in `places` also `ours=theirs`."""
    ours = {name: theirs or name for name, _, theirs in (place.partition("=") for place in places.split())}
    texts = {key: tuple(text.split()) for key, text in choices.items()}
    return Family(
        tuple(models.split()),
        ours,
        block,
        choices=texts,
        **{"most_images": 1, "most_prompt": MOST_PROMPT, **more},
    )


_WIDE_RATIOS = "1:1 2:3 3:2 3:4 4:3 9:16 16:9 21:9"
_PHOTO_RATIOS = "16:9 9:16 1:1 4:3 3:4 3:2 2:3"
_SIGNED_32 = (0, 2147483647)
_IDEOGRAM = {"magic_prompt_option": "Auto On Off", "rendering_speed": "default turbo quality"}
_GPT = {"aspect_ratio": "1:1 3:2 2:3", "output_format": "png jpeg webp", "quality": "low medium high auto"}

FAMILIES: tuple[Family, ...] = (
    _family(
        "imagenParams",
        "imagen-3 imagen-3-fast imagen-4 imagen-4-ultra imagen-4-fast",
        "aspect_ratio",
        {"aspect_ratio": "1:1 9:16 16:9 3:4 4:3", "image_size": "1K 2K", "output_format": "jpg png"},
    ),
    _family("midjourneyParams", "midjourney", "aspect_ratio", ratio_pattern=True, one_image=False),
    _family(
        "nanoBananaParams",
        "nano-banana nano-banana-pro nano-banana-2 nano-banana-2-lite",
        "aspect_ratio",
        {"output_format": "jpg png webp", "resolution": "512px 1K 2K 4K"},
    ),
    _family(
        "fluxParams",
        "flux-1.1-pro flux-1.1-pro-ultra flux-2-dev",
        "aspect_ratio seed",
        {"output_format": "jpg png webp"},
        ratio_pattern=True,
    ),
    _family(
        "fluxParams",
        "flux-2-pro flux-2-flex flux-2-max",
        "aspect_ratio seed",
        {"output_format": "jpg png webp", "resolution": "0.5MP 1MP 2MP 4MP match_input_image"},
        ratio_pattern=True,
    ),
    _family(
        "seedreamParams",
        "seedream-3 seedream-3.1 seedream-4 seedream-4.5 seedream-5-lite seedream-5-pro",
        "aspect_ratio seed",
        {"output_format": "jpg png"},
    ),
    _family(
        "ideogramParams",
        "ideogram-v2 ideogram-v2-turbo ideogram-v2a ideogram-v2a-turbo "
        "ideogram-v3-balanced ideogram-v3-turbo ideogram-v3-quality "
        "ideogram-v4-balanced ideogram-v4-turbo ideogram-v4-quality",
        "aspect_ratio negative_prompt seed",
        _IDEOGRAM,
    ),
    _family(
        "ideogramParams",
        "ideogram-character",
        "aspect_ratio negative_prompt seed",
        _IDEOGRAM,
        required=("character_reference_image",),
    ),
    _family(
        "stableDiffusionParams",
        "stable-diffusion-3.5-large stable-diffusion-3.5-large-turbo "
        "stable-diffusion-3.5-medium stable-diffusion-3",
        "aspect_ratio negative_prompt seed",
        {"aspect_ratio": "1:1 16:9 21:9 3:2 2:3 4:5 5:4 9:16 9:21", "output_format": "webp jpg png"},
        most_negative=2000,
    ),
    _family(
        "dalleParams",
        "dall-e-3 dall-e-2",
        "aspect_ratio",
        {"aspect_ratio": "1:1 3:2 2:3", "style": "vivid natural"},
    ),
    _family(
        "gptImageParams",
        "gpt-image-1.5",
        "aspect_ratio num_images=number_of_images",
        {**_GPT, "background": "auto transparent opaque", "input_fidelity": "low high"},
        most_images=10,
    ),
    _family(
        "gptImage2Params",
        "gpt-image-2",
        "aspect_ratio num_images=number_of_images",
        {**_GPT, "background": "auto opaque", "moderation": "auto low"},
        most_images=10,
    ),
    _family(
        "klingImageParams",
        "kling-image",
        "aspect_ratio negative_prompt num_images=n",
        {"aspect_ratio": _PHOTO_RATIOS, "model_name": "kling-v1 kling-v1-5 kling-v2"},
        most_images=4,
        most_negative=2500,
    ),
    _family(
        "qwenImageParams",
        "qwen-image",
        "negative_prompt num_images seed",
        {
            "acceleration": "none regular high",
            "image_size": "square square_hd portrait_4_3 portrait_16_9 landscape_4_3 landscape_16_9",
            "output_format": "png jpeg",
            "task_type": "text-to-image image-to-image image-edit",
        },
        most_images=4,
        most_negative=500,
    ),
    _family(
        "qwenImage2Params",
        "qwen-image-2 qwen-image-2-pro",
        "aspect_ratio negative_prompt seed",
        {"aspect_ratio": f"{_WIDE_RATIOS} 2:1 1:2"},
        most_negative=500,
    ),
    _family(
        "wanImageParams",
        "wan-image-2.6",
        "aspect_ratio negative_prompt seed",
        {"aspect_ratio": _WIDE_RATIOS},
        seeds=_SIGNED_32,
        most_negative=500,
    ),
    _family(
        "wanImage27Params",
        "wan-image-2.7 wan-image-2.7-pro",
        "aspect_ratio seed",
        {"aspect_ratio": _WIDE_RATIOS},
        seeds=_SIGNED_32,
        most_prompt=5000,
    ),
    _family(
        "grokImagineParams", "grok-imagine-image", "aspect_ratio", {"aspect_ratio": "1:1 2:3 3:2 16:9 9:16"}
    ),
    _family("reveParams", "reve-create", "aspect_ratio seed", {"aspect_ratio": _PHOTO_RATIOS}),
    _family(
        "fluxLoraParams",
        "flux-lora",
        "aspect_ratio seed num_images=num_outputs",
        {"aspect_ratio": _PHOTO_RATIOS, "output_format": "png jpg webp"},
        most_images=4,
        required=("loraId",),
    ),
)
