"""Connect to what the service runs on: the database, the bucket and the gateways."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import structlog

from receiver.callbacks.keys import PublicKeys
from receiver.callbacks.tokens import CallbackTokens
from receiver.errors import EndpointForbidden, SettingsError
from receiver.gateways.base import Gateway
from receiver.keyring import every_secret, notify_secrets, secret_keys
from receiver.redaction import Redactor
from receiver.settings import Settings
from storage.archive.keys import Keys
from storage.errors import Misconfigured
from storage.ledger.database import Database
from storage.ledger.ledger import Ledger
from storage.ledger.url import LedgerUrl
from storage.models import Clock

if TYPE_CHECKING:
    import httpx

    from receiver.gateways.client import GatewayClient
    from receiver.notifications.url_policy import NotifyPolicy
    from receiver.outbound.proxy import Proxy
    from receiver.outbound.trust import Trust
    from receiver.thumbnails.pool import Thumbnailer
    from storage.archive.archive import Archive
    from storage.archive.object_store import ObjectStore
    from storage.archive.store_facts import StoreFacts

log = structlog.get_logger("darkroom.bucket")


@dataclass(frozen=True, slots=True)
class Factories:
    """How `receiver.app.build` makes the parts that may fail, stall or be refused; tests pass their own."""

    database: Callable[[LedgerUrl], Database] = Database.connect
    ledger: Callable[[Database, Clock], Ledger] = Ledger
    sender: Callable[[httpx.Client, Mapping[str, int]], GatewayClient] | None = None
    """By default `GatewayClient`."""
    store: Callable[..., ObjectStore] | None = None
    """By default `ObjectStore.connect`."""
    thumbnailer: Callable[[], Thumbnailer] | None = None
    """By default `Thumbnailer`."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What every role that serves or works is given."""

    database: Database
    listening: Database
    """Where to listen for other processes: the same, or past its pooler."""
    ledger: Ledger
    gateways: Mapping[str, Gateway]
    tokens: CallbackTokens
    redactor: Redactor


@dataclass(frozen=True, slots=True)
class Bucket:
    """The object store, and the archive in it."""

    store: ObjectStore
    keys: Keys
    archive: Archive
    create: bool
    """Whether to create it if it is missing."""

    @property
    def facts(self) -> StoreFacts:
        """What the store supports."""
        return self.store.facts

    def open(self) -> None:
        """Probe it, and log what it supports; raise Misconfigured or Unavailable."""
        from storage.archive.conformance import probe

        try:
            facts = probe(self.store, self.keys.probes, create=self.create)
        except Misconfigured:
            # Files with keys may come later than this process.
            self.store.renew_keys()
            raise
        log.info("probed", how=facts.summary)
        for warning in facts.warnings:
            log.warning("bucket", why=warning)


@dataclass(frozen=True, slots=True)
class Outbound:
    """How requests leave, to gateways, image hosts, applications and the bucket."""

    trust: Trust
    proxy: Proxy | None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Read the authorities and the proxy; raise SettingsError, which names what is unusable."""
        from receiver.outbound.proxy import Proxy
        from receiver.outbound.trust import Trust

        ours = settings.outbound
        proxy = None if ours.proxy is None else Proxy(ours.proxy.get_secret_value(), ours.direct)
        return cls(Trust.load(ours.ca_bundle, os.environ), proxy)

    def proxy_to(self, endpoint: str | None) -> str | None:
        """Return the URL of the proxy to the bucket, with its credentials; None if it is reached directly."""
        host = urlsplit(endpoint or "").hostname or ""
        return self.proxy.url if self.proxy and self.proxy.leads_to(host) else None


def connect_resources(
    settings: Settings,
    clock: Clock,
    factories: Factories,
    *,
    only_callbacks: bool = False,
    webhook_secrets: Sequence[str] = (),
) -> Resources:
    """Connect what every role needs; raise SettingsError or Misconfigured, each saying what to change.

    The ledger's database is not migrated yet; nothing is sent to PostgreSQL before its first use.

    `only_callbacks`: the gateways are those whose callbacks can be verified, whether or not they have a key.
    """
    keys = secret_keys(settings)
    gateways = settings.gateways.verifiers() if only_callbacks else settings.gateways.adapters()
    bare = [secret.removeprefix("whsec_") for secret in webhook_secrets]
    redactor = Redactor([*every_secret(settings), *keys, *webhook_secrets, *bare])
    direct = Database.connect(settings.listening_url) if settings.database_direct_url else None
    database = factories.database(settings.ledger_url)
    return Resources(
        database=database,
        listening=direct or database,
        ledger=factories.ledger(database, clock),
        gateways=gateways,
        tokens=CallbackTokens(keys, max_age_s=settings.callbacks.lifetime, clock=clock),
        redactor=redactor,
    )


def connect_bucket(settings: Settings, factories: Factories, outbound: Outbound) -> Bucket:
    """Connect to the bucket; nothing is sent before `Bucket.open`. Raise SettingsError or Misconfigured."""
    # boto3 takes 10 MB, and a process that serves callbacks alone has no use for it.
    from storage.archive.archive import Archive
    from storage.archive.object_store import ObjectStore

    s3, keys = settings.s3, _keys(settings)
    assert s3.bucket is not None
    store = (factories.store or ObjectStore.connect)(
        bucket=s3.bucket,
        endpoint=s3.endpoint,
        public_endpoint=s3.public_endpoint,
        region=s3.region,
        access_key=s3.access_key.get_secret_value() if s3.access_key else None,
        secret_key=s3.secret_key.get_secret_value() if s3.secret_key else None,
        addressing=s3.addressing,
        checksums=s3.checksums,
        ca_bundle=outbound.trust.bundle,
        proxy=outbound.proxy_to(s3.endpoint),
    )
    return Bucket(store, keys, Archive(store, keys), s3.create_bucket)


def connect_keys(settings: Settings, gateways: Mapping[str, Gateway], clock: Clock) -> PublicKeys:
    """Connect what fetches the gateways' public keys, so seldom that it opens a client each time."""

    def send(request: httpx.Request) -> httpx.Response:
        from receiver.gateways.client import GatewayClient
        from receiver.outbound.proxy import open_client

        outbound = Outbound.of(settings)
        with open_client(outbound.trust.context, outbound.proxy) as client:
            return GatewayClient(client, {}).send(request)

    return PublicKeys(gateways, send, clock, used=settings.gateways.configured())


def connect_gateways(
    settings: Settings, factories: Factories, outbound: Outbound
) -> tuple[httpx.Client, GatewayClient]:
    """Return the HTTP client for gateways, and what sends to each within its limit; nothing is sent yet."""
    from receiver.gateways.client import GatewayClient
    from receiver.outbound.proxy import open_client

    client = open_client(outbound.trust.context, outbound.proxy)
    concurrency = {name: ours.concurrency for name, ours in settings.gateways.configured().items()}
    return client, (factories.sender or GatewayClient)(client, concurrency)


def notify_policy(settings: Settings) -> NotifyPolicy:
    """Return where notifications may go; raise SettingsError if DARKROOM_NOTIFY__URL itself may not."""
    from receiver.notifications.url_policy import NotifyPolicy

    notify = settings.notify
    policy = NotifyPolicy(
        default=None if notify.url is None else notify.url.get_secret_value(),
        networks=tuple(ip_network(network) for network in notify.allow_networks),
        hosts=tuple(notify.allow_hosts),
        secrets=tuple(notify_secrets(settings)),
    )
    try:
        policy.check(policy.default or "")
    except EndpointForbidden as error:
        raise SettingsError(f"DARKROOM_NOTIFY__URL: {error}") from error
    return policy


def _keys(settings: Settings) -> Keys:
    try:
        return Keys(prefix=settings.s3.prefix, template=settings.key_template)
    except ValueError as error:
        # Each alone was checked when it was read.
        raise SettingsError(f"DARKROOM_S3__PREFIX with DARKROOM_KEY_TEMPLATE: {error}") from error
