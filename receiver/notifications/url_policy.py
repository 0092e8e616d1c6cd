"""Validate where notifications may go, safe from SSRF: when a job is created, and before each connection.

A caller of the API says where Darkroom posts, so the table of forbidden addresses is that of downloads. Other
than those, a notification may go to any port: applications listen wherever they like.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from receiver.download import ssrf
from receiver.download.lookup import Deadline, Resolver, lookup
from receiver.errors import EndpointForbidden, ForbiddenAddress

MAX_URL_LENGTH = 2048
"""Characters."""


@dataclass(frozen=True, slots=True)
class NotifyPolicy:
    """The allow-lists of notifications, and what signs them."""

    default: str | None = None
    """The URL of jobs that name none; None turns it off."""
    networks: tuple[ssrf.Network, ...] = ()
    """Allow-list: reached although forbidden, and over plain http too."""
    hosts: tuple[str, ...] = ()
    """Allow-list of hosts, subdomains included; empty allows any."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Each signs every notification; without one there are none."""

    def check(self, url: str) -> None:
        """Validate a URL as far as possible without DNS; raise EndpointForbidden. Empty is allowed."""
        if not url:
            return
        if not self.secrets:
            raise EndpointForbidden("Nothing can be signed here: DARKROOM_NOTIFY__SECRETS is not set.")
        if len(url) > MAX_URL_LENGTH or "#" in url:
            raise EndpointForbidden(f"The URL is over {MAX_URL_LENGTH} characters or has a fragment.")
        target = read(url)
        if target.address is not None:
            self._judge(target, [target.address])
        elif not self.networks:
            self._judge_name(target)

    def route(self, target: ssrf.Target, resolve: Resolver, deadline: Deadline) -> Sequence[ssrf.Address]:
        """Return the addresses to connect to, from a single lookup (against DNS rebinding).

        Raises EndpointForbidden if any of them is forbidden, ImageUnavailable if there is none, TimeoutError.
        """
        if not self.networks:  # before a lookup, which a foreign name server would see
            self._judge_name(target)
        try:
            addresses = [target.address] if target.address else lookup(target.host, resolve, deadline)
        except ForbiddenAddress as error:  # such as one with a zone
            raise EndpointForbidden(f"{target.authority} leads to a forbidden address: {error}") from error
        self._judge(target, addresses)
        return addresses

    def _judge(self, target: ssrf.Target, addresses: Sequence[ssrf.Address]) -> None:
        outside = [address for address in addresses if not ssrf.address_allowed(address, self.networks)]
        if outside:
            self._judge_name(target)
        for address in outside:
            if reason := ssrf.forbidden_reason(address):
                raise EndpointForbidden(
                    f"{target.authority} leads to a forbidden address: {reason}. "
                    "DARKROOM_NOTIFY__ALLOW_NETWORKS can allow it."
                )

    def _judge_name(self, target: ssrf.Target) -> None:
        if target.scheme != "https":
            raise EndpointForbidden(
                f"{target.authority} is not https; plain http is for DARKROOM_NOTIFY__ALLOW_NETWORKS only."
            )
        if not ssrf.host_allowed(target.host, self.hosts):
            raise EndpointForbidden(f"{target.host} is not one of DARKROOM_NOTIFY__ALLOW_HOSTS.")


def read(url: str) -> ssrf.Target:
    """Parse a URL strictly, as `parse_target`; raise EndpointForbidden."""
    try:
        return ssrf.parse_target(url)
    except ForbiddenAddress as error:
        raise EndpointForbidden(str(error)) from error
