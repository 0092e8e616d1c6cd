"""Keep counts of jobs beside them, and add the indexes from which the status is read at any size."""

import sqlalchemy as sa
from alembic import op

from storage.ledger.job_counts import keep_counts

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "job_counts",
        sa.Column("gateway", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("found_by", sa.String(length=16), nullable=False),
        sa.Column("error_code", sa.String(length=64), nullable=False),
        sa.Column("slot", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("jobs", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "gateway", "status", "found_by", "error_code", "slot", name=op.f("pk_job_counts")
        ),
        sqlite_with_rowid=False,
        postgresql_with={"fillfactor": 50},
    )
    op.drop_index("ix_jobs_gateway_status", table_name="jobs")
    op.create_index("ix_jobs_gateway_status_number", "jobs", ["gateway", "status", "number"], unique=False)
    _part("ix_jobs_ready", "jobs", "ready_at", "status = 'ready'")
    _part("ix_deliveries_pending", "deliveries", "job_id", "applied_at IS NULL")
    keep_counts(op.get_bind())


def _part(name: str, table: str, column: str, which: str) -> None:
    where = sa.text(which)
    op.create_index(name, table, [column], unique=False, sqlite_where=where, postgresql_where=where)
