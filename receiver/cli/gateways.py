"""`darkroom gateways`: list those that this machine's settings know, and try a file that declares one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from receiver.cli import console, options
from receiver.cli.connection import Json
from receiver.cli.run import exit_on_error

if TYPE_CHECKING:
    import httpx

    from receiver.gateways.adapter import Adapter
    from receiver.gateways.base import Completion, Follow, Submission
    from receiver.settings import Settings
    from storage.models import Job, JobRequest

CALLBACK_URL = "https://darkroom.example/callbacks/token"
GATEWAY_JOB = "the-id-of-the-job"

_COLUMNS: Sequence[console.Column[dict[str, Any]]] = (
    console.Column("GATEWAY", lambda one: one["gateway"]),
    console.Column("TITLE", lambda one: one["title"]),
    console.Column("API KEY", lambda one: "set" if one["on"] else "-"),
    console.Column("CALLBACKS", lambda one: one["signature"] or "confirmed by asking"),
    console.Column("LINKS LIVE", lambda one: _life(one["links_live_s"])),
    console.Column("DECLARED IN", lambda one: one["declared_in"] or "built in", wrapped=True),
)

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    help="List the gateways, and declare your own: each `*.toml` in DARKROOM_GATEWAYS_DIR declares "
    "one. Begin with a copy of one that comes with Darkroom (`darkroom gateways show piapi`), read "
    "`darkroom help gateways` for what each key means, and try it with `darkroom gateways check`.",
)


def gateways(context: typer.Context, *, as_json: Json = False) -> None:
    """List the gateways that the settings of this machine know, and the files to begin with."""
    if context.invoked_subcommand is not None:
        return
    with exit_on_error():
        from receiver.gateways.declared import SHIPPED
        from receiver.settings import load

        found = list(_known(load()))
        shipped = sorted(path.stem for path in SHIPPED.glob("*.toml"))
        if as_json:
            console.print_json({"gateways": found, "shipped": shipped})
            return
        console.print_table(_COLUMNS, found, nothing="No gateways are known.")
        console.say(f"\nFiles to begin with: {', '.join(shipped)}. See: darkroom gateways show NAME")


def show(name: Annotated[str, options.argument("NAME", "Such as piapi.")]) -> None:
    """Print a file that comes with Darkroom: `darkroom gateways show piapi > gateways/piapi.toml`."""
    from receiver.gateways.declared import SHIPPED

    known = {path.stem: path for path in SHIPPED.glob("*.toml")}
    if name not in known:
        console.fail(f"There is no file for {name}; there are {', '.join(sorted(known))}.", console.MISUSED)
    typer.echo(known[name].read_text("utf-8"), nl=False)


def check(
    file: Annotated[Path, options.argument("FILE", "The file that declares the gateway.", parser=Path)],
    *,
    submit: Annotated[
        Path | None,
        options.option("A job, as for POST /v1/jobs: show what would be sent.", "FILE", "--submit"),
    ] = None,
    accepted: Annotated[
        Path | None, options.option("A response to a submission: show what is read.", "FILE", "--accepted")
    ] = None,
    callback: Annotated[
        Path | None, options.option("The body of a callback: show what is read.", "FILE", "--callback")
    ] = None,
    poll: Annotated[
        Path | None, options.option("A response to a poll: show what is read.", "FILE", "--poll")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a file that declares a gateway, and show what would be sent and read. Nothing is sent.

    Exits with 1 if the file cannot be used, or a body cannot be read by it.
    """
    with exit_on_error():
        from receiver.gateways.declared import adapter_of, read
        from receiver.gateways.settings import settings_of
        from storage.models import JobRequest

        kind = adapter_of(read(file))
        settings = settings_of(kind.table, kind.Settings)(**{"api_key": "YOUR-API-KEY", **kind.defaults})
        adapter = kind(settings)
        shown: dict[str, Any] = {"gateway": kind.table.name, "title": kind.table.title}
        if submit:
            shown |= {"submit": _sent(adapter, submit)}
        if accepted:
            shown["accepted"] = _read(adapter.read_submission(_response(accepted)))
        if callback:
            shown["callback"] = _read(adapter.read_callback(_content(callback)))
        if poll:
            request = JobRequest("a-model", "a prompt")
            shown["poll"] = _read(adapter.read_poll(_response(poll), _job(adapter, request)))
        if as_json:
            console.print_json(shown)
            return
        console.say(f"{file} declares {kind.table.title} as {kind.table.name}.", "green")
        for title, part in shown.items():
            if isinstance(part, dict):
                console.out().print(Text(f"\n{title}", "bold"))
                console.out().print(Text(json.dumps(part, indent=2, ensure_ascii=False)), soft_wrap=True)


def _known(settings: Settings) -> Iterator[dict[str, Any]]:
    from receiver.gateways.registry import BY_NAME

    on = settings.gateways.configured()
    for name in settings.gateways.every():
        table = settings.gateways.kind(name).table
        yield {
            "gateway": name,
            "title": table.title_of(name),
            "on": name in on,
            "signature": table.signing.scheme if table.signing else None,
            "links_live_s": table.life_s,
            "declared_in": None if table.name in BY_NAME else str(settings.gateways_dir),
        }


def _life(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    return f"{seconds / 3600:g} h" if seconds >= 3600 else f"{seconds / 60:g} min"


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        console.fail(f"{path} cannot be read: {error.strerror}.", console.MISUSED)


def _response(path: Path) -> httpx.Response:
    import httpx

    return httpx.Response(httpx.codes.OK, content=_content(path), request=httpx.Request("GET", "/"))


def _job(adapter: Adapter, request: JobRequest) -> Job:
    from storage.models import Job, Status

    job = Job("0" * 32, adapter.name, Status.SUBMITTING, request, 0, 0, None)
    return replace(job, gateway_job_id=GATEWAY_JOB)


def _sent(adapter: Adapter, path: Path) -> dict[str, Any]:
    from receiver.gateways import requests
    from receiver.schemas.requests import SubmitBody, parse_body

    given = parse_body(SubmitBody, _content(path)).request()
    wrong = [*adapter.faults(given), *_unsupported(adapter, given)]
    request = adapter.submit_request(_job(adapter, given), CALLBACK_URL)
    head = {name: value for name, value in request.headers.items() if name != "content-length"}
    return {
        "refused": wrong,
        "method": request.method,
        "url": str(request.url),
        "headers": head,
        "body": requests.sent(request),
    }


def _unsupported(adapter: Adapter, given: JobRequest) -> Iterator[dict[str, str]]:
    for field, reason in adapter.unsupported(given).items():
        yield {"field": field, "message": reason}


def _read(found: Completion | Follow | Submission) -> dict[str, Any]:
    from receiver.gateways.base import Follow

    if isinstance(found, Follow):
        return {"then": f"GET {found.request.url}"}
    given = asdict(found)
    given.pop("reply", None)
    return {name: value for name, value in given.items() if value not in (None, (), False)}


app.callback(invoke_without_command=True)(options.spread(gateways))
app.command()(options.spread(show))
app.command()(options.spread(check))
