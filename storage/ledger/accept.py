"""Take a job in: once under each idempotency key, counted, findable and told of, all in one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select
from sqlalchemy.exc import IntegrityError

from storage.errors import Conflict, Unavailable
from storage.ledger import job_counts
from storage.ledger.database import Database
from storage.ledger.events import note_move
from storage.ledger.job_numbers import NEXT_NUMBER, of_moment
from storage.ledger.rows import to_job
from storage.ledger.schema import jobs
from storage.ledger.search_index import index_job
from storage.models import Job

_TAKE = insert(jobs).values(number=NEXT_NUMBER).returning(jobs)
_SAME_KEY = select(jobs).where(jobs.c.idempotency_key == bindparam("key"))

TIES = 100
"""How often a job is tried again that another writer was given the number of, in that very moment."""


def accept_once(database: Database, row: Mapping[str, Any], pieces: str) -> tuple[Job, bool]:
    """Take a job in, in a transaction of its own, also where writers do not queue up; see `accept`."""
    for _ in range(TIES):
        try:
            with database.write() as connection:
                return accept(connection, row, pieces)
        except IntegrityError:
            # Two at once: of one key, of one id, or of one millisecond, who then had the same number.
            with database.read() as connection:
                if earlier := same_key(connection, row):
                    return earlier, False
                if connection.scalar(select(jobs.c.id).where(jobs.c.id == row["id"])) is not None:
                    raise
    raise Unavailable("Too many jobs came at once.")


def accept(connection: Connection, row: Mapping[str, Any], pieces: str) -> tuple[Job, bool]:
    """Insert a job, unless its key came before; answers the job, and whether it is new.

    `pieces`: those of its prompt, as `storage.ledger.search_index` makes them; making them takes a while, and
    others wait while a transaction writes.

    Raises Conflict if its key came before with another request.
    """
    if earlier := same_key(connection, row):
        return earlier, False
    new = connection.execute(_TAKE, {**row, **of_moment(row["created_at"])}).mappings().one()
    index_job(connection, new, pieces)
    note_move(connection, new, new["created_at"])
    # Last, because others wait for the row in which it counts.
    job_counts.count_accepted(connection, row["gateway"])
    return to_job(new), True


def same_key(connection: Connection, row: Mapping[str, Any]) -> Job | None:
    """The job that came before under this row's key; raises Conflict if that was another request."""
    if row["idempotency_key"] is None:
        return None
    earlier = connection.execute(_SAME_KEY, {"key": row["idempotency_key"]}).mappings().one_or_none()
    if earlier is None:
        return None
    if earlier["request_sha256"] != row["request_sha256"]:
        raise Conflict("This Idempotency-Key was used for another request.")
    return to_job(earlier)
