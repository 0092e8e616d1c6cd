"""Add the trigram index on PostgreSQL; SQLite has had FTS5 since 0003."""

from alembic import op

from storage.ledger.schema import GRAMS
from storage.ledger.search_index import MAKE_GRAMS_OF_POSTGRESQL

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    for statement in MAKE_GRAMS_OF_POSTGRESQL:
        op.execute(statement)
    op.execute(f"INSERT INTO {GRAMS} (number, folded) SELECT number, prompt_folded FROM jobs")  # noqa: S608
