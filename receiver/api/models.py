"""Serve `/v1/models`: what the gateways have, what it takes and what it costs."""

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from receiver.api.responses import json_response
from receiver.gateways.base import Gateway
from receiver.gateways.offers import offers
from receiver.http.query import Query
from receiver.http.routing import Answer, Operation
from receiver.schemas.offers import Model, Models


class ModelQuery(Query):
    """Of `GET /v1/models`."""

    gateway: str | None = None
    """The name of a gateway."""


@dataclass(frozen=True, slots=True)
class ModelRoutes:
    """The route of models."""

    gateways: Mapping[str, Gateway]

    @Operation(
        "GET /v1/models",
        "list_models",
        answers={200: Answer(Models, "The known models of each gateway.")},
    )
    def list(self, _request: Request, query: ModelQuery) -> Response:
        """List the models of the gateways, with what each takes and costs."""
        wanted = [one for name, one in sorted(self.gateways.items()) if query.gateway in {name, None}]
        return json_response(Models(models=tuple(map(Model.trusted, offers(wanted)))))
