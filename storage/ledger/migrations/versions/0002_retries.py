"""Add what retries need: a log of attempts, numbered submissions and records, circuits."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Added one by one and not in a batch, which on SQLite would rewrite the whole table.
    for column in (
        sa.Column("error_details", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("attempt_log", sa.JSON(), nullable=False, server_default="[]"),
        sa.Column("request_id", sa.String(length=64), nullable=True),
        sa.Column("submission", sa.Integer(), nullable=False, server_default="1"),
        sa.Column("submission_at", sa.BigInteger(), nullable=True),
        sa.Column("ready_at", sa.BigInteger(), nullable=True),
        sa.Column("records", sa.Integer(), nullable=False, server_default="0"),
    ):
        op.add_column("jobs", column)
    op.execute("UPDATE jobs SET ready_at = updated_at WHERE status = 'ready'")
    op.execute("UPDATE jobs SET records = 1 WHERE status IN ('archived', 'partial')")
    op.drop_index("ix_jobs_next_attempt_at", table_name="jobs")
    for half, of_jobs in (
        ("queued", "status = 'queued'"),
        ("begun", "status <> 'queued' AND next_attempt_at IS NOT NULL"),
    ):
        where = sa.text(of_jobs)
        op.create_index(
            f"ix_jobs_{half}",
            "jobs",
            ["gateway", "next_attempt_at"],
            unique=False,
            sqlite_where=where,
            postgresql_where=where,
        )
    op.create_table(
        "circuits",
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("step", sa.String(length=16), nullable=False),
        sa.Column("code", sa.String(length=64), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("at_fault", sa.String(length=16), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("retry_at", sa.BigInteger(), nullable=True),
        sa.Column("probe_until", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("kind", "name", name=op.f("pk_circuits")),
    )
