"""The registry of gateways: each has a line here, its settings, and a file of its own."""

from __future__ import annotations

from receiver.gateways.api_in_one import ApiInOne
from receiver.gateways.apiframe import Apiframe
from receiver.gateways.base import Gateway
from receiver.settings import ApiframeSettings, ApiInOneSettings, GatewaySettings, Settings

NO_KEY = "none"
"""Instead of a key, in an adapter that sends nothing."""


def configured(settings: Settings) -> dict[str, GatewaySettings]:
    """Return the settings of the gateways that have a key, by name."""
    every: dict[str, GatewaySettings] = {
        "apiframe": settings.gateways.apiframe,
        "api-in-one": settings.gateways.api_in_one,
    }
    return {name: ours for name, ours in every.items() if ours.api_key}


def adapters(settings: Settings) -> dict[str, Gateway]:
    """Return an adapter for each gateway that has a key."""
    return {name: _adapter(ours) for name, ours in configured(settings).items()}


def proving(settings: Settings) -> dict[str, Gateway]:
    """Return an adapter for each gateway whose callbacks can be verified here. They send nothing.

    Apiframe signs with the API key, so without that it is not among them. API in One signs nothing: the
    token in the URL is the proof, and no key is needed.
    """
    return {"api-in-one": ApiInOne(NO_KEY), **adapters(settings)}


def _adapter(ours: GatewaySettings) -> Gateway:
    assert ours.api_key is not None
    key = ours.api_key.get_secret_value()
    if isinstance(ours, ApiframeSettings):
        return Apiframe(
            key,
            previous_api_keys=[previous.get_secret_value() for previous in ours.previous_api_keys],
            base_url=ours.base_url,
            callback_field=ours.callback_field,
        )
    if isinstance(ours, ApiInOneSettings):
        return ApiInOne(key, base_url=ours.base_url)
    raise AssertionError(f"no adapter for {type(ours).__name__}")
