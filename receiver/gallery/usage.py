"""Serve the page Usage: credits as a chart and a table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import QueryParams
from starlette.responses import Response

from receiver.api.query_params import UsageQuery
from receiver.errors import InvalidRequest
from receiver.gallery import charts
from receiver.gallery.page import PageRequest
from receiver.http.query import read_query
from receiver.query.language import with_key
from storage.models import Clock, JobCounts, UsageBy, rfc3339
from storage.search.facets import Facets
from storage.search.filters import SearchFilter
from storage.search.usage import DAY_MS, Usage, UsageReport

PERIODS = {"7": "7 days", "30": "30 days", "90": "90 days", "365": "A year"}
USUAL = "30"
KINDS = {UsageBy.DAY: "day", UsageBy.MODEL: "model", UsageBy.GATEWAY: "gateway", UsageBy.TAG: "tag"}
IN_TABLE = 200
"""How many groups the table lists."""


@dataclass(frozen=True, slots=True)
class UsagePage:
    """The page `/usage`."""

    usage: Usage
    facets: Facets
    counts: Callable[[], Mapping[str, JobCounts]]
    clock: Clock

    def show(self, visit: PageRequest) -> Response:
        """Show credits, by day by default."""
        asked = self._asked(visit)
        faults: Sequence[Mapping[str, str]] = ()
        found: UsageReport | None = None
        if asked["by"] != UsageBy.TAG or asked["tag"]:
            try:
                given = {name: value for name, value in asked.items() if value}
                query = read_query(UsageQuery, QueryParams({**given, "limit": str(IN_TABLE)}))
                found = self.usage.read(query.wanted(self.clock()), limit=IN_TABLE)
            except InvalidRequest as error:
                faults = error.faults
        return visit.page(
            "usage.html",
            status=422 if faults else 200,
            asked=asked,
            days=self._days(visit),
            found=found,
            chart=self._chart(asked, found),
            faults=faults,
            kinds=KINDS,
            periods=PERIODS,
            gateways=sorted(self.counts()),
            tags=self._tags(),
            MOST_ROWS=charts.MOST_ROWS,
            where=lambda value: _where(asked, value),
        )

    def _days(self, visit: PageRequest) -> str:
        days = visit.given("days") or USUAL
        return days if days in PERIODS else USUAL

    def _asked(self, visit: PageRequest) -> dict[str, str]:
        """Return the query as `GET /v1/usage` takes it; empty where not given."""
        today = self.clock() // DAY_MS * DAY_MS
        since = max(0, today - (int(self._days(visit)) - 1) * DAY_MS)
        asked = {"by": visit.given("by") or UsageBy.DAY.value, "since": rfc3339(since)[:10]}
        tag = visit.given("tag") if asked["by"] == UsageBy.TAG else None
        return asked | {"gateway": visit.given("gateway") or "", "tag": tag or ""}

    def _chart(self, asked: Mapping[str, str], found: UsageReport | None) -> Any:
        if found is None or found.total.credits is None:
            return None
        if asked["by"] == UsageBy.DAY:
            return charts.days(found.groups)
        return charts.rows(found.groups, "without this tag")

    def _tags(self) -> list[str]:
        """Return the names of the commonest tags, to offer."""
        return list(
            dict.fromkeys(one.value.partition("=")[0] for one in self.facets.read(SearchFilter()).tag)
        )


def _where(asked: Mapping[str, str], value: str | None) -> str | None:
    """Return the query for the pictures of a group; None where the language cannot express it."""
    if value is None:
        return None
    by = asked["by"]
    key, sought = {
        UsageBy.DAY.value: ("on", value),
        UsageBy.TAG.value: ("tag", f"{asked['tag']}={value}"),
    }.get(by, (by, value))
    found = with_key("", key, sought)
    return (
        with_key(found, "gateway", asked["gateway"]) if asked["gateway"] and by != UsageBy.GATEWAY else found
    )
