"""The options of the commands that have many, or that share them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from receiver.cli import completion

_JOB, _MANY, _AFTER, FILTERS = "The job", "Many jobs", "Afterwards", "Filters"

Prompt = Annotated[str | None, typer.Argument(metavar="PROMPT", help="What to draw.", show_default=False)]
File = Annotated[
    str | None,
    typer.Option(
        "--file",
        "-f",
        metavar="FILE",
        help="A job from each row of a .csv or .jsonl file; - reads either from standard input. "
        "Its columns are named like the options; those for parameters and tags are `params.NAME` "
        "and `tags.NAME`.",
        rich_help_panel=_MANY,
        show_default=False,
    ),
]
GatewayToAsk = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="apiframe or api-in-one.",
        rich_help_panel=_JOB,
        show_default=False,
        autocompletion=completion.gateways,
    ),
]
ModelToAsk = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The gateway's own word for the model.",
        rich_help_panel=_JOB,
        show_default=False,
    ),
]
AspectRatio = Annotated[
    str | None,
    typer.Option(metavar="W:H", help="Such as 16:9.", rich_help_panel=_JOB, show_default=False),
]
NegativePrompt = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="What to leave out.", rich_help_panel=_JOB, show_default=False),
]
NumImages = Annotated[
    int | None,
    typer.Option(metavar="N", help="How many images.", rich_help_panel=_JOB, show_default=False),
]
SeedToAsk = Annotated[
    str | None,
    typer.Option(
        "--seed",
        metavar="SEED",
        help="Where the gateway takes one.",
        rich_help_panel=_JOB,
        show_default=False,
    ),
]
Params = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="Passed to the gateway as it is; a value may be JSON, and a.b=1 is {a: {b: 1}}.",
        rich_help_panel=_JOB,
        show_default=False,
    ),
]
TagsToGive = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="Your own word, to find it by.",
        rich_help_panel=_JOB,
        show_default=False,
    ),
]
IgnoreUnsupported = Annotated[
    bool,
    typer.Option(
        "--ignore-unsupported",
        help="Drop what the gateway does not take, instead of refusing; the record shows it.",
        rich_help_panel=_JOB,
    ),
]
NotifyUrl = Annotated[
    str | None,
    typer.Option(
        "--notify-url",
        metavar="URL",
        help="Who is told once the job is over; otherwise DARKROOM_NOTIFY__URL of the service.",
        rich_help_panel=_JOB,
        show_default=False,
    ),
]
IdempotencyKey = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help="The same key again gives the same job, and is not paid twice.",
        rich_help_panel=_JOB,
        show_default=False,
    ),
]
Wait = Annotated[
    bool, typer.Option("--wait", help="Wait until it is archived, or has failed.", rich_help_panel=_AFTER)
]
Timeout = Annotated[
    float, typer.Option(metavar="SECONDS", min=0, help="How long to wait.", rich_help_panel=_AFTER)
]
DownloadTo = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        file_okay=False,
        help="Wait, then save the images there, their digests checked.",
        rich_help_panel=_AFTER,
        show_default=False,
    ),
]

Gateway = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="apiframe or api-in-one.",
        rich_help_panel=FILTERS,
        show_default=False,
        autocompletion=completion.gateways,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="As asked for, or as reported.", rich_help_panel=FILTERS, show_default=False
    ),
]
Seed = Annotated[
    str | None,
    typer.Option(
        "--seed",
        metavar="SEED",
        help="As asked for, or as reported.",
        rich_help_panel=FILTERS,
        show_default=False,
    ),
]
JobId = Annotated[
    str | None,
    typer.Option(
        "--job",
        metavar="ID",
        help="The job that made them.",
        rich_help_panel=FILTERS,
        show_default=False,
        autocompletion=completion.jobs,
    ),
]
Tags = Annotated[
    list[str] | None,
    typer.Option(
        "--tag",
        metavar="NAME=VALUE",
        help="A tag that the job has; may be repeated.",
        rich_help_panel=FILTERS,
        show_default=False,
    ),
]
Words = Annotated[
    str | None,
    typer.Option(
        "--text", metavar="TEXT", help="Words in the prompt.", rich_help_panel=FILTERS, show_default=False
    ),
]
Status = Annotated[
    str | None,
    typer.Option(
        "--status",
        metavar="STATUS",
        help="queued, submitting, running, ready, archived, partial or failed.",
        autocompletion=completion.statuses,
        rich_help_panel=FILTERS,
        show_default=False,
    ),
]
Sha256 = Annotated[
    str | None,
    typer.Option(
        "--sha256",
        metavar="HEX",
        help="Or how it begins.",
        rich_help_panel=FILTERS,
        show_default=False,
    ),
]
Code = Annotated[
    str | None,
    typer.Option(
        "--code",
        metavar="CODE",
        help="The code of the job's error, such as image_expired.",
        rich_help_panel=FILTERS,
        show_default=False,
    ),
]
Since = Annotated[
    str | None,
    typer.Option(
        metavar="WHEN",
        help="Jobs taken in then or later: 7d, 12h, 2026-11-22 or an RFC 3339 time.",
        rich_help_panel=FILTERS,
        show_default=False,
    ),
]
Until = Annotated[
    str | None,
    typer.Option(
        metavar="WHEN", help="Jobs taken in before then.", rich_help_panel=FILTERS, show_default=False
    ),
]
