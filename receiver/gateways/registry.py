"""The registry of gateways: each has a line here, and a file of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import create_model

from receiver.gateways.adapter import Adapter
from receiver.gateways.api_in_one import ApiInOne
from receiver.gateways.apiframe import Apiframe
from receiver.gateways.base import Gateway
from receiver.gateways.bfl import BlackForestLabs
from receiver.gateways.bria import Bria
from receiver.gateways.fal import Fal
from receiver.gateways.ideogram import Ideogram
from receiver.gateways.kie import Kie
from receiver.gateways.magnific import Magnific
from receiver.gateways.replicate import Replicate
from receiver.gateways.runpod import RunPod
from receiver.gateways.runware import Runware
from receiver.gateways.settings import GatewaySettings, accounts_of, settings_of
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
    Ideogram,
    Runware,
    Magnific,
    RunPod,
)

BY_NAME: Mapping[str, type[Adapter]] = {adapter.table.name: adapter for adapter in ADAPTERS}


class GatewayGroup(Group):
    """The gateways."""

    known: ClassVar[Mapping[str, type[Adapter]]] = BY_NAME
    """The adapter of each gateway, by its name in URLs and the ledger."""

    def every(self) -> dict[str, GatewaySettings]:
        """Return the settings of every account of every gateway, by its name in URLs and the ledger."""
        tables = [adapter.table for adapter in self.known.values()]
        return dict(one for table in tables for one in accounts_of(table, getattr(self, table.setting)))

    def kind(self, name: str) -> type[Adapter]:
        """Return the adapter of an account: that of its gateway."""
        return self.known[name.partition(".")[0]]

    def prefix(self, name: str) -> str:
        """Return what the settings of an account begin with."""
        return self.kind(name).table.prefix(name)

    def configured(self) -> dict[str, GatewaySettings]:
        """Return the settings of the accounts that have an API key, by name."""
        return {name: ours for name, ours in self.every().items() if ours.api_key}

    def adapters(self) -> dict[str, Gateway]:
        """Return an adapter for each account that has an API key."""
        return {name: self.kind(name)(ours, name) for name, ours in self.configured().items()}

    def image_hosts(self) -> dict[str, tuple[str, ...]]:
        """Return the allow-list of each account's image hosts; empty where any public host is allowed."""
        return {
            name: (*self.kind(name).table.image_hosts, *ours.image_hosts)
            for name, ours in self.every().items()
        }

    def verifiers(self) -> dict[str, Gateway]:
        """Return an adapter for each account whose callbacks can be verified here. They send nothing.

        A gateway that does not sign with its API key needs none for that.
        """
        return {
            name: self.kind(name)(ours, name)
            for name, ours in self.every().items()
            if ours.api_key or not self.kind(name).signs_with_key()
        }

    def unverified(self, used: Iterable[str]) -> dict[str, str]:
        """Return a warning for each account in use whose callbacks cannot be verified without its API key."""
        lacking = self.every().keys() - self.verifiers().keys()
        return {
            name: f"Its callbacks are refused: set {self.prefix(name)}__API_KEY, "
            "the key with which they are signed."
            for name in used
            if name in lacking
        }

    def faults(self) -> list[str]:
        """Return what is missing in the settings of gateways, a line each."""
        return [
            f"  {self.prefix(name)}__API_KEY: the key that follows the __PREVIOUS_API_KEYS"
            for name, ours in self.every().items()
            if ours.secrets("previous_api_keys") and ours.api_key is None
        ]


def group_of(adapters: Iterable[type[Adapter]]) -> type[GatewayGroup]:
    """Return the model of the settings of gateways: a field for each adapter."""
    known = {adapter.table.name: adapter for adapter in adapters}
    models = {one.table.setting: (one, settings_of(one.table, one.Settings)) for one in known.values()}
    fields: dict[str, Any] = {name: (model, model(**one.defaults)) for name, (one, model) in models.items()}
    group = create_model(
        "Gateways", __base__=GatewayGroup, __doc__="The gateways.", __module__=__name__, **fields
    )
    group.known = known
    return group


if TYPE_CHECKING:
    Gateways = GatewayGroup
else:
    Gateways = group_of(ADAPTERS)
