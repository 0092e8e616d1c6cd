"""The registry of gateways: each has a line here, and a file of its own with its settings and adapter."""

from receiver.gateways.api_in_one import ApiInOneSettings
from receiver.gateways.apiframe import ApiframeSettings
from receiver.gateways.base import Gateway, GatewaySettings
from receiver.settings_types import Group


class Gateways(Group):
    """The gateways."""

    apiframe: ApiframeSettings = ApiframeSettings()
    api_in_one: ApiInOneSettings = ApiInOneSettings()

    def every(self) -> dict[str, GatewaySettings]:
        """Return the settings of every gateway, by its name in URLs and the ledger."""
        return {name.replace("_", "-"): getattr(self, name) for name in type(self).model_fields}

    def configured(self) -> dict[str, GatewaySettings]:
        """Return the settings of the gateways that have an API key, by name."""
        return {name: ours for name, ours in self.every().items() if ours.api_key}

    def adapters(self) -> dict[str, Gateway]:
        """Return an adapter for each gateway that has an API key."""
        return {name: ours.adapter() for name, ours in self.configured().items()}

    def image_hosts(self) -> dict[str, tuple[str, ...]]:
        """Return the allow-list of each gateway's image hosts; empty where any public host is allowed."""
        return {name: (*ours.adapter().image_hosts, *ours.image_hosts) for name, ours in self.every().items()}

    def verifiers(self) -> dict[str, Gateway]:
        """Return an adapter for each gateway whose callbacks can be verified here. They send nothing.

        A gateway that signs nothing needs no API key for that: the token in the URL is the proof.
        """
        return {
            name: ours.adapter()
            for name, ours in self.every().items()
            if ours.api_key or not ours.signs_with_key
        }
