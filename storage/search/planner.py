"""Choose the index plan of a search, so that it reads little more than it returns.

One index gives jobs, newest first, and the other conditions are checked on their rows. The best one is that
of the rarest condition, so up to `FEW` entries of each are counted before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

from storage.ledger.schema import GRAMS, jobs, outputs, terms
from storage.ledger.search_index import HAS_IMAGE, IS_SHORT, is_piece, lookup, term
from storage.search import where
from storage.search.filters import SearchFilter

FEW = 3000
"""So many rows can be read and checked in the time of a page; counting stops there."""

SAMPLE = 5_000
"""How many of the newest prompts are looked at to see how frequent words are, on PostgreSQL."""

PROMPTS = 500_000
"""For a ledger with so many prompts the choice is the best; with more or fewer, it is a little less good."""

_grams = sa.table(GRAMS, sa.column("rowid", sa.BigInteger))
_prompts = sa.table(GRAMS, sa.column("number", sa.BigInteger), sa.column("folded", sa.Text))
"""The table of that name on PostgreSQL."""
_PIECES = sa.func.short_pieces(_prompts.c.folded, type_=sa.ARRAY(sa.Text))


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """The rows of jobs to read, the number that orders them, and the conditions on the index."""

    rows: sa.FromClause
    number: sa.ColumnElement[int]
    conditions: where.Conditions

    def within(self, wanted: SearchFilter) -> where.Conditions:
        """Return the conditions on the time, as ranges of both numbers: a database may begin with either."""
        columns = [self.number] if self.rows is jobs else [self.number, jobs.c.number]
        return [one for column in columns for one in where.numbers(wanted, column)]


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


def plan(
    connection: sa.Connection,
    wanted: SearchFilter,
    *,
    with_images: bool,
    limit: int,
    before: int | None = None,
) -> IndexPlan:
    """Return the index plan of a search for at most `limit` jobs, those before a number if one is given.

    `with_images`: only of jobs that have an output.
    """
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
        if connection.dialect.name == "sqlite":
            return _by_fts5(words)
        if _are_rare(connection, wanted, limit, before):
            return _by_trigrams(words)
        if not known:
            return _by_prompts(words)
    if rarest[1] is None:
        return IndexPlan(jobs, jobs.c.number, [])
    rows = CrossJoin(terms, jobs, jobs.c.number == terms.c.number)
    return IndexPlan(rows, terms.c.number, [terms.c.term == rarest[1]])


def _by_fts5(groups: Sequence[Sequence[str]]) -> IndexPlan:
    match = sa.text(f"{GRAMS} MATCH :pieces").bindparams(pieces=lookup(groups))
    rows = CrossJoin(_grams, jobs, jobs.c.number == _grams.c.rowid)
    return IndexPlan(rows, _grams.c.rowid, [match])  # type: ignore[list-item]


def _by_trigrams(groups: Sequence[Sequence[str]]) -> IndexPlan:
    """Look up all prompts that have the words, of which there are few, and then their jobs."""
    matching = [sa.or_(*map(_indexed, group)) for group in groups]
    # With an offset, PostgreSQL plans it by itself: it must not walk through all jobs in the hope to find
    # what it takes for frequent. It knows no frequencies of parts of texts.
    few = sa.select(_prompts.c.number).where(*matching).order_by(_prompts.c.number.desc()).offset(0)
    found = few.subquery()
    return IndexPlan(found.join(jobs, jobs.c.number == found.c.number), found.c.number, [])


def _indexed(word: str) -> sa.ColumnElement[bool]:
    """Return the condition that a prompt contains a word, such that an index has it if there is one."""
    if is_piece(word):
        return _PIECES.bool_op("@>")([word])
    return _prompts.c.folded.contains(word, autoescape=True)


def _by_prompts(groups: Sequence[Sequence[str]]) -> IndexPlan:
    """Look at every prompt, the newest first; what is compared so is in no index, which is meant."""
    rows = _prompts.join(jobs, jobs.c.number == _prompts.c.number)
    return IndexPlan(rows, _prompts.c.number, _contained(_prompts.c.folded, groups))


def _contained(text: sa.ColumnElement[str], groups: Sequence[Sequence[str]]) -> where.Conditions:
    return [sa.or_(*(where.Contains(text, sa.literal(word)) for word in group)) for group in groups]


def _are_rare(connection: sa.Connection, wanted: SearchFilter, limit: int, before: int | None) -> bool:
    """Return whether looking the words of a search up is faster than to look at one prompt after the other.

    If one prompt in n has them, n * limit prompts are looked at, one after the other; looked up are all that
    there are, PROMPTS / n. So both cost the same where 1 / n is the root of limit / PROMPTS. How many there
    are of the newest is counted: for a page about as many as it has, so that it ends there.
    """
    groups = where.groups(wanted)
    if not any(all(len(word) > 2 or is_piece(word) for word in group) for group in groups):
        return False
    near = [] if before is None else [_prompts.c.number <= before]
    newest = sa.select(_prompts).where(*near, *where.numbers(wanted, _prompts.c.number))
    newest = newest.order_by(_prompts.c.number.desc()).limit(SAMPLE)
    enough = isqrt(SAMPLE * SAMPLE * limit // PROMPTS)
    sample = newest.subquery()
    matching = sa.select(sample.c.number).where(*_contained(sample.c.folded, groups)).limit(enough).subquery()
    if (connection.scalar(sa.select(sa.func.count()).select_from(matching)) or 0) >= enough:
        return False
    there = newest.with_only_columns(_prompts.c.number).subquery()
    return (connection.scalar(sa.select(sa.func.count()).select_from(there)) or 0) == SAMPLE


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
