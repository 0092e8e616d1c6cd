"""A job's number: its place among all jobs, by the time it was taken in, and a place within that millisecond.

Lists are ordered and cut by it, and a range of times is a range of numbers, so every index that ends in a
number answers the newest first, between two dates, from any page on.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, bindparam, func, select

from storage.ledger.schema import jobs

TIE_BITS = 16
"""As many jobs as this has room for may be taken in within one millisecond."""

LARGEST = 2**63 - 1


def first_number(ms: int) -> int:
    """The least number of a job that was taken in at that time (milliseconds since 1970).

    Times after the year 6429, which somebody may ask for, are all one: databases have 64 bits.
    """
    return min(ms << TIE_BITS, LARGEST)


def time_of(number: int) -> int:
    """When the job with this number was taken in."""
    return number >> TIE_BITS


_taken = select(func.max(jobs.c.number)).where(jobs.c.number.between(bindparam("first"), bindparam("last")))
NEXT_NUMBER = select(
    func.coalesce(_taken.scalar_subquery() + 1, bindparam("first", type_=BigInteger))
).scalar_subquery()
"""The number of a job that is taken in now: behind all others of its millisecond, see `of_moment`."""


def of_moment(now: int) -> dict[str, int]:
    """What `NEXT_NUMBER` asks for: the first and the last number of a millisecond."""
    return {"first": first_number(now), "last": first_number(now + 1) - 1}
