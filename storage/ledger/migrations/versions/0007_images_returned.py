"""Add how many images a gateway returned, and the places in its list that have none."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("images_returned", sa.Integer(), nullable=True))
    op.add_column("jobs", sa.Column("withheld", sa.JSON(none_as_null=True), nullable=True))
