"""Ideogram: https://developer.ideogram.ai/v1/ideogram-api/webhooks and `generate-v4-async` there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from receiver.gateways.adapter import Adapter
from receiver.gateways.table import Accept, Auth, Call, Callback, Errors, Family, Read, Signing, Submit, Table

_SIDES = """
    1:1=2048x2048 2:1=2880x1440 3:2=2496x1664 5:4=2240x1792 16:9=2560x1440 16:10=2560x1600 4:3=2304x1728
    22:9=3168x1296 23:9=2944x1152 8:3=3328x1248 12:5=3072x1280
"""


def _resolutions() -> dict[str, str]:
    """Return the resolution of each aspect ratio, with each turned as well."""
    found = {}
    for pair in _SIDES.split():
        ratio, _, size = pair.partition("=")
        found[ratio] = size
        found[":".join(reversed(ratio.split(":")))] = "x".join(reversed(size.split("x")))
    return found


def _generation(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a generation with the status that callbacks lack, and why an image that is not safe is missing.

    Callbacks come of successes alone, once every image is there.
    """
    listed = data.get("data")
    if not isinstance(listed, list):
        return dict(data)
    only = listed[0] if len(listed) == 1 and isinstance(listed[0], dict) else {}
    return {
        **data,
        "status": data.get("status", "completed"),
        "data": [_explained(one) for one in listed],
        "seed": only.get("seed"),
    }


def _explained(image: Any) -> Any:
    unsafe = isinstance(image, dict) and image.get("is_image_safe") is False and not image.get("url")
    return {"url": None, "reason": "the image is not safe"} if unsafe else image


_RESOLUTIONS = _resolutions()

TABLE = Table(
    name="ideogram",
    title="Ideogram",
    docs="https://developer.ideogram.ai/v1/ideogram-api/webhooks",
    base_url="https://api.ideogram.ai",
    auth=Auth("Api-Key"),
    submit=Submit("/v1/{model}/async/generate", {"text_prompt": "{prompt}"}, kind="multipart"),
    callback=Callback(query="webhook_url"),
    accept=Accept(id="generation_id", result=False),
    # Each image has a seed, that of the only one is the job's; the prompt beside it may be written anew.
    read=(Read(unwrap=_generation, id="generation_id", images="data", seed="seed", model=""),),
    poll=Call("/v1/generations/{id}"),
    signing=Signing("ideogram", "keys", keys="https://api.ideogram.ai/v1/.well-known/jwks.json"),
    errors=Errors(words="error.message || error || message || detail"),
    maps={"aspect_ratio": _RESOLUTIONS},
    # It makes one image, with a seed that it chooses.
    families=(
        Family(
            ("ideogram-v4",),
            {"aspect_ratio": "resolution:map"},
            choices={
                "resolution": tuple(_RESOLUTIONS.values()),
                "rendering_speed": ("TURBO", "DEFAULT", "QUALITY"),
            },
        ),
    ),
    life_s=24 * 3600,
    sure={"failure": "guessed"},
)


class Ideogram(Adapter):
    """Ideogram."""

    table = TABLE
