"""`darkroom notifications`: what your application was told, telling it again, and the secret to verify it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from receiver.cli import options
from receiver.cli.connection import LOCAL, Json, Token, Url, connected
from receiver.cli.console import (
    FAILED,
    MISUSED,
    Column,
    api_json,
    cell,
    count,
    err,
    fail,
    out,
    print_json,
    print_table,
    say,
)

if TYPE_CHECKING:
    from receiver.client import ApiError, Darkroom
    from receiver.client.reports import Notification

SHOWN = 20
GIVEN_UP = "given_up"

Ids = Annotated[
    list[str] | None,
    typer.Argument(metavar="ID", help="Ids of notifications; or give --failed.", show_default=False),
]
Failed = Annotated[
    bool,
    typer.Option("--failed", help="Those that were given up.", rich_help_panel=options.FILTERS),
]
Job = Annotated[
    str | None,
    typer.Option(
        metavar="ID", help="The job that they tell of.", rich_help_panel=options.FILTERS, show_default=False
    ),
]
Since = Annotated[
    str | None,
    typer.Option(
        metavar="WHEN",
        help="Of jobs that came to rest then or later: 7d, 12h, 2026-11-22 or an RFC 3339 time.",
        rich_help_panel=options.FILTERS,
        show_default=False,
    ),
]
State = Annotated[
    str | None,
    typer.Option(
        "--state",
        metavar="STATE",
        help="owed, delivered or given_up.",
        rich_help_panel=options.FILTERS,
        show_default=False,
    ),
]
Limit = Annotated[int, typer.Option(min=1, metavar="N", help="How many to show at most.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show which ones it would be.")]
Yes = Annotated[
    bool, typer.Option("--yes", "-y", help="Do not ask before those that --failed finds are sent.")
]

_COLUMNS = (
    Column("NOTIFICATION"),
    Column("TYPE"),
    Column("STATE"),
    Column("TRIES", right=True),
    Column("HOST", room=120),
    Column("NEXT TRY", room=150),
    Column("LAST ERROR", long=True),
)
_STYLES = {"owed": "yellow", "delivered": "green", GIVEN_UP: "red"}

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    help="Show what your application was told of its jobs, and tell it again.",
)


@app.callback(invoke_without_command=True)
def notifications(
    context: typer.Context,
    *,
    failed: Failed = False,
    state: State = None,
    job: Job = None,
    since: Since = None,
    limit: Limit = 20,
    as_json: Json = False,
    url: Url = LOCAL,
    token: Token = None,
) -> None:
    """List what your application was told of its jobs, of the newest job first, and whether it took it."""
    if context.invoked_subcommand is not None:
        return
    if failed and state not in {None, GIVEN_UP}:
        fail("--failed means --state given_up; give one of them.", MISUSED)
    wanted = _filters(state=GIVEN_UP if failed else state, job=job, since=since)
    with connected(url, token) as darkroom:
        found = list(darkroom.notifications(limit=limit, **wanted))
    if as_json:
        print_json([api_json(one) for one in found])
        return
    print_table(_COLUMNS, [_line(one) for one in found], nothing="There are no such notifications.")
    if len(found) == limit:
        say(f"These are the newest {limit}; --limit shows more.", "dim")


@app.command()
def replay(
    ids: Ids = None,
    *,
    failed: Failed = False,
    job: Job = None,
    since: Since = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
    url: Url = LOCAL,
    token: Token = None,
) -> None:
    """Send notifications again, whatever became of them; their tries are counted anew.

    Those that --failed finds are shown first, and you are asked.
    Ends with 1 if any is not there.
    """
    filtered = failed or bool(job or since)
    if bool(ids) == filtered or (filtered and not failed):
        fail("Say which ones: by their ids, or --failed, perhaps with --since 7d or --job.", MISUSED)
    with connected(url, token) as darkroom:
        found = _find(darkroom, _filters(state=GIVEN_UP, job=job, since=since)) if failed else []
        wanted = [one.id for one in found] or list(ids or [])
        if failed:
            _preview(found)
        if dry_run or not wanted:
            if as_json:
                _print(found, {})
            elif ids:
                say(f"{count(len(wanted), 'notification')} would be sent again.")
            return
        if failed and not yes:
            _ask(len(wanted))
        done = _Done()
        _replay(darkroom, wanted, done)
    _report(done, as_json=as_json)


@app.command()
def secret() -> None:
    """Print the secrets that sign notifications, one a line and the newest last.

    They are those of the settings here, DARKROOM_NOTIFY__SECRETS, or the one in DARKROOM_DATA_DIR, which is
    made if there is none yet. Give one to your application: all of them sign.
    """
    from receiver.cli.serve import exit_on_error

    with exit_on_error():
        from receiver.errors import SettingsError
        from receiver.keyring import notify_secrets
        from receiver.settings import load

        known = notify_secrets(load())
        if not known:
            raise SettingsError("DARKROOM_NOTIFY__SECRETS: with PostgreSQL no secret is made; set one.")
    for one in known:
        out().print(Text(one), soft_wrap=True)


@dataclass(slots=True)
class _Done:
    """What came of the notifications so far."""

    again: list[Notification] = field(default_factory=list)
    refused: dict[str, ApiError] = field(default_factory=dict)


def _filters(**given: str | None) -> dict[str, str]:
    return {name: value for name, value in given.items() if value is not None}


def _find(darkroom: Darkroom, wanted: Mapping[str, str]) -> list[Notification]:
    return list(darkroom.notifications(limit=None, **wanted))


def _line(one: Notification) -> Sequence[Text]:
    error = None if one.code is None else f"{one.code}: {one.message}"
    return (
        cell(one.id),
        cell(one.type),
        cell(one.state, _STYLES.get(one.state, "")),
        cell(one.attempts),
        cell(one.host),
        cell(one.next_attempt_at),
        cell(error),
    )


def _preview(found: Sequence[Notification]) -> None:
    shown = [_line(one) for one in found[:SHOWN]]
    print_table(_COLUMNS, shown, nothing="No such notification was given up.", to=err())
    if len(found) > SHOWN:
        say(f"... and {len(found) - SHOWN} more.", "dim")
    if found:
        hosts = ", ".join(f"{n} to {host}" for host, n in Counter(one.host for one in found).most_common())
        say(f"{count(len(found), 'notification')}: {hosts}.")


def _ask(number: int) -> None:
    if not sys.stdin.isatty():
        fail("Nobody is here to ask; give --yes to go on, or --dry-run to look only.", MISUSED)
    which = "this notification" if number == 1 else f"these {number} notifications"
    if not typer.confirm(f"Send {which} again?", err=True):
        say("Nothing was changed.")
        raise typer.Exit


def _replay(darkroom: Darkroom, ids: Sequence[str], done: _Done) -> None:
    from rich.progress import track

    from receiver.client import ApiError

    console = err()
    quiet = not console.is_terminal or len(ids) < 2
    for one in track(ids, "Asking", console=console, transient=True, disable=quiet):
        try:
            done.again.append(darkroom.replay(one))
        except ApiError as error:
            # One that is not there says nothing of the others; a token that is refused does.
            if error.status != 404:
                raise
            done.refused[one] = error


def _report(done: _Done, *, as_json: bool) -> None:
    if as_json:
        _print(done.again, done.refused)
    if done.again:
        say(f"{count(len(done.again), 'notification')} to be sent again. Follow: darkroom notifications")
    for one, error in list(done.refused.items())[:SHOWN]:
        say(f"{one}: {error.detail}", "yellow")
    if done.refused:
        say(f"{count(len(done.refused), 'notification')} not sent again.", "red")
        raise typer.Exit(FAILED)


def _print(found: Sequence[Notification], refused: Mapping[str, ApiError]) -> None:
    why = [{"id": one, "code": error.code, "detail": error.detail} for one, error in refused.items()]
    print_json({"notifications": [api_json(one) for one in found], "refused": why})
