"""Sign in with an API token, and sign out."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from receiver.errors import Unauthorized
from receiver.gallery.forms import read_form, safe_next
from receiver.gallery.page import PageHandler, PageRequest
from receiver.http.sessions import came_over_https

MAX_SIGN_IN = 16 * 1024
"""Bytes of the form, which is public."""

WHYS = {"session": "Sign in to go on.", "out": "You are signed out."}


@dataclass(frozen=True, slots=True)
class SigningIn:
    """The pages `/sign-in` and `/sign-out`."""

    frame: PageHandler

    async def ask(self, request: Request) -> Response:
        """Ask for a token."""
        if self.frame.admission.access.open:
            return RedirectResponse("/", 303)
        why = WHYS.get(request.query_params.get("why", ""), "")
        return self._form(request, request.query_params.get("next"), why=why)

    async def sign_in(self, request: Request) -> Response:
        """Exchange a token for a session cookie, and redirect to the page asked for first."""
        within_s = self.frame.admission.limits.body_timeout_s
        form = await read_form(request, within_s=within_s, limit=MAX_SIGN_IN)
        secure = came_over_https(request, self.frame.public_url)
        try:
            session = self.frame.sessions.begin(form.get("token", ""), secure=secure)
        except Unauthorized:
            self.frame.admission.limits.stranger(request)
            wrong = "This token is unknown here. Check its spelling, or ask the operator of this Darkroom."
            return self._form(request, form.get("next"), wrong=wrong, status=401)
        answer = RedirectResponse(safe_next(form.get("next")), 303, {"cache-control": "no-store"})
        self.frame.sessions.keep(session, answer)
        return answer

    def sign_out(self, _visit: PageRequest) -> Response:
        """Delete the session cookie."""
        answer = RedirectResponse("/sign-in?why=out", 303, {"cache-control": "no-store"})
        self.frame.sessions.end(answer)
        # What the browser keeps of this site was shown to the one who just left.
        answer.headers["clear-site-data"] = '"cache"'
        return answer

    def _form(
        self, request: Request, following: str | None, *, why: str = "", wrong: str = "", status: int = 200
    ) -> Response:
        words = {"next": safe_next(following), "why": why, "wrong": wrong}
        return self.frame.rendered(request, None, "sign_in.html", status=status, **words)
