"""The registry of gateways: each has a line here, and a file of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import create_model

from receiver.gateways.adapter import Adapter
from receiver.gateways.api_in_one import ApiInOne
from receiver.gateways.apiframe import Apiframe
from receiver.gateways.base import Gateway
from receiver.gateways.bfl import BlackForestLabs
from receiver.gateways.bria import Bria
from receiver.gateways.fal import Fal
from receiver.gateways.kie import Kie
from receiver.gateways.magnific import Magnific
from receiver.gateways.replicate import Replicate
from receiver.gateways.settings import GatewaySettings, settings_of
from receiver.gateways.wavespeed import WaveSpeed
from receiver.settings_types import Group

ADAPTERS: tuple[type[Adapter], ...] = (
    Apiframe,
    ApiInOne,
    Replicate,
    BlackForestLabs,
    WaveSpeed,
    Bria,
    Kie,
    Fal,
    Magnific,
)

BY_NAME: Mapping[str, type[Adapter]] = {adapter.table.name: adapter for adapter in ADAPTERS}


class GatewayGroup(Group):
    """The gateways."""

    def every(self) -> dict[str, GatewaySettings]:
        """Return the settings of every gateway, by its name in URLs and the ledger."""
        return {name: getattr(self, adapter.table.setting) for name, adapter in BY_NAME.items()}

    def configured(self) -> dict[str, GatewaySettings]:
        """Return the settings of the gateways that have an API key, by name."""
        return {name: ours for name, ours in self.every().items() if ours.api_key}

    def adapters(self) -> dict[str, Gateway]:
        """Return an adapter for each gateway that has an API key."""
        return {name: BY_NAME[name](ours) for name, ours in self.configured().items()}

    def image_hosts(self) -> dict[str, tuple[str, ...]]:
        """Return the allow-list of each gateway's image hosts; empty where any public host is allowed."""
        return {
            name: (*BY_NAME[name].table.image_hosts, *ours.image_hosts) for name, ours in self.every().items()
        }

    def verifiers(self) -> dict[str, Gateway]:
        """Return an adapter for each gateway whose callbacks can be verified here. They send nothing.

        A gateway that does not sign with its API key needs none for that.
        """
        return {
            name: BY_NAME[name](ours)
            for name, ours in self.every().items()
            if ours.api_key or not BY_NAME[name].signs_with_key()
        }

    def unverified(self, used: Iterable[str]) -> dict[str, str]:
        """Return a warning for each gateway in use whose callbacks cannot be verified without its API key."""
        lacking = self.every().keys() - self.verifiers().keys()
        return {
            name: f"Its callbacks are refused: set {BY_NAME[name].table.settings}__API_KEY, "
            "the key with which they are signed."
            for name in used
            if name in lacking
        }

    def faults(self) -> list[str]:
        """Return what is missing in the settings of gateways, a line each."""
        return [
            f"  {BY_NAME[name].table.settings}__API_KEY: the key that follows the __PREVIOUS_API_KEYS"
            for name, ours in self.every().items()
            if ours.secrets("previous_api_keys") and ours.api_key is None
        ]


if TYPE_CHECKING:
    Gateways = GatewayGroup
else:

    def _fields() -> dict[str, Any]:
        models = {adapter.table.setting: settings_of(adapter.table, adapter.Settings) for adapter in ADAPTERS}
        return {name: (model, model()) for name, model in models.items()}

    Gateways = create_model(
        "Gateways", __base__=GatewayGroup, __doc__="The gateways.", __module__=__name__, **_fields()
    )
