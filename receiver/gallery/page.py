"""Handle what every page needs: authenticate the session, check CSRF tokens, render errors as pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any
from urllib.parse import urlencode

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import URL
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ExceptionHandler

from receiver.errors import AmbiguousId, DarkroomError, NoSuchThing, StaleForm, Unauthorized, Unready
from receiver.gallery.forms import NOTHING, Form, read_form, refuse_other_sites, safe_next
from receiver.gallery.rendering import Rendering
from receiver.http.admission import SAFE_METHODS, Admission
from receiver.http.auth import REACH
from receiver.http.middleware import http_problem
from receiver.http.prefix import without
from receiver.http.routing import complete
from receiver.http.sessions import CSRF_FIELD, Session, Sessions
from storage.errors import Ambiguous, NotFound, StorageError

log = structlog.get_logger("darkroom.gallery")

TITLES = {
    401: "Sign in first",
    403: "Not allowed",
    404: "Page not found",
    408: "Request timed out",
    409: "Not possible now",
    413: "Too large",
    422: "Invalid request",
    429: "Too many requests",
    503: "Temporarily unavailable",
}


@dataclass(frozen=True, slots=True)
class PageRequest:
    """One request for a page, with its session and form."""

    request: Request
    session: Session
    form: Form
    """The form sent, empty for GET; its CSRF token was checked."""
    frame: PageHandler

    def may(self, scope: str) -> bool:
        """Return whether the caller has a scope."""
        return scope in REACH[self.session.caller.scope]

    def given(self, name: str) -> str | None:
        """Return a query parameter, or None if it is missing or blank."""
        return self.request.query_params.get(name, "").strip() or None

    def page(self, template: str, *, status: int = 200, **words: Any) -> Response:
        """Render a page for this visitor; see `base.html` for what every page is given."""
        return self.frame.rendered(self.request, self.session, template, status=status, **words)


Handler = Callable[[PageRequest], Response]
"""Returns the response. Runs in a thread, so it may read the ledger; the bucket only by `BucketThreads`."""


Find = Callable[[str], str]


class PageRoute(Route):
    """A route that returns a page. `scope`: what a caller needs; None if the page is public."""

    def __init__(
        self, at: str, endpoint: Callable[[Request], Awaitable[Response]], scope: str | None
    ) -> None:
        method, _, path = at.partition(" ")
        super().__init__(path, endpoint, methods=[method])
        self.scope = scope


@dataclass(frozen=True, slots=True)
class PageHandler:
    """Authenticates callers and renders pages in the frame that all share."""

    admission: Admission
    sessions: Sessions
    rendering: Rendering
    public_url: str | None
    prefix: str

    def route(self, at: str, handler: Handler, *, scope: str = "read", find: Find | None = None) -> PageRoute:
        """Serve `GET /path` or `POST /path` for callers with this scope; `find` as in `admitted`."""

        async def answer(visit: PageRequest) -> Response:
            if visit.request.method not in SAFE_METHODS:
                form = await read_form(visit.request, within_s=self.admission.limits.body_timeout_s)
                self.check_form_token(visit.session, form.get(CSRF_FIELD, ""))
                visit = replace(visit, form=form)
            return await run_in_threadpool(handler, visit)

        return self.admitted(at, answer, scope=scope, find=find)

    def admitted(
        self,
        at: str,
        answer: Callable[[PageRequest], Awaitable[Response]],
        *,
        scope: str = "read",
        find: Find | None = None,
    ) -> PageRoute:
        """Serve a route whose body is not a plain form. Its handler checks the form token itself.

        `find` returns the whole `id` of what the path names, perhaps by its beginning.
        """

        async def endpoint(request: Request) -> Response:
            session = self.visitor(request)
            session.caller.must_reach(scope)
            if find is not None:
                request.path_params["id"] = await complete(find, request.path_params["id"])
            answered = await answer(PageRequest(request, session, NOTHING, self))
            self.sessions.renew(session, answered)
            return answered

        return self.open(at, endpoint, scope=scope)

    def open(
        self, at: str, endpoint: Callable[[Request], Awaitable[Response]], *, scope: str | None = None
    ) -> PageRoute:
        """Serve a public route; its errors are pages too."""

        @wraps(endpoint)
        async def guarded(request: Request) -> Response:
            try:
                if request.method not in SAFE_METHODS:
                    refuse_other_sites(request, self.public_url)
                return await endpoint(request)
            except ClientDisconnect:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, a person waits for a page
                return self.failed(request, error)

        return PageRoute(at, guarded, scope)

    def visitor(self, request: Request) -> Session:
        """Return the session of a request and count it; raise Unauthorized or TooManyRequests."""
        try:
            session = self._session(request)
        except Unauthorized:
            self.admission.limits.stranger(request)
            raise
        if session.mark:
            self.admission.limits.api(session.caller.name)
        return session

    def _session(self, request: Request) -> Session:
        access = self.admission.access
        if access.open:
            client = request.client.host if request.client else None
            return self.sessions.loopback(access.who(_as_followed(request), client=client))
        cookie = self.sessions.cookie_of(request)
        if cookie is None:
            raise Unauthorized("Sign in to see this.")
        return self.sessions.read(cookie)

    def check_form_token(self, session: Session, form_token: str) -> None:
        """Raise StaleForm unless this is a form token of this session."""
        if not self.sessions.proves(session, form_token):
            raise StaleForm("This form is from another session. Load its page again, then send it once more.")

    def rendered(
        self, request: Request, session: Session | None, template: str, *, status: int = 200, **words: Any
    ) -> Response:
        """Render a page in the frame that all share; `session` is None for those who are not signed in."""
        reach = REACH[session.caller.scope] if session else frozenset[str]()
        always = {
            "user": session and session.caller,
            "signed_in": bool(session and session.mark),
            "csrf": self.sessions.form_token(session) if session else "",
            "may_submit": "submit" in reach,
            "path": request.url.path,
            "q": words.pop("q", ""),
        }
        return self.rendering.page(template, {**always, **words}, status=status)

    def failed(self, request: Request, error: Exception) -> Response:
        """Return an error as a page that says what to do."""
        if isinstance(error, Unauthorized) and not self.admission.access.open:
            return self._to_sign_in(request)
        status, message, headers = _described(error)
        session: Session | None = None
        with suppress(Unauthorized):
            session = self._session(request)
        several = error.candidates if isinstance(error, Ambiguous) else ()
        title = "Which one?" if several else TITLES.get(status, "Something went wrong")
        request_id = request.state.request_id if status >= 500 else ""
        words = {"title": title, "message": message, "request_id": request_id, "candidates": several}
        answer = self.rendered(request, session, "error.html", status=status, **words)
        answer.headers.update(headers)
        return answer

    def handlers(self, handlers: Mapping[Any, ExceptionHandler]) -> dict[Any, ExceptionHandler]:
        """Return the same exception handlers, but with a 404 page for browsers."""

        async def answer(request: Request, error: Exception) -> Response:
            assert isinstance(error, HTTPException)
            if error.status_code == 404 and _wants_page(request):
                return self.failed(request, NoSuchThing("There is no page at this address."))
            return await http_problem(request, error)

        return {**handlers, HTTPException: answer}

    def _to_sign_in(self, request: Request) -> Response:
        # A form sent after the session expired is lost; return to the page that had it.
        page = request.url if request.method in SAFE_METHODS else URL(request.headers.get("referer", "/"))
        try:
            came_for = without(self.prefix, page.path) + (f"?{page.query}" if page.query else "")
        except ValueError:  # These headers are untrusted.
            came_for = "/"
        return RedirectResponse(
            "/sign-in?" + urlencode({"next": safe_next(came_for), "why": "session"}),
            303,
            {"cache-control": "no-store"},
        )


def _described(error: Exception) -> tuple[int, str, Mapping[str, str]]:
    """Return the status code, message and headers for an error."""
    match error:
        case DarkroomError():
            return error.status, str(error), error.headers
        case NotFound():
            return 404, str(error), {}
        case Ambiguous():
            return AmbiguousId.status, "Several ids have this beginning:", {}
        case StorageError():
            log.error("storage failed", why=str(error))
            message = "The ledger or the bucket did not answer. Try again in a moment."
            return Unready.status, message, Unready.headers
        case _:
            log.error("page failed", exc_info=error)
            return 500, "Something went wrong. The log has the details under this request id.", {}


def _as_followed(request: Request) -> Mapping[str, str]:
    """Return the headers, with a followed link treated like a typed address.

    The page that had the link cannot see what it leads to, and `frame-ancestors` keeps it from showing it.
    """
    headers = dict(request.headers)
    followed = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    if request.method in SAFE_METHODS and followed:
        headers.pop("sec-fetch-site", None)
    return headers


def _wants_page(request: Request) -> bool:
    """Return whether a browser asks for a page, not for the API."""
    elsewhere = request.url.path.startswith(("/v1/", "/callbacks/", "/static/"))
    return (
        request.method in SAFE_METHODS and "text/html" in request.headers.get("accept", "") and not elsewhere
    )
