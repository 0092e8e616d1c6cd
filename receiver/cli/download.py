"""`darkroom download`: archived images as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from receiver.cli import completion, options
from receiver.cli.connection import LOCAL, Json, Token, Url, connected
from receiver.cli.console import FAILED, MISUSED, cell, count, err, fail, out, print_json, say, size
from receiver.cli.jobs import filters
from receiver.cli.query_args import ids_or_text, query_text
from receiver.cli.save_images import Saving

if TYPE_CHECKING:
    from receiver.client import Darkroom
    from receiver.client.filenames import Template
    from receiver.client.models import Output

STOPPED = 130
"""The exit code after Ctrl-C."""
SHOWN = 10

IdsOrText = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ID|TEXT",
        help="Ids of jobs or outputs; or else a query, as in [bold]darkroom search[/bold].",
        autocompletion=completion.jobs_and_outputs,
        show_default=False,
    ),
]
To = Annotated[Path, typer.Option(metavar="DIR", file_okay=False, help="Where the files go.")]
All = Annotated[bool, typer.Option("--all", help="Everything in the archive.")]
Name = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="TEMPLATE",
        help="Names of the files, such as [bold]{date}/{prompt:40}-{seed}-{index}.{ext}[/bold]. Fields: id, "
        "job_id, index, date, gateway, model, seed, sha256, prompt, tag.NAME, ext. A file that is there is "
        "never replaced: the id is added to the name.",
        show_default="{id}.{ext}",
    ),
]
AtOnce = Annotated[int, typer.Option("--jobs", metavar="N", min=1, max=32, help="How many at once.")]
WithRecords = Annotated[
    bool, typer.Option("--with-records", help="Put what made each image beside it, as NAME.json.")
]


def download(
    words: IdsOrText = None,
    *,
    to: To = Path(),
    every: All = False,
    text: options.Words = None,
    gateway: options.Gateway = None,
    model: options.Model = None,
    seed: options.Seed = None,
    job: options.JobId = None,
    since: options.Since = None,
    until: options.Until = None,
    tag: options.Tags = None,
    name: Name = None,
    jobs: AtOnce = 4,
    with_records: WithRecords = False,
    as_json: Json = False,
    url: Url = LOCAL,
    token: Token = None,
) -> None:
    """Save images to files, their SHA-256 checked.

    Files that are there already are not fetched again, and one that was broken off goes on where it
    stopped: after Ctrl-C, give the same command. Ends with 1 if any image could not be saved; the others
    are kept.
    """
    ids, asked = ids_or_text(words)
    wanted = filters(
        q=query_text(asked, text),
        gateway=gateway,
        model=model,
        seed=seed,
        job=job,
        since=since,
        until=until,
        tag=tag,
    )
    if sum((bool(ids), bool(wanted), every)) != 1:
        fail("Say what to download: ids, or a query, or --all.", MISUSED)
    template = read_template(name)
    with connected(url, token) as darkroom:
        found: list[Output] = []
        saving = Saving(darkroom, to, template=template, jobs=jobs, records=with_records)
        try:
            found = by_ids(darkroom, ids) if ids else _listed(darkroom, wanted)
            saving.run(found)
        except KeyboardInterrupt:
            say(f"\nStopped: {len(saving.saved)} of {len(found)} saved; the same command goes on from there.")
            raise typer.Exit(STOPPED) from None
        except Exception:
            if found:
                _report(saving, as_json=as_json)
            raise
    _report(saving, as_json=as_json)
    if saving.failed:
        raise typer.Exit(FAILED)


def by_ids(darkroom: Darkroom, ids: Sequence[str]) -> list[Output]:
    """The outputs with these ids, and those of the jobs with these ids, each once."""
    found: dict[str, Output] = {}
    for one in ids:
        outputs = [darkroom.output(one)] if "." in one else list(darkroom.search(job=darkroom.job(one).id))
        if not outputs:
            say(f"{one} has no images.", "yellow")
        found |= {output.id: output for output in outputs}
    return list(found.values())


def read_template(text: str | None) -> Template | None:
    """Read `--name`; ends with a message if it cannot be used."""
    from receiver.client.filenames import BadTemplate, Template

    try:
        return None if text is None else Template(text)
    except BadTemplate as error:
        fail(f"--name {text}: {error}", MISUSED)


def _listed(darkroom: Darkroom, wanted: dict[str, str]) -> list[Output]:
    console = err()
    with console.status("Looking for images ..."):
        # Without what is not needed here, because there may be very many.
        return [replace(output, raw={}) for output in darkroom.search(limit=None, **wanted)]


def _report(saving: Saving, *, as_json: bool) -> None:
    if as_json:
        print_json([one.as_json() for one in saving.saved])
    else:
        for one in saving.saved:
            out().print(cell(one.path), soft_wrap=True)
    new = [one for one in saving.saved if one.fetched]
    fetched = f"{len(new)} fetched ({size(sum(one.output.bytes for one in new))})"
    say(f"{count(len(saving.saved), 'image')}: {fetched}, {len(saving.saved) - len(new)} already there.")
    if saving.failed:
        lines = [f"  {one.output.id}: {one.why}" for one in saving.failed[:SHOWN]]
        more = [f"  and {len(saving.failed) - SHOWN} more"] if len(saving.failed) > SHOWN else []
        say("\n".join([f"{count(len(saving.failed), 'image')} could not be saved:", *lines, *more]), "red")
