"""Serve `GET /v1/facets` and `GET /v1/usage`: what is counted by gateway, model, day and tag."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from receiver.api.query_params import OutputFilters, UsageQuery
from receiver.api.responses import json_response
from receiver.errors import AmbiguousId
from receiver.http.routing import Answer, Operation
from receiver.schemas.usage import Facets, Usage
from storage.models import Clock
from storage.search import facets, usage


@dataclass(frozen=True, slots=True)
class Counting:
    """The counts beside a search, and the sums of a period."""

    facets: facets.Facets
    usage: usage.Usage
    clock: Clock

    @Operation(
        "GET /v1/facets",
        "count_facets",
        answers={200: Answer(Facets, "The counts.")},
        errors=(AmbiguousId,),
    )
    def count(self, _request: Request, query: OutputFilters) -> Response:
        """Count outputs by gateway, model, day and tag.

        All of the archive is counted exactly. Of a search the outputs of the newest 1,000 jobs that it finds
        are counted, and `complete` says whether those were all.
        """
        counts = self.facets.read(query.wanted(self.clock()))
        return json_response(Facets.model_validate(counts))

    @Operation("GET /v1/usage", "show_usage", answers={200: Answer(Usage, "What was spent.")})
    def show(self, _request: Request, query: UsageQuery) -> Response:
        """Add up the credits, jobs and images of a period."""
        wanted = query.wanted(self.clock())
        found = self.usage.read(wanted, limit=query.limit)
        return json_response(Usage.of(wanted, found))
