"""`darkroom search`: find archived images by prompt, seed, model, tag, or file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.text import Text

from receiver.cli import console, options
from receiver.cli.connection import Connection, Json
from receiver.cli.query_args import Words, query_text

if TYPE_CHECKING:
    from receiver.client import Darkroom
    from receiver.schemas.output import Output
    from receiver.schemas.usage import FacetValue

HIGHLIGHT = "bold black on yellow"


LocalFile = Annotated[
    Path | None,
    options.option(
        "Find this image file by its SHA-256; exits with 1 if it is not in the archive.",
        *("PICTURE", "--file", "-f"),
        dir_okay=False,
    ),
]
ShowFacets = Annotated[
    bool, options.flag("Count the images found by gateway, model, day and tag.", "--facets")
]
OnlyIds = Annotated[bool, options.flag("Print only ids, for pipes.", "--ids")]


def search(
    words: Words = None,
    *,
    filters: options.ImageFilters,
    sha256: Annotated[str | None, options.filter_by("Or its beginning.", "HEX", "--sha256")] = None,
    file: LocalFile = None,
    facets: ShowFacets = False,
    limit: options.Limit = 20,
    ids: OnlyIds = False,
    as_json: Json = False,
    connection: Connection,
) -> None:
    """Find archived images by prompt, seed, model, tag or digest; newest first."""
    if file is not None and sha256 is not None:
        console.fail("Give --file or --sha256, not both.", console.MISUSED)
    if ids and (as_json or facets):
        console.fail("--ids cannot be combined with --json or --facets.", console.MISUSED)
    text = query_text(words)
    wanted = filters.query(q=text, sha256=sha256 if file is None else _digest(file))
    with connection.open() as darkroom:
        if facets:
            _show_facets(darkroom, wanted, as_json=as_json)
            return
        found = list(darkroom.search(limit=limit, **wanted))
    if file is not None:
        _say_origin(file, found, wanted)
    if as_json:
        console.print_json(found)
    elif ids:
        for output in found:
            console.out().print(console.cell(output.id))
    else:
        console.print_table(_columns(_marked(text)), found, nothing="No images match.")
    console.say_if_cut(len(found), limit)


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        console.fail(f"{file} cannot be read: {error.strerror or error}", console.MISUSED)


def _say_origin(file: Path, found: Sequence[Output], wanted: Mapping[str, str]) -> None:
    if not found:
        also = " that matches the filters" if len(wanted) > 1 else ""
        console.fail(
            f"Not in the archive: no image{also} has the bytes of {file} (SHA-256 {wanted['sha256'][:12]}). "
            "A file that was resized, saved again or edited has other bytes."
        )
    one, seed = found[0], _seed(found[0])
    more = f" It was archived {len(found)} times." if len(found) > 1 else ""
    console.say(
        f"Found: {file} is image {one.id}, made with {one.model} on {one.gateway}, archived {one.stored_at}"
        f"{f', seed {seed}' if seed is not None else ''}, from the prompt: {one.prompt}{more}"
    )


def _marked(text: str | None) -> list[str]:
    """Return the words of a query to highlight in prompts; none without a terminal."""
    if not text or not console.out().is_terminal:
        return []
    from receiver.query.language import read_query_text

    wanted = read_query_text(text, 0)
    return [*wanted.words, *(word for group in wanted.either for word in group)]


def _columns(marked: Sequence[str]) -> Sequence[console.Column[Output]]:
    def prompt(output: Output) -> Text:
        text = console.cell(output.prompt)
        if marked:
            text.highlight_words(marked, HIGHLIGHT, case_sensitive=False)
        return text

    return (
        console.Column("IMAGE", lambda output: output.id),
        console.Column("PROMPT", prompt, long=True),
        console.Column("GATEWAY", lambda output: output.gateway, room=140),
        console.Column("MODEL", lambda output: output.model, room=100),
        console.Column("SEED", _seed, room=120),
        console.Column("SIZE", lambda output: f"{output.width}x{output.height}"),
        console.Column("TYPE", lambda output: output.media_type.removeprefix("image/"), room=160),
        console.Column("STORED", lambda output: output.stored_at, room=160),
        console.Column("SHA-256", lambda output: output.sha256[:12], room=90),
    )


def _seed(output: Output) -> str | None:
    return output.seed_requested if output.seed is None else output.seed


def _show_facets(darkroom: Darkroom, wanted: Mapping[str, str], *, as_json: bool) -> None:
    found = darkroom.facets(**wanted)
    if as_json:
        console.print_json(found)
        return
    kinds = {"GATEWAY": found.gateway, "MODEL": found.model, "DAY": found.day, "TAG": found.tag}
    for name, facets in kinds.items():
        if facets:
            columns: Sequence[console.Column[FacetValue]] = (
                console.Column(name, lambda facet: facet.value, wrapped=True),
                console.Column("IMAGES", lambda facet: facet.outputs, right=True),
            )
            console.print_table(columns, facets)
            console.out().print()
    if found.complete:
        console.say(f"Total: {console.count(found.counted, 'image')}.")
    else:
        console.say(f"Only the newest {found.counted} images were counted; there are more.", "dim")
