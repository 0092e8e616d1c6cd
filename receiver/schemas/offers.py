"""Define the gateways' models in JSON."""

from typing import Annotated

from pydantic import Field

from receiver.schemas.types import GatewayName, ModelName, Resource


class Model(Resource):
    """A model that a gateway is known to have. A gateway may have others, which can be submitted too."""

    gateway: GatewayName
    model: ModelName
    takes: Annotated[tuple[str, ...], Field(examples=[["aspect_ratio"]])]
    """The fields of a submission that it supports, of `negative_prompt`, `aspect_ratio`, `num_images` and
    `seed`; any other is refused."""
    aspect_ratios: Annotated[tuple[str, ...], Field(examples=[["1:1", "16:9"]])]
    """The usual aspect ratios that it takes; it may take others."""
    estimate: Annotated[float | None, Field(examples=[8.0])]
    """Credits for one image, by the gateway's published price; null if it is not known."""


class Models(Resource):
    """The known models of the gateways that are configured here."""

    models: tuple[Model, ...]
