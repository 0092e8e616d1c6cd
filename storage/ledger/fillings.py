"""Fill what a migration left, while the service works: row by row through old jobs, in short transactions.

A migration that changed every row would hold callbacks off for as long as it takes. It leaves a row in the
table `fillings` instead: what is to be done, and the number of the last job that it was done for. Until all
is done, a search may miss old jobs in the new way. Several processes may fill, and each may be killed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from storage.ledger.database import Database
from storage.ledger.schema import GRAMS, fillings, jobs, terms
from storage.ledger.search_index import fold, pieces_of, term

ROWS = 200
"""How many jobs are filled in one transaction."""

LOOK_ALIKES = "look_alikes"
"""Prompts are folded again, so that a search finds what looks the same: since migration 0008."""
MODELS = "models_in_any_case"
"""Models are indexed in lower case: since migration 0009."""

Rows = Sequence[Any]

_NEXT = sa.select(jobs.c.number, jobs.c.prompt, jobs.c.prompt_folded, jobs.c.model, jobs.c.result_model)
_JOB = sa.text("UPDATE jobs SET prompt_folded = :folded WHERE number = :number")
_WORDS = sa.text(f"UPDATE {GRAMS} SET folded = :folded WHERE number = :number")  # noqa: S608 - our name
_FORGET = sa.text(
    f"INSERT INTO {GRAMS} ({GRAMS}, rowid, pieces) VALUES ('delete', :number, :before)"  # noqa: S608 - our name
)
_PIECES = sa.text(f"INSERT INTO {GRAMS} (rowid, pieces) VALUES (:number, :pieces)")  # noqa: S608 - our name
_ADD_TERM = sa.text("INSERT INTO terms (term, number) VALUES (:term, :number) ON CONFLICT DO NOTHING")
_DROP_TERM = sa.delete(terms).where(
    terms.c.term == sa.bindparam("before"), terms.c.number == sa.bindparam("the_number")
)


class Fillings:
    """What migrations left to be filled. Thread-safe."""

    def __init__(self, database: Database, *, rows: int = ROWS) -> None:
        """`rows`: how many jobs are filled in one transaction."""
        self._database = database
        self._rows = rows
        self._done = False

    def fill(self) -> int:
        """Fill the next jobs; returns how many rows that were, and 0 once nothing is left."""
        if self._done:
            return 0
        with self._database.read() as connection:
            # A ledger that was at that version before the table was thought of has been filled.
            known = sa.inspect(connection).has_table(fillings.name)
            left = known and connection.execute(_TO_DO).first() is not None
        if not left:
            self._done = True
            return 0
        with self._database.write() as connection:
            return _fill_next(connection, self._rows)


def leave(connection: sa.Connection, name: str) -> None:
    """Note what is to be filled; for a migration. With a ledger that has no jobs, nothing is."""
    # A ledger that was at 0008 before the table was thought of lacks it.
    fillings.create(connection, checkfirst=True)
    if connection.scalar(sa.select(jobs.c.number).limit(1)) is not None:
        connection.execute(sa.insert(fillings).values(name=name, last=-1))


def _fill_next(connection: sa.Connection, most: int) -> int:
    """Fill the next jobs, under a lock, so that of several processes each does another piece."""
    to_do = connection.execute(_TO_DO.with_for_update()).first()
    if to_do is None:
        return 1
    this = fillings.c.name == to_do.name
    following = _NEXT.where(jobs.c.number > to_do.last).order_by(jobs.c.number).limit(most)
    rows = connection.execute(following).all()
    if not rows:
        connection.execute(sa.delete(fillings).where(this))
        return 1
    _FILL[to_do.name](connection, rows)
    connection.execute(sa.update(fillings).where(this).values(last=rows[-1].number))
    return len(rows)


def _fold_again(connection: sa.Connection, rows: Rows) -> None:
    folded = ((row, fold(row.prompt)) for row in rows)
    changed = [
        {"number": row.number, "folded": new, "before": row.prompt_folded}
        for row, new in folded
        if new != row.prompt_folded
    ]
    if not changed:
        return
    connection.execute(_JOB, changed)
    if connection.dialect.name != "sqlite":
        connection.execute(_WORDS, changed)
        return
    # The index keeps no text: it is told what to forget.
    connection.execute(
        _FORGET, [{"number": one["number"], "before": pieces_of(one["before"])} for one in changed]
    )
    connection.execute(
        _PIECES, [{"number": one["number"], "pieces": pieces_of(one["folded"])} for one in changed]
    )


def _lower_models(connection: sa.Connection, rows: Rows) -> None:
    named = {(row.number, model) for row in rows for model in (row.model, row.result_model) if model}
    other = [(number, model) for number, model in sorted(named) if term("model", model) != f"model:{model}"]
    if not other:
        return
    connection.execute(
        _ADD_TERM, [{"number": number, "term": term("model", model)} for number, model in other]
    )
    connection.execute(
        _DROP_TERM, [{"the_number": number, "before": f"model:{model}"} for number, model in other]
    )


_FILL: Mapping[str, Callable[[sa.Connection, Rows], None]] = {
    LOOK_ALIKES: _fold_again,
    MODELS: _lower_models,
}
_TO_DO = sa.select(fillings).where(fillings.c.name.in_(_FILL)).order_by(fillings.c.name).limit(1)
