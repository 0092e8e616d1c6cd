"""Complete words at the Tab key: fixed values, and those that the service returns.

The service is asked with a short timeout, and without an error if it is down.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import typer

from receiver.cli.token import TOKEN, api_token

if TYPE_CHECKING:
    from receiver.client import Darkroom

LOCAL = "http://127.0.0.1:8321"
TIMEOUT_S = 1.0
OFFERED = 50
"""How many of the newest jobs or images are offered."""

Offer = list[tuple[str, str]]
"""Values, each with its help."""


def gateways(ctx: typer.Context, incomplete: str) -> Offer:
    """Complete the configured gateways; every known one if the service is down."""
    found = _ask(ctx, lambda darkroom: [(one.name, "") for one in darkroom.gateways().gateways])
    return matching(found or [(name, "") for name in known_gateways()], incomplete)


def known_gateways() -> list[str]:
    """Return the name of every gateway that has an adapter."""
    from receiver.gateways.registry import Gateways

    return list(Gateways().every())


def models(ctx: typer.Context, incomplete: str) -> Offer:
    """Complete the known models, of the gateway that is given if there is one."""
    gateway = ctx.params.get("gateway")
    found = _ask(ctx, lambda darkroom: [(one.model, one.gateway) for one in darkroom.models(gateway).models])
    return matching(found, incomplete)


def statuses(incomplete: str) -> Offer:
    """Complete the states of a job."""
    from storage.models import Status

    return matching([(status, "") for status in Status], incomplete)


def retried(incomplete: str) -> Offer:
    """Complete the states of a job that can be retried."""
    return matching([("failed", ""), ("partial", ""), ("cancelled", "")], incomplete)


def jobs(ctx: typer.Context, incomplete: str) -> Offer:
    """Complete the newest jobs, with their prompts."""
    return matching(_ask(ctx, _jobs), incomplete)


def failed_jobs(ctx: typer.Context, incomplete: str) -> Offer:
    """Complete the newest jobs that failed."""
    return matching(_ask(ctx, lambda darkroom: _jobs(darkroom, status="failed")), incomplete)


def queued_jobs(ctx: typer.Context, incomplete: str) -> Offer:
    """Complete the newest jobs that were not sent yet."""
    return matching(_ask(ctx, lambda darkroom: _jobs(darkroom, status="queued")), incomplete)


def jobs_and_outputs(ctx: typer.Context, incomplete: str) -> Offer:
    """Complete the newest jobs; once the beginning of an id fits only one job, its images too."""

    def asked(darkroom: Darkroom) -> Iterable[tuple[str, str]]:
        found = [(id_, text) for id_, text in _jobs(darkroom) if id_.startswith(incomplete.partition(".")[0])]
        outputs = darkroom.search(limit=OFFERED, job=found[0][0]) if len(found) == 1 else ()
        return [*found, *((output.id, output.prompt) for output in outputs)]

    return matching(_ask(ctx, asked), incomplete)


def _jobs(darkroom: Darkroom, **filters: str) -> Offer:
    return [
        (job.id, f"{job.status}: {job.request.prompt}") for job in darkroom.jobs(limit=OFFERED, **filters)
    ]


def _ask(ctx: typer.Context, ask: Callable[[Darkroom], Iterable[tuple[str, str]]]) -> Offer:
    from receiver.client import ClientError, Darkroom

    url = ctx.params.get("url") or os.environ.get("DARKROOM_URL") or LOCAL
    try:
        token = api_token(ctx.params.get("token") or os.environ.get(TOKEN))
        with Darkroom(url, token, timeout_s=TIMEOUT_S) as darkroom:
            return list(ask(darkroom))
    except (ClientError, OSError, ValueError):
        return []


def matching(values: Iterable[tuple[str, str]], incomplete: str) -> Offer:
    """Return the values that begin with what was typed."""
    from receiver.cli.console import plain

    # Colons and line ends in the help have a meaning in some shells.
    return [
        (value, plain(text).replace(":", " ")[:60]) for value, text in values if value.startswith(incomplete)
    ]
