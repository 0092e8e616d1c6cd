"""Index words of one and two characters on PostgreSQL; SQLite has had them since 0003."""

from alembic import op

from storage.ledger.search_index import MAKE_SHORT_PIECES

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    for statement in MAKE_SHORT_PIECES:
        op.execute(statement)
