"""Give events 64-bit ids on PostgreSQL, as they have on SQLite."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    op.execute("ALTER TABLE events ALTER COLUMN id TYPE BIGINT")
    op.execute("ALTER SEQUENCE events_id_seq AS BIGINT")
