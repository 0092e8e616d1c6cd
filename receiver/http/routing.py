"""Declare routes with their parameters, responses and errors, for the service and `/openapi.json` alike.

A new route is an `Operation` beside its handler and one line in `routes()` of its part. The handler's
docstring describes it; a new kind of response is a type in `receiver/schemas/responses.py`, a new
parameter a field in `receiver/api/query_params.py`.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, wraps
from typing import Any, Generic

from pydantic import TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from receiver.errors import (
    BodyTooLarge,
    DarkroomError,
    Forbidden,
    InvalidRequest,
    NoSuchThing,
    StaleForm,
    TooManyRequests,
    TooSlow,
    Unauthorized,
    Unready,
)
from receiver.http.admission import Admission
from receiver.http.auth import REACH
from receiver.http.query import AnyQuery, read_query
from receiver.schemas.faults import fault

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Header:
    """A header of a request or a response. `kind` is any type that pydantic can validate."""

    name: str
    meaning: str
    kind: Any = str
    always: bool = True
    """Whether a response always has it; in a request no header is required."""

    def read(self, headers: Mapping[str, str]) -> str | None:
        """Its value in a request, if it is there; raise InvalidRequest if it is wrong."""
        value = headers.get(self.name)
        try:
            return None if value is None else str(adapter(self.kind).validate_python(value))
        except ValidationError as error:
            raise InvalidRequest([fault({**one, "loc": (self.name,)}) for one in error.errors()]) from None


@dataclass(frozen=True, slots=True)
class Answer:
    """One way in which a route answers what was asked. Errors are not told here.

    `kind` is any type that pydantic can describe, or None where there is no body, or `bytes`.
    """

    kind: Any
    meaning: str
    headers: tuple[Header, ...] = ()
    media_types: tuple[str, ...] = ("application/json",)


@dataclass(frozen=True, slots=True)
class Body:
    """The body of a request. `kind` is any type that pydantic can describe."""

    kind: Any
    meaning: str
    needed: bool = True


@dataclass(frozen=True, slots=True)
class Operation(Generic[AnyQuery]):
    """The parameters, responses and errors of one route.

    `at` is the method and the path. `path` has the type of each part of the path that is in braces.
    `errors` are those that only this route has; `every_error` adds those that follow from the rest.
    """

    at: str
    name: str
    """Its operationId: the name in a generated client."""
    answers: Mapping[int, Answer]
    query: type[AnyQuery]
    scope: str | None = None
    """The scope that a token needs; None if the route is public."""
    path: Mapping[str, Any] = field(default_factory=dict)
    headers: tuple[Header, ...] = ()
    body: Body | None = None
    errors: tuple[type[DarkroomError], ...] = ()

    def every_error(self) -> set[type[DarkroomError]]:
        """Return every error that the route may respond with."""
        errors: set[type[DarkroomError]] = {DarkroomError, *self.errors}
        if self.body is not None:
            errors |= {BodyTooLarge, TooSlow}
        if self.scope is not None:
            # A guarded route reads or writes the ledger.
            errors |= {Unauthorized, TooManyRequests, InvalidRequest, Unready}
            if not self.at.startswith("GET "):
                errors.add(StaleForm)
            if any(self.scope not in reached for reached in REACH.values()):
                errors.add(Forbidden)
            if self.path:
                errors.add(NoSuchThing)
        return errors


class Served(Route):
    """A route with its operation. The docstring of its endpoint is its description."""

    def __init__(self, operation: Operation[Any], endpoint: Endpoint) -> None:
        method, _, path = operation.at.partition(" ")
        super().__init__(path, endpoint, methods=[method])
        self.operation = operation
        self.method = method
        self.meaning = inspect.getdoc(endpoint) or ""


def guarded(
    operation: Operation[AnyQuery],
    handler: Callable[[Request, AnyQuery], Response | Awaitable[Response]],
    admission: Admission,
) -> Served:
    """Return the route of an operation that has a scope; validates its token, its path and its query first.

    A plain `def` handler runs in a thread. Make a handler `async` only if it awaits something itself.
    """
    scope = operation.scope
    assert scope is not None
    handle = _awaitable(handler)

    @wraps(handler)
    async def endpoint(request: Request) -> Response:
        admission.admit(request, scope)
        _check_path(operation, request.path_params)
        return await handle(request, read_query(operation.query, request.query_params))

    return Served(operation, endpoint)


def _awaitable(handler: Callable[..., Any]) -> Callable[..., Awaitable[Response]]:
    if inspect.iscoroutinefunction(handler):
        return handler

    async def in_thread(*args: Any) -> Response:
        response: Response = await run_in_threadpool(handler, *args)
        return response

    return in_thread


@cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    """Return the validator of a type, cached."""
    return TypeAdapter(kind)


def _check_path(operation: Operation[Any], given: Mapping[str, Any]) -> None:
    try:
        for name, kind in operation.path.items():
            adapter(kind).validate_python(given[name])
    except ValidationError:
        raise NoSuchThing("There is nothing with this id.") from None
