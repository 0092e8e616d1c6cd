"""Keep where a gateway wants a job to be polled, a seed that it only echoed, and when it was called off."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("poll_url", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("echoed_seed", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("called_off_at", sa.BigInteger(), nullable=True))
