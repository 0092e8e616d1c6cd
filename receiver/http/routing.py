"""Declare routes with their parameters, responses and errors, for the service and `/openapi.json` alike.

A new route is a method of its part with an `Operation` above it. The method's docstring describes it, and
its parameter `query` says which model has its query parameters.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from receiver import errors
from receiver.errors import DarkroomError
from receiver.http.admission import Admission
from receiver.http.auth import REACH
from receiver.http.query import NoQuery, Query, read_query
from receiver.schemas.faults import fault
from receiver.schemas.types import UUID, JobName, NotificationName, OutputName

if TYPE_CHECKING:
    from storage.search.ids import Ids

_WHOLE = re.compile(rf"{UUID}(\.[0-9]+)?|msg_{UUID}_[0-9]+")
"""A whole id; it costs no look-up."""


class _IdConvertor(StringConvertor):
    """A part of a path that may be an id: not a word that is a path of its own."""

    regex = "(?!(?:batch|test)$)[^/]+"


register_url_convertor("id", _IdConvertor())

Handler = TypeVar("Handler", bound=Callable[..., Response | Awaitable[Response | None]])


@dataclass(frozen=True, slots=True)
class Header:
    """A header of a request or a response. `kind` is any type that pydantic can validate."""

    name: str
    meaning: str
    kind: Any = str
    always: bool = True
    """Whether a response always has it; in a request no header is required."""

    def read(self, headers: Mapping[str, str]) -> str | None:
        """Its value in a request, if it is there; raise errors.InvalidRequest if it is wrong."""
        value = headers.get(self.name)
        try:
            return None if value is None else str(adapter(self.kind).validate_python(value))
        except ValidationError as error:
            raise errors.InvalidRequest(
                [fault({**one, "loc": (self.name,)}) for one in error.errors()]
            ) from None


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
class Operation:
    """Decorates the handler of a route with its parameters, responses and errors.

    `at` is the method and the path. `path` has the type of each part of the path that is in braces.
    `errors` are those that only this route has; `every_error` adds those that follow from the rest.
    """

    at: str
    name: str
    """Its operationId: the name in a generated client."""
    answers: Mapping[int, Answer]
    scope: str | None = "read"
    """The scope that a token needs; None if the route is public."""
    path: Mapping[str, Any] = field(default_factory=dict)
    headers: tuple[Header, ...] = ()
    body: Body | None = None
    errors: tuple[type[DarkroomError], ...] = ()

    def __call__(self, handler: Handler) -> Handler:
        """Note the operation on its handler, where `routes_of` finds it."""
        handler.operation = self  # type: ignore[attr-defined]
        return handler

    def every_error(self) -> set[type[DarkroomError]]:
        """Return every error that the route may respond with."""
        found: set[type[DarkroomError]] = {DarkroomError, *self.errors}
        if self.body is not None:
            found |= {errors.BodyTooLarge, errors.TooSlow}
        if self.scope is not None:
            # A guarded route reads or writes the ledger.
            found |= {errors.Unauthorized, errors.TooManyRequests, errors.InvalidRequest, errors.Unready}
            if not self.at.startswith("GET "):
                found.add(errors.StaleForm)
            if any(self.scope not in reached for reached in REACH.values()):
                found.add(errors.Forbidden)
            if self.path:
                found |= {errors.NoSuchThing, errors.AmbiguousId}
        return found


class Served(Route):
    """A route with its operation. The docstring of its handler is its description."""

    def __init__(self, operation: Operation, endpoint: Callable[..., Any], query: type[Query] = NoQuery):
        method, _, path = operation.at.partition(" ")
        super().__init__(path, endpoint, methods=[method])
        self.operation = operation
        self.query = query
        self.method = method
        self.meaning = inspect.getdoc(endpoint) or ""


def routes_of(admission: Admission, *parts: object, ids: Ids | None = None) -> list[Served]:
    """Return the routes of several parts: of each method with an operation, in the order of the class."""
    return [
        served(method.operation, getattr(part, name), admission, ids)
        for part in parts
        for name, method in vars(type(part)).items()
        if isinstance(getattr(method, "operation", None), Operation)
    ]


def served(
    operation: Operation, handler: Callable[..., Any], admission: Admission, ids: Ids | None = None
) -> Served:
    """Return the route of an operation; if it has a scope, validates token, path and query first.

    With `ids`, a handler gets the whole id where the path has its beginning.

    A plain `def` handler runs in a thread. Make a handler `async` only if it awaits something itself.
    """
    scope = operation.scope
    if scope is None:
        return Served(operation, handler)
    handle, query = _awaitable(handler), get_type_hints(handler).get("query")
    finders = _finders(ids) if ids else {}

    @wraps(handler)
    async def endpoint(request: Request) -> Response:
        admission.admit(request, scope)
        _check_path(operation, request.path_params)
        given = read_query(query or NoQuery, request.query_params)
        await _complete_path(operation, request.path_params, finders)
        return await (handle(request, given) if query else handle(request))

    return Served(operation, endpoint, query or NoQuery)


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


def _check_path(operation: Operation, given: Mapping[str, Any]) -> None:
    try:
        for name, kind in operation.path.items():
            adapter(kind).validate_python(given[name])
    except ValidationError:
        raise errors.NoSuchThing(
            "There is nothing with this id. Give the whole id, or its first 8 characters or more."
        ) from None


def _finders(ids: Ids) -> Mapping[Any, Callable[[str], str]]:
    return {JobName: ids.job, OutputName: ids.output, NotificationName: ids.notification}


async def _complete_path(
    operation: Operation, given: dict[str, Any], finders: Mapping[Any, Callable[[str], str]]
) -> None:
    for name, kind in operation.path.items():
        if kind in finders:
            given[name] = await complete(finders[kind], given[name])


async def complete(find: Callable[[str], str], name: str) -> str:
    """Return the whole id of what a request names, perhaps by its beginning."""
    return name if _WHOLE.fullmatch(name) else await run_in_threadpool(find, name)
