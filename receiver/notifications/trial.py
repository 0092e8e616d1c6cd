"""Send a test notification: signed and sent as every other one, but once, and with what was answered."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import BoundedSemaphore
from time import perf_counter

import structlog
import uuid_utils

from receiver import errors
from receiver.notifications.message import signed_headers, trial_body
from receiver.notifications.transport import Poster, Reply
from receiver.notifications.url_policy import read
from receiver.redaction import Redactor
from storage.ledger.notifications import notification_id
from storage.models import Clock

log = structlog.get_logger("darkroom.notifying")

AT_ONCE = 2
"""How many are sent at once: a slow application must not use up the threads of the API."""

MAX_ANSWER = 200
"""As many characters of an answer are shown."""

_SEE_LOG = (
    "See why in the log of the application. If it is the signature, give it one of the secrets that "
    "`darkroom notifications secret` prints."
)
FIXES: Mapping[str, str] = {
    errors.EndpointUnavailable.code: "See that the application runs, and that this machine can reach it.",
    errors.EndpointRefused.code: _SEE_LOG,
    errors.EndpointGone.code: "Answer 2xx to take notifications; 410 ends the retries of each.",
    errors.EndpointForbidden.code: "Correct the URL, or the setting that is named.",
}
"""What to do about each error."""


@dataclass(frozen=True, slots=True)
class TrialResult:
    """What became of a test notification."""

    id: str
    host: str
    """Host and port, or empty if the URL cannot be read."""
    at: int
    """When it was sent, in milliseconds since 1970."""
    took_ms: int
    status: int | None
    """The HTTP status of the answer, if there was one."""
    answer: str
    """The beginning of its body."""
    code: str | None
    """Why it was not delivered; None if it was."""
    message: str | None
    fix: str | None

    @property
    def delivered(self) -> bool:
        """Return whether the application answered 2xx."""
        return self.code is None


@dataclass(frozen=True, slots=True)
class Trials:
    """Sends test notifications. Thread-safe."""

    poster: Poster
    secrets: Sequence[str] = field(repr=False)
    redactor: Redactor
    clock: Clock
    _turns: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(AT_ONCE))

    def send(self, url: str | None, *, may_read: bool) -> TrialResult:
        """Send one to a URL, or else to that of DARKROOM_NOTIFY__URL; return once it is answered.

        `may_read`: whether the caller may read what any URL answers. Without that only what the one of the
        settings does is told: others may lead to whatever is in DARKROOM_NOTIFY__ALLOW_NETWORKS.

        Raises InvalidRequest if there is no URL, and TooManyRequests if others are being sent.
        """
        target = url or self.poster.policy.default
        if not target:
            message = "say where to, since DARKROOM_NOTIFY__URL is not set"
            raise errors.InvalidRequest([{"field": "url", "message": message}])
        if not self._turns.acquire(blocking=False):
            raise errors.TooManyRequests("Other test notifications are being sent. Try again in a moment.")
        try:
            result = self._send(target)
            return result if may_read or target == self.poster.policy.default else replace(result, answer="")
        finally:
            self._turns.release()

    def _send(self, url: str) -> TrialResult:
        id_, at, began = notification_id(str(uuid_utils.uuid7()), 0), self.clock(), perf_counter()
        host = ""
        reply: Reply | None = None
        error: errors.NotificationError | None = None
        try:
            host = read(url).authority
            self.poster.policy.check(url)
            body = trial_body(at)
            reply = self.poster.exchange(url, signed_headers(id_, body, self.secrets, at), body)
            reply.check()
        except errors.NotificationError as failed:
            error = failed
        result = self._result(id_, host, at, int((perf_counter() - began) * 1000), reply, error)
        tell: Callable[..., object] = log.info if result.delivered else log.warning
        tell(
            "test notification",
            notification=id_,
            host=host,
            status=result.status,
            code=result.code,
            why=result.message,
            ms=result.took_ms,
        )
        return result

    def _result(
        self,
        id_: str,
        host: str,
        at: int,
        took_ms: int,
        reply: Reply | None,
        error: errors.NotificationError | None,
    ) -> TrialResult:
        return TrialResult(
            id=id_,
            host=host,
            at=at,
            took_ms=took_ms,
            status=None if reply is None else reply.status,
            answer=self.redactor.text(reply.text)[:MAX_ANSWER] if reply else "",
            code=None if error is None else error.code,
            message=None if error is None else self.redactor.text(str(error)),
            fix=None if error is None else FIXES.get(error.code),
        )
