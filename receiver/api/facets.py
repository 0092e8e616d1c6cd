"""`GET /v1/facets`: how many outputs there are of each gateway, model, day and tag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from receiver.api.query_params import OutputFilters
from receiver.http.admission import Admission
from receiver.http.routing import Answer, Operation, Served, guarded
from receiver.schemas import responses
from storage.models import Clock
from storage.search.facets import FacetCount, FacetCounts, Facets

COUNT = Operation(
    "GET /v1/facets",
    "count_facets",
    scope="read",
    query=OutputFilters,
    answers={200: Answer(responses.FacetCounts, "The counts.")},
)


@dataclass(frozen=True, slots=True)
class Counting:
    """The counts beside a search."""

    facets: Facets
    admission: Admission
    clock: Clock

    def routes(self) -> list[Served]:
        """The routes of this part."""
        return [guarded(COUNT, self.count, self.admission)]

    async def count(self, _request: Request, query: OutputFilters) -> Response:
        """Count outputs by gateway, model, day and tag.

        All of the archive is counted exactly. Of a search the outputs of the newest 5,000 jobs that it finds
        are counted, and `complete` says whether those were all.
        """
        counts = await run_in_threadpool(self.facets.read, query.wanted(self.clock()))
        return JSONResponse(_view(counts))


def _view(counts: FacetCounts) -> responses.FacetCounts:
    return {
        "counted": counts.counted,
        "complete": counts.complete,
        "gateway": _values(counts.gateway),
        "model": _values(counts.model),
        "day": _values(counts.day),
        "tag": _values(counts.tag),
    }


def _values(counts: Sequence[FacetCount]) -> list[responses.FacetValue]:
    return [{"value": one.value, "outputs": one.outputs} for one in counts]
