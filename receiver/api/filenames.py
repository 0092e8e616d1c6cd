"""Build the names of downloaded files from prompts."""

import unicodedata
from dataclasses import dataclass

from storage.media.inspect import KINDS
from storage.models import Job, Output
from storage.text import slug

MOST_SIGNS = 60
MOST_BYTES = 120
"""File systems take names of 255 bytes."""
EXTENSIONS = {kind.media_type: kind.extension for kind in KINDS}


@dataclass(frozen=True, slots=True)
class FileName:
    """A name in the prompt's own script, and one in ASCII."""

    name: str
    plain: str


def file_name(job: Job, output: Output, *, ending: str | None = None) -> FileName:
    """Name an output's file: the prompt's beginning, the end of the job's id, the index, the extension.

    The end of an id is random, so outputs of one prompt do not share a name. No name has anything in it but
    letters, digits, `-` and `.`, whatever the prompt holds. `ending` stands in place of `.<extension>`.
    """
    ending = ending or f".{EXTENSIONS.get(output.media_type, 'bin')}"
    rest = f"-{output.job_id[-8:]}-{output.index}{ending}"
    begin = job.request.prompt[: 10 * MOST_SIGNS]
    own = _shortened(slug(begin.lower()))
    # Lowered last, because some signs decompose into capital letters.
    decomposed = unicodedata.normalize("NFKD", begin).lower()
    # Without its accents; a name in another script has no ASCII letters at all.
    letters = [sign for sign in decomposed if not unicodedata.combining(sign)]
    plain = _shortened(slug("".join(sign if sign.isascii() else "-" for sign in letters)))
    return FileName((own or "image") + rest, (plain or "image") + rest)


def _shortened(words: str) -> str:
    short = words[:MOST_SIGNS].encode()[:MOST_BYTES].decode(errors="ignore")
    if len(short) < len(words) and "-" in short[len(short) // 2 :]:
        short = short.rpartition("-")[0]
    return short.strip("-")
