"""`darkroom notifications`: list them, send them again, test them, and print the secrets that sign them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.text import Text

from receiver.cli import bulk, console, options
from receiver.cli.connection import Connection, Json

if TYPE_CHECKING:
    from receiver.schemas.notification import Notification, NotificationTest


State = Literal["pending", "delivered", "failed"]
"""What became of a notification."""

_STYLES = {"pending": "yellow", "delivered": "green", "failed": "red"}

Ids = Annotated[list[str] | None, options.argument("ID", "Ids of notifications; or use --failed.")]
Failed = Annotated[bool, options.filter_by("Those that could not be delivered.", None, "--failed")]

_COLUMNS: Sequence[console.Column[Notification]] = (
    console.Column("NOTIFICATION", lambda one: one.id),
    console.Column("TYPE", lambda one: one.type),
    console.Column("STATE", lambda one: _state_cell(one.state)),
    console.Column("TRIES", lambda one: one.attempts, right=True),
    console.Column("HOST", lambda one: one.host, room=120),
    console.Column("NEXT TRY", lambda one: one.next_attempt_at, room=150),
    console.Column("LAST ERROR", lambda one: one.code and f"{one.code}: {one.message}", wrapped=True),
)

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    help="List the notifications sent to your application, and send them again.",
)


@dataclass(frozen=True)
class Filters:
    """The filters of notifications."""

    job: Annotated[str | None, options.filter_by("Of this job.", "ID")] = None
    since: Annotated[
        str | None, options.filter_by(f"Of jobs finished then or later: {options.WHEN}.", "WHEN")
    ] = None

    def query(self, state: State | None) -> dict[str, str]:
        """Return what was given, as the client takes it."""
        given = {"state": state, "job": self.job, "since": self.since}
        return {name: value for name, value in given.items() if value is not None}


def notifications(
    context: typer.Context,
    *,
    failed: Failed = False,
    state: Annotated[State | None, options.filter_by("Those in this state.", None, "--state")] = None,
    filters: Filters,
    limit: options.Limit = 20,
    as_json: Json = False,
    connection: Connection,
) -> None:
    """List the notifications sent to your application, newest job first, and whether each was delivered."""
    if context.invoked_subcommand is not None:
        return
    if failed and state not in {None, "failed"}:
        console.fail("--failed means --state failed; give only one of them.", console.MISUSED)
    with connection.open() as darkroom:
        query = filters.query("failed" if failed else state)
        found = list(darkroom.notifications(limit=limit, **query))
    if as_json:
        console.print_json(found)
        return
    console.print_table(_COLUMNS, found, nothing="No notifications match.")
    console.say_if_cut(len(found), limit)


def replay(
    ids: Ids = None,
    *,
    failed: Failed = False,
    filters: Filters,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    as_json: Json = False,
    connection: Connection,
) -> None:
    """Send notifications again, delivered or not; the count of tries starts over.

    Those found by --failed are listed first, and you are asked to confirm.
    Exits with 1 if one does not exist.
    """
    narrowed = bool(filters.job or filters.since)
    if bool(ids) == (failed or narrowed) or (narrowed and not failed):
        which = "give ids, or --failed, optionally with --since 7d or --job."
        console.fail(f"Say which ones: {which}", console.MISUSED)
    with connection.open() as darkroom:
        query = filters.query("failed")
        found = list(darkroom.notifications(limit=None, **query)) if failed else []
        wanted = [one.id for one in found] or list(ids or [])
        if failed:
            bulk.preview(_COLUMNS, found, nothing="No failed notifications match.")
            bulk.summarize("notification", [f"to {one.host}" for one in found])
        if dry_run or not wanted:
            if as_json:
                bulk.Outcome("notification", found).print_json()
            elif ids:
                console.say(f"{console.count(len(wanted), 'notification')} would be sent again.")
            return
        if failed and not yes:
            bulk.confirm("Send {} again?", len(wanted), "notification")
        # One that does not exist says nothing about the others; a token that is refused does.
        outcome = bulk.change(wanted, darkroom.replay, noun="notification", skip={404})
    if as_json:
        outcome.print_json()
    outcome.report(
        doing="Sending {} again. See progress with: darkroom notifications", undone="Not sent again"
    )


def send_test(
    to: Annotated[
        str | None, options.argument("URL", "Where to; by default to DARKROOM_NOTIFY__URL of the service.")
    ] = None,
    *,
    as_json: Json = False,
    connection: Connection,
) -> None:
    """Send a test notification to your application, and show what it answered.

    It is signed and sent as every notification is, with the type `test`, but once. Exits with 1 if the
    application did not answer 2xx.
    """
    with connection.open() as darkroom:
        result = darkroom.test_notification(to)
    if as_json:
        console.print_json(result)
    else:
        console.print_facts(_test_facts(result))
        if result.fix:
            console.say(f"Fix: {result.fix}")
    if not result.delivered:
        raise typer.Exit(console.FAILED)


def _test_facts(result: NotificationTest) -> Iterator[tuple[str, object]]:
    yield "Notification", result.id
    yield "State", _state_cell("delivered" if result.delivered else "failed")
    if result.code:
        yield "Error", console.cell(f"{result.code}: {result.message}", "red")
    yield "Host", result.host or None
    yield "Answer", result.status
    if result.answer:
        yield "It says", result.answer
    yield "Took", f"{result.took_ms} ms"


def secret() -> None:
    """Print the secrets that sign notifications, one per line and the newest last.

    They come from DARKROOM_NOTIFY__SECRETS on this machine, or else from a file in DARKROOM_DATA_DIR, which
    is created if there is none. Give one of them to your application: every notification is signed with all.
    """
    from receiver.cli.run import exit_on_error

    with exit_on_error():
        from receiver.errors import SettingsError
        from receiver.keyring import notify_secrets
        from receiver.settings import load

        known = notify_secrets(load())
        if not known:
            raise SettingsError(
                "DARKROOM_NOTIFY__SECRETS: set a secret; with PostgreSQL, none is created for you."
            )
    for one in known:
        console.out().print(Text(one), soft_wrap=True)


app.callback(invoke_without_command=True)(options.spread(notifications))
app.command()(options.spread(replay))
app.command("test")(options.spread(send_test))
app.command()(options.spread(secret))


def _state_cell(state: str) -> Text:
    return console.cell(state, _STYLES.get(state, ""))
