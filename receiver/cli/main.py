"""The command line: every command by name. What they do is in `receiver.cli`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.markup import escape

from receiver.cli import (
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
    submit,
    usage,
)
from receiver.cli.query_args import TextCommand

_RUN, _MAKE, _FIND = "Run it", "Make images", "Find them again"

app = typer.Typer(
    name="darkroom",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Begin with [bold]darkroom demo[/bold]: it needs no account, no bucket and no settings.",
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer's own signature
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"darkroom {version('darkroom')}")
        except PackageNotFoundError:
            typer.echo("darkroom (run from its source, not installed)")
        raise typer.Exit


@app.callback()
def darkroom(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Submit prompts to image gateways, and keep every image with what made it in S3-compatible storage."""


def _examples(*lines: str) -> str:
    # An empty line between two lines is what keeps them apart in the help.
    shown = [f"  [bold]{escape(line)}[/bold]" for line in lines]
    return "\n\n".join(["Example:" if len(lines) == 1 else "Examples:", *shown])


app.command("demo", rich_help_panel=_RUN, epilog=_examples("darkroom demo"))(demo.demo)
app.command(
    "serve",
    rich_help_panel=_RUN,
    epilog=_examples("darkroom serve", "DARKROOM_API_TOKENS=me:admin:... darkroom serve --host 0.0.0.0"),
)(serve.serve)
app.command("work", rich_help_panel=_RUN, epilog=_examples("darkroom work"))(serve.work)
app.command("sandbox", rich_help_panel=_RUN, epilog=_examples("darkroom sandbox --latency 2,10 > .env"))(
    sandbox.sandbox
)
app.command("config", rich_help_panel=_RUN, epilog=_examples("darkroom config", "darkroom config --json"))(
    serve.config
)
app.command(
    "migrate-ledger",
    rich_help_panel=_RUN,
    epilog=_examples(
        "darkroom migrate-ledger darkroom-data postgresql://darkroom:...@db.example/darkroom",
        "DARKROOM_DATABASE_URL=postgresql://... darkroom migrate-ledger",
    ),
)(migrate_ledger.migrate_ledger)
app.command(
    "submit",
    rich_help_panel=_MAKE,
    epilog=_examples(
        'darkroom submit "a red kite over the sea" --gateway apiframe --model imagen-4-fast --wait',
        'darkroom submit "a bowl of ramen" --gateway api-in-one --model imagen4 --seed 7 --download .',
        "darkroom submit --file prompts.csv --gateway apiframe --model imagen-4-fast --tag campaign=may",
    ),
)(submit.submit)
app.command(
    "jobs",
    rich_help_panel=_MAKE,
    epilog=_examples(
        "darkroom jobs --status failed",
        "darkroom jobs --code image_expired --since 12h",
        "darkroom jobs --watch",
        "darkroom jobs --since 1h --until-done --json",
    ),
)(jobs.jobs)
app.command(
    "show", rich_help_panel=_MAKE, epilog=_examples("darkroom show 019a1b2c-3d4e-7f00-8000-000000000000")
)(show.show)
app.command(
    "search",
    cls=TextCommand,
    rich_help_panel=_FIND,
    epilog=_examples(
        "darkroom search ramen --seed 7",
        'darkroom search kite "red sky" -blurry model:imagen4 since:7d',
        "darkroom search --file picture.png",
        "darkroom search tag:campaign=may --facets",
    ),
)(search.search)
app.command(
    "download",
    cls=TextCommand,
    rich_help_panel=_FIND,
    epilog=_examples(
        "darkroom download tag:campaign=may -blurry --to pictures",
        "darkroom download 019a1b2c-3d4e-7f00-8000-000000000000 --with-records",
        "darkroom download --all --to backup --name '{date}/{prompt:40}-{seed}-{index}.{ext}'",
    ),
)(download.download)
app.command(
    "export",
    cls=TextCommand,
    rich_help_panel=_FIND,
    epilog=_examples(
        "darkroom export tag:campaign=may --format csv > may.csv",
        "darkroom export kite -blurry since:7d --to kites.zip",
        "darkroom export --all --format bagit --to everything",
    ),
)(export.export)
app.command(
    "retry",
    rich_help_panel=_MAKE,
    epilog=_examples(
        "darkroom retry 019a1b2c-3d4e-7f00-8000-000000000000",
        "darkroom retry --status failed --code image_expired --since 1d",
        "darkroom retry --code generation_failed --since 1d --resubmit --dry-run",
    ),
)(retry.retry)
app.command(
    "usage",
    rich_help_panel=_FIND,
    epilog=_examples(
        "darkroom usage --by model --since 7d",
        "darkroom usage --tag campaign --gateway apiframe",
        "darkroom usage --by day --since 2026-11-01 --until 2026-12-01 --json",
    ),
)(usage.usage)

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
app.command("status", rich_help_panel=_FIND, epilog=_examples("darkroom status"))(jobs.status)


def main() -> None:
    """Run the command that the arguments name."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal that cannot show a character shows a question mark, and the command goes on.
            stream.reconfigure(errors="replace")
    app(prog_name="darkroom")
