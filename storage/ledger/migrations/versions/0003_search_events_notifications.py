"""Add the search index (numbers, terms, tallies, FTS5), events, notifications and earlier costs."""

from collections import Counter

import sqlalchemy as sa
from alembic import op

from storage.ledger.job_numbers import first_number
from storage.ledger.schema import jobs, outputs
from storage.ledger.search_index import (
    MAKE_GRAMS,
    count_outputs,
    facets_of,
    fold,
    index_job,
    index_output,
    index_result,
    pieces_of,
)
from storage.models import Output

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("number", sa.BigInteger(), nullable=False, server_default="0"))
    for credits_before in ("credits_before", "credits_before_estimated"):
        op.add_column("jobs", sa.Column(credits_before, sa.Float(), nullable=False, server_default="0"))
    _tables()
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        op.execute(MAKE_GRAMS)
    _number_and_fold(connection)
    op.create_index("ix_jobs_number", "jobs", ["number"], unique=True)
    op.create_index("ix_jobs_status_number", "jobs", ["status", "number"], unique=False)
    faulty = sa.text("error_code IS NOT NULL")
    op.create_index(
        "ix_jobs_error_number",
        "jobs",
        ["error_code", "number"],
        unique=False,
        sqlite_where=faulty,
        postgresql_where=faulty,
    )
    op.drop_index("ix_outputs_seed", table_name="outputs")
    _index(connection)


def _tables() -> None:
    op.create_table(
        "terms",
        sa.Column("term", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("term", "number", name=op.f("pk_terms")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "tallies",
        sa.Column("facet", sa.String(length=16), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("outputs", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("facet", "value", name=op.f("pk_tallies")),
    )
    op.create_index("ix_tallies_facet_outputs", "tallies", ["facet", "outputs"], unique=False)
    op.create_table(
        "events",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("gateway", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=True),
        sa.Column("output", sa.Integer(), nullable=True),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_at", "events", ["at"], unique=False)
    _notifications()


def _notifications() -> None:
    op.create_table(
        "notifications",
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("job", sa.JSON(), nullable=False),
        sa.Column("outputs", sa.JSON(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.BigInteger(), nullable=True),
        sa.Column("leased_by", sa.String(length=64), nullable=True),
        sa.Column("leased_until", sa.BigInteger(), nullable=True),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("tried_at", sa.BigInteger(), nullable=True),
        sa.Column("delivered_at", sa.BigInteger(), nullable=True),
        sa.Column("code", sa.String(length=64), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_notifications_job_id")),
        sa.PrimaryKeyConstraint("job_id", "number", name=op.f("pk_notifications")),
    )
    for name, columns, which in (
        ("due", ["next_attempt_at", "host"], "next_attempt_at IS NOT NULL"),
        ("given_up", ["job_id", "number"], "next_attempt_at IS NULL AND delivered_at IS NULL"),
    ):
        op.create_index(
            f"ix_notifications_{name}",
            "notifications",
            columns,
            unique=False,
            sqlite_where=sa.text(which),
            postgresql_where=sa.text(which),
        )


def _number_and_fold(connection: sa.Connection) -> None:
    found = sa.select(jobs.c.id, jobs.c.created_at, jobs.c.prompt).order_by(jobs.c.created_at, jobs.c.id)
    ties: Counter[int] = Counter()
    change = sa.update(jobs).where(jobs.c.id == sa.bindparam("job"))
    for rows in connection.execute(found).partitions(500):
        changed = []
        for job_id, created_at, prompt in rows:
            number = first_number(created_at) + ties[created_at]
            ties[created_at] += 1
            changed.append({"job": job_id, "number": number, "prompt_folded": fold(prompt)})
        connection.execute(change, changed)


def _index(connection: sa.Connection) -> None:
    # Without what later migrations add.
    columns = [column for column in outputs.c if column.name != "missing_since"]
    names = "id number gateway model seed tags prompt_folded result_model result_seed"
    indexed = sa.select(*(jobs.c[name] for name in names.split()))
    last = -1
    while True:
        next_ones = indexed.where(jobs.c.number > last).order_by(jobs.c.number).limit(500)
        rows = connection.execute(next_ones).mappings().all()
        if not rows:
            return
        last = rows[-1]["number"]
        for job in rows:
            index_job(connection, job, pieces_of(job["prompt_folded"]))
            index_result(connection, job)
            for output in connection.execute(
                sa.select(*columns).where(outputs.c.job_id == job["id"])
            ).mappings():
                index_output(connection, job, Output(**output))
                count_outputs(connection, Counter(facets_of(job)))
