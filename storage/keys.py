"""Under which keys things lie in the bucket."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from datetime import UTC, datetime

from storage.records import Job

DEFAULT_TEMPLATE = "images/{date}/{job_id}/{index}.{ext}"
FIELDS = frozenset({"date", "job_id", "index", "ext", "gateway", "model", "sha256"})
TAG = "tag:"


@dataclass(frozen=True, slots=True)
class Keys:
    """Makes the keys of images and records.

    `template` may use date, job_id, index, ext, gateway, model, sha256 and `tag:<name>` in braces. It must
    use job_id and index, so that no two outputs can ever share a key.
    """

    prefix: str = ""
    template: str = DEFAULT_TEMPLATE

    def __post_init__(self) -> None:
        if self.prefix.startswith("/") or ".." in self.prefix.split("/"):
            raise ValueError("a prefix may not start with '/' or have '..' in it")
        used = _fields(self.template)
        for name in used:
            if name not in FIELDS and not (name.startswith(TAG) and len(name) > len(TAG)):
                raise ValueError(f"{{{name}}} is not a field; use {', '.join(sorted(FIELDS))} or tag:<name>")
        if not {"job_id", "index"} <= set(used):
            raise ValueError("it must use {job_id} and {index}, so that no two images share a key")
        if self.template.startswith(("/", "records/", "thumbnails/")) or ".." in self.template:
            raise ValueError("it may not start with '/', 'records/' or 'thumbnails/', or have '..' in it")

    def image(self, job: Job, index: int, *, extension: str, sha256: str) -> str:
        """The key of an output's image. It follows from the job alone, so a second try finds the first.

        A second submission makes other images, so its number is part of `job_id`: `<job id>.2`.
        """
        values = {
            "date": _day(job),
            "job_id": job.submission_id,
            "index": str(index),
            "ext": extension,
            "gateway": job.gateway,
            "model": _plain(job.request.model),
            "sha256": sha256,
        }
        values |= {TAG + name: _plain(value) for name, value in job.request.tags.items()}
        parts = string.Formatter().parse(self.template)
        key = "".join(literal + (values.get(name, "none") if name else "") for literal, name in _named(parts))
        return self.prefix + key

    def record(self, job: Job, number: int = 1) -> str:
        """The key of a job's record; always in the same place, so that a rebuild needs only the bucket.

        From the second on its number is part of it: `<job id>.2.json`.
        """
        suffix = "" if number == 1 else f".{number}"
        return f"{self.prefix}records/{_day(job)}/{job.id}{suffix}.json"

    def thumbnail(self, output_id: str) -> str:
        """The key of an output's thumbnail, which is derived and may be deleted at any time."""
        return f"{self.prefix}thumbnails/{output_id}.webp"


def _fields(template: str) -> list[str]:
    return [name for _, name in _named(string.Formatter().parse(template)) if name is not None]


def _named(parts: object) -> list[tuple[str, str | None]]:
    named: list[tuple[str, str | None]] = []
    for literal, name, spec, _ in parts:  # type: ignore[attr-defined]
        # The formatter takes `tag:campaign` for a field with a format; here it is one name.
        named.append((literal, f"{name}:{spec}" if spec else name))
    return named


def _day(job: Job) -> str:
    return datetime.fromtimestamp(job.created_at / 1000, tz=UTC).strftime("%Y/%m/%d")


def _plain(value: str) -> str:
    return re.sub(r"[^\w.-]+", "-", value).strip(".-")[:64] or "none"
