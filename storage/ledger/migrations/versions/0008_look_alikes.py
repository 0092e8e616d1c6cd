"""Fold prompts again, so that a search finds what looks the same, in their copies and in the word index."""

import sqlalchemy as sa
from alembic import op

from storage.ledger.schema import GRAMS
from storage.ledger.search_index import fold, pieces_of

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

ROWS = 500

_READ = sa.text(
    "SELECT number, prompt, prompt_folded FROM jobs WHERE number > :last ORDER BY number LIMIT :rows"
)
_JOB = sa.text("UPDATE jobs SET prompt_folded = :folded WHERE number = :number")
_WORDS = sa.text(f"UPDATE {GRAMS} SET folded = :folded WHERE number = :number")  # noqa: S608 - our name
_FORGET = sa.text(
    f"INSERT INTO {GRAMS} ({GRAMS}, rowid, pieces) VALUES ('delete', :number, :before)"  # noqa: S608 - our name
)
_PIECES = sa.text(f"INSERT INTO {GRAMS} (rowid, pieces) VALUES (:number, :pieces)")  # noqa: S608 - our name


def upgrade() -> None:
    connection, last = op.get_bind(), -1
    while rows := connection.execute(_READ, {"last": last, "rows": ROWS}).all():
        last = rows[-1].number
        changed = [
            {"number": number, "folded": folded, "before": before}
            for number, prompt, before in rows
            if (folded := fold(prompt)) != before
        ]
        if changed:
            _fold(connection, changed)


def _fold(connection: sa.Connection, changed: list[dict[str, object]]) -> None:
    connection.execute(_JOB, changed)
    if connection.dialect.name != "sqlite":
        connection.execute(_WORDS, changed)
        return
    # The index keeps no text: it is told what to forget.
    pieces = [
        {**one, "before": pieces_of(str(one["before"])), "pieces": pieces_of(str(one["folded"]))}
        for one in changed
    ]
    connection.execute(_FORGET, pieces)
    connection.execute(_PIECES, pieces)
