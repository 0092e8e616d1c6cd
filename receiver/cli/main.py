"""Define the command line: the table of commands, each with its examples."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer
from rich.markup import escape
from typer.core import TyperCommand

from receiver.cli import (
    config,
    demo,
    download,
    export,
    jobs,
    migrate_ledger,
    notifications,
    retry,
    sandbox,
    search,
    serve,
    show,
    status,
    submit,
    usage,
    version,
    work,
)
from receiver.cli import help as help_
from receiver.cli.options import spread
from receiver.cli.query_args import TextCommand

_RUN, _MAKE, _FIND, _ABOUT = "Run Darkroom", "Make images", "Find images", "Status and help"

app = typer.Typer(
    name="darkroom",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="New here? Run [bold]darkroom demo[/bold]: it needs no account, no bucket and no settings. "
    "[bold]darkroom help[/bold] lists topics to read about.\n\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 service unreachable, 130 stopped by Ctrl-C.",
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer's own signature
    if wanted:
        version.version()
        raise typer.Exit


@app.callback(invoke_without_command=True)
def darkroom(
    context: typer.Context,
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Submit prompts to image gateways, and archive every image in S3-compatible storage."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _examples(*lines: str) -> str:
    # The empty line between two examples keeps them on lines of their own in the help.
    shown = [f"  [bold]{escape(line)}[/bold]" for line in lines]
    return "\n\n".join(["Example:" if len(lines) == 1 else "Examples:", *shown])


def _add(
    panel: str, name: str, command: Callable[..., None], *examples: str, cls: type[TyperCommand] | None = None
) -> None:
    app.command(name, cls=cls, rich_help_panel=panel, epilog=_examples(*examples))(spread(command))


_add(_RUN, "demo", demo.demo, "darkroom demo")
_add(
    _RUN,
    "serve",
    serve.serve,
    "darkroom serve",
    "DARKROOM_API_TOKENS=me:admin:... darkroom serve --host 0.0.0.0",
)
_add(_RUN, "work", work.work, "darkroom work")
_add(_RUN, "sandbox", sandbox.sandbox, "darkroom sandbox --latency 2,10 > .env")
_add(_RUN, "config", config.config, "darkroom config", "darkroom config --json")
_add(
    _RUN,
    "migrate-ledger",
    migrate_ledger.migrate_ledger,
    "darkroom migrate-ledger darkroom-data postgresql://darkroom:...@db.example/darkroom",
    "DARKROOM_DATABASE_URL=postgresql://... darkroom migrate-ledger",
)
_add(
    _MAKE,
    "submit",
    submit.submit,
    'darkroom submit "a red kite over the sea" --gateway apiframe --model imagen-4-fast --wait',
    'darkroom submit "a bowl of ramen" --gateway api-in-one --model imagen4 --seed 7 --download .',
    "darkroom submit --file prompts.csv --gateway apiframe --model imagen-4-fast --tag campaign=may",
)
_add(
    _MAKE,
    "jobs",
    jobs.jobs,
    "darkroom jobs --status failed",
    "darkroom jobs --code image_expired --since 12h",
    "darkroom jobs --watch",
    "darkroom jobs --since 1h --until-done --json",
)
_add(_MAKE, "show", show.show, "darkroom show 019a1b2c-3d4e-7f00-8000-000000000000")
_add(
    _MAKE,
    "retry",
    retry.retry,
    "darkroom retry 019a1b2c-3d4e-7f00-8000-000000000000",
    "darkroom retry --status failed --code image_expired --since 1d",
    "darkroom retry --code generation_failed --since 1d --resubmit --dry-run",
)
app.add_typer(
    notifications.app,
    name="notifications",
    rich_help_panel=_MAKE,
    epilog=_examples(
        "darkroom notifications --failed",
        "darkroom notifications replay --failed --since 7d",
        "darkroom notifications secret",
    ),
)
_add(
    _FIND,
    "search",
    search.search,
    "darkroom search ramen --seed 7",
    'darkroom search kite "red sky" -blurry model:imagen4 since:7d',
    "darkroom search --file picture.png",
    "darkroom search tag:campaign=may --facets",
    cls=TextCommand,
)
_add(
    _FIND,
    "download",
    download.download,
    "darkroom download tag:campaign=may -blurry --to pictures",
    "darkroom download 019a1b2c-3d4e-7f00-8000-000000000000 --with-records",
    "darkroom download --all --to backup --name '{date}/{prompt:40}-{seed}-{index}.{ext}'",
    cls=TextCommand,
)
_add(
    _FIND,
    "export",
    export.export,
    "darkroom export tag:campaign=may --format csv > may.csv",
    "darkroom export kite -blurry since:7d --to kites.zip",
    "darkroom export --all --format bagit --to everything",
    cls=TextCommand,
)
_add(
    _ABOUT,
    "status",
    status.status,
    "darkroom status",
)
_add(
    _ABOUT,
    "usage",
    usage.usage,
    "darkroom usage --by model --since 7d",
    "darkroom usage --tag campaign --gateway apiframe",
    "darkroom usage --by day --since 2026-11-01 --until 2026-12-01 --json",
)
_add(_ABOUT, "help", help_.help_, "darkroom help", "darkroom help search", "darkroom help submit")
_add(_ABOUT, "version", version.version, "darkroom version")


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal that cannot show a character shows a question mark instead.
            stream.reconfigure(errors="replace")
    app(prog_name="darkroom")
