"""Name downloaded files by a template: safe on every file system, and below their folder."""

import re
import string
import unicodedata
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import PurePosixPath

from pathvalidate import sanitize_filename
from pathvalidate.handler import ReservedNameHandler

from receiver.schemas.output import Output
from storage.text import slug

FIELDS = ("id", "job_id", "index", "date", "gateway", "model", "seed", "sha256", "prompt", "ext")
TAG = "tag."
NONE = "none"
"""The placeholder for a value that the output does not have."""

MOST_BYTES = 180
"""Of one part of a path in UTF-8. File systems take 255; an id and more are added where it is needed."""
MOST_PARTS = 16

_UNSAFE = re.compile(r'[<>:"\\|?*\x00-\x1f\x7f]')
_slug = partial(slug, keep="._")


class BadTemplate(ValueError):
    """The template cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Template:
    """Names of files, such as `{date}/{prompt:40}-{seed}-{index}.{ext}`.

    Fields: id, job_id, index, date (the day of the job, as in keys), gateway, model, seed, sha256, prompt,
    ext, and `tag.<name>`. A number after a colon is how many characters of a value there may be. Values
    become words of letters and digits, in any script, with dashes between them; `none` stands for a value
    that is not there. Raises BadTemplate if it is none.
    """

    text: str

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.text).parts
        if not self.text.strip() or self.text.endswith("/") or not self.text.isprintable():
            raise BadTemplate("it must end in the name of a file, in characters that can be seen")
        if self.text.startswith("/") or ".." in parts or len(parts) > MOST_PARTS:
            raise BadTemplate(f"it must stay below the folder, in {MOST_PARTS} parts at most")
        if found := _UNSAFE.search(re.sub(r"\{[^{}]*\}", "", self.text)):
            raise BadTemplate(f"file names may not have {found[0]!r} in them on every system")
        for _, field, _ in self._pieces():
            if field not in (None, *FIELDS) and not (field.startswith(TAG) and len(field) > len(TAG)):
                raise BadTemplate(f"{{{field}}} is not a field; use {', '.join(FIELDS)} or tag.<name>")

    def name(self, output: Output) -> str:
        """Return the path of an output's file, with `/` between its parts; never out of the folder."""
        made = "".join(
            literal + ("" if field is None else _value(output, field)[:most].strip("-._") or NONE)
            for literal, field, most in self._pieces()
        )
        return "/".join(_safe(part) for part in made.split("/") if part)

    def _pieces(self) -> Iterator[tuple[str, str | None, int | None]]:
        try:
            for literal, field, spec, conversion in string.Formatter().parse(self.text):
                if conversion or (spec and not re.fullmatch(r"[1-9][0-9]{0,3}", spec)):
                    raise BadTemplate(f"{{{field}:{spec}}}: only a length may stand behind a colon")
                yield literal, field, int(spec) if spec else None
        except ValueError as error:
            raise BadTemplate(str(error)) from None


def with_id(name: str, output: Output) -> str:
    """Return a name with the output's id before its extension, for a name that exists."""
    folder, slash, last = name.rpartition("/")
    stem, dot, extension = last.rpartition(".")
    marked = f"{stem}-{_slug(output.id)}.{extension}" if dot and stem else f"{last}-{_slug(output.id)}"
    return folder + slash + marked


def key_of(name: str) -> str:
    """Return a key that is equal for names that a case-insensitive file system takes for one."""
    return unicodedata.normalize("NFC", name).casefold()


def day_of(output: Output) -> str:
    """Return the day on which the output's job was created, in UTC: its id begins with the time."""
    try:
        moment = datetime.fromtimestamp((uuid.UUID(output.job_id).int >> 80) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return _slug(output.stored_at[:10])
    return moment.date().isoformat()


def _value(output: Output, field: str) -> str:
    if field.startswith(TAG):
        return _slug(output.tags.get(field.removeprefix(TAG), NONE))
    if field == "date":
        return day_of(output)
    if field == "ext":
        return re.sub(r"[^a-z0-9]", "", output.key.rpartition(".")[2].lower())[:8]
    value = getattr(output, field)
    if field == "seed" and value is None:
        value = output.seed_requested
    if field == "prompt":
        value = output.prompt.lower()
    return _slug(NONE if value is None else str(value))


def _safe(part: str) -> str:
    """Return one part of a path as every file system takes it; never hidden, its extension kept."""
    part = part.strip(". ") or NONE
    stem, dot, extension = part.rpartition(".")
    if not dot or len(extension.encode()) > MOST_BYTES // 4:
        stem, dot, extension = part, "", ""
    room = MOST_BYTES - len((dot + extension).encode())
    cut = sanitize_filename(stem, max_len=room, reserved_name_handler=ReservedNameHandler.as_is)
    return sanitize_filename(
        (cut.rstrip(" .-") or NONE) + dot + extension,
        platform="universal",
        reserved_name_handler=ReservedNameHandler.add_leading_underscore,
    )
