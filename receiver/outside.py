"""The gateways, how they are reached, and how they reach us."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from receiver.callbacks.tokens import CallbackTokens, CallbackUrls
from receiver.gateways.base import Gateway
from receiver.gateways.client import GatewayClient
from receiver.gateways.registry import adapters, configured
from receiver.keyring import all_forms, every_secret, secret_keys
from receiver.makers import Makers
from receiver.redaction import Redactor
from receiver.settings import Settings
from storage.models import Clock


@dataclass(frozen=True, slots=True)
class Outside:
    """The gateways, and how they are reached and reach us."""

    gateways: dict[str, Gateway]
    client: httpx.Client
    sender: GatewayClient
    urls: CallbackUrls
    redactor: Redactor


def open_outside(settings: Settings, clock: Clock, makers: Makers, webhook_secrets: Sequence[str]) -> Outside:
    """Make what talks to the gateways; nothing is sent yet."""
    keys = secret_keys(settings)
    client = httpx.Client(timeout=httpx.Timeout(30, connect=10), trust_env=False, follow_redirects=False)
    concurrency = {name: ours.concurrency for name, ours in configured(settings).items()}
    tokens = CallbackTokens(keys, max_age_s=settings.callbacks.lifetime, clock=clock)
    return Outside(
        gateways=adapters(settings),
        client=client,
        sender=makers.sender(client, concurrency),
        urls=CallbackUrls(settings.public_url, tokens),
        redactor=Redactor([*every_secret(settings), *keys, *all_forms(webhook_secrets)]),
    )
