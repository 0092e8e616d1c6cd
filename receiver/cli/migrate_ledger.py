"""`darkroom migrate-ledger`: move the ledger from SQLite to PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer

from receiver.cli.connection import Json
from receiver.cli.console import MISUSED, STOPPED, Column, fail, print_json, print_table, progress, say
from receiver.cli.options import argument
from receiver.cli.run import exit_on_error

if TYPE_CHECKING:
    from pydantic import SecretStr

    from receiver.settings import Settings
    from storage.ledger.url import LedgerUrl
    from storage.transfer.compare import Progress
    from storage.transfer.transfer import Moved

From = Annotated[
    str | None,
    argument(
        "FROM",
        "The SQLite ledger: its file, its data folder, or its URL.",
        show_default="the one in DARKROOM_DATA_DIR",
    ),
]
To = Annotated[
    str | None,
    argument(
        "TO",
        "The URL of an empty PostgreSQL database, owned by its user. Better set the variable: other "
        "users of this machine can see the arguments of a command.",
        show_default="DARKROOM_DATABASE_URL",
    ),
]


def migrate_ledger(source: From = None, target: To = None, *, as_json: Json = False) -> None:
    """Move the ledger from SQLite to PostgreSQL: copy it, and compare every row.

    Stop Darkroom first. The old ledger is not changed. An interrupted move continues where it stopped: run
    the same command again. Until everything is copied and compared, no service starts on the new ledger.
    """
    with exit_on_error():
        from receiver.settings import load

        settings = load()
        path = _path(source, settings)
        url = _url(target, settings)
        began = monotonic()
        moved = _move(path, url)
        steps = next_steps(settings, path)
    if as_json:
        print_json(_as_json(path, url, moved, monotonic() - began, steps))
        return
    _show(path, url, moved)
    say("\n".join(["\nNext:", *(f"{number}. {step}" for number, step in enumerate(steps, 1))]))


def _path(given: str | None, settings: Settings) -> Path:
    """Return the file of a ledger, given as a file, folder or URL."""
    from receiver.settings import LEDGER_FILE

    if given is None:
        return settings.data_dir / LEDGER_FILE
    path = Path(given)
    if "://" in given:
        if (found := _parsed(given, "FROM").path) is None:
            fail("FROM must be a SQLite ledger. Between PostgreSQL servers, move it with pg_dump.", MISUSED)
        path = found
    return path / LEDGER_FILE if path.is_dir() else path


def _url(given: str | None, settings: Settings) -> LedgerUrl:
    setting = "TO" if given else "DARKROOM_DATABASE_URL"
    text = given or (settings.database_url.get_secret_value() if settings.database_url else "")
    url = _parsed(text, setting)
    if not url.shared:
        fail(f"{setting} must be the URL of a PostgreSQL database.", MISUSED)
    return url


def _parsed(text: str, setting: str) -> LedgerUrl:
    from storage.errors import Misconfigured
    from storage.ledger.url import LedgerUrl

    try:
        return LedgerUrl.parse(text, setting)
    except Misconfigured as error:
        fail(str(error), MISUSED)


def _move(path: Path, url: LedgerUrl) -> Moved:
    from receiver.schedule import system_clock
    from storage.errors import Unavailable
    from storage.ledger.database import Database
    from storage.transfer.transfer import move, open_alone, rows_of

    with closing(open_alone(path)) as source:
        rows = rows_of(source)
        with closing(Database.connect(url)) as target, _bar(rows) as advance:
            try:
                return move(source, target, clock=system_clock, progress=advance)
            except Unavailable as error:
                fail(f"{error}\nWhat was copied is kept: run the same command again to continue.")
            except KeyboardInterrupt:
                say("\nStopped. What was copied is kept: run the same command again to continue.")
                raise typer.Exit(STOPPED) from None


@contextmanager
def _bar(rows: int) -> Iterator[Progress]:
    from rich.progress import TaskProgressColumn, TimeRemainingColumn

    from storage.transfer.transfer import STEPS

    with progress(TaskProgressColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task("", total=len(STEPS) * rows)
        yield lambda step, table, more: bar.update(
            task, advance=more, description=f"{step.capitalize()} {table}"
        )


def next_steps(settings: Settings, path: Path) -> list[str]:
    """Return what an operator has to do after a move."""
    from receiver import keyring

    folders = (path.parent, settings.data_dir)
    what = "DARKROOM_SECRET_KEYS", "it signed the callback URLs of unfinished jobs"
    keys = _secret_step(folders, keyring.FILE, settings.secret_keys, *what)
    what = "DARKROOM_NOTIFY__SECRETS", "it signs your notifications"
    notify = _secret_step(folders, keyring.NOTIFY_FILE, settings.notify.secrets, *what)
    unknown = (
        "DARKROOM_SECRET_KEYS as before, or the content of secret-key in the old data folder: with another "
        "key, callbacks of unfinished jobs are refused."
    )
    moved = f"mv {quote(str(path))} {quote(f'{path}.moved')}"
    return [
        "Give Darkroom DARKROOM_DATABASE_URL, the URL of the new database.",
        f"Give it {keys or unknown}",
        *([f"Give it {notify}"] if notify else []),
        "Start it; `darkroom status` must show every accepted job accounted for.",
        "Never start it on the old ledger again: that would submit queued jobs a second time. Rename the old "
        f"ledger, and keep it until the new database is backed up: {moved}",
    ]


def _secret_step(
    folders: Sequence[Path], name: str, given: Sequence[SecretStr], variable: str, what: str
) -> str | None:
    """Return how to pass a secret of a file with PostgreSQL; None if there is no such file."""
    file = next((f / name for f in folders if (f / name).is_file()), None)
    if file is None:
        return None
    if file.read_text().strip() in [one.get_secret_value() for one in given]:
        return f"{variable} as it is here: {what}."
    # Oldest first: the last one signs.
    others = f",${variable}" if given else ""
    return f'{variable}, {what}: export {variable}="$(cat {quote(str(file))}){others}"'


def _show(path: Path, url: LedgerUrl, moved: Moved) -> None:
    columns: Sequence[Column[str]] = (
        Column("table", lambda name: name),
        Column("rows", lambda name: f"{moved.tables[name].rows:,}", right=True),
        Column("SHA-256 of both", lambda name: moved.tables[name].sha256, wrapped=True),
    )
    if moved.before is None:
        print_table(columns, moved.tables)
        say(f"\n{path} was copied to {url}, and every row is identical.", "green")
    else:
        from storage.models import rfc3339

        say(f"{path} was already moved to {url}, at {rfc3339(moved.before)}. Nothing was changed.")


def _as_json(path: Path, url: LedgerUrl, moved: Moved, seconds: float, steps: list[str]) -> dict[str, Any]:
    from storage.models import rfc3339

    return {
        "from": str(path),
        "to": str(url),
        "moved_before": None if moved.before is None else rfc3339(moved.before),
        "tables": [{"table": name, **asdict(one)} for name, one in moved.tables.items()],
        "seconds": round(seconds, 3),
        "next": steps,
    }
