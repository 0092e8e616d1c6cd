"""Where notifications may go: what is checked when a job is accepted, and what before each connection.

Whoever may submit a job says where Darkroom posts, so this is held to the same table of addresses as
downloads. Other than those, a notification may go to any port: applications listen wherever they like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from receiver.download.ssrf import (
    Address,
    Network,
    Target,
    address_allowed,
    forbidden_reason,
    host_allowed,
    parse_target,
)
from receiver.download.transport import Deadline, Resolver, lookup
from receiver.errors import EndpointForbidden, ForbiddenAddress

MAX_URL_LENGTH = 2048
"""Characters."""


@dataclass(frozen=True, slots=True)
class NotifyPolicy:
    """Where notifications may go, and what they are signed with."""

    default: str | None = None
    """Where those go of jobs that name no URL; None means nowhere."""
    networks: tuple[Network, ...] = ()
    """Reached although forbidden to others, and over plain http too."""
    hosts: tuple[str, ...] = ()
    """The only hosts, with those below them, that may be reached besides; empty allows any."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Sign what is sent, each of them; without one nothing is notified."""

    def check(self, url: str) -> None:
        """Check a URL as far as can be told without looking its host up; an empty one means nowhere.

        Raises ReceiverForbidden.
        """
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

    def route(self, target: Target, resolve: Resolver, deadline: Deadline) -> Sequence[Address]:
        """Look the host up, once, and answer where to connect.

        Raises ReceiverForbidden if any of its addresses may not be reached; ImageUnavailable, as downloads
        do, if it has none; and TimeoutError.
        """
        if not self.networks:  # before a lookup that would show somebody's name server that we are here
            self._judge_name(target)
        try:
            addresses = [target.address] if target.address else lookup(target, resolve, deadline)
        except ForbiddenAddress as error:  # such as one with a zone
            raise EndpointForbidden(f"{target.authority} leads to a forbidden address: {error}") from error
        self._judge(target, addresses)
        return addresses

    def _judge(self, target: Target, addresses: Sequence[Address]) -> None:
        if all(address_allowed(address, self.networks) for address in addresses):
            return
        self._judge_name(target)
        for address in addresses:
            reason = None if address_allowed(address, self.networks) else forbidden_reason(address)
            if reason:
                raise EndpointForbidden(
                    f"{target.authority} leads to a forbidden address: {reason}. "
                    "DARKROOM_NOTIFY__ALLOW_NETWORKS can allow it."
                )

    def _judge_name(self, target: Target) -> None:
        if target.scheme != "https":
            raise EndpointForbidden(
                f"{target.authority} is not https; plain http is for DARKROOM_NOTIFY__ALLOW_NETWORKS only."
            )
        if not host_allowed(target.host, self.hosts):
            raise EndpointForbidden(f"{target.host} is not one of DARKROOM_NOTIFY__ALLOW_HOSTS.")


def read(url: str) -> Target:
    """Read a URL; raise ReceiverForbidden if it is not spelled plainly, as `parse_target` says."""
    try:
        return parse_target(url)
    except ForbiddenAddress as error:
        raise EndpointForbidden(str(error)) from error
