"""Define the command line: the list of commands, with examples."""

import re
from collections.abc import Callable
from typing import Annotated

import typer
from rich.markup import escape

from receiver.cli.cancel import cancel
from receiver.cli.config import config
from receiver.cli.demo import demo
from receiver.cli.download import download
from receiver.cli.export import export
from receiver.cli.gateways import app as gateways
from receiver.cli.help import help_, version
from receiver.cli.jobs import jobs
from receiver.cli.migrate_ledger import migrate_ledger
from receiver.cli.models import models
from receiver.cli.notifications import app as notifications
from receiver.cli.options import spread
from receiver.cli.query_args import TextCommand
from receiver.cli.retry import retry
from receiver.cli.sandbox import sandbox
from receiver.cli.search import search
from receiver.cli.serve import serve
from receiver.cli.show import show
from receiver.cli.status import status
from receiver.cli.submit import submit
from receiver.cli.usage import usage
from receiver.cli.work import work

COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Run Darkroom": (demo, serve, work, sandbox, config, migrate_ledger),
    "Make images": (submit, models, jobs, show, cancel, retry),
    "Find images": (search, download, export),
    "Status and help": (status, usage, help_, version),
}
"""The commands, in the panels of `darkroom --help`."""

EXAMPLES = """
darkroom demo
darkroom serve
DARKROOM_API_TOKENS=me:admin:... darkroom serve --host 0.0.0.0
darkroom serve --only callbacks --processes 4
darkroom work
darkroom sandbox --latency 2,10 > .env
darkroom config
darkroom config --json
darkroom migrate-ledger darkroom-data postgresql://darkroom:...@db.example/darkroom
DARKROOM_DATABASE_URL=postgresql://... darkroom migrate-ledger
darkroom submit "a red kite over the sea" --gateway apiframe --model imagen-4-fast --wait
darkroom submit "a bowl of ramen" --gateway api-in-one --model imagen4 --seed 7 --download .
darkroom submit --file prompts.csv --gateway apiframe --model imagen-4-fast --tag campaign=may
darkroom models --gateway apiframe
darkroom gateways
darkroom gateways show piapi > gateways/piapi.toml
darkroom gateways check gateways/piapi.toml --submit job.json --callback callback.json
darkroom jobs --status failed
darkroom jobs --code image_expired --since 12h
darkroom jobs --watch
darkroom jobs --since 1h --until-done --json
darkroom show 019a1b2c-3d4e-7f00-8000-000000000000
darkroom cancel 019a1b2c-3d4e-7f00-8000-000000000000
darkroom cancel --gateway apiframe --tag campaign=may --dry-run
darkroom retry 019a1b2c-3d4e-7f00-8000-000000000000
darkroom retry --status failed --code image_expired --since 1d
darkroom retry --code generation_failed --since 1d --resubmit --dry-run
darkroom notifications --failed
darkroom notifications replay --failed --since 7d
darkroom notifications secret
darkroom search ramen --seed 7
darkroom search kite "red sky" -blurry model:imagen4 since:7d
darkroom search --file picture.png
darkroom search tag:campaign=may --facets
darkroom download tag:campaign=may -blurry --to pictures
darkroom download 019a1b2c-3d4e-7f00-8000-000000000000 --with-records
darkroom download --all --to backup --name '{date}/{prompt:40}-{seed}.{ext}'
darkroom export tag:campaign=may --format csv > may.csv
darkroom export kite -blurry since:7d --to kites.zip
darkroom export --all --format bagit --to everything
darkroom status
darkroom usage --by model --since 7d
darkroom usage --tag campaign --gateway apiframe
darkroom usage --by day --since 2026-11-01 --until 2026-12-01 --json
darkroom help
darkroom help search
darkroom help submit
darkroom version
"""

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
        version()
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


def _examples(name: str) -> str:
    lines = re.findall(rf"^(?:.* )?darkroom {name}\b.*", EXAMPLES, re.MULTILINE)
    # The empty line between two examples keeps them on lines of their own in the help.
    shown = [f"  [bold]{escape(line)}[/bold]" for line in lines]
    return "\n\n".join(["Example:" if len(lines) == 1 else "Examples:", *shown])


for panel, commands in COMMANDS.items():
    for command in commands:
        name = command.__name__.strip("_").replace("_", "-")
        cls = TextCommand if command in (search, download, export) else None
        app.command(name, cls=cls, rich_help_panel=panel, epilog=_examples(name))(spread(command))
    if panel == "Make images":
        for group, each in (("gateways", gateways), ("notifications", notifications)):
            app.add_typer(each, name=group, rich_help_panel=panel, epilog=_examples(group))
