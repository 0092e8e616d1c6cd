"""Sign and verify the session cookies of the gallery, for which an API token is exchanged, and CSRF tokens.

No session is kept on the server, so that every replica knows every session. A session names its token by a
hash: when the token is removed from `DARKROOM_API_TOKENS`, its sessions end, and its scope is always the
present scope of the token.
"""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from itsdangerous import BadData, Signer, URLSafeSerializer
from starlette.requests import Request
from starlette.responses import Response

from receiver.errors import Unauthorized
from receiver.http.auth import Access, Caller, host_of
from storage.models import Clock

COOKIE = "darkroom-session"
CSRF_HEADER = "X-CSRF-Token"
CSRF_FIELD = "csrf"

IDLE_S = 12 * 3600
"""How long a session lasts after it was last used."""
MOST_S = 7 * 24 * 3600
"""How long it lasts at most; then the token is asked for again."""
RENEW_S = 15 * 60
"""A cookie is renewed once it is older than this."""
CLOCK_SLACK_S = 3600
"""How far in the future a cookie may have been made: a clock may have been set back since."""

MAX_COOKIE_CHARS = 512
SALT = "darkroom.session.v1"
FORM_SALT = "darkroom.form.v1"


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in caller, or one over loopback where no token is needed. Times are seconds."""

    caller: Caller
    mark: str
    nonce: str
    began: int
    used: int
    secure: bool
    """Whether the cookie may go over https only."""


class Sessions:
    """Begins, verifies and ends sessions. `secret_keys` are oldest first: the last signs, all verify."""

    def __init__(self, access: Access, secret_keys: Sequence[str], clock: Clock, *, prefix: str = "") -> None:
        """`prefix`: the path of the cookies, which also sets them apart from those of others."""
        self._path = prefix or "/"
        self._cookie = COOKIE + prefix.replace("/", "-")
        self._access = access
        self._clock = clock
        sha256 = {"digest_method": hashlib.sha256}
        self._cookies = URLSafeSerializer(list(secret_keys), salt=SALT, signer_kwargs=sha256)
        self._forms = Signer(list(secret_keys), salt=FORM_SALT, digest_method=hashlib.sha256)

    def cookie_of(self, request: Request) -> str | None:
        """Return the session cookie of a request, if any."""
        return request.cookies.get(self._cookie)

    def begin(self, token: str, *, secure: bool) -> Session:
        """Exchange an API token for a session; raise Unauthorized if it is unknown."""
        known = self._access.known(token)
        if known is None:
            raise Unauthorized("This is not one of the tokens in DARKROOM_API_TOKENS.")
        now = self._now()
        return Session(known.caller, known.mark, secrets.token_urlsafe(12), now, now, secure)

    def loopback(self, caller: Caller) -> Session:
        """Return the session of a caller over loopback where there are no tokens; it has no cookie."""
        return Session(caller, "", "", 0, 0, secure=False)

    def read(self, cookie: str) -> Session:
        """Return the session of a cookie; raise Unauthorized if expired, forged, or its token is gone."""
        session = self._read(cookie) if len(cookie) <= MAX_COOKIE_CHARS else None
        if session is None or not self._lasts(session):
            raise Unauthorized("The session has expired; sign in again.")
        return session

    def _read(self, cookie: str) -> Session | None:
        try:
            mark, nonce, began, used, secure = self._cookies.loads(cookie)
            known = self._access.marked(str(mark))
            if known is None:
                return None
            return Session(known.caller, known.mark, str(nonce), int(began), int(used), bool(secure))
        except (BadData, ValueError, TypeError):
            return None

    def form_token(self, session: Session) -> str:
        """Return the CSRF token of a session's forms: no other site and no other session knows it."""
        return self._forms.get_signature(self._signed(session)).decode()

    def proves(self, session: Session, form_token: str) -> bool:
        """Return whether this is the CSRF token of this session."""
        return self._forms.verify_signature(self._signed(session), form_token.encode("utf-8", "replace"))

    def keep(self, session: Session, response: Response) -> None:
        """Set the cookie of a session."""
        parts = [session.mark, session.nonce, session.began, session.used, int(session.secure)]
        value = self._cookies.dumps(parts)
        response.set_cookie(
            self._cookie,
            str(value),
            max_age=IDLE_S,
            path=self._path,
            secure=session.secure,
            httponly=True,
        )

    def renew(self, session: Session, response: Response) -> None:
        """Set its cookie again if it is old, unless the response sets or deletes it already."""
        if any(line.startswith(f"{self._cookie}=") for line in response.headers.getlist("set-cookie")):
            return
        now = self._now()
        if session.mark and now - session.used >= RENEW_S:
            self.keep(replace(session, used=now), response)

    def end(self, response: Response) -> None:
        """Delete the cookie."""
        response.delete_cookie(self._cookie, path=self._path, httponly=True)

    def _lasts(self, session: Session) -> bool:
        now = self._now()
        idle, age = now - session.used, now - session.began
        return -CLOCK_SLACK_S <= idle <= IDLE_S and age <= MOST_S

    def _signed(self, session: Session) -> str:
        return f"{session.mark}.{session.nonce}"

    def _now(self) -> int:
        return self._clock() // 1000


def came_over_https(request: Request, public_url: str | None) -> bool:
    """Return whether a request came over https, as far as this side of a proxy can see.

    A browser that sends a form names the scheme in `Origin`. To trust it is safe here: a false one could only
    keep the sender's own cookie off plain http.
    """
    public = urlsplit(public_url or "")
    asked = host_of(str(request.url))
    return (
        request.url.scheme == "https"
        or request.headers.get("x-forwarded-proto", "").strip().lower().startswith("https")
        or request.headers.get("origin", "").startswith("https://")
        or (public.scheme == "https" and asked == public.hostname)
    )
