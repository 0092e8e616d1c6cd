"""Bria: https://docs.bria.ai/webhooks and /status. A model is the path of its route: `image/generate`."""

from receiver.gateways.adapter import Adapter
from receiver.gateways.base import State
from receiver.gateways.table import Accept, Auth, Call, Callback, Errors, Family, Read, Signing, Submit, Table

TABLE = Table(
    name="bria",
    title="Bria",
    docs="https://docs.bria.ai/webhooks",
    base_url="https://engine.prod.bria-api.com",
    auth=Auth("api_token"),
    submit=Submit("/v2/{model}", {"prompt": "{prompt}", "sync": False}),
    callback=Callback(body="webhook_url"),
    accept=Accept(id="request_id"),
    poll=Call("/v2/status/{id}"),
    read=(
        Read(
            id="request_id",
            images="result.image_url",
            seed="result.seed",
            error="error.message || error.details",
        ),
    ),
    # An unexpected error of its own, by https://docs.bria.ai/status.
    states={"UNKNOWN": State.FAILED},
    # With a key that is made of the API token; while tokens change there is a signature by each.
    signing=Signing("bria", "api-key"),
    errors=Errors(words="error.message || error.details || error || message || detail"),
    families=(
        Family(
            ("image/generate", "image/generate/lite"),
            {"aspect_ratio": "aspect_ratio", "negative_prompt": "negative_prompt", "seed": "seed"},
            ratio_pattern=True,
        ),
    ),
    sure={"life": "guessed", "models": "likely"},
)


class Bria(Adapter):
    """Bria."""

    table = TABLE
