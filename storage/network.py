"""Say in plain words why a connection failed, whichever library made it.

httpx, httpcore and urllib3 under boto3 each have errors of their own, with words of their own; what lies
under all of them is an OSError of the system or of TLS, which alone is read here.
"""

import errno
import re
import socket
import ssl
from collections.abc import Iterator

NO_ANSWER = "closed the connection, or sent what is not HTTP"
CA_BUNDLE = "DARKROOM_OUTBOUND__CA_BUNDLE"
PROXY = "DARKROOM_OUTBOUND__PROXY"
_PROXY = f"the proxy in {PROXY}"

_BROKEN = "broke off the connection"
_NO_ROUTE = "cannot be reached: this machine has no route to it"
_BY_ERRNO = {
    errno.ECONNREFUSED: "refuses the connection: nothing listens on that port",
    errno.ECONNRESET: _BROKEN,
    errno.ECONNABORTED: _BROKEN,
    errno.EPIPE: _BROKEN,
    errno.EHOSTUNREACH: _NO_ROUTE,
    errno.ENETUNREACH: _NO_ROUTE,
    errno.EHOSTDOWN: _NO_ROUTE,
    errno.ETIMEDOUT: "did not respond in time",
    errno.EACCES: "cannot be reached: a firewall of this machine forbids it",
    errno.EPERM: "cannot be reached: a firewall of this machine forbids it",
    errno.EMFILE: "cannot be reached: this process has too many files open; raise its limit (ulimit -n)",
    errno.ENFILE: "cannot be reached: this machine has too many files open",
    errno.EADDRNOTAVAIL: "cannot be reached: this machine has no local port or address left for it",
}

# https://docs.openssl.org/master/man3/X509_STORE_CTX_get_error/
_BY_VERIFY_CODE = {
    9: "has a TLS certificate that is not valid yet: look at the clock of this machine",
    10: "has a TLS certificate that has expired",
    62: "has a TLS certificate for another name",
    64: "has a TLS certificate for another address",
}
_UNTRUSTED = (
    "has a TLS certificate of an authority that is not trusted here: name the file of a private one in "
    f"{CA_BUNDLE}"
)
_UNTRUSTED_CODES = frozenset({2, 18, 19, 20, 21})

_STATUS = re.compile(r"\b[345]\d\d\b")
_BY_PROXY_STATUS = {
    "403": f"cannot be reached: {_PROXY} forbids it (403)",
    "407": f"cannot be reached: {_PROXY} does not accept the user and password there (407)",
}


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what lies under it, outermost first."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or one.__context__


def failure(error: BaseException) -> str:
    """Return what went wrong with a connection, as it reads after the name of the host."""
    found = list(causes(error))
    if any(type(one).__name__.startswith("Proxy") for one in found):
        return _of_proxy(found)
    if any(type(one).__name__ == "CertificateError" for one in found):  # of urllib3: no OSError
        return _BY_VERIFY_CODE[62]
    return _first(found) or NO_ANSWER


def _of_proxy(found: list[BaseException]) -> str:
    if why := _first(found):
        return f"cannot be reached: {_PROXY} {why}"
    # The innermost first, because others quote an address, whose port may look like a status.
    status = next((words[0] for one in reversed(found) if (words := _STATUS.findall(str(one)))), "no answer")
    return _BY_PROXY_STATUS.get(status, f"cannot be reached by {_PROXY} ({status})")


def _first(found: list[BaseException]) -> str | None:
    return next((why for one in found if isinstance(one, OSError) and (why := _of_system(one))), None)


def _of_system(error: OSError) -> str | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _UNTRUSTED_CODES:
            return _UNTRUSTED
        return _BY_VERIFY_CODE.get(
            error.verify_code, f"has a TLS certificate that is refused (OpenSSL {error.verify_code})"
        )
    if isinstance(error, ssl.SSLError):
        return _of_tls(error)
    if isinstance(error, socket.gaierror):
        if error.errno == socket.EAI_AGAIN:
            return "could not be looked up: DNS does not respond"
        return "is not known to DNS"
    if isinstance(error, TimeoutError):
        return _BY_ERRNO[errno.ETIMEDOUT]
    return _BY_ERRNO.get(error.errno or 0)


def _of_tls(error: ssl.SSLError) -> str:
    reason = getattr(error, "reason", None)
    if reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"}:
        return "does not speak TLS on that port: is http:// meant, or another port?"
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return "broke off the TLS handshake"
    return "does not agree on a TLS version or cipher with this machine"
