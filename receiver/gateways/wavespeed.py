"""WaveSpeedAI: https://wavespeed.ai/docs/how-to-use-webhooks and /docs/verify-webhooks."""

from receiver.gateways.adapter import Adapter
from receiver.gateways.base import State
from receiver.gateways.table import Accept, Call, Callback, Errors, Family, Read, Signing, Submit, Table

_BY_LINK = "is not used: images come by their links"

TABLE = Table(
    name="wavespeed",
    title="WaveSpeedAI",
    docs="https://wavespeed.ai/docs/how-to-use-webhooks",
    base_url="https://api.wavespeed.ai",
    submit=Submit("/api/v3/{model}", {"prompt": "{prompt}"}),
    callback=Callback(query="webhook"),
    accept=Accept(id="data.id"),
    poll=Call("/api/v3/predictions/{id}/result"),
    # Responses have the prediction in an envelope; a callback is the prediction itself.
    read=(Read(unwrap="data", images="outputs", echoed="input.seed"),),
    states={"timeout": State.FAILED, "deleted": State.FAILED},
    signing=Signing(
        "wavespeed",
        about="Its webhook secret, `whsec_...`, of GET /api/v3/webhook/secret; without it each callback is "
        "confirmed.",
    ),
    errors=Errors(words="message || data.error", code="code"),
    # By their pages, such as https://wavespeed.ai/docs/docs-api/flux-dev-ultra-fast.
    families=(
        Family(
            ("wavespeed-ai/flux-dev", "wavespeed-ai/flux-dev-ultra-fast"),
            {"aspect_ratio": "size:map", "seed": "seed", "num_images": "num_images"},
            maps={
                "aspect_ratio": {
                    "1:1": "1024*1024",
                    "16:9": "1280*720",
                    "9:16": "720*1280",
                    "4:3": "1152*864",
                    "3:4": "864*1152",
                    "3:2": "1248*832",
                    "2:3": "832*1248",
                }
            },
        ),
        Family(
            ("bria/fibo",),
            {"aspect_ratio": "aspect_ratio", "negative_prompt": "negative_prompt", "seed": "seed"},
            choices={
                "aspect_ratio": ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9"),
            },
        ),
        Family(
            ("google/nano-banana-pro/text-to-image",),
            {"aspect_ratio": "aspect_ratio"},
            choices={
                "aspect_ratio": ("1:1", "3:2", "2:3", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9"),
                "output_format": ("png", "jpeg"),
            },
        ),
    ),
    advice={"enable_sync_mode": _BY_LINK, "enable_base64_output": _BY_LINK},
    sure={"life": "guessed", "models": "likely"},
)


class WaveSpeed(Adapter):
    """WaveSpeedAI."""

    table = TABLE
