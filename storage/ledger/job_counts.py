"""Count jobs: how many were accepted, and how many are in each status.

The counts by status are kept beside the jobs: triggers of the database change them in the transaction that
changes a job, so no way to write one can forget them, not even that of an older version during an upgrade.
Reading them costs the same however many jobs there are.

On PostgreSQL, where transactions run at the same time, each counts in rows of its own (`slot`), and all slots
are added up on reading: no transaction waits for another one's counts, so none can deadlock over them.
"""

# ruff: noqa: S608 - the statements are put together of parts of our own

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import BigInteger, Connection, cast, func, select, text

from storage.ledger.schema import accepted, job_counts, jobs
from storage.models import FoundBy, JobCounts, Status

SLOTS = 16
"""In how many slots transactions count at the same time; a further one counts in a slot of its connection."""

SLOT_LOCK = 0x6A6F6273
"""The advisory locks, one for each slot, of transactions that count on PostgreSQL."""

_COUNT = text(
    "INSERT INTO accepted (gateway, jobs) VALUES (:gateway, :more) "
    "ON CONFLICT (gateway) DO UPDATE SET jobs = accepted.jobs + :more"
)

_KEY = "gateway, status, found_by, error_code, slot"


def _add(row: str, number: str, slot: str) -> str:
    """Return values to insert: how many more jobs there are like `row`."""
    return (
        f"({row}.gateway, {row}.status, coalesce({row}.found_by, ''), coalesce({row}.error_code, ''), "
        f"{slot}, {number})"
    )


_INTO = f"INSERT INTO job_counts ({_KEY}, jobs)"
_ADD_UP = f"ON CONFLICT ({_KEY}) DO UPDATE SET jobs = job_counts.jobs + excluded.jobs"
_OTHER = (
    "(OLD.gateway, OLD.status, OLD.found_by, OLD.error_code) {differ} "
    "(NEW.gateway, NEW.status, NEW.found_by, NEW.error_code)"
)

_ON_SQLITE = (
    f"CREATE TRIGGER count_new_job AFTER INSERT ON jobs BEGIN {_INTO} VALUES {_add('NEW', '1', '0')} "
    f"{_ADD_UP}; END",
    f"CREATE TRIGGER count_deleted_job AFTER DELETE ON jobs BEGIN {_INTO} VALUES {_add('OLD', '-1', '0')} "
    f"{_ADD_UP}; END",
    "CREATE TRIGGER count_moved_job AFTER UPDATE OF gateway, status, found_by, error_code ON jobs "
    f"WHEN {_OTHER.format(differ='IS NOT')} "
    f"BEGIN {_INTO} VALUES {_add('OLD', '-1', '0')}, {_add('NEW', '1', '0')} {_ADD_UP}; END",
)

_ON_POSTGRESQL = (
    # A slot that no other transaction has now. Each tries locks and waits for none. The setting lasts as long
    # as the lock: to the end of the transaction, or of the savepoint that is rolled back.
    f"""CREATE OR REPLACE FUNCTION job_counts_slot() RETURNS integer LANGUAGE plpgsql AS $$
    DECLARE mine integer := nullif(current_setting('darkroom.slot', true), '')::integer;
    BEGIN
        IF mine IS NOT NULL THEN
            RETURN mine;
        END IF;
        FOR n IN 0..{SLOTS - 1} LOOP
            mine := mod(pg_backend_pid() + n, {SLOTS});
            EXIT WHEN pg_try_advisory_xact_lock({SLOT_LOCK}, mine);
            mine := {SLOTS} + pg_backend_pid();
        END LOOP;
        PERFORM set_config('darkroom.slot', mine::text, true);
        RETURN mine;
    END $$""",
    f"""CREATE OR REPLACE FUNCTION count_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        {_INTO}
        SELECT gateway, status, coalesce(found_by, ''), coalesce(error_code, ''), job_counts_slot(),
            CASE TG_OP WHEN 'DELETE' THEN -count(*) ELSE count(*) END
        FROM changed GROUP BY 1, 2, 3, 4
        {_ADD_UP};
        RETURN NULL;
    END $$""",
    f"""CREATE OR REPLACE FUNCTION count_moved_job() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE mine integer := job_counts_slot();
    BEGIN
        {_INTO} VALUES {_add("OLD", "-1", "mine")}, {_add("NEW", "1", "mine")} {_ADD_UP};
        RETURN NULL;
    END $$""",
    "CREATE TRIGGER count_new_jobs AFTER INSERT ON jobs REFERENCING NEW TABLE AS changed "
    "FOR EACH STATEMENT EXECUTE FUNCTION count_jobs()",
    "CREATE TRIGGER count_deleted_jobs AFTER DELETE ON jobs REFERENCING OLD TABLE AS changed "
    "FOR EACH STATEMENT EXECUTE FUNCTION count_jobs()",
    "CREATE TRIGGER count_moved_job AFTER UPDATE OF gateway, status, found_by, error_code ON jobs "
    f"FOR EACH ROW WHEN ({_OTHER.format(differ='IS DISTINCT FROM')}) EXECUTE FUNCTION count_moved_job()",
)

_RECOUNT = text(
    f"{_INTO} SELECT gateway, status, coalesce(found_by, ''), coalesce(error_code, ''), 0, count(*) "
    "FROM jobs GROUP BY 1, 2, 3, 4"
)


def keep_counts(connection: Connection) -> None:
    """Create the triggers, and count the jobs that are there already; for a migration."""
    sqlite = connection.dialect.name == "sqlite"
    for statement in _ON_SQLITE if sqlite else _ON_POSTGRESQL:
        connection.exec_driver_sql(statement)
    # The triggers are locked in before, so that nobody writes between the count and them.
    connection.execute(_RECOUNT)


_OPEN = [status for status in Status if not status.terminal]
_SUM = cast(func.sum(job_counts.c.jobs), BigInteger)
_KIND = (job_counts.c.gateway, job_counts.c.status, job_counts.c.found_by)
_KEPT = select(*_KIND, _SUM).group_by(*_KIND)
_REAL = select(
    jobs.c.gateway, jobs.c.status, func.coalesce(jobs.c.found_by, ""), func.coalesce(jobs.c.error_code, ""),
    func.count(),
).group_by(jobs.c.gateway, jobs.c.status, jobs.c.found_by, jobs.c.error_code)  # fmt: skip
_ALL_KEPT = select(*_KIND, job_counts.c.error_code, _SUM).group_by(*_KIND, job_counts.c.error_code)

_used = (
    select(job_counts.c.gateway, job_counts.c.status)
    .where(job_counts.c.status.in_(_OPEN))
    .distinct()
    .subquery()
)
_first = select(jobs.c.created_at).where(jobs.c.gateway == _used.c.gateway, jobs.c.status == _used.c.status)
_oldest = select(
    _used.c.gateway, _first.order_by(jobs.c.number).limit(1).scalar_subquery().label("at")
).subquery()
_OLDEST = select(_oldest.c.gateway, func.min(_oldest.c.at)).group_by(_oldest.c.gateway)
"""Selects when each gateway's oldest unfinished job was accepted: one look into an index for each status."""


def count_accepted(connection: Connection, gateway: str, more: int = 1) -> None:
    """Count more accepted jobs, in a table of their own: so a lost or doubled job shows."""
    connection.execute(_COUNT, {"gateway": gateway, "more": more})


def count_jobs(connection: Connection) -> dict[str, JobCounts]:
    """Return the counts of jobs by status, for each gateway ever used."""
    all_accepted = connection.execute(select(accepted.c.gateway, accepted.c.jobs)).all()
    rows = connection.execute(_KEPT).all()
    ages = {row[0]: row[1] for row in connection.execute(_OLDEST)}
    return {gateway: _of_gateway(gateway, number, rows, ages) for gateway, number in all_accepted}


def wrong_counts(connection: Connection) -> dict[tuple[str, ...], tuple[int, int]]:
    """Count every job, and return where that differs: the kept and the real count of each kind.

    A kind is gateway, status, how the result was found, and error code. Takes as long as there are jobs.
    """
    kept = {tuple(kind): count for *kind, count in connection.execute(_ALL_KEPT) if count}
    real = {tuple(kind): count for *kind, count in connection.execute(_REAL)}
    return {
        kind: (kept.get(kind, 0), real.get(kind, 0))
        for kind in kept.keys() | real.keys()
        if kept.get(kind) != real.get(kind)
    }


def total(each: Sequence[JobCounts]) -> JobCounts:
    """Add up the counts of several gateways."""
    ages = [one.oldest_unfinished_at for one in each if one.oldest_unfinished_at is not None]
    return JobCounts(
        accepted=sum(one.accepted for one in each),
        counts={status: sum(one.counts[status] for one in each) for status in Status},
        found_by_polling=sum(one.found_by_polling for one in each),
        oldest_unfinished_at=min(ages, default=None),
    )


def _of_gateway(gateway: str, number: int, rows: Sequence[Any], ages: Mapping[str, int]) -> JobCounts:
    mine = [(Status(status), found_by, count) for name, status, found_by, count in rows if name == gateway]
    return JobCounts(
        accepted=number,
        counts={status: sum(n for at, _, n in mine if at is status) for status in Status},
        found_by_polling=sum(n for _, found_by, n in mine if found_by == FoundBy.POLL),
        oldest_unfinished_at=ages.get(gateway),
    )
