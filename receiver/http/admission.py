"""Authenticate, rate limit and authorize a request, before anything of its body is read."""

from dataclasses import dataclass

from starlette.requests import Request

from receiver.errors import StaleForm, Unauthorized
from receiver.http.auth import Access, Caller
from receiver.http.limits import Limits
from receiver.http.sessions import CSRF_HEADER, Sessions

SAFE_METHODS = frozenset({"GET", "HEAD"})
"""They change nothing, so a session's cookie alone is enough to authenticate them."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Admits requests to the routes under `/v1`, by a bearer token or a session's cookie."""

    access: Access
    limits: Limits
    sessions: Sessions

    def admit(self, request: Request, scope: str) -> None:
        """Set `request.state.caller`, or raise Unauthorized, TooManyRequests, Forbidden or StaleForm.

        With a cookie, a request may change something only if a header has the session's CSRF token, which no
        other site knows.
        """
        try:
            caller = self._caller(request)
        except Unauthorized:
            self.limits.stranger(request)
            raise
        if not self.access.open:
            self.limits.api(caller.name)
        caller.must_reach(scope)
        request.state.caller = caller

    def _caller(self, request: Request) -> Caller:
        cookie = self.sessions.cookie_of(request)
        if self.access.open or cookie is None or "authorization" in request.headers:
            client = request.client.host if request.client else None
            return self.access.who(request.headers, client=client)
        session = self.sessions.read(cookie)
        if request.method not in SAFE_METHODS and not self.sessions.proves(
            session, request.headers.get(CSRF_HEADER, "")
        ):
            raise StaleForm(f"With a cookie, send the form token of its session in {CSRF_HEADER}.")
        return session.caller
