"""The settings of one gateway, and the model of them that its table makes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, create_model

from receiver.settings_sources import is_secret
from receiver.settings_types import BaseUrl, Group, Hosts, Origin, Secret, Secrets

if TYPE_CHECKING:
    from receiver.gateways.table import Table

NO_KEY = "none"

_ACCOUNT = re.compile(r"(?=.{1,32}\Z)[a-z][a-z0-9]*(_[a-z0-9]+)*")


class GatewaySettings(Group):
    """One gateway; it is on once its API key is set."""

    api_key: Secret | None = Field(None, description="Your API key; without it this gateway is off.")
    base_url: Origin = Field("https://gateway.invalid", description="Where its API is, without a path.")
    confirm: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Confirm callbacks with the gateway: unless their signature is valid (auto), always, "
        "or never.",
    )
    concurrency: int = Field(
        4,
        ge=1,
        le=64,
        description="Most requests of one process to this gateway at once, and most submissions of all.",
    )
    image_hosts: Hosts = Field(
        default_factory=list,
        description="Hosts of its images, with their subdomains, beside those that Darkroom knows; where it "
        "knows none, unset means any public host.",
    )

    @property
    def key(self) -> str:
        """Return the API key; without one a word that no gateway accepts."""
        return self.api_key.get_secret_value() if self.api_key else NO_KEY

    @property
    def named(self) -> Mapping[str, GatewaySettings]:
        """Return the settings of the named accounts, as they are set; an account has none itself."""
        return getattr(self, "accounts", {})

    def secrets(self, field: str) -> list[str]:
        """Return the values of a list of secrets; none where the gateway has no such setting."""
        return [value.get_secret_value() for value in getattr(self, field, ())]


def accounts_of(table: Table, ours: GatewaySettings) -> Iterator[tuple[str, GatewaySettings]]:
    """Yield the accounts of a gateway, the unnamed one first: its name in URLs and the ledger, its settings.

    What a named account does not set is as in the gateway's own settings, apart from keys and secrets.
    """
    yield table.name, ours
    for name, own in ours.named.items():
        update = {
            field: getattr(ours, field)
            for field, about in type(own).model_fields.items()
            if field not in own.model_fields_set and not is_secret(about)
        }
        yield f"{table.name}.{name.replace('_', '-')}", own.model_copy(update=update)


def _named(accounts: dict[str, Any]) -> dict[str, Any]:
    for name in accounts:
        if not _ACCOUNT.fullmatch(name):
            raise ValueError(
                f"{name[:40]!r} cannot be the name of an account; use up to 32 letters, digits and single _, "
                "the first of them a letter"
            )
    return accounts


def settings_of(table: Table, base: type[GatewaySettings]) -> type[GatewaySettings]:
    """Return the model of a gateway's settings: the usual, those that its table asks for, and its own."""
    fields: dict[str, Any] = {
        "base_url": (Origin, Field(table.base_url, description="Where its API is, without a path."))
    }
    signing = table.signing
    if signing is not None and signing.by in {"api-key", "derived"}:
        about = "Former API keys: callbacks signed with them are still accepted."
        fields["previous_api_keys"] = (Secrets, Field(default_factory=list, description=about))
    if signing is not None and signing.by == "setting":
        about = signing.about or "What it signs callbacks with; without it each of them is confirmed."
        fields["webhook_secrets"] = (Secrets, Field(default_factory=list, description=about))
    if signing is not None and signing.by == "keys":
        about = "Where its public keys are, with which callbacks are verified."
        fields["keys_url"] = (BaseUrl, Field(signing.keys, description=about))
    title = f"{table.title.replace(' ', '')}Settings"
    doc, module = f"{table.title}.", base.__module__
    account = create_model(title, __base__=base, __doc__=doc, __module__=module, **fields)
    named = Annotated[dict[str, account], AfterValidator(_named)]
    accounts: Any = Field(
        default_factory=dict,
        description="Further accounts, each by a name of yours and with these settings: "
        f"`{table.settings}__ACCOUNTS__SECOND__API_KEY` is the key of `{table.name}.second`.",
    )
    return create_model(title, __base__=account, __doc__=doc, __module__=module, accounts=(named, accounts))
