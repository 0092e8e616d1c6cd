"""Middleware and error handlers of every response: request id, access log, safe headers, problem details."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from time import perf_counter
from typing import Any

import structlog
import uuid_utils
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, ExceptionHandler, Message, Receive, Scope, Send

from receiver.errors import (
    AmbiguousId,
    DarkroomError,
    InvalidRequest,
    MissingFromBucket,
    TooManyRequests,
    Unready,
)
from receiver.http.prefix import without
from receiver.telemetry.logs import Tally, write_soon
from receiver.telemetry.metrics import Count, Metrics
from storage.errors import Ambiguous, NotFound, StorageError, TookTooLong

log = structlog.get_logger("darkroom.http")

SAFE_HEADERS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
Header = tuple[bytes, bytes]
_SAFE = [(name.encode(), value.encode()) for name, value in SAFE_HEADERS.items()]
UNEXPECTED = "Something went wrong here; the log has it under this request id."
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_ID = re.compile(r"[\w.-]{1,64}")
_TOKEN_PATH = re.compile(r"(/callbacks/[^/]*/).+", re.IGNORECASE | re.DOTALL)


class RequestLog:
    """Logs one line for each request, and measures it.

    A handler may put the fields of the line into `request.state.line`: its event and path, also its level.
    Requests over their rate limit are only counted, so that they cannot fill the log.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._over_limit = Tally(log, "requests over their limit")
        self._measured: dict[tuple[str, str, int], tuple[Count, Count]] = {}

    def note(self, scope: Scope, status: int, seconds: float) -> None:
        """Note a request that was answered, or was given up, after so many seconds."""
        self._log(scope, status, seconds)
        self._measure(scope, status, seconds)

    def _log(self, scope: Scope, status: int, seconds: float) -> None:
        state = scope["state"]
        if status == TooManyRequests.status and "line" not in state:
            self._over_limit.add()
            return
        line = state.get("line") or {"event": "request", "path": shown_path(scope["path"])}
        level, ms = line.pop("level", "info"), round(seconds * 1000, 1)
        write_soon(level, **line, method=scope["method"], status=status, ms=ms, request=state["request_id"])

    def _measure(self, scope: Scope, status: int, seconds: float) -> None:
        # The template and never the path, which anyone can make up, and which may hold a token.
        route = getattr(scope.get("route"), "path_format", "none")
        method = scope["method"] if scope["method"] in METHODS else "other"
        if (known := self._measured.get(key := (route, method, status))) is None:
            labels = {"route": route, "method": method}
            known = self._measured[key] = (
                self._metrics.counter("darkroom_http_requests_total", **labels, status=str(status)),
                self._metrics.histogram("darkroom_http_request_seconds", **labels),
            )
        count, observe = known
        count(1)
        observe(seconds)
        if status == 429:
            self._metrics.count("darkroom_api_requests_refused_total")


class RequestMiddleware:
    """The outermost middleware: sets a request id, adds safe headers, logs one line, and measures."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._log = RequestLog(metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, by the ASGI protocol."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, started = perf_counter(), 500, False
        request_id = _request_id(scope["headers"])
        scope.setdefault("state", {})["request_id"] = request_id

        async def respond(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                message["headers"] = [*_with_ours(message["headers"]), (b"x-request-id", request_id.encode())]
            await send(message)

        # Each request is a task, which has a context of its own.
        structlog.contextvars.bind_contextvars(request=request_id)
        try:
            await self._app(scope, receive, respond)
        except ClientDisconnect:
            status = 499
        except Exception:
            log.exception("request failed")
            if started:
                raise
            await _failed()(scope, receive, respond)
        finally:
            self._log.note(scope, status, perf_counter() - began)


Respond = Callable[[Callable[[], Response]], None]
"""Sends what a function returns, or says that something went wrong here if it raises."""
Write = Callable[[bytes, bytes], None]
"""Writes the head of a response, without the line that ends it, and its body."""


class AtOnce:
    """Serves the route of most requests by plain calls, where a request is here whole.

    A task, the router and the messages of ASGI would take as long as the rest of it. Whatever is not so
    simple is left to them. The requests have the ids, headers, lines and metrics of all others.
    """

    def __init__(
        self, route: Route, handle: Callable[[Scope, bytes, Respond], bool], metrics: Metrics, prefix: str
    ) -> None:
        """`handle` responds now or later, or returns False; the path is `/<word>/{...}/{...:path}`."""
        self._route = route
        self._handle = handle
        self._log = RequestLog(metrics)
        self._prefix = prefix
        self._method = next(iter(route.methods or ()))
        self._begins = f"/{route.path.split('/')[1]}/"
        self._first, self._rest = route.param_convertors

    def __call__(self, scope: Scope, body: bytes, write: Write) -> bool:
        """Serve a request; returns False, and has done nothing, if that is for the application to do."""
        path = without(self._prefix, scope["path"])
        if scope["method"] != self._method or not path.startswith(self._begins):
            return False
        first, slash, rest = path[len(self._begins) :].partition("/")
        if not (first and slash):
            return False
        began, request_id = perf_counter(), _request_id(scope["headers"])
        here = {"route": self._route, "path_params": {self._first: first, self._rest: rest}}
        scope = {**scope, "path": path, **here, "state": {"request_id": request_id}}

        def respond(made: Callable[[], Response]) -> None:
            try:
                response = made()
            except Exception:
                log.exception("request failed", request=request_id)
                response = _failed()
            head = _head(response.status_code, tuple(response.raw_headers))
            write(b"%bx-request-id: %b\r\n" % (head, request_id.encode()), bytes(response.body))
            self._log.note(scope, response.status_code, perf_counter() - began)

        try:
            return self._handle(scope, body, respond)
        except Exception:
            log.exception("request failed", request=request_id)
            respond(_failed)
            return True


def shown_path(path: str) -> str:
    """Redact a path for the log: without the token of a callback URL, and unable to forge a line."""
    if path.isascii() and "callbacks" not in path.lower() and len(path) <= 300 and path.isprintable():
        return path
    shown = _TOKEN_PATH.sub(r"\1[token]", path)[:300]
    return shown if shown.isprintable() else ascii(shown)


def problem(
    status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any
) -> Response:
    """Return an error response with RFC 9457 problem details and our short code."""
    content = details(status, code, detail) | more
    return JSONResponse(content, status, headers, media_type="application/problem+json")


def details(status: int, code: str, detail: str) -> dict[str, Any]:
    """Return the fields that every RFC 9457 problem has here."""
    title = code.replace("_", " ").capitalize()
    return {"type": "about:blank", "title": title, "status": status, "code": code, "detail": detail}


def problem_of(error: DarkroomError | StorageError) -> Response:
    """Return the response for an error of ours."""
    return _ours(error) if isinstance(error, DarkroomError) else _storage(error)


def handlers() -> dict[Any, ExceptionHandler]:
    """Return the exception handlers of the application."""
    return {DarkroomError: _problem_of, StorageError: _problem_of, HTTPException: http_problem}


async def _problem_of(_request: Request, error: Exception) -> Response:
    assert isinstance(error, DarkroomError | StorageError)
    return problem_of(error)


def _ours(error: DarkroomError) -> Response:
    more: dict[str, Any] = {"faults": error.faults} if isinstance(error, InvalidRequest) else {}
    if isinstance(error, MissingFromBucket):
        more["object"] = error.facts
    return problem(error.status, error.code, str(error), headers=error.headers, **more)


def _storage(error: StorageError) -> Response:
    if isinstance(error, NotFound):
        return problem(404, "not_found", str(error))
    if isinstance(error, Ambiguous):
        candidates = list(error.candidates)
        return problem(AmbiguousId.status, AmbiguousId.code, str(error), candidates=candidates)
    if isinstance(error, TookTooLong):
        log.warning("a query was cancelled", why=str(error))
        return problem(503, Unready.code, str(error), headers=Unready.headers)
    log.error("storage failed", why=str(error))
    return problem(503, Unready.code, "The ledger or the bucket did not answer.", headers=Unready.headers)


def _failed() -> Response:
    return problem(500, DarkroomError.code, UNEXPECTED)


async def http_problem(request: Request, error: Exception) -> Response:
    """Return the response for an unknown path, or a method that the path does not take."""
    assert isinstance(error, HTTPException)
    codes = {404: "not_found", 405: "method_not_allowed"}
    code = codes.get(error.status_code, "bad_request")
    headers = error.headers
    if error.status_code == 405:
        headers = {"allow": ", ".join(sorted(_methods(request)))}
    return problem(error.status_code, code, error.detail, headers=headers)


def _methods(request: Request) -> set[str]:
    """Return every method of a path. Starlette itself would name those of the first route only."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    here = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return {method for route in here for method in route.methods or ()}


def _with_ours(headers: Sequence[Header]) -> list[Header]:
    """Return the headers of a response with those that all have."""
    given = {name for name, _ in headers}
    return [*headers, *[header for header in _SAFE if header[0] not in given]]


@lru_cache(maxsize=256)
def _head(status: int, headers: tuple[Header, ...]) -> bytes:
    """Return the head of a response as HTTP has it, up to its request id."""
    lines = b"".join(b"%b: %b\r\n" % header for header in _with_ours(headers))
    return b"HTTP/1.1 %d %b\r\n%b" % (status, HTTPStatus(status).phrase.encode(), lines)


def _request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(given := value.decode("latin-1")):
            return given
    return uuid_utils.uuid7().hex
