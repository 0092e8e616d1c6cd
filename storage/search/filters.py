"""The filter of a search for jobs or outputs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from storage.models import Status


@dataclass(frozen=True, slots=True)
class SearchFilter:
    """The conditions of a search; all of them must hold.

    `seed` and `model` match whether requested or reported, `model` in any case of its ASCII letters. In a
    search for jobs, the conditions on images (`sha256`, `media_type`, `between`) must all hold of one output.
    """

    job: str | None = None
    gateway: str | None = None
    model: str | None = None
    seed: str | None = None
    words: tuple[str, ...] = ()
    """Texts that the prompt must contain, each; compared as `search_index` folds them."""
    either: tuple[tuple[str, ...], ...] = ()
    """Of each of these groups, one text at least."""
    without: tuple[str, ...] = ()
    """Texts that it must not contain."""
    status: Status | None = None
    mark: Literal["short"] | None = None
    """What the job is marked with: `short`, as `Job.short` says."""
    sha256: str | None = None
    """The image's digest in hex, or its beginning."""
    code: str | None = None
    """Of the job's error."""
    since: int | None = None
    """The job was accepted then or later; milliseconds since 1970, as is `until`."""
    until: int | None = None
    """The job was accepted before then."""
    tags: Mapping[str, str] = field(default_factory=dict)
    media_type: str | None = None
    between: Mapping[str, tuple[int | None, int | None]] = field(default_factory=dict)
    """The least and the most, both included, of an image's `width`, `height` or `bytes`."""
    excluded: tuple[tuple[str, str], ...] = ()
    """Conditions that must not hold: kinds and values. Kinds are `gateway`, `model`, `seed`, `status`,
    `type`, `is` (a mark), and `tag` with the value `name=value`."""
