"""Define the ledger's tables and indexes. Times are milliseconds since 1970 UTC; digests are hex."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    literal,
    text,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

FAULTY = text("error_code IS NOT NULL")

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(36), primary_key=True),
    # The key of keyset paging: see storage/ledger/job_numbers.py.
    Column("number", BigInteger, nullable=False, server_default="0"),
    Column("gateway", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("idempotency_key", String(255), unique=True),
    Column("request_sha256", String(64), nullable=False),
    Column("model", Text, nullable=False),
    Column("prompt", Text, nullable=False),
    # As `storage.text` folds it, because databases fold ASCII only, or each in its own way.
    Column("prompt_folded", Text, nullable=False),
    Column("negative_prompt", Text),
    Column("aspect_ratio", Text),
    Column("num_images", Integer),
    Column("seed", Text),
    Column("params", JSON, nullable=False),
    Column("tags", JSON, nullable=False),
    Column("ignored", JSON, nullable=False),
    Column("notify_url", Text),
    Column("gateway_job_id", String(255)),
    Column("gateway_request_id", String(255)),
    Column("callback_expected", Boolean, nullable=False),
    Column("sent", JSON(none_as_null=True)),
    Column("result_model", Text),
    Column("result_seed", Text),
    Column("credits", Float),
    Column("credits_estimated", Boolean, nullable=False),
    # What earlier submissions were charged, as far as known, and how much of it is from price lists.
    Column("credits_before", Float, nullable=False, server_default="0"),
    Column("credits_before_estimated", Float, nullable=False, server_default="0"),
    Column("images", JSON, nullable=False),
    Column("reply", JSON(none_as_null=True)),
    Column("found_by", String(16)),
    Column("error_code", String(64)),
    Column("error_message", Text),
    Column("error_at_fault", String(16)),
    Column("error_details", JSON(none_as_null=True)),
    Column("attempts", Integer, nullable=False),
    # NULL once the job is terminal, which keeps finished jobs out of the index that claims use.
    Column("next_attempt_at", BigInteger),
    Column("leased_by", String(64)),
    Column("leased_until", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("moves", JSON, nullable=False),
    Column("attempt_log", JSON, nullable=False, server_default="[]"),
    Column("request_id", String(64)),
    Column("submission", Integer, nullable=False, server_default="1"),
    Column("submission_at", BigInteger),
    Column("ready_at", BigInteger),
    Column("records", Integer, nullable=False, server_default="0"),
    UniqueConstraint("gateway", "gateway_job_id"),
    Index("ix_jobs_gateway_status", "gateway", "status", "found_by"),
    Index("ix_jobs_status_number", "status", "number"),
    Index("ix_jobs_error_number", "error_code", "number", sqlite_where=FAULTY, postgresql_where=FAULTY),
    Index("ix_jobs_number", "number", unique=True),
)

QUEUED = jobs.c.status == literal("queued", literal_execute=True)
BEGUN = (jobs.c.status != literal("queued", literal_execute=True)) & jobs.c.next_attempt_at.is_not(None)
"""The unfinished jobs in two halves: to be sent, and sent.

Claims read one gateway and one half at a time, so that no backlog delays other jobs, and finished jobs cost
nothing. The words are literals in the statements, or SQLite would not use the partial index.
"""

UNFINISHED = (QUEUED, BEGUN)
"""Both halves; queried one after the other, since each has its own index."""

for _half, _jobs in (
    ("queued", "status = 'queued'"),
    ("begun", "status <> 'queued' AND next_attempt_at IS NOT NULL"),
):
    Index(
        f"ix_jobs_{_half}",
        jobs.c.gateway,
        jobs.c.next_attempt_at,
        sqlite_where=text(_jobs),
        postgresql_where=text(_jobs),
    )

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("job_id", String(36), ForeignKey("jobs.id"), nullable=False),
    Column("gateway", String(64), nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("headers", JSON, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("body_sha256", String(64), nullable=False),
    Column("signature", String(16), nullable=False),
    Column("applied_at", BigInteger),
    Column("effect", String(16)),
    # Idempotency: the same body for the same job is the same callback, however often it is sent.
    UniqueConstraint("job_id", "body_sha256"),
)

outputs = Table(
    "outputs",
    metadata,
    Column("job_id", String(36), ForeignKey("jobs.id"), primary_key=True),
    Column("index", Integer, primary_key=True, autoincrement=False),
    Column("key", Text, nullable=False, unique=True),
    Column("sha256", String(64), nullable=False, index=True),
    Column("bytes", BigInteger, nullable=False),
    Column("media_type", String(32), nullable=False),
    Column("declared_type", Text),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("seed", Text),
    Column("source_url", Text),
    Column("downloaded_at", BigInteger),
    Column("stored_at", BigInteger, nullable=False),
    Column("version_id", Text),
)

accepted = Table(
    # Counted apart from the jobs themselves, so that a job lost or doubled shows.
    "accepted",
    metadata,
    Column("gateway", String(64), primary_key=True),
    Column("jobs", BigInteger, nullable=False),
)

circuits = Table(
    # Circuit breakers of what failed lately: a row is deleted at the first success.
    "circuits",
    metadata,
    Column("kind", String(16), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("step", String(16), nullable=False),
    Column("code", String(64), nullable=False),
    Column("message", Text, nullable=False),
    Column("at_fault", String(16), nullable=False),
    Column("failures", Integer, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("retry_at", BigInteger),
    Column("probe_until", BigInteger),
)

terms = Table(
    # The search index beside prompts: `model:imagen4`, `seed:7`, `tag:campaign=menu`.
    "terms",
    metadata,
    Column("term", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

tallies = Table(
    # How many outputs there are of each gateway, model, day and tag, counted as they are added.
    "tallies",
    metadata,
    Column("facet", String(16), primary_key=True),
    Column("value", Text, primary_key=True),
    Column("outputs", BigInteger, nullable=False),
    Index("ix_tallies_facet_outputs", "facet", "outputs"),
)

GRAMS = "grams"
"""The word index of prompts, FTS5 or trigrams: see storage/ledger/search_index.py."""

events = Table(
    # Moves and outputs of the last day, in the order in which they were written.
    "events",
    metadata,
    # SQLite numbers rows by itself only where this is an INTEGER, which is as large there.
    Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("job_id", String(36), nullable=False),
    Column("gateway", String(64), nullable=False),
    # Of a move, the new status; of an output, its index.
    Column("status", String(16)),
    Column("output", Integer),
    Column("error_code", String(64)),
    Index("ix_events_at", "at"),
    sqlite_autoincrement=True,
)

notifications = Table(
    # The outbox: one for each time that a job became terminal, in that order.
    "notifications",
    metadata,
    Column("job_id", String(36), ForeignKey("jobs.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("url", Text, nullable=False),
    # Host and port of the URL: a slow host must not delay the others.
    Column("host", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("at", BigInteger, nullable=False),
    # The columns of the job that a retry changes, as they were, and the indexes of its outputs.
    Column("job", JSON, nullable=False),
    Column("outputs", JSON, nullable=False),
    Column("attempts", Integer, nullable=False),
    # NULL once it was delivered, or has failed for good.
    Column("next_attempt_at", BigInteger),
    Column("leased_by", String(64)),
    Column("leased_until", BigInteger),
    Column("updated_at", BigInteger, nullable=False),
    Column("tried_at", BigInteger),
    Column("delivered_at", BigInteger),
    Column("code", String(64)),
    Column("message", Text),
)
for _name, _columns, _which in (
    ("due", ("next_attempt_at", "host"), "next_attempt_at IS NOT NULL"),
    ("given_up", ("job_id", "number"), "next_attempt_at IS NULL AND delivered_at IS NULL"),
):
    Index(
        f"ix_notifications_{_name}",
        *(notifications.c[_column] for _column in _columns),
        sqlite_where=text(_which),
        postgresql_where=text(_which),
    )
