"""Number jobs by the time they were accepted: milliseconds, and a counter within the millisecond.

The key of keyset paging: a range of times is a range of numbers, so every index that ends in a number gives
the newest first, between two dates, from any page on.
"""

from sqlalchemy import BigInteger, bindparam, func, select

from storage.ledger.schema import jobs

TIE_BITS = 16
"""Bits of the counter: how many jobs can be accepted within one millisecond."""

LARGEST = 2**63 - 1


def first_number(ms: int) -> int:
    """Return the least number of a job that was accepted at that time (milliseconds since 1970).

    Times after the year 6429, which a search may name, are all one: databases have 64 bits.
    """
    return min(ms << TIE_BITS, LARGEST)


def time_of(number: int) -> int:
    """Return when the job with this number was accepted."""
    return number >> TIE_BITS


_highest = select(func.max(jobs.c.number)).where(jobs.c.number.between(bindparam("first"), bindparam("last")))
NEXT_NUMBER = select(
    func.coalesce(_highest.scalar_subquery() + 1, bindparam("first", type_=BigInteger))
).scalar_subquery()
"""The number of a new job: behind all others of its millisecond. Takes the parameters of `of_moment`."""


def of_moment(now: int) -> dict[str, int]:
    """Return the first and the last number of a millisecond, the parameters of `NEXT_NUMBER`."""
    return {"first": first_number(now), "last": first_number(now + 1) - 1}
