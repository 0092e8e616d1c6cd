"""Look up a host name once, and keep to the deadline of a download."""

import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Thread

from receiver.download.ssrf import Address, parse_address
from receiver.errors import ImageUnavailable
from storage.network import failure

Resolver = Callable[[str], Sequence[str]]
"""Returns every address of a host name, best first. Raises OSError if it has none."""

CONNECT_S = 10.0
"""Timeout of one lookup, one connection, or one TLS handshake."""


def system_resolver(host: str) -> list[str]:
    """Return the addresses that the system's resolver gives. Raises OSError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


class Deadline:
    """A point in time by which a download must be done."""

    def __init__(self, monotonic: Callable[[], float], seconds: float) -> None:
        self._monotonic = monotonic
        self._at = monotonic() + seconds

    def left(self, at_most: float) -> float:
        """Return the seconds that are left, `at_most` for one step. Raises TimeoutError if there are none."""
        left = self._at - self._monotonic()
        if left <= 0:
            raise TimeoutError("the time for the download is over")
        return min(left, at_most)


def lookup(host: str, resolve: Resolver, deadline: Deadline) -> list[Address]:
    """Return every address of a host name. Raises ImageUnavailable if it has none, and TimeoutError."""
    try:
        answers = _resolve(resolve, host, deadline.left(CONNECT_S))
    except TimeoutError:
        raise
    except (OSError, UnicodeError) as error:
        why = failure(error) if isinstance(error, OSError) else "is not a name that DNS could know"
        raise ImageUnavailable(f"{host} {why}.") from error
    if not answers:
        raise ImageUnavailable(f"{host} has no address.")
    return [parse_address(answer) for answer in answers]


def _resolve(resolve: Resolver, host: str, timeout_s: float) -> Sequence[str]:
    """Call a resolver in a thread, because the system's takes no timeout; one that hangs is abandoned."""
    found: Future[Sequence[str]] = Future()

    def run() -> None:
        try:
            found.set_result(resolve(host))
        except Exception as error:  # noqa: BLE001 - raised again in the caller's thread
            found.set_exception(error)

    Thread(target=run, name="darkroom-resolve", daemon=True).start()
    return found.result(timeout_s)
