"""Replicate: https://replicate.com/docs/topics/webhooks and https://api.replicate.com/openapi.json."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

from receiver.gateways import parsing
from receiver.gateways.adapter import Adapter
from receiver.gateways.base import State
from receiver.gateways.table import (
    Accept,
    Call,
    Callback,
    Errors,
    Family,
    Listing,
    Read,
    Signing,
    Submit,
    Table,
)


def _links(prediction: dict[str, Any]) -> object:
    """Return the links in an output: one, a list or an object of them; models for text give other things."""
    output = prediction.get("output")
    if isinstance(output, dict):
        output = list(output.values())
    if not isinstance(output, list):
        output = [] if output is None else [output]
    return [link for link in output if link is None or (isinstance(link, str) and link.startswith("http"))]


def _family(models: str, places: str, **more: Any) -> Family:
    ours = {name: theirs or name for name, _, theirs in (place.partition("=") for place in places.split())}
    return Family(tuple(models.split()), ours, **more)


TABLE = Table(
    name="replicate",
    title="Replicate",
    docs="https://replicate.com/docs/topics/webhooks",
    base_url="https://api.replicate.com",
    # `version` takes a model by its name (`owner/name`), with a version, or a version alone.
    submit=Submit("/v1/predictions", {"version": "{model}", "input": {"prompt": "{prompt}"}}, params="input"),
    callback=Callback(body="webhook", also={"webhook_events_filter": ["completed"]}),
    # The answer is the prediction, which has an output already where the model was quick.
    accept=Accept(id="id"),
    read=(Read(images=_links, echoed="input.seed", expired="data_removed"),),
    poll=Call("/v1/predictions/{id}"),
    listing=Listing("/v1/predictions", "cursor", jobs="results", next="next"),
    cancel=Call("/v1/predictions/{id}/cancel", "POST"),
    states={"aborted": State.FAILED},
    signing=Signing(
        "standard", about="Its webhook signing secret, `whsec_...`, of Account settings, Webhooks."
    ),
    errors=Errors(words="detail || title || error"),
    # Their schemas: https://replicate.com/black-forest-labs/flux-schnell/api/schema and so on.
    families=(
        _family(
            "black-forest-labs/flux-schnell black-forest-labs/flux-dev",
            "aspect_ratio seed num_images=num_outputs",
            most_images=4,
        ),
        _family(
            "black-forest-labs/flux-1.1-pro black-forest-labs/flux-1.1-pro-ultra black-forest-labs/flux-pro "
            "black-forest-labs/flux-kontext-pro black-forest-labs/flux-kontext-max "
            "black-forest-labs/flux-2-pro black-forest-labs/flux-2-dev",
            "aspect_ratio seed",
        ),
        _family(
            "google/imagen-4 google/imagen-4-fast google/imagen-4-ultra",
            "aspect_ratio",
            choices={"aspect_ratio": ("1:1", "9:16", "16:9", "3:4", "4:3")},
        ),
        _family("google/nano-banana google/nano-banana-pro", "aspect_ratio"),
        _family("bytedance/seedream-4", "aspect_ratio"),
    ),
    image_hosts=("replicate.delivery",),
    # https://replicate.com/docs/topics/predictions/data-retention: what the API makes goes after an hour.
    life_s=3600,
    sure={"models": "likely"},
)


class Replicate(Adapter):
    """Replicate."""

    table = TABLE

    def next_cursor(self, value: object) -> str | None:
        """Return the cursor in the URL of the next page; the URL itself is not followed."""
        try:
            query = parse_qs(urlsplit(value).query) if isinstance(value, str) else {}
        except ValueError:
            return None
        return parsing.label(next(iter(query.get("cursor", ())), None))
