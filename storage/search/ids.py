"""Find the whole id of a job, an output or a notification by its beginning, as Git does for commits."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from storage.errors import Ambiguous, NotFound
from storage.ledger.database import Database
from storage.ledger.notifications import notification_id
from storage.ledger.schema import jobs, notifications, outputs
from storage.search.filters import SearchFilter

LEAST_DIGITS = 8
"""The shortest beginning, in characters."""

MOST_CANDIDATES = 5
"""How many ids are named where a beginning fits several; the newest."""

_FIRST = "00000000-0000-0000-0000-000000000000"
_LAST = _FIRST.replace("0", "f")

_NUMBER = re.compile("[0-9]{1,6}")
_NUMBERED = re.compile(r"(?:msg_)?([^._]+)(?:[._]([0-9]{1,6}))?")


@dataclass(frozen=True, slots=True)
class Ids:
    """Look up ids by a range of the primary key. Thread-safe.

    Every method raises NotFound if there is no such id, and Ambiguous if there are several. That a whole id
    exists is not checked.
    """

    database: Database

    def job(self, beginning: str) -> str:
        """Return the id of a job."""
        if is_whole(beginning):
            return beginning.lower()
        with self.database.read() as connection:
            found = _jobs(connection, beginning)
        return _only(found, "job", beginning)

    def output(self, beginning: str) -> str:
        """Return the id of an output: `<beginning of its job's id>.<index>`."""
        job, _, index = beginning.rpartition(".")
        if is_whole(job):
            return beginning.lower()
        found = self._numbered(outputs.c.job_id, outputs.c.index, job, index)
        return _only([f"{job_id}.{number}" for job_id, number in found], "output", beginning)

    def notification(self, beginning: str) -> str:
        """Return the id of a notification: its beginning, or `<beginning of its job's id>.<number>`.

        The number may be left out if the job has one notification only.
        """
        parts = _NUMBERED.fullmatch(beginning)
        job, number = parts.groups() if parts else ("", None)
        if is_whole(job) and number is not None:
            return notification_id(job.lower(), int(number))
        found = self._numbered(notifications.c.job_id, notifications.c.number, job, number)
        return _only([notification_id(*one) for one in found], "notification", beginning)

    def _numbered(
        self, job_id: sa.Column[str], column: sa.Column[int], beginning: str, number: str | None
    ) -> Sequence[Any]:
        found = sa.select(job_id, column).where(_within(job_id, beginning))
        if number is not None:
            found = found.where(column == int(number) if _NUMBER.fullmatch(number) else sa.false())
        found = found.order_by(job_id.desc(), column.desc()).limit(MOST_CANDIDATES + 1)
        with self.database.read() as connection:
            return connection.execute(found).all()


def is_whole(job_id: str) -> bool:
    """Return whether this has the length of a job's whole id."""
    return len(job_id) == len(_FIRST)


def with_whole_id(connection: sa.Connection, wanted: SearchFilter) -> SearchFilter:
    """Return a filter with the whole id of its job; raises Ambiguous."""
    if wanted.job is None or is_whole(wanted.job):
        return wanted
    found = _jobs(connection, wanted.job)
    return replace(wanted, job=_only(found, "job", wanted.job)) if found else wanted


def _jobs(connection: sa.Connection, beginning: str) -> Sequence[str]:
    found = sa.select(jobs.c.id).where(_within(jobs.c.id, beginning)).order_by(jobs.c.id.desc())
    return connection.scalars(found.limit(MOST_CANDIDATES + 1)).all()


def _within(column: sa.Column[str], beginning: str) -> sa.ColumnElement[bool]:
    """Return a range of ids, for which there is an index.

    Its ends have the shape of an id, so that every collation of PostgreSQL orders them alike.
    """
    begun = beginning.lower()
    shaped = all(
        sign == "-" if place == "-" else sign in "0123456789abcdef"
        for sign, place in zip(begun, _FIRST, strict=False)
    )
    if not (shaped and LEAST_DIGITS <= len(begun) <= len(_FIRST)):
        return sa.false()
    return column.between(begun + _FIRST[len(begun) :], begun + _LAST[len(begun) :])


def _only(found: Sequence[str], noun: str, beginning: str) -> str:
    if not found:
        short = (
            f"; give at least {LEAST_DIGITS} characters of its id" if len(beginning) < LEAST_DIGITS else ""
        )
        raise NotFound(f"There is no {noun} {beginning}{short}.")
    if len(found) == 1:
        return found[0]
    shown = ", ".join(found[:MOST_CANDIDATES])
    more = ", and more" if len(found) > MOST_CANDIDATES else ""
    raise Ambiguous(
        f"{beginning} is the beginning of several ids: {shown}{more}. Give more of it.",
        candidates=found[:MOST_CANDIDATES],
    )
