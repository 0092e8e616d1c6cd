"""Insert callbacks as deliveries: deduplicate them, check whose they are, and make their jobs due."""

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa

from storage.ledger.rows import to_delivery
from storage.ledger.schema import deliveries, jobs
from storage.media.inline import without_images
from storage.models import Delivery, Status
from storage.statements import Prepared, driver_of, translated

DECIDED = frozenset({Status.READY, *(status for status in Status if status.terminal)})
"""Statuses in which a callback is kept, and changes nothing."""


class DeliveryResult(StrEnum):
    """What became of a callback."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    MISMATCH = "mismatch"
    """It names another gateway job than its job's own."""
    UNKNOWN_JOB = "unknown_job"
    LATER_JOB = "later_job"
    """Of a job, or a submission, later than all that the ledger knows: the ledger must have lost it."""
    TOO_MANY = "too_many"
    """Its job has as many deliveries as a job may have."""


MAX_DELIVERIES = 1000
"""How many different callbacks one job may have, so that its URL cannot be used to fill the disk."""

_LINK = re.compile(rb"https?(?::|%3a|\\u003a)[^\s\"]+", re.IGNORECASE)
_QUERY = re.compile(rb"\?|%3f|\\u003f", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """A verified callback to insert, and the gateway job id that its body names."""

    delivery: Delivery
    gateway_job_id: str | None
    submission: int = 1
    """The submission that its URL was made for."""


class _Known(NamedTuple):
    """What the ledger knows of a callback's job."""

    id: str
    gateway_job_id: str | None
    status: str
    submission: int
    seen: set[str]
    """The digests of the bodies that its callbacks had."""


_NEWEST = sa.select(sa.func.max(jobs.c.id))
_ALL = (
    sa.select(deliveries)
    .where(deliveries.c.job_id == sa.bindparam("job"))
    .order_by(deliveries.c.received_at, deliveries.c.id)
)
_PENDING = Prepared(_ALL.where(deliveries.c.applied_at.is_(None)))
_EVERY = Prepared(_ALL)
_WITHOUT_BODIES = Prepared(
    _ALL.with_only_columns(
        *(column for column in deliveries.c if column is not deliveries.c.body),
        sa.literal(b"", sa.LargeBinary).label("body"),
    )
)
_BODIES = Prepared(
    sa.select(deliveries.c.id, deliveries.c.body).where(deliveries.c.job_id == sa.bindparam("job"))
)
_SCRUB = Prepared(sa.update(deliveries).where(deliveries.c.id == sa.bindparam("one")))
_UNAPPLIED = sa.update(deliveries).where(deliveries.c.applied_at.is_(None))
_APPLY = Prepared(_UNAPPLIED.where(deliveries.c.id == sa.bindparam("one")))
_APPLY_ALL = Prepared(_UNAPPLIED.where(deliveries.c.job_id == sa.bindparam("job")))


_COLUMNS = (
    *("id", "job_id", "gateway", "received_at", "headers", "body", "body_sha256", "signature"),
    *("applied_at", "effect"),
)
_INSERT = f"INSERT INTO deliveries ({', '.join(_COLUMNS)})"


class _OnSqlite:
    """The statements of the intake for SQLite's own driver: SQLAlchemy takes longer over each row.

    For each row that is found, or is inserted by a statement of its own, the driver gives the interpreter's
    lock away and waits to get it back. So what is found is one text, and all rows are one statement.
    """

    VALUES = f"({', '.join('?' * len(_COLUMNS))})"
    TOGETHER = 64
    """How many rows one statement inserts: each number of them is one that the driver prepares and keeps."""

    def __init__(self, connection: sa.Connection) -> None:
        self._run = partial(_run, connection)

    def known(self, ids: list[str]) -> list[_Known]:
        found: str = self._run(
            "SELECT json_group_array(json_array(id, gateway_job_id, status, submission, json(("
            "SELECT json_group_array(body_sha256) FROM deliveries WHERE job_id = jobs.id)))) FROM jobs "
            "WHERE id IN (SELECT value FROM json_each(?))",
            (orjson.dumps(ids).decode(),),
        ).fetchone()[0]
        return [_Known._make([*job, set(seen)]) for *job, seen in orjson.loads(found)]

    def insert(self, rows: Sequence[tuple[Any, ...]]) -> None:
        for at in range(0, len(rows), self.TOGETHER):
            some = [
                (*row[:4], orjson.dumps(row[4]).decode(), *row[5:]) for row in rows[at : at + self.TOGETHER]
            ]
            values = ", ".join([self.VALUES] * len(some))
            self._run(f"{_INSERT} VALUES {values}", tuple(chain.from_iterable(some)))

    def wake(self, ids: list[str], now: int) -> None:
        self._run(
            "UPDATE jobs SET next_attempt_at = ? "
            "WHERE id IN (SELECT value FROM json_each(?)) AND next_attempt_at > ?",
            (now, orjson.dumps(ids).decode(), now),
        )


class _OnPostgresql:
    """The statements of the intake for PostgreSQL's own driver, which takes long over each item of a list."""

    INSERT = (
        _INSERT  # noqa: S608 - both are constants
        + " SELECT id, job_id, gateway, received_at, headers, decode(body, 'base64'), body_sha256, "
        "signature, applied_at, effect FROM json_to_recordset(%s::json) AS told(id text, job_id text, "
        "gateway text, received_at bigint, headers json, body text, body_sha256 text, signature text, "
        "applied_at bigint, effect text)"
    )

    def __init__(self, connection: sa.Connection) -> None:
        self._run = partial(_run, connection)

    def known(self, ids: list[str]) -> list[_Known]:
        these = (_array(ids),)
        # Always in one order, so that two batches can never deadlock.
        jobs = self._run(
            "SELECT id, gateway_job_id, status, submission FROM jobs WHERE id = ANY(%s::text[]) "
            "ORDER BY id FOR UPDATE",
            these,
        )
        known = {row[0]: _Known._make([*row, set()]) for row in jobs}
        # Only now: while a job was locked by others, they may have added some.
        for job_id, sha256 in self._run(
            "SELECT job_id, body_sha256 FROM deliveries WHERE job_id = ANY(%s::text[])", these
        ):
            known[job_id].seen.add(sha256)
        return [*known.values()]

    def insert(self, rows: Sequence[tuple[Any, ...]]) -> None:
        told = [dict(zip(_COLUMNS, row, strict=True)) for row in rows]
        for one in told:
            one["body"] = b64encode(one["body"]).decode()
        self._run(self.INSERT, (orjson.dumps(told).decode(),))

    def wake(self, ids: list[str], now: int) -> None:
        self._run(
            "UPDATE jobs SET next_attempt_at = %s WHERE id = ANY(%s::text[]) AND next_attempt_at > %s",
            (now, _array(ids), now),
        )


def _run(connection: sa.Connection, sql: str, values: Sequence[Any]) -> Any:
    with translated(connection, sql):
        return driver_of(connection).execute(sql, values)


def _array(ids: Iterable[str]) -> str:
    """Return texts as an array, as PostgreSQL writes one."""
    quoted = (one.replace("\\", "\\\\").replace('"', '\\"') for one in ids)
    return "{" + ",".join(f'"{one}"' for one in quoted) + "}"


def insert_deliveries(
    connection: sa.Connection, offers: Sequence[NewDelivery], now: int
) -> list[DeliveryResult]:
    """Insert the offers that are new, make their jobs due, and return the result of each."""
    intake = _OnPostgresql(connection) if connection.dialect.name == "postgresql" else _OnSqlite(connection)
    known = {job.id: job for job in intake.known(list({offer.delivery.job_id for offer in offers}))}
    results = [_judge(connection, offer, known) for offer in offers]
    judged = zip(offers, results, strict=True)
    new = [offer for offer, result in judged if result is DeliveryResult.ACCEPTED]
    if rows := [_row(offer, known[offer.delivery.job_id], now) for offer in new]:
        intake.insert(rows)
        intake.wake([row[1] for row in rows if row[-2] is None], now)
    return results


def insert_answer(connection: sa.Connection, answer: Delivery) -> None:
    """Insert a gateway's answer to a request of ours; one that came before has its body and effect again.

    It may be word for word what a callback said, and the images of that one may be redacted by now.
    """
    row = asdict(answer)
    same = (deliveries.c.job_id == answer.job_id) & (deliveries.c.body_sha256 == answer.body_sha256)
    again = {name: row[name] for name in ("body", "signature", "applied_at", "effect")}
    if connection.execute(sa.update(deliveries).where(same).values(again)).rowcount == 0:
        connection.execute(sa.insert(deliveries), row)


def scrub(connection: sa.Connection, job_id: str) -> None:
    """Redact the images in a job's deliveries, and the queries of the links, which may be presigned.

    Done once the job needs them no more; the digest of the original body stays.
    """
    for row in _BODIES.rows(connection, {"job": job_id}):
        if (kept := without_images(without_queries(row["body"]))) != row["body"]:
            _SCRUB.run(connection, {"one": row["id"], "body": kept})


def without_queries(body: bytes) -> bytes:
    """Redact the query of every http link in some text, plain or escaped as URLs or JSON do."""
    # Each link is matched once and cut by hand: a pattern with the question mark in it would backtrack
    # for minutes on a hostile body.

    def cut(link: re.Match[bytes]) -> bytes:
        mark = _QUERY.search(link[0])
        return link[0] if mark is None or mark.end() == len(link[0]) else link[0][: mark.end()] + b"[removed]"

    return _LINK.sub(cut, body)


def _judge(connection: sa.Connection, offer: NewDelivery, known: Mapping[str, _Known]) -> DeliveryResult:
    delivery = offer.delivery
    job = known.get(delivery.job_id)
    if job is None:
        newest = connection.scalar(_NEWEST)
        # Ids begin with the time. Its URL was signed here, so a ledger without later jobs has lost it.
        lost = newest is None or delivery.job_id > newest
        return DeliveryResult.LATER_JOB if lost else DeliveryResult.UNKNOWN_JOB
    if offer.submission > job.submission:
        return DeliveryResult.LATER_JOB
    # A callback of an earlier submission cannot be compared any more, and changes nothing.
    if offer.submission == job.submission and not _same_job(connection, offer, job.gateway_job_id):
        return DeliveryResult.MISMATCH
    if delivery.body_sha256 in job.seen:
        return DeliveryResult.DUPLICATE
    if len(job.seen) >= MAX_DELIVERIES:
        return DeliveryResult.TOO_MANY
    job.seen.add(delivery.body_sha256)
    return DeliveryResult.ACCEPTED


def _same_job(connection: sa.Connection, offer: NewDelivery, theirs: str | None) -> bool:
    if offer.gateway_job_id is None or theirs is not None:
        return offer.gateway_job_id in {theirs, None}
    # The callback overtook the response to our submission; its id must at least not be another job's.
    taken = (jobs.c.gateway == offer.delivery.gateway) & (jobs.c.gateway_job_id == offer.gateway_job_id)
    return connection.scalar(sa.select(jobs.c.id).where(taken)) is None


def _row(offer: NewDelivery, job: _Known, now: int) -> tuple[Any, ...]:
    """Return the values of `_COLUMNS`."""
    one = offer.delivery
    late = job.status in DECIDED or offer.submission < job.submission
    body = one.body
    if Status(job.status).terminal:
        body = without_images(without_queries(body))
    outcome = (now, "late") if late else (one.applied_at, one.effect)
    known = one.id, one.job_id, one.gateway, one.received_at, one.headers, body
    return *known, one.body_sha256, one.signature.value, *outcome


def of_job(
    connection: sa.Connection, job_id: str, *, only_pending: bool = False, bodies: bool = True
) -> list[Delivery]:
    """Return the deliveries of a job, or only the pending ones, in the order they came.

    Without `bodies` all have an empty one; pending ones always have theirs.
    """
    wanted = _PENDING if only_pending else _EVERY if bodies else _WITHOUT_BODIES
    return [to_delivery(row) for row in wanted.rows(connection, {"job": job_id})]


def newest_of_job(connection: sa.Connection, job_id: str, limit: int) -> list[Delivery]:
    """Return the newest deliveries of a job, and those that decided it, in the order they came.

    Without their bodies (`b""`): all the bodies of a job may be gigabytes.
    """
    columns = [column for column in deliveries.c if column is not deliveries.c.body]
    rest = sa.case((deliveries.c.effect.in_(["ready", "failed"]), 0), else_=1)
    newest = (
        sa.select(*columns, sa.literal(b"", sa.LargeBinary).label("body"))
        .where(deliveries.c.job_id == job_id)
        .order_by(rest, deliveries.c.received_at.desc(), deliveries.c.id.desc())
        .limit(limit)
    )
    found = [to_delivery(row) for row in connection.execute(newest).mappings()]
    return sorted(found, key=lambda one: (one.received_at, one.id))


def pending(job_id: str | sa.BindParameter[str]) -> sa.Exists:
    """Return the condition that a job has deliveries that were not applied yet."""
    return sa.exists().where(deliveries.c.job_id == job_id, deliveries.c.applied_at.is_(None))


def mark_applied(connection: sa.Connection, delivery_id: str, effect: str, now: int) -> None:
    """Set what a delivery changed, unless that is set already."""
    _APPLY.run(connection, {"one": delivery_id, "applied_at": now, "effect": effect})


def mark_late(connection: sa.Connection, job_id: str, now: int) -> None:
    """Mark all pending deliveries of a job as late: they change nothing."""
    _APPLY_ALL.run(connection, {"job": job_id, "applied_at": now, "effect": "late"})
