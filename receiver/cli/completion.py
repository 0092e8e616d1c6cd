"""What the shell offers at the Tab key: values that are known, and those that the service knows.

It is asked with a short timeout, and nothing is said if it does not answer: nobody wants an error at the
prompt.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import typer

from receiver.cli.connection import LOCAL

if TYPE_CHECKING:
    from receiver.client import Darkroom

PATIENCE_S = 1.0
OFFERED = 50
"""How many of the newest jobs or outputs are looked at."""

GATEWAYS = ("apiframe", "api-in-one")
Offer = list[tuple[str, str]]
"""Values, each with a word of help."""


def gateways(ctx: typer.Context, incomplete: str) -> Offer:
    """The gateways that are configured; those that Darkroom knows, if it cannot be asked."""

    def asked(darkroom: Darkroom) -> Iterable[tuple[str, str]]:
        return [(name, "") for name in darkroom.gateways().names]

    return _matching(_ask(ctx, asked) or [(name, "") for name in GATEWAYS], incomplete)


def statuses(incomplete: str) -> Offer:
    """Where a job can be."""
    from receiver.client.models import STATUSES

    return _matching([(status, "") for status in STATUSES], incomplete)


def retried(incomplete: str) -> Offer:
    """Where a job can be that is retried."""
    return _matching([("failed", ""), ("partial", "")], incomplete)


def jobs(ctx: typer.Context, incomplete: str) -> Offer:
    """The newest jobs, with their prompts."""
    return _matching(_ask(ctx, _jobs), incomplete)


def failed_jobs(ctx: typer.Context, incomplete: str) -> Offer:
    """The newest jobs that failed."""

    def asked(darkroom: Darkroom) -> Iterable[tuple[str, str]]:
        return [(job.id, job.request.prompt) for job in darkroom.jobs(limit=OFFERED, status="failed")]

    return _matching(_ask(ctx, asked), incomplete)


def jobs_and_outputs(ctx: typer.Context, incomplete: str) -> Offer:
    """The newest jobs; once the beginning of an id fits one job, its outputs too."""

    def asked(darkroom: Darkroom) -> Iterable[tuple[str, str]]:
        found = [(id_, told) for id_, told in _jobs(darkroom) if id_.startswith(incomplete.partition(".")[0])]
        outputs = darkroom.search(limit=OFFERED, job=found[0][0]) if len(found) == 1 else ()
        return [*found, *((output.id, output.prompt) for output in outputs)]

    return _matching(_ask(ctx, asked), incomplete)


def _jobs(darkroom: Darkroom) -> Offer:
    return [(job.id, f"{job.status}: {job.request.prompt}") for job in darkroom.jobs(limit=OFFERED)]


def _ask(ctx: typer.Context, ask: Callable[[Darkroom], Iterable[tuple[str, str]]]) -> Offer:
    from receiver.client import ClientError, Darkroom

    url = ctx.params.get("url") or os.environ.get("DARKROOM_URL") or LOCAL
    token = ctx.params.get("token") or os.environ.get("DARKROOM_TOKEN")
    try:
        with Darkroom(url, token, timeout_s=PATIENCE_S) as darkroom:
            return list(ask(darkroom))
    except (ClientError, OSError):
        return []


def _matching(values: Iterable[tuple[str, str]], incomplete: str) -> Offer:
    from receiver.cli.console import plain

    # A shell takes a colon or a line end in the help for its own.
    return [
        (value, plain(told).replace(":", " ")[:60]) for value, told in values if value.startswith(incomplete)
    ]
