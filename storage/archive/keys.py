"""Build the keys of images, records and thumbnails in the bucket, from a template."""

import re
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from storage.models import Job, JobRequest, Status

DEFAULT_TEMPLATE = "images/{date}/{job_id}/{index}.{ext}"
FIELDS = frozenset({"date", "job_id", "index", "ext", "gateway", "model", "sha256"})
TAG = "tag:"
NONE = "none"

RESERVED = frozenset({"records", "thumbnails", "darkroom-probes", "manifests", "trash"})
"""First parts of keys that images may not have: Darkroom's own objects are there, or will be."""

MOST_BYTES = 1000
"""The limit of a whole key in UTF-8. S3's limit is 1,024:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html"""
MOST_PART_BYTES = 200
"""The limit between two slashes. Stores that keep objects as files allow 255, and may add a suffix."""
MOST_PREFIX_BYTES = 500
MOST_VALUE_BYTES = 128
"""The limit of one tag or model: with an id or a SHA-256 and an extension it fits into one part."""
MOST_VALUE_CHARACTERS = 64
_RECORD = re.compile(r"records/\d{4}/\d\d/\d\d/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:\.\d+)?\.json")


@dataclass(frozen=True, slots=True)
class Keys:
    """Build the keys of images and records.

    `template` may use date, job_id, index, ext, gateway, model, sha256 and `tag:<name>` in braces. It must
    use job_id and index, so that no two outputs can share a key. Raises ValueError if it, or the prefix, is
    not valid.
    """

    prefix: str = ""
    template: str = DEFAULT_TEMPLATE

    def __post_init__(self) -> None:
        _check_prefix(self.prefix)
        _check_template(self.template)
        if too_long := self.faults("x" * 32, NONE, {}):
            raise ValueError(f"it makes keys that are too long: {too_long[0]['message']}")

    def image(self, job: Job, index: int, *, extension: str, sha256: str) -> str:
        """Return the key of an output's image. It depends on the job alone, so a second try finds the first.

        A second submission makes other images, so its number is part of `job_id`: `<job id>.2`.
        A first part that is reserved gets `_` before it, and a part that ends in a dot `_` after it.
        """
        return self.prefix + "/".join(text for text, _ in self._parts(job, index, extension, sha256))

    def faults(self, gateway: str, model: str, tags: Mapping[str, str]) -> list[dict[str, str]]:
        """Validate that the keys of a job's images are not too long: `{"field": ..., "message": ...}` each.

        Before a job is accepted; later, its tags cannot be changed. Each value is cut at 64 characters and
        128 bytes, never inside a character, so one alone fits. Several in one part are refused, not cut
        further: then a value is cut the same way everywhere, and a key can be predicted from it.
        """
        request = JobRequest(model, "", tags=tags)
        job = Job("0" * 36, gateway, Status.QUEUED, request, 0, 0, None, submission=9999)
        parts = list(self._parts(job, 9999, "jpeg", "0" * 64))
        parts[0] = (self.prefix + parts[0][0], parts[0][1])
        for text, names in parts:
            if (longest := max(len(part.encode()) for part in text.split("/"))) > MOST_PART_BYTES:
                return [_too_long(tags, names, f"a part of {longest} bytes", MOST_PART_BYTES)]
        if (length := len("/".join(text for text, _ in parts).encode())) > MOST_BYTES:
            return [_too_long(tags, _fields(self.template), f"{length} bytes", MOST_BYTES)]
        return []

    def record(self, job: Job, number: int = 1) -> str:
        """Return the key of a job's record; always in the same place, so a rebuild needs only the bucket.

        From the second on its number is part of it: `<job id>.2.json`.
        """
        suffix = "" if number == 1 else f".{number}"
        return f"{self.prefix}records/{_day(job)}/{job.id}{suffix}.json"

    @property
    def probes(self) -> str:
        """The prefix of the objects with which the store is tried out."""
        return f"{self.prefix}darkroom-probes/"

    def recorded_job(self, key: str) -> str | None:
        """Return the id of the job whose record has a key; None if it is not the key of a record."""
        found = _RECORD.fullmatch(key.removeprefix(self.prefix))
        return found and found[1]

    @property
    def records(self) -> str:
        """The prefix of the keys of all records, up to the millennium: others may have such a folder too."""
        return f"{self.prefix}records/2"

    def thumbnail(self, output_id: str) -> str:
        """Return the key of an output's thumbnail, which is derived and may be deleted at any time."""
        return f"{self.prefix}thumbnails/{output_id}.webp"

    def _parts(self, job: Job, index: int, extension: str, sha256: str) -> Iterator[tuple[str, list[str]]]:
        """Yield each part of the template, filled in, and the fields that it uses; `{date}` has slashes."""
        values = _values(job, index, extension, sha256)
        for number, part in enumerate(self.template.split("/")):
            named = _named(part)
            text = "".join(literal + (values.get(name, NONE) if name else "") for literal, name in named)
            if number == 0 and text.casefold() in RESERVED:
                text = f"_{text}"
            yield (f"{text}_" if text.endswith(".") else text), [name for _, name in named if name]


def _check_prefix(prefix: str) -> None:
    if prefix.startswith("/") or ".." in prefix.split("/"):
        raise ValueError("a prefix may not start with '/' or have '..' in it")
    if len(prefix.encode()) > MOST_PREFIX_BYTES:
        raise ValueError(f"a prefix may have {MOST_PREFIX_BYTES} bytes at most")


def _check_template(template: str) -> None:
    used = _fields(template)
    for name in used:
        if name not in FIELDS and not (name.startswith(TAG) and len(name) > len(TAG)):
            raise ValueError(f"{{{name}}} is not a field; use {', '.join(sorted(FIELDS))} or tag:<name>")
    if not {"job_id", "index"} <= set(used):
        raise ValueError("it must use {job_id} and {index}, so that no two images share a key")
    first, *_ = parts = template.split("/")
    if first.casefold() in RESERVED:
        kept = ", ".join(f"'{name}/'" for name in sorted(RESERVED))
        raise ValueError(f"it may not start with any of {kept}, which Darkroom uses itself")
    if "" in parts or ".." in template or not template.isprintable():
        raise ValueError("it may not start or end with '/', have '//' or '..' in it, or invisible characters")


def _values(job: Job, index: int, extension: str, sha256: str) -> Mapping[str, str]:
    tags = {TAG + name: _plain(value) for name, value in job.request.tags.items()}
    return tags | {
        "date": _day(job),
        "job_id": job.submission_id,
        "index": str(index),
        "ext": extension,
        "gateway": job.gateway,
        "model": _plain(job.request.model),
        "sha256": sha256,
    }


def _too_long(tags: Mapping[str, str], names: list[str], has: str, most: int) -> dict[str, str]:
    used = [name for name in dict.fromkeys(names) if name.startswith(TAG) and name[len(TAG) :] in tags]
    chosen = [*used, *({"model"} & set(names))]
    return {
        "field": "tags" if used else "model",
        "message": f"the keys of its images would have {has} in UTF-8, and {most} is the most: "
        f"shorten {' or '.join(chosen)}",
    }


def _fields(template: str) -> list[str]:
    return [name for _, name in _named(template) if name is not None]


def _named(template: str) -> list[tuple[str, str | None]]:
    # The formatter takes `tag:campaign` for a field with a format; here it is one name.
    return [
        (literal, f"{name}:{spec}" if spec else name)
        for literal, name, spec, _ in string.Formatter().parse(template)
    ]


def _day(job: Job) -> str:
    return datetime.fromtimestamp(job.created_at / 1000, tz=UTC).strftime("%Y/%m/%d")


def _plain(value: str) -> str:
    plain = re.sub(r"[^\w.-]+", "-", value).strip(".-")[:MOST_VALUE_CHARACTERS]
    return plain.encode()[:MOST_VALUE_BYTES].decode(errors="ignore") or NONE
