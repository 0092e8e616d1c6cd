"""Choose the index plan of a search, so that it reads little more than it returns.

One index gives jobs, newest first, and the other conditions are checked on their rows. The best one is that
of the rarest condition, so up to `FEW` entries of each are counted before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

from storage.ledger.schema import GRAMS, jobs, outputs, terms
from storage.ledger.search_index import HAS_IMAGE, IS_SHORT, lookup, term
from storage.search import where
from storage.search.filters import SearchFilter

FEW = 3000
"""So many rows can be read and checked in the time of a page; counting stops there."""

_grams = sa.table(GRAMS, sa.column("rowid", sa.BigInteger))
_prompts = sa.table(GRAMS, sa.column("number", sa.BigInteger), sa.column("folded", sa.Text))
"""The table of that name on PostgreSQL."""


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """The rows of jobs to read, the number that orders them, and the conditions on the index."""

    rows: sa.FromClause
    number: sa.ColumnElement[int]
    conditions: where.Conditions


class CrossJoin(sa.Join):
    """A join that scans its left side and looks up its right side."""

    inherit_cache = True


@compiles(CrossJoin, "sqlite")
def _cross(join: CrossJoin, compiler: Any, **kw: Any) -> str:
    # SQLite keeps the order of a cross join (https://sqlite.org/optoverview.html, section 7.3); otherwise,
    # without statistics, it would guess which side is smaller.
    kw |= {"from_linter": None, "asfrom": True}
    left = compiler.process(join.left, **kw)
    right = compiler.process(join.right, **kw)
    return f"{left} CROSS JOIN {right} ON {compiler.process(join.onclause, **kw)}"


def plan(connection: sa.Connection, wanted: SearchFilter, *, with_images: bool) -> IndexPlan:
    """Return the index plan of a search. `with_images`: only of jobs that have an output."""
    if wanted.sha256 is not None:
        digests = sa.select(outputs.c.job_id).where(*where.of_images(SearchFilter(sha256=wanted.sha256)))
        return IndexPlan(jobs, jobs.c.number, [jobs.c.id.in_(digests)])
    if wanted.job is not None:
        return IndexPlan(jobs, jobs.c.number, [])
    words = where.groups(wanted)
    known = [(_count(connection, wanted, one), one) for one in _terms(wanted)]
    if not with_images and (wanted.status or wanted.code):
        least = min((count for count, _ in known), default=FEW if words else FEW + 1)
        if _count_of_status(connection, wanted) < least:
            return IndexPlan(jobs, jobs.c.number, [])
    rarest = min(known, default=(FEW, HAS_IMAGE if with_images else None))
    if words and rarest[0] >= FEW:
        return _by_fts5(words) if connection.dialect.name == "sqlite" else _by_trigrams(words)
    if rarest[1] is None:
        return IndexPlan(jobs, jobs.c.number, [])
    rows = CrossJoin(terms, jobs, jobs.c.number == terms.c.number)
    return IndexPlan(rows, terms.c.number, [terms.c.term == rarest[1]])


def _by_fts5(groups: Sequence[Sequence[str]]) -> IndexPlan:
    match = sa.text(f"{GRAMS} MATCH :pieces").bindparams(pieces=lookup(groups))
    rows = CrossJoin(_grams, jobs, jobs.c.number == _grams.c.rowid)
    return IndexPlan(rows, _grams.c.rowid, [match])  # type: ignore[list-item]


def _by_trigrams(groups: Sequence[Sequence[str]]) -> IndexPlan:
    # PostgreSQL has statistics: it uses the trigram index, or scans from the newest on.
    rows = _prompts.join(jobs, jobs.c.number == _prompts.c.number)
    found = [
        sa.or_(*(_prompts.c.folded.contains(word, autoescape=True) for word in group)) for group in groups
    ]
    return IndexPlan(rows, _prompts.c.number, found)


def _terms(wanted: SearchFilter) -> Iterator[str]:
    for kind in ("gateway", "model", "seed"):
        if value := getattr(wanted, kind):
            yield term(kind, value)
    yield from (term("tag", f"{name}={value}") for name, value in wanted.tags.items())
    if wanted.mark is not None:
        yield IS_SHORT
    if wanted.media_type is not None:
        yield term("type", wanted.media_type)
    (width, widest), (height, highest) = (wanted.between.get(name, (0, -1)) for name in ("width", "height"))
    if width == widest and height == highest:
        yield term("size", f"{width}x{height}")


def _count_of_status(connection: sa.Connection, wanted: SearchFilter) -> int:
    kinds = [jobs.c.status == wanted.status] if wanted.status else []
    kinds += [jobs.c.error_code == wanted.code] if wanted.code else []
    there = sa.select(jobs.c.number).where(*kinds, *where.numbers(wanted, jobs.c.number)).limit(FEW)
    return connection.scalar(sa.select(sa.func.count()).select_from(there.subquery())) or 0


def _count(connection: sa.Connection, wanted: SearchFilter, one: str) -> int:
    entries = sa.select(terms.c.number).where(terms.c.term == one, *where.numbers(wanted, terms.c.number))
    return connection.scalar(sa.select(sa.func.count()).select_from(entries.limit(FEW).subquery())) or 0
