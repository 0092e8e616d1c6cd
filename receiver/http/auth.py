"""Who may use the API: bearer tokens with scopes, and loopback only where there are none."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from receiver.errors import Forbidden, SettingsError, Unauthorized
from receiver.settings_types import read_api_tokens

REACH = {
    "read": frozenset({"read"}),
    "submit": frozenset({"read", "submit"}),
    "admin": frozenset({"read", "submit", "admin"}),
}
"""What each scope allows."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request comes from."""

    name: str
    scope: str

    def must_reach(self, scope: str) -> None:
        """Raise Forbidden where this scope is beyond the caller's own."""
        if scope not in REACH[self.scope]:
            raise Forbidden(f"This needs a token of scope {scope}; {self.name} has {self.scope}.")


@dataclass(frozen=True, slots=True)
class Known:
    """A token that somebody was given, as far as it is kept."""

    caller: Caller
    digest: bytes

    @property
    def mark(self) -> str:
        """A short name of the token from which nobody can tell the token; a session is for one of these."""
        return hashlib.sha256(b"darkroom.mark.v1" + self.digest).hexdigest()[:24]


class Access:
    """The API tokens of this installation; only digests of them are kept."""

    def __init__(self, tokens: Iterable[str]) -> None:
        """Each token is `name:scope:token`; raises ValueError that says what is wrong with one of them."""
        self._known = [
            Known(Caller(one.name, one.scope), _digest(one.secret)) for one in read_api_tokens(tokens)
        ]

    @property
    def open(self) -> bool:
        """Whether there are no tokens, so that whoever comes over loopback may do everything."""
        return not self._known

    def refuse_exposure(self, host: str, public_url: str | None) -> None:
        """Raise SettingsError where the settings would open an API without tokens to others."""
        if not self.open:
            return
        if not is_loopback(host):
            raise SettingsError(
                f"DARKROOM_HOST is {host}, so anybody who reaches it could use the API: "
                "set DARKROOM_API_TOKENS, or listen on 127.0.0.1."
            )
        if public_url is not None and not is_loopback(urlsplit(public_url).hostname):
            raise SettingsError(
                f"DARKROOM_PUBLIC_URL is {public_url}, so something forwards requests from outside: "
                "set DARKROOM_API_TOKENS, or anybody could use the API."
            )

    def who(self, headers: Mapping[str, str], *, client: str | None) -> Caller:
        """Tell who a request comes from, or raise Unauthorized.

        `client` is the address it came from; the names of `headers` are in lower case. Where there are no
        tokens that must be loopback, and nothing in the headers may say that the request came farther: a
        proxy, a tunnel and a web page in a browser all connect from loopback as well.
        """
        if not self.open:
            return self._who(headers.get("authorization"))
        if not is_loopback(client) or _came_farther(headers):
            raise Unauthorized("Set DARKROOM_API_TOKENS to use the API from anywhere but loopback.")
        return Caller("loopback", "admin")

    def known(self, token: str) -> Known | None:
        """Whose token this is, if it is anybody's."""
        digest = _digest(token.strip())
        # Every token is compared, so that the time taken says nothing about which one came near.
        matches = [known for known in self._known if hmac.compare_digest(known.digest, digest)]
        return matches[0] if matches else None

    def marked(self, mark: str) -> Known | None:
        """Which token has this mark, if it is still one of ours."""
        return next((known for known in self._known if hmac.compare_digest(known.mark, mark)), None)

    def _who(self, authorization: str | None) -> Caller:
        kind, _, token = (authorization or "").partition(" ")
        known = self.known(token)
        if kind.lower() != "bearer" or known is None:
            raise Unauthorized("Send one of the tokens of DARKROOM_API_TOKENS: `Authorization: Bearer ...`.")
        return known.caller


def _came_farther(headers: Mapping[str, str]) -> bool:
    origin = headers.get("origin")
    return (
        not is_loopback(_host_only(headers.get("host")))
        or any(name == "forwarded" or name.startswith("x-forwarded-") for name in headers)
        or headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}
        or (origin is not None and not is_loopback(host_of(origin)))
    )


def is_loopback(host: str | None) -> bool:
    """Whether a host name or address means this machine."""
    if host is None:
        return False
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(url: str) -> str | None:
    """The host that a URL from outside names; None if it names none, or cannot be read as a URL."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _host_only(host: str | None) -> str | None:
    if host is None:
        return None
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
