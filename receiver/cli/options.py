"""Declare the options that commands share, and spread a dataclass of options over a command's parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from receiver.cli import completion
from receiver.cli.batch_input import BadInput, flat
from receiver.cli.console import MISUSED, fail

FILTERS = "Filters"
_JOB, _MANY, _AFTER = "The job", "Many jobs", "Afterwards"
_WHEN = "7d, 12h, 2026-11-22 or an RFC 3339 time"


def option(*names: str, metavar: str | None = None, panel: str | None = None, **more: Any) -> Any:
    """Return a Typer option in a panel of the help; its default is shown only if `show_default` says so."""
    more.setdefault("show_default", False)
    return typer.Option(*names, metavar=metavar, rich_help_panel=panel, **more)


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command for Typer in which each dataclass parameter became one option for each field."""
    parameters: list[Parameter] = []
    groups: dict[str, Any] = {}
    types = get_type_hints(command, include_extras=True)
    for one in signature(command).parameters.values():
        kind = types[one.name]
        if is_dataclass(kind):
            groups[one.name] = kind
            options = get_type_hints(kind, include_extras=True)
            parameters += [
                Parameter(field.name, one.KEYWORD_ONLY, default=field.default, annotation=options[field.name])
                for field in fields(kind)
            ]
        else:
            parameters.append(one.replace(annotation=kind))

    @wraps(command)
    def run(*args: Any, **values: Any) -> None:
        for name, kind in groups.items():
            values[name] = kind(**{field.name: values.pop(field.name) for field in fields(kind)})
        command(*args, **values)

    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


Prompt = Annotated[str | None, typer.Argument(metavar="PROMPT", help="What to draw.", show_default=False)]
File = Annotated[
    str | None,
    option(
        "--file",
        "-f",
        metavar="FILE",
        help="Submit a job for each row of a .csv or .jsonl file; - reads either from standard input. "
        "Columns are named like the options; parameters and tags are `params.NAME` and `tags.NAME`.",
        panel=_MANY,
    ),
]


@dataclass(frozen=True)
class JobRequest:
    """The options of `darkroom submit` that describe the job."""

    gateway: Annotated[
        str | None,
        option(
            metavar="NAME",
            help="Such as apiframe or api-in-one.",
            panel=_JOB,
            autocompletion=completion.gateways,
        ),
    ] = None
    model: Annotated[str | None, option(metavar="NAME", help="The gateway's model name.", panel=_JOB)] = None
    aspect_ratio: Annotated[str | None, option(metavar="W:H", help="Such as 16:9.", panel=_JOB)] = None
    negative_prompt: Annotated[str | None, option(metavar="TEXT", help="What to avoid.", panel=_JOB)] = None
    num_images: Annotated[int | None, option(metavar="N", help="How many images.", panel=_JOB)] = None
    seed: Annotated[
        str | None, option("--seed", metavar="SEED", help="If the gateway takes one.", panel=_JOB)
    ] = None
    param: Annotated[
        list[str] | None,
        option(
            metavar="NAME=VALUE",
            help="Sent to the gateway unchanged; a value may be JSON, and a.b=1 means {a: {b: 1}}.",
            panel=_JOB,
        ),
    ] = None
    tag: Annotated[
        list[str] | None,
        option(metavar="NAME=VALUE", help="A label of your own, to find the job by.", panel=_JOB),
    ] = None
    ignore_unsupported: Annotated[
        bool,
        option(
            "--ignore-unsupported",
            help="Leave out what the gateway does not support, instead of failing; the record shows it.",
            panel=_JOB,
        ),
    ] = False
    idempotency_key: Annotated[
        str | None,
        option(
            metavar="KEY",
            help="Sending the same key again returns the same job, and does not cost again.",
            panel=_JOB,
        ),
    ] = None
    notify_url: Annotated[
        str | None,
        option(
            "--notify-url",
            metavar="URL",
            help="Where to send a notification when the job is finished; the default is the service's "
            "DARKROOM_NOTIFY__URL.",
            panel=_JOB,
        ),
    ] = None


Wait = Annotated[bool, option("--wait", help="Wait until the job is archived or failed.", panel=_AFTER)]
Timeout = Annotated[
    float, option(metavar="SECONDS", min=0, help="How long to wait.", panel=_AFTER, show_default=True)
]
DownloadTo = Annotated[
    Path | None,
    option(
        metavar="DIR", file_okay=False, help="Wait, then save the images there and check them.", panel=_AFTER
    ),
]

Gateway = Annotated[
    str | None,
    option(
        metavar="NAME",
        help="Such as apiframe or api-in-one.",
        panel=FILTERS,
        autocompletion=completion.gateways,
    ),
]
Model = Annotated[
    str | None, option(metavar="NAME", help="As requested, or as the gateway reported it.", panel=FILTERS)
]
Since = Annotated[
    str | None, option(metavar="WHEN", help=f"Jobs created then or later: {_WHEN}.", panel=FILTERS)
]
Until = Annotated[str | None, option(metavar="WHEN", help="Jobs created before then.", panel=FILTERS)]
Tags = Annotated[
    list[str] | None,
    option("--tag", metavar="NAME=VALUE", help="A tag of the job; may be repeated.", panel=FILTERS),
]
Text = Annotated[str | None, option("--text", metavar="TEXT", help="Words in the prompt.", panel=FILTERS)]


class _Filters:
    """Options that filter a list."""

    def query(self, **more: str | None) -> dict[str, str]:
        """Return the filters that were given, and `more`, as the client takes them.

        Exits with 2 if a tag is malformed.
        """
        given = {**vars(self), **more}
        try:
            tags = flat(given.pop("tag", None) or [], "--tag")
        except BadInput as error:
            fail(str(error), MISUSED)
        found = {name: value for name, value in given.items() if value is not None}
        return found | {f"tag.{name}": value for name, value in tags.items()}


@dataclass(frozen=True)
class JobFilters(_Filters):
    """The filters of lists of jobs."""

    gateway: Gateway = None
    model: Model = None
    status: Annotated[
        str | None,
        option(
            "--status",
            metavar="STATUS",
            help="queued, submitting, running, ready, archived, partial or failed.",
            autocompletion=completion.statuses,
            panel=FILTERS,
        ),
    ] = None
    q: Text = None
    code: Annotated[
        str | None,
        option("--code", metavar="CODE", help="The job's error code, such as image_expired.", panel=FILTERS),
    ] = None
    since: Since = None
    until: Until = None
    tag: Tags = None


@dataclass(frozen=True)
class ImageFilters(_Filters):
    """The filters of lists of images."""

    gateway: Gateway = None
    model: Model = None
    seed: Annotated[
        str | None,
        option("--seed", metavar="SEED", help="As requested, or as the gateway reported it.", panel=FILTERS),
    ] = None
    job: Annotated[
        str | None,
        option(
            "--job",
            metavar="ID",
            help="The job that made them.",
            panel=FILTERS,
            autocompletion=completion.jobs,
        ),
    ] = None
    since: Since = None
    until: Until = None
    tag: Tags = None


Limit = Annotated[int, option("--limit", min=1, metavar="N", help="The most to show.", show_default=True)]
AtOnce = Annotated[
    int,
    option("--jobs", metavar="N", min=1, max=32, help="How many downloads at once.", show_default=True),
]
Every = Annotated[bool, option("--all", help="Everything in the archive.")]
DryRun = Annotated[bool, option("--dry-run", help="Only show what would be done, and change nothing.")]
Yes = Annotated[bool, option("--yes", "-y", help="Do not ask for confirmation.")]
