"""`darkroom download`: save archived images as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal

from receiver.cli import completion, options
from receiver.cli.connection import Connection, Json
from receiver.cli.console import FAILED, MISUSED, STOPPED, cell, count, err, fail, out, print_json, say, some
from receiver.cli.query_args import ids_or_text, query_text

if TYPE_CHECKING:
    from receiver.cli.save_images import Names, Saving
    from receiver.client import Darkroom
    from receiver.schemas.output import Output

SHOWN = 10

IdsOrText = Annotated[
    list[str] | None,
    options.argument(
        "ID|TEXT",
        "Ids of jobs or images; or a query, as in [bold]darkroom search[/bold].",
        autocompletion=completion.jobs_and_outputs,
    ),
]
To = Annotated[Path, options.option("Where to save the files.", "DIR", file_okay=False, show_default=True)]
Name = Annotated[
    str | None,
    options.option(
        "File names, such as [bold]{prompt:40}-{seed}.{ext}[/bold]. Fields: id, job_id, "
        "index, date, gateway, model, seed, sha256, prompt, tag.NAME, ext. An existing file is never "
        "replaced: the id is added to the name.",
        *("TEMPLATE", "--name"),
        show_default="{id}.{ext}",
    ),
]
WithRecords = Annotated[
    bool, options.flag("Save the record of each image beside it, as NAME.json.", "--with-records")
]


def download(
    words: IdsOrText = None,
    *,
    to: To = Path(),
    every: options.Every = False,
    text: options.Text = None,
    filters: options.ImageFilters,
    name: Name = None,
    jobs: options.AtOnce = 4,
    with_records: WithRecords = False,
    as_json: Json = False,
    connection: Connection,
) -> None:
    """Save images as files, and check their SHA-256.

    Files that already exist are not downloaded again, and an interrupted
    download continues where it stopped: run the same command again.
    Exits with 1 if any image could not be saved; the others are kept.
    """
    from receiver.cli.save_images import Saving

    ids, asked = ids_or_text(words)
    wanted = filters.query(q=query_text(asked, text))
    if sum((bool(ids), bool(wanted), every)) != 1:
        fail("Say what to download: give ids, a query, or --all.", MISUSED)
    names = read_names(name)
    with connection.open() as darkroom:
        found: list[Output] = []
        saving = Saving(darkroom, to, names, jobs, with_records)
        try:
            found = by_ids(darkroom, ids) if ids else _listed(darkroom, wanted)
            saving.run(found)
        except KeyboardInterrupt:
            say(f"\nStopped: {len(saving.saved)} of {len(found)} saved. Run the command again to continue.")
            raise typer.Exit(STOPPED) from None
        except Exception:
            if found:
                _report(saving, as_json=as_json)
            raise
    _report(saving, as_json=as_json)
    if saving.failed:
        raise typer.Exit(FAILED)


def by_ids(darkroom: Darkroom, ids: Sequence[str]) -> list[Output]:
    """Return the images with these ids, and those of the jobs with these ids, each once."""
    found: dict[str, Output] = {}
    for one in ids:
        outputs = [darkroom.output(one)] if "." in one else list(darkroom.search(job=darkroom.job(one).id))
        if not outputs:
            say(f"{one} has no images.", "yellow")
        found |= {output.id: output for output in outputs}
    return list(found.values())


def read_names(text: str | None) -> Names | None:
    """Parse `--name`; exit with a message if it is malformed."""
    from receiver.cli.save_images import Names
    from receiver.client.filenames import BadTemplate, Template

    try:
        return None if text is None else Names(Template(text))
    except BadTemplate as error:
        fail(f"--name {text}: {error}", MISUSED)


def _listed(darkroom: Darkroom, wanted: dict[str, str]) -> list[Output]:
    console = err()
    with console.status("Looking for images ..."):
        return list(darkroom.search(limit=None, **wanted))


def _report(saving: Saving, *, as_json: bool) -> None:
    if as_json:
        print_json([one.as_json() for one in saving.saved])
    else:
        for one in saving.saved:
            out().print(cell(one.path), soft_wrap=True)
    new = [one for one in saving.saved if one.fetched]
    old = len(saving.saved) - len(new)
    say(
        f"Downloaded {count(len(new), 'image')} ({decimal(sum(one.output.bytes for one in new))})"
        f"{f'; {old} already saved' if old else ''}."
    )
    if saving.failed:
        lines = some([f"  {one.output.id}: {one.why}" for one in saving.failed], SHOWN)
        say("\n".join([f"{count(len(saving.failed), 'image')} could not be saved:", *lines]), "red")
