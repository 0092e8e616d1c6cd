"""Serve `GET /v1/facets`: how many outputs there are of each gateway, model, day and tag."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from receiver.api.query_params import OutputFilters
from receiver.api.responses import json_response
from receiver.http.admission import Admission
from receiver.http.routing import Answer, Operation, Served, guarded
from receiver.schemas.usage import Facets
from storage.models import Clock
from storage.search import facets

COUNT = Operation(
    "GET /v1/facets",
    "count_facets",
    scope="read",
    query=OutputFilters,
    answers={200: Answer(Facets, "The counts.")},
)


@dataclass(frozen=True, slots=True)
class Counting:
    """The counts beside a search."""

    facets: facets.Facets
    admission: Admission
    clock: Clock

    def routes(self) -> list[Served]:
        """The routes of this part."""
        return [guarded(COUNT, self.count, self.admission)]

    def count(self, _request: Request, query: OutputFilters) -> Response:
        """Count outputs by gateway, model, day and tag.

        All of the archive is counted exactly. Of a search the outputs of the newest 5,000 jobs that it finds
        are counted, and `complete` says whether those were all.
        """
        counts = self.facets.read(query.wanted(self.clock()))
        return json_response(Facets.model_validate(counts))
