"""Declare the options that commands share, and spread a dataclass of options over a command's parameters."""

import re
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import partial, wraps
from inspect import Parameter, Signature, getdoc, signature
from math import inf
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from receiver.cli import completion
from receiver.cli.console import MISUSED, fail
from receiver.cli.pairs import BadInput, flat

FILTERS = "Filters"
WHEN = "7d, 12h, 2026-11-22 or an RFC 3339 time"


def option(help_: str, metavar: str | None = None, *names: str, panel: str | None = None, **more: Any) -> Any:
    """Return a Typer option in a panel of the help; its default is shown only if `show_default` says so."""
    more.setdefault("show_default", False)
    return typer.Option(*names, help=help_, metavar=metavar, rich_help_panel=panel, **more)


def flag(help_: str, *names: str, panel: str | None = None) -> Any:
    """Return a Typer option without a value."""
    return option(help_, None, *names, panel=panel)


def text(value: str) -> str:
    """Return the value of an argument; the help shows this function's name as its type."""
    return value


def _seconds(value: float | str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1
    if not 0 <= seconds < inf:
        raise typer.BadParameter("must be a number of seconds, such as 600")
    return seconds


def argument(metavar: str, help_: str, **more: Any) -> Any:
    """Return a Typer argument; its default is shown only if `show_default` says so."""
    more.setdefault("show_default", False)
    more.setdefault("parser", text)
    return typer.Argument(metavar=metavar, help=help_, **more)


_of_job, _after = partial(option, panel="The job"), partial(option, panel="Afterwards")
filter_by = partial(option, panel=FILTERS)


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

    # Wrapped by the width of the terminal, and not as in the source.
    run.__doc__ = re.sub(r"(?<!\n)\n(?!\n)", " ", getdoc(command) or "")
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


Prompt = Annotated[str | None, argument("PROMPT", "What to draw.")]
File = Annotated[
    str | None,
    option(
        "Submit a job for each row of a .csv, .tsv or .jsonl file; - reads any from standard input. "
        "Columns are named like the options; parameters and tags are `params.NAME` and `tags.NAME`. "
        "A csv or jsonl of `darkroom export` makes its images again.",
        *("FILE", "--file", "-f"),
        panel="Many jobs",
    ),
]
Again = Annotated[
    str | None,
    option(
        "Submit the same file once more, as a run with this name. Cut off, the same name goes on.",
        *("NAME", "--again"),
        panel="Many jobs",
    ),
]
IgnoreUnknown = Annotated[
    bool,
    flag(
        "Leave out columns of the file that no job has, instead of refusing them.",
        "--ignore-unknown",
        panel="Many jobs",
    ),
]
_KEY_HELP = "Sending the same key again returns the same job, and does not cost again."
_PARAM_HELP = "Sent to the gateway unchanged; a value may be JSON, and a.b=1 means {a: {b: 1}}."
_IGNORE_HELP = (
    "Leave out what the gateway does not support, instead of failing; the record shows it. "
    "A model that looks mistyped is sent as it is."
)
_MODEL_HELP = "The gateway's name for it; `darkroom models` lists those that are known."
_NOTIFY_HELP = "Send a notification there when the job is finished; by default to DARKROOM_NOTIFY__URL."
_GATEWAY_HELP = (
    "Its name, such as apiframe, or apiframe.second for a named account; `darkroom gateways` lists all."
)


@dataclass(frozen=True)
class JobRequest:
    """The options of `darkroom submit` that describe the job."""

    gateway: Annotated[str | None, _of_job(_GATEWAY_HELP, "NAME", autocompletion=completion.gateways)] = None
    model: Annotated[str | None, _of_job(_MODEL_HELP, "NAME", autocompletion=completion.models)] = None
    aspect_ratio: Annotated[str | None, _of_job("Such as 16:9.", "W:H")] = None
    negative_prompt: Annotated[str | None, _of_job("What to avoid.", "TEXT")] = None
    num_images: Annotated[str | None, _of_job("How many images.", "N")] = None
    seed: Annotated[str | None, _of_job("If the gateway takes one.", "SEED", "--seed")] = None
    param: Annotated[list[str] | None, _of_job(_PARAM_HELP, "NAME=VALUE")] = None
    tag: Annotated[list[str] | None, _of_job("A label of your own, to find the job by.", "NAME=VALUE")] = None
    ignore_unsupported: Annotated[bool, _of_job(_IGNORE_HELP, None, "--ignore-unsupported")] = False
    idempotency_key: Annotated[str | None, _of_job(_KEY_HELP, "KEY")] = None
    notify_url: Annotated[str | None, _of_job(_NOTIFY_HELP, "URL", "--notify-url")] = None


Wait = Annotated[bool, flag("Wait until the job is finished.", "--wait", panel="Afterwards")]
Timeout = Annotated[float, _after("How long to wait.", "SECONDS", parser=_seconds, show_default=True)]
DownloadTo = Annotated[
    Path | None, _after("Wait, then save the images there and check them.", "DIR", file_okay=False)
]

Gateway = Annotated[str | None, filter_by(_GATEWAY_HELP, "NAME", autocompletion=completion.gateways)]
Model = Annotated[str | None, filter_by("As requested, or as the gateway reported it.", "NAME")]
Seed = Annotated[str | None, filter_by("As requested, or as the gateway reported it.", "SEED", "--seed")]
JobId = Annotated[
    str | None, filter_by("The job that made them.", "ID", "--job", autocompletion=completion.jobs)
]
Status = Annotated[
    str | None,
    filter_by(
        "queued, submitting, running, ready, archived, partial, failed or cancelled.",
        *("STATUS", "--status"),
        autocompletion=completion.statuses,
    ),
]
Code = Annotated[str | None, filter_by("The job's error code, such as image_expired.", "CODE", "--code")]
Since = Annotated[str | None, filter_by(f"Jobs created then or later: {WHEN}.", "WHEN")]
Until = Annotated[str | None, filter_by("Jobs created before then.", "WHEN")]
Tags = Annotated[list[str] | None, filter_by("A tag of the job; may be repeated.", "NAME=VALUE", "--tag")]
Text = Annotated[str | None, filter_by("Words in the prompt.", "TEXT", "--text")]


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
    status: Status = None
    q: Text = None
    code: Code = None
    since: Since = None
    until: Until = None
    tag: Tags = None


@dataclass(frozen=True)
class ImageFilters(_Filters):
    """The filters of lists of images."""

    gateway: Gateway = None
    model: Model = None
    seed: Seed = None
    job: JobId = None
    since: Since = None
    until: Until = None
    tag: Tags = None


Limit = Annotated[int, option("The most to show.", "N", "--limit", min=1, show_default=True)]
AtOnce = Annotated[
    int, option("How many downloads at once.", "N", "--jobs", min=1, max=32, show_default=True)
]
Every = Annotated[bool, flag("Everything in the archive.", "--all")]
DryRun = Annotated[bool, flag("Only show what would be done, and change nothing.", "--dry-run")]
Yes = Annotated[bool, flag("Do not ask for confirmation.", "--yes", "-y")]
Port = Annotated[
    int | None, option("Overrides DARKROOM_PORT; 0 picks a free one.", "PORT", "--port", min=0, max=65535)
]
