"""Parse and validate the query parameters of a request by the model of its route."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.datastructures import QueryParams

from receiver.errors import InvalidRequest
from receiver.schemas.faults import fault
from receiver.schemas.requests import Text
from receiver.schemas.tags import FILTER, TagFilter


class Query(BaseModel):
    """The query parameters of a route. Refuses those that it does not name."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, defer_build=True)


class NoQuery(Query):
    """No query parameters."""


class Tagged(Query):
    """Query parameters with filters by tag, each as `tag.<name>`."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[TagFilter, Text]

    def tags(self) -> dict[str, str]:
        """Return the value of each tag to filter by."""
        return {name.removeprefix(FILTER): value for name, value in (self.model_extra or {}).items()}


AnyQuery = TypeVar("AnyQuery", bound=Query)


def read_query(kind: type[AnyQuery], given: QueryParams) -> AnyQuery:
    """Parse a query; raise InvalidRequest that names every invalid, unknown or repeated parameter."""
    counts = Counter(name for name, _ in given.multi_items())
    if repeated := [name for name, count in counts.items() if count > 1]:
        raise InvalidRequest([{"field": name, "message": "may be given once only"} for name in repeated])
    try:
        return kind.model_validate(dict(given))
    except ValidationError as error:
        raise InvalidRequest([_named(kind, one) for one in error.errors()]) from None


def _named(kind: type[Query], one: Mapping[str, Any]) -> dict[str, str]:
    name, tagged = str(one["loc"][0]), issubclass(kind, Tagged)
    if name in kind.model_fields or (tagged and name.startswith(FILTER)):
        return fault(one)
    known = [*sorted(kind.model_fields), *["tag.<name>"] * tagged]
    return {"field": name, "message": f"unknown; use {', '.join(known)}" if known else "unknown"}
