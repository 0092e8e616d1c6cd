"""Define usage and facets in JSON: credits, jobs and images added up, and outputs counted."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field

from receiver.schemas.types import Count, Resource, Time
from storage.models import UsageBy, rfc3339

if TYPE_CHECKING:
    from storage.search import usage


class Spent(Resource):
    """What some jobs cost and made."""

    # `SpentOn` inherits these, and docstrings of fields are not inherited.
    jobs: Annotated[Count, Field(description="All that were created.", examples=[121])]
    jobs_without_credits: Count = Field(
        description="Those whose cost is not known yet; sums have only their earlier submissions."
    )
    outputs: Annotated[Count, Field(description="Archived images.", examples=[154])]
    credits: float | None = Field(
        description="In each gateway's own credits; null where the cost of no job is known.", examples=[484.0]
    )
    credits_estimated: float | None = Field(
        description="The part of `credits` that comes from price lists; null if none does."
    )

    @classmethod
    def of(cls, spent: usage.Spent, **more: Any) -> Self:
        """Build it from a sum over the ledger; `more` are values of further fields."""
        sums = {"credits": _number(spent.credits), "credits_estimated": _number(spent.estimated)}
        return cls.trusted(spent, jobs_without_credits=spent.unknown, **sums, **more)


def _number(amount: Decimal | None) -> float | None:
    return None if amount is None else float(amount)


class _Value(Resource):
    value: str | None = Field(
        description="The gateway, the model, the day, or the tag's value; null without that tag.",
        examples=["imagen-4-fast"],
    )


class SpentOn(Spent, _Value):
    """What the jobs cost and made that have one gateway, model, day or tag value in common."""


class Usage(Resource):
    """What was spent in a period."""

    by: Annotated[UsageBy, Field(examples=["model"])]
    tag: str | None
    """The name of the tag by whose values jobs are grouped."""
    gateway: Annotated[str | None, Field(examples=[None])]
    """The one gateway whose jobs were counted."""
    since: Time
    until: Time
    groups: tuple[SpentOn, ...]
    """Every day in order, those without jobs included; of others those with the most credits, most first."""
    others: Spent | None
    """The total of all groups beyond `limit`; null if there are none."""
    total: Spent

    @classmethod
    def of(cls, wanted: usage.UsageFilter, found: usage.UsageReport) -> Usage:
        """Build it from what was asked for and what the ledger found."""
        return cls.trusted(
            wanted,
            since=rfc3339(wanted.since),
            until=rfc3339(wanted.until),
            groups=tuple(SpentOn.of(group.spent, value=group.value) for group in found.groups),
            others=None if found.others is None else Spent.of(found.others),
            total=Spent.of(found.total),
        )


class FacetValue(Resource):
    """One value of a facet, and how many outputs have it."""

    value: str
    outputs: Count


def _values(*pairs: tuple[str, int]) -> Any:
    return Field(examples=[[{"value": value, "outputs": outputs} for value, outputs in pairs]])


class Facets(Resource):
    """How many outputs there are of each gateway, model, day and tag: 20 values of each at most."""

    counted: Annotated[Count, Field(examples=[154])]
    """How many outputs were counted."""
    complete: bool
    """Whether those are all; otherwise they are the newest of those that were found."""
    gateway: Annotated[tuple[FacetValue, ...], _values(("apiframe", 154))]
    model: Annotated[tuple[FacetValue, ...], _values(("imagen-4-fast", 121), ("imagen-4", 33))]
    day: Annotated[tuple[FacetValue, ...], _values(("2026-11-22", 154))]
    """Days in UTC on which jobs were created, the latest first: `2026-11-22`."""
    tag: Annotated[tuple[FacetValue, ...], _values(("campaign=autumn", 40))]
    """Each as `name=value`."""
