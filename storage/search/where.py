"""Build the WHERE conditions of a search, on rows of jobs and of outputs."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from storage.ledger.job_numbers import first_number
from storage.ledger.schema import jobs, outputs
from storage.ledger.search_index import fold, lower
from storage.search.filters import SearchFilter

Conditions = list[sa.ColumnElement[bool]]

_FEWER = jobs.c.images_returned < sa.func.coalesce(jobs.c.num_images, 1)
# `Job.short` in SQL.
_SHORT = jobs.c.images_returned.is_not(None) & (_FEWER | jobs.c.withheld.is_not(sa.null()))


def of_jobs(wanted: SearchFilter) -> Conditions:
    """Return the conditions on a job's row, without those on its time and its seed."""
    held: Conditions = [sa.or_(*map(_contains, group)) for group in groups(wanted)]
    held += [~_contains(word) for word in folded(wanted.without)]
    held += [_tagged(name, value) for name, value in wanted.tags.items()]
    if wanted.job is not None:
        held.append(jobs.c.id == wanted.job)
    if wanted.gateway is not None:
        held.append(jobs.c.gateway == wanted.gateway)
    if wanted.model is not None:
        held.append(_of_model(wanted.model))
    if wanted.status is not None:
        held.append(jobs.c.status == wanted.status)
    if wanted.mark is not None:
        held.append(_SHORT)
    if wanted.code is not None:
        held.append(jobs.c.error_code == wanted.code)
    return held + [_differs(kind, value) for kind, value in wanted.excluded if kind not in {"type", "seed"}]


def of_images(wanted: SearchFilter) -> Conditions:
    """Return the conditions on an output's row, without those on its seed."""
    held: Conditions = []
    if wanted.sha256 is not None:
        start = wanted.sha256.lower()
        held.append(outputs.c.sha256.between(start, start + "g"))  # a range, for which there is an index
    if wanted.media_type is not None:
        held.append(outputs.c.media_type == wanted.media_type)
    for name, (least, most) in wanted.between.items():
        held += [outputs.c[name] >= least] if least is not None else []
        held += [outputs.c[name] <= most] if most is not None else []
    return held + [outputs.c.media_type != value for kind, value in wanted.excluded if kind == "type"]


def of_seed(wanted: SearchFilter, *, with_images: bool) -> Conditions:
    """Return the conditions on the seed: requested, or reported of a job or of an image.

    Of an output `with_images`; otherwise of a job that may have none.
    """
    held: Conditions = [_seeded(wanted.seed, with_images=with_images)] if wanted.seed is not None else []
    excluded = [value for kind, value in wanted.excluded if kind == "seed"]
    return held + [~_seeded(value, with_images=with_images) for value in excluded]


def numbers(wanted: SearchFilter, column: sa.ColumnElement[int]) -> Conditions:
    """Return the conditions on the time, as a range of job numbers."""
    held: Conditions = []
    if wanted.since is not None:
        held.append(column >= first_number(wanted.since))
    if wanted.until is not None:
        held.append(column < first_number(wanted.until))
    return held


def folded(words: Sequence[str]) -> list[str]:
    """Return words as they are indexed; one that is invisible, such as a soft hyphen, asks for nothing."""
    return [word for word in map(fold, words) if word]


def groups(wanted: SearchFilter) -> list[list[str]]:
    """Return the words as they are indexed, in groups of which one word must be there each."""
    asked = [*((word,) for word in wanted.words), *wanted.either]
    return [folded(group) for group in asked if all(map(fold, group))]


def _contains(word: str) -> sa.ColumnElement[bool]:
    # Not LIKE, which SQLite matches far more slowly, and only with a limit on the pattern.
    return Contains(jobs.c.prompt_folded, sa.literal(word))


class Contains(FunctionElement[bool]):
    """Whether a text contains another: `Contains(whole, part)`."""

    inherit_cache = True
    type = sa.Boolean()


@compiles(Contains)
def _position(contains: Contains, compiler: Any, **kw: Any) -> str:
    return f"strpos({compiler.process(contains.clauses, **kw)}) > 0"


@compiles(Contains, "sqlite")
def _instr(contains: Contains, compiler: Any, **kw: Any) -> str:
    return f"instr({compiler.process(contains.clauses, **kw)}) > 0"


class AsciiLower(FunctionElement[str]):
    """A text with its ASCII letters in lower case."""

    inherit_cache = True
    type = sa.Text()


@compiles(AsciiLower)
def _lower_in_c(text: AsciiLower, compiler: Any, **kw: Any) -> str:
    return f'lower({compiler.process(text.clauses, **kw)} COLLATE "C")'


@compiles(AsciiLower, "sqlite")
def _lower(text: AsciiLower, compiler: Any, **kw: Any) -> str:
    return f"lower({compiler.process(text.clauses, **kw)})"


def _of_model(name: str) -> sa.ColumnElement[bool]:
    reported = sa.func.coalesce(AsciiLower(jobs.c.result_model) == lower(name), False)
    return sa.or_(AsciiLower(jobs.c.model) == lower(name), reported)


def _tagged(name: str, value: str) -> sa.ColumnElement[bool]:
    tag: sa.ColumnElement[bool] = jobs.c.tags[name].as_string() == value
    return tag


def _differs(kind: str, value: str) -> sa.ColumnElement[bool]:
    if kind == "tag":
        name, _, text = value.partition("=")
        return sa.func.coalesce(jobs.c.tags[name].as_string() != text, True)
    if kind == "is":
        return ~_SHORT
    if kind == "model":
        return ~_of_model(value)
    return jobs.c[kind] != value


def _seeded(seed: str, *, with_images: bool) -> sa.ColumnElement[bool]:
    of_image: sa.ColumnElement[bool] = sa.func.coalesce(outputs.c.seed == seed, False)
    if not with_images:
        of_image = sa.exists().where(outputs.c.job_id == jobs.c.id, outputs.c.seed == seed).correlate(jobs)
    return sa.or_(
        of_image, *(sa.func.coalesce(column == seed, False) for column in (jobs.c.seed, jobs.c.result_seed))
    )
