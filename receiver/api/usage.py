"""Serve `GET /v1/usage`: credits, jobs and images by gateway, model, day or tag."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from receiver.api.query_params import UsageQuery
from receiver.api.responses import json_response
from receiver.http.admission import Admission
from receiver.http.routing import Answer, Operation, Served, guarded
from receiver.schemas.usage import Usage
from storage.models import Clock
from storage.search import usage

USAGE = Operation(
    "GET /v1/usage",
    "show_usage",
    scope="read",
    query=UsageQuery,
    answers={200: Answer(Usage, "What was spent.")},
)


@dataclass(frozen=True, slots=True)
class UsageApi:
    """The route `GET /v1/usage`."""

    usage: usage.Usage
    admission: Admission
    clock: Clock

    def routes(self) -> list[Served]:
        """The routes of this part."""
        return [guarded(USAGE, self.show, self.admission)]

    def show(self, _request: Request, query: UsageQuery) -> Response:
        """Add up the credits, jobs and images of a period."""
        wanted = query.wanted(self.clock())
        found = self.usage.read(wanted, limit=query.limit)
        return json_response(Usage.of(wanted, found))
