"""What somebody looks for among jobs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from storage.models import Status


@dataclass(frozen=True, slots=True)
class SearchFilter:
    """What to look for; every condition given must hold.

    `seed` and `model` are found whether they were asked for or reported. Of jobs, a condition on images
    (`sha256`, `media_type`, `between`) means that one of their outputs fulfils all of those.
    """

    job: str | None = None
    gateway: str | None = None
    model: str | None = None
    seed: str | None = None
    words: tuple[str, ...] = ()
    """Texts that must stand somewhere in the prompt, each; compared as `storage.text` folds them."""
    without: tuple[str, ...] = ()
    """Texts that must not stand in it."""
    status: Status | None = None
    sha256: str | None = None
    """The image's digest in hex, or its beginning."""
    code: str | None = None
    """Of the job's error."""
    since: int | None = None
    """The job was taken in then or later; milliseconds since 1970, as is `until`."""
    until: int | None = None
    """The job was taken in before then."""
    tags: Mapping[str, str] = field(default_factory=dict)
    media_type: str | None = None
    between: Mapping[str, tuple[int | None, int | None]] = field(default_factory=dict)
    """The least and the most, both included, of an image's `width`, `height` or `bytes`."""
    excluded: tuple[tuple[str, str], ...] = ()
    """What must not hold: kinds and values. Kinds are `gateway`, `model`, `seed`, `status`, `type`, and
    `tag` with the value `name=value`."""
