"""What can be asked of each gateway, for the form: its models, what they do not take, and their prices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from receiver.gateways.base import Gateway
from storage.models import JobRequest

ELSE = "a model that nobody knows"
"""Stands for every model that is not known here."""


def known(gateways: Mapping[str, Gateway], lately: Sequence[str]) -> dict[str, Any]:
    """By gateway: `models` to offer, those used lately first; `lacks` by model, `else` for any other model;
    and `prices` by model, in credits for one image.
    """
    return {name: _known(gateway, lately, gateways) for name, gateway in gateways.items()}


def _known(gateway: Gateway, lately: Sequence[str], gateways: Mapping[str, Gateway]) -> dict[str, Any]:
    others = {model for other in gateways.values() if other is not gateway for model in other.models}
    used = [model for model in lately if model in gateway.models or model not in others]
    lacks = {model: _lacking(gateway, model) for model in gateway.models}
    prices = {model: price for model in gateway.models if (price := _price(gateway, model)) is not None}
    return {
        "models": [*used, *(model for model in gateway.models if model not in used)],
        "lacks": lacks,
        "else": _lacking(gateway, ELSE),
        "prices": prices,
    }


def _lacking(gateway: Gateway, model: str) -> list[str]:
    """The fields of the form that a model does not take."""
    everything = JobRequest(model, "x", negative_prompt="x", aspect_ratio="1:1", num_images=2, seed="1")
    return sorted(gateway.unsupported(everything))


def _price(gateway: Gateway, model: str) -> float | None:
    return gateway.estimate(JobRequest(model, "x"))
