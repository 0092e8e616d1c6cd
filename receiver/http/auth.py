"""Authenticate API requests: bearer tokens with scopes, and loopback only where there are no tokens."""

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
"""The scopes that each scope includes."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of an API request, authenticated."""

    name: str
    scope: str

    def reaches(self, scope: str) -> bool:
        """Return whether the caller's scope includes this one."""
        return scope in REACH[self.scope]

    def must_reach(self, scope: str) -> None:
        """Raise Forbidden if the caller's scope does not include this one."""
        if not self.reaches(scope):
            raise Forbidden(f"This needs a token of scope {scope}; {self.name} has {self.scope}.")


@dataclass(frozen=True, slots=True)
class KnownToken:
    """An API token, as far as it is kept."""

    caller: Caller
    digest: bytes

    @property
    def mark(self) -> str:
        """A short hash that names the token in the cookie of a session."""
        return hashlib.sha256(b"darkroom.mark.v1" + self.digest).hexdigest()[:24]


class Access:
    """The API tokens of this installation; only digests of them are kept."""

    def __init__(self, tokens: Iterable[str]) -> None:
        """Parse tokens of the form `name:scope:token`; raises ValueError that says what is wrong with one."""
        self._known = [
            KnownToken(Caller(one.name, one.scope), _digest(one.secret)) for one in read_api_tokens(tokens)
        ]

    @property
    def open(self) -> bool:
        """Whether there are no tokens, so that every request over loopback may do everything."""
        return not self._known

    def refuse_exposure(self, host: str, public_url: str | None) -> None:
        """Raise SettingsError if the settings would expose an API without tokens."""
        if not self.open:
            return
        if not is_loopback(host):
            raise SettingsError(
                f"DARKROOM_HOST is {host}, so everyone who can reach it could use the API: "
                "set DARKROOM_API_TOKENS, or listen on 127.0.0.1."
            )
        if public_url is not None and not is_loopback(urlsplit(public_url).hostname):
            raise SettingsError(
                f"DARKROOM_PUBLIC_URL is {public_url}, so requests come from outside: "
                "set DARKROOM_API_TOKENS, or everyone could use the API."
            )

    def who(self, headers: Mapping[str, str], *, client: str | None) -> Caller:
        """Return the caller of a request, or raise Unauthorized.

        `client` is its IP address; the names of `headers` are in lower case. Without tokens the address must
        be loopback, and no header may show that the request was forwarded: a proxy, a tunnel and a web page
        connect from loopback as well.
        """
        if self.open:
            if not is_loopback(client) or _is_forwarded(headers):
                raise Unauthorized("Set DARKROOM_API_TOKENS to use the API from anywhere but loopback.")
            return Caller("loopback", "admin")
        kind, _, token = headers.get("authorization", "").partition(" ")
        known = self.known(token)
        if kind.lower() != "bearer" or known is None:
            raise Unauthorized("Send one of the tokens of DARKROOM_API_TOKENS: `Authorization: Bearer ...`.")
        return known.caller

    def known(self, token: str) -> KnownToken | None:
        """Return the known token of this text, if there is one."""
        digest = _digest(token.strip())
        # Compares with every token, so that the time taken says nothing about which one is similar.
        matches = [known for known in self._known if hmac.compare_digest(known.digest, digest)]
        return matches[0] if matches else None

    def marked(self, mark: str) -> KnownToken | None:
        """Return the known token with this mark, if there is one."""
        return next((known for known in self._known if hmac.compare_digest(known.mark, mark)), None)


def _is_forwarded(headers: Mapping[str, str]) -> bool:
    origin = headers.get("origin")
    return (
        not is_loopback(host_of("//" + headers.get("host", "")))
        or any(name == "forwarded" or name.startswith("x-forwarded-") for name in headers)
        or headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}
        or (origin is not None and not is_loopback(host_of(origin)))
    )


def is_loopback(host: str | None) -> bool:
    """Return whether a host name or address is this machine."""
    if host is None:
        return False
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(url: str) -> str | None:
    """Return the host of an untrusted URL; None if it has none or is not valid."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
