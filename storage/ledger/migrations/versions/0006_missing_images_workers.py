"""Add which archived images are missing from the bucket, and when each worker was last seen."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("outputs", sa.Column("missing_since", sa.BigInteger(), nullable=True))
    found = sa.text("missing_since IS NOT NULL")
    op.create_index(
        "ix_outputs_missing_since",
        "outputs",
        ["missing_since"],
        unique=False,
        sqlite_where=found,
        postgresql_where=found,
    )
    op.create_table(
        "workers",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workers")),
    )
