"""Define the ledger's tables and indexes. Times are milliseconds since 1970 UTC; digests are hex.

The migrations make them. The conditions of indexes are the same on PostgreSQL and not repeated for it: that
would load its dialects of SQLAlchemy, which a process on SQLite has no use for.
"""

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

FAULTY = sa.text("error_code IS NOT NULL")
MISSING = sa.text("missing_since IS NOT NULL")
READY = sa.text("status = 'ready'")
PENDING = sa.text("applied_at IS NULL")

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    # The key of keyset paging: see storage/ledger/job_numbers.py.
    sa.Column("number", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("gateway", sa.String(64), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("idempotency_key", sa.String(255), unique=True),
    sa.Column("request_sha256", sa.String(64), nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("prompt", sa.Text, nullable=False),
    # As `search_index` folds it, because databases fold ASCII only, or each in its own way.
    sa.Column("prompt_folded", sa.Text, nullable=False),
    sa.Column("negative_prompt", sa.Text),
    sa.Column("aspect_ratio", sa.Text),
    sa.Column("num_images", sa.Integer),
    sa.Column("seed", sa.Text),
    sa.Column("params", sa.JSON, nullable=False),
    sa.Column("tags", sa.JSON, nullable=False),
    sa.Column("ignored", sa.JSON, nullable=False),
    sa.Column("notify_url", sa.Text),
    sa.Column("gateway_job_id", sa.String(255)),
    sa.Column("gateway_request_id", sa.String(255)),
    sa.Column("poll_url", sa.Text),
    sa.Column("callback_expected", sa.Boolean, nullable=False),
    sa.Column("sent", sa.JSON(none_as_null=True)),
    sa.Column("result_model", sa.Text),
    sa.Column("result_seed", sa.Text),
    # Our own input sent back, which proves no seed.
    sa.Column("echoed_seed", sa.Text),
    sa.Column("credits", sa.Float),
    sa.Column("credits_estimated", sa.Boolean, nullable=False),
    # What earlier submissions were charged, as far as known, and how much of it is from price lists.
    sa.Column("credits_before", sa.Float, nullable=False, server_default="0"),
    sa.Column("credits_before_estimated", sa.Float, nullable=False, server_default="0"),
    sa.Column("images", sa.JSON, nullable=False),
    sa.Column("images_returned", sa.Integer),
    sa.Column("withheld", sa.JSON(none_as_null=True)),
    sa.Column("reply", sa.JSON(none_as_null=True)),
    sa.Column("found_by", sa.String(16)),
    sa.Column("error_code", sa.String(64)),
    sa.Column("error_message", sa.Text),
    sa.Column("error_at_fault", sa.String(16)),
    sa.Column("error_details", sa.JSON(none_as_null=True)),
    sa.Column("attempts", sa.Integer, nullable=False),
    # NULL once the job is terminal, which keeps finished jobs out of the index that claims use.
    sa.Column("next_attempt_at", sa.BigInteger),
    sa.Column("leased_by", sa.String(64)),
    sa.Column("leased_until", sa.BigInteger),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    sa.Column("moves", sa.JSON, nullable=False),
    sa.Column("attempt_log", sa.JSON, nullable=False, server_default="[]"),
    sa.Column("request_id", sa.String(64)),
    sa.Column("submission", sa.Integer, nullable=False, server_default="1"),
    sa.Column("submission_at", sa.BigInteger),
    sa.Column("ready_at", sa.BigInteger),
    # When its gateway was told to cancel it. Workers never write it, so that none of them can lose it.
    sa.Column("called_off_at", sa.BigInteger),
    sa.Column("records", sa.Integer, nullable=False, server_default="0"),
    sa.UniqueConstraint("gateway", "gateway_job_id"),
    sa.Index("ix_jobs_gateway_status_number", "gateway", "status", "number"),
    # The results that wait to be archived, the oldest first.
    sa.Index("ix_jobs_ready", "ready_at", sqlite_where=READY),
    sa.Index("ix_jobs_status_number", "status", "number"),
    sa.Index("ix_jobs_error_number", "error_code", "number", sqlite_where=FAULTY),
    sa.Index("ix_jobs_number", "number", unique=True),
)

QUEUED = jobs.c.status == sa.literal_column("'queued'")
BEGUN = (jobs.c.status != sa.literal_column("'queued'")) & jobs.c.next_attempt_at.is_not(None)
"""The unfinished jobs in two halves: to be sent, and sent.

Claims read one gateway and one half at a time, so that no backlog delays other jobs, and finished jobs cost
nothing. The words are literals in the statements, or SQLite would not use the partial index.
"""

UNFINISHED = (QUEUED, BEGUN)
"""Both halves; queried one after the other, since each has its own index."""


def still_in(status: str | sa.BindParameter[str]) -> sa.ColumnElement[bool]:
    """Return the condition that a job, which is named by its id, is in a status.

    Joined to nothing, or PostgreSQL would look for the one job in an index of all that are in the status:
    that seems cheaper to it as long as its statistics know of none there, and reads every one.
    """
    return jobs.c.status.concat("") == status


for _half, _jobs in (
    ("queued", "status = 'queued'"),
    ("begun", "status <> 'queued' AND next_attempt_at IS NOT NULL"),
):
    sa.Index(
        f"ix_jobs_{_half}",
        jobs.c.gateway,
        jobs.c.next_attempt_at,
        sqlite_where=sa.text(_jobs),
    )

deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("job_id", sa.String(36), sa.ForeignKey("jobs.id"), nullable=False),
    sa.Column("gateway", sa.String(64), nullable=False),
    sa.Column("received_at", sa.BigInteger, nullable=False),
    sa.Column("headers", sa.JSON, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("body_sha256", sa.String(64), nullable=False),
    sa.Column("signature", sa.String(16), nullable=False),
    sa.Column("applied_at", sa.BigInteger),
    sa.Column("effect", sa.String(16)),
    # Idempotency: the same body for the same job is the same callback, however often it is sent.
    sa.UniqueConstraint("job_id", "body_sha256"),
    sa.Index("ix_deliveries_pending", "job_id", sqlite_where=PENDING),
)

outputs = sa.Table(
    "outputs",
    metadata,
    sa.Column("job_id", sa.String(36), sa.ForeignKey("jobs.id"), primary_key=True),
    sa.Column("index", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("key", sa.Text, nullable=False, unique=True),
    sa.Column("sha256", sa.String(64), nullable=False, index=True),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("media_type", sa.String(32), nullable=False),
    sa.Column("declared_type", sa.Text),
    sa.Column("width", sa.Integer, nullable=False),
    sa.Column("height", sa.Integer, nullable=False),
    sa.Column("seed", sa.Text),
    sa.Column("source_url", sa.Text),
    sa.Column("downloaded_at", sa.BigInteger),
    sa.Column("stored_at", sa.BigInteger, nullable=False),
    sa.Column("version_id", sa.Text),
    # Since when it is known that the bucket has it no more, or has another length; NULL while it is there.
    sa.Column("missing_since", sa.BigInteger),
    sa.Index("ix_outputs_missing_since", "missing_since", sqlite_where=MISSING),
)

accepted = sa.Table(
    # Counted apart from the jobs themselves, so that a job lost or doubled shows.
    "accepted",
    metadata,
    sa.Column("gateway", sa.String(64), primary_key=True),
    sa.Column("jobs", sa.BigInteger, nullable=False),
)

job_counts = sa.Table(
    # How many jobs there are of each kind, kept by triggers: see storage/ledger/job_counts.py. An empty text
    # stands for no value. A slot's number may be below zero: a job came in one slot and went in another.
    "job_counts",
    metadata,
    sa.Column("gateway", sa.String(64), primary_key=True),
    sa.Column("status", sa.String(16), primary_key=True),
    sa.Column("found_by", sa.String(16), primary_key=True),
    sa.Column("error_code", sa.String(64), primary_key=True),
    sa.Column("slot", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("jobs", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

circuits = sa.Table(
    # Circuit breakers of what failed lately: a row is deleted at the first success.
    "circuits",
    metadata,
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("step", sa.String(16), nullable=False),
    sa.Column("code", sa.String(64), nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("at_fault", sa.String(16), nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("since", sa.BigInteger, nullable=False),
    sa.Column("retry_at", sa.BigInteger),
    sa.Column("probe_until", sa.BigInteger),
)

workers = sa.Table(
    # When each worker was last seen, which it writes as it renews its leases: see storage/ledger/leases.py.
    "workers",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("seen_at", sa.BigInteger, nullable=False),
)

fillings = sa.Table(
    # What a migration left to be filled, and up to which job it was: see storage/ledger/fillings.py.
    "fillings",
    metadata,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("last", sa.BigInteger, nullable=False),
)

terms = sa.Table(
    # The search index beside prompts: `model:imagen4`, `seed:7`, `tag:campaign=menu`.
    "terms",
    metadata,
    sa.Column("term", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

tallies = sa.Table(
    # How many outputs there are of each gateway, model, day and tag, counted as they are added.
    "tallies",
    metadata,
    sa.Column("facet", sa.String(16), primary_key=True),
    sa.Column("value", sa.Text, primary_key=True),
    sa.Column("outputs", sa.BigInteger, nullable=False),
    sa.Index("ix_tallies_facet_outputs", "facet", "outputs"),
)

GRAMS = "grams"
"""The word index of prompts, FTS5 or trigrams: see storage/ledger/search_index.py."""

events = sa.Table(
    # Moves and outputs of the last day, in the order in which they were written.
    "events",
    metadata,
    # SQLite numbers rows by itself only where this is an INTEGER, which is as large there.
    sa.Column(
        "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True
    ),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("job_id", sa.String(36), nullable=False),
    sa.Column("gateway", sa.String(64), nullable=False),
    # Of a move, the new status; of an output, its index.
    sa.Column("status", sa.String(16)),
    sa.Column("output", sa.Integer),
    sa.Column("error_code", sa.String(64)),
    sa.Index("ix_events_at", "at"),
    sqlite_autoincrement=True,
)

notifications = sa.Table(
    # The outbox: one for each time that a job became terminal, in that order.
    "notifications",
    metadata,
    sa.Column("job_id", sa.String(36), sa.ForeignKey("jobs.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("url", sa.Text, nullable=False),
    # Host and port of the URL: a slow host must not delay the others.
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    # The columns of the job that a retry changes, as they were, and the indexes of its outputs.
    sa.Column("job", sa.JSON, nullable=False),
    sa.Column("outputs", sa.JSON, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    # NULL once it was delivered, or has failed for good.
    sa.Column("next_attempt_at", sa.BigInteger),
    sa.Column("leased_by", sa.String(64)),
    sa.Column("leased_until", sa.BigInteger),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    sa.Column("tried_at", sa.BigInteger),
    sa.Column("delivered_at", sa.BigInteger),
    sa.Column("code", sa.String(64)),
    sa.Column("message", sa.Text),
)
for _name, _columns, _which in (
    ("due", ("next_attempt_at", "host"), "next_attempt_at IS NOT NULL"),
    ("given_up", ("job_id", "number"), "next_attempt_at IS NULL AND delivered_at IS NULL"),
):
    sa.Index(
        f"ix_notifications_{_name}",
        *(notifications.c[_column] for _column in _columns),
        sqlite_where=sa.text(_which),
    )
