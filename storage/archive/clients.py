"""Create boto3's clients of a bucket: one sends requests, the other presigns for the public endpoint."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from storage.archive import s3
from storage.archive.signed_put import SignedPut
from storage.archive.store_facts import Addressing

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True, slots=True)
class Clients:
    """Two clients of one addressing style. Thread-safe, and nothing is sent before the first call."""

    requests: S3Client
    links: S3Client
    addressing: Addressing
    signed: Callable[[str], SignedPut | None]
    """Creates what puts objects into a bucket at less cost, if that can be."""
    public_path: str
    """What links have in place of the endpoint's own path: a proxy takes it off again."""

    @property
    def endpoint(self) -> str:
        """The URL of the store."""
        return self.requests.meta.endpoint_url

    def url_of(self, bucket: str) -> str:
        """Return the URL of the host that requests about a bucket go to."""
        if self.addressing == "path":
            return self.endpoint
        return self.endpoint.replace("://", f"://{bucket}.", 1)

    @property
    def on_aws(self) -> bool:
        """Whether that is AWS, wherever the endpoint was configured."""
        return s3.on_aws(self.endpoint)

    def public(self, link: str) -> str:
        """Return a presigned link with the public endpoint's path, which is no part of the signature."""
        signed, inner = urlsplit(link), urlsplit(self.endpoint).path.rstrip("/")
        return signed._replace(path=self.public_path + signed.path.removeprefix(inner)).geturl()


@dataclass(frozen=True, slots=True)
class ClientFactory:
    """Create clients of either addressing style."""

    session: Callable[[], s3.Sessions]
    """A new one for each, because a session remembers the keys that it once found."""
    endpoint: str | None
    """Unset: the one that AWS' own variables and files configure, or else AWS."""
    public_endpoint: str | None
    addressing: Literal["auto"] | Addressing
    checksums: s3.Checksums
    connections: int

    def first(self) -> Clients:
        """Create those to begin with: if that is open, AWS has the bucket in the host, others in the path."""
        if self.addressing != "auto":
            return self._create(self.addressing)
        clients = self._create("path")
        return self._create("virtual") if clients.on_aws else clients

    def other(self, clients: Clients) -> Clients | None:
        """Create those of the other style, if that may be tried; an address without a name has one only."""
        if self.addressing != "auto" or clients.on_aws or _is_address(clients.endpoint):
            return None
        return self._create("path" if clients.addressing == "virtual" else "virtual")

    def _create(self, addressing: Addressing) -> Clients:
        config = s3.client_config(
            addressing=addressing, checksums=self.checksums, connections=self.connections
        )
        session, core = self.session()
        requests = session.client("s3", endpoint_url=self.endpoint, config=config)
        inner = requests.meta.endpoint_url
        public = urlsplit(self.public_endpoint or inner)
        # Signed as the store sees it: behind the proxy, under the public host and its own path.
        signed = public._replace(path=urlsplit(inner).path.rstrip("/")).geturl()
        links = requests
        if self.public_endpoint:
            links = session.client("s3", endpoint_url=signed, config=config)

        def puts(bucket: str) -> SignedPut | None:
            return SignedPut.into(bucket, requests, core.get_credentials(), s3.tls_context(core))

        return Clients(requests, links, addressing, puts, public.path.rstrip("/"))


def _is_address(endpoint: str) -> bool:
    try:
        ipaddress.ip_address(urlsplit(endpoint).hostname or "")
    except ValueError:
        return False
    return True
