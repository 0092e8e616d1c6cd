"""Deliver webhooks to applications from the outbox, with retries: at least once, in order for each job.

What is pending is in the ledger, so nothing is lost however this process ends. Its threads are its own: a
slow receiver holds up neither the archive nor, beyond its share of them, other receivers.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter

import structlog
import uuid_utils

from receiver.cache import TtlCache
from receiver.errors import EndpointGone, NotificationError
from receiver.jobs.leased_pool import LeasedPool
from receiver.notifications.message import body_of, signed_headers
from receiver.notifications.transport import Poster
from receiver.notifications.trial import Trials
from receiver.redaction import Redactor
from receiver.schedule import REMEMBERED_S, Timing, age_s
from receiver.telemetry.metrics import Metrics, Read
from storage.errors import StorageError
from storage.ledger.notifications import Notification, Notifications
from storage.ledger.outbox import Outbox
from storage.models import Clock

log = structlog.get_logger("darkroom.notifying")

LEASE_SLACK_MS = 5_000
"""How much longer than a try may take it is leased for: after that its sender is thought to be dead."""

TROUBLED = 3
"""So many failures of one notification are worth a warning; the first ones pass by themselves."""
LATELY_MS = 24 * 3600 * 1000


class Notifier(LeasedPool[Notification]):
    """A pool of threads that send what is due."""

    part = "notifier"
    least_pause_s = 0.25

    def __init__(
        self,
        outbox: Outbox,
        poster: Poster,
        secrets: Sequence[str],
        *,
        timing: Timing,
        clock: Clock,
        redactor: Redactor,
        metrics: Metrics,
        concurrency: int,
        timeout_s: float,
        links: str = "",
    ) -> None:
        """`secrets` sign, each of them; `concurrency`: how many are sent at once, a quarter to one host.

        `timeout_s` is how long a try of the `poster` may take, and `links` what URLs of images begin with.
        """
        self._links = links
        name = f"notifier.{uuid_utils.uuid7().hex[-12:]}"
        super().__init__(name, concurrency=concurrency, clock=clock, metrics=metrics)
        self._outbox = outbox
        self._poster = poster
        self.trials = Trials(poster, list(secrets), redactor, clock)
        """Sends test notifications the same way."""
        self._secrets = list(secrets)
        self._timing = timing
        self._redactor = redactor
        self._per_host = max(1, concurrency // 4)
        self._lease_ms = int(timeout_s * 1000) + LEASE_SLACK_MS

    def claim(self, room: int, held: Sequence[Notification]) -> list[Notification]:
        """Lease what is due; a claim writes, so only if there is something."""
        due = self.next_due(held)
        if due is None or due > self._clock():
            return []
        return self._outbox.claim(
            self.name, room, per_host=self._per_host, held=held, lease_ms=self._lease_ms
        )

    def next_due(self, held: Sequence[Notification]) -> int | None:
        """Return when the next one is due of a host that has not its quarter yet."""
        hosts = Counter(one.host for one in held)
        return self._outbox.next_due([host for host, number in hosts.items() if number >= self._per_host])

    def release(self) -> None:
        """Give back every lease."""
        self._outbox.release(self.name)

    def work(self, one: Notification) -> None:
        """Send it, and write down how that ended."""
        with structlog.contextvars.bound_contextvars(job=one.job_id, notification=one.id):
            began = perf_counter()
            self._try(one)
            self._metrics.observe("darkroom_notification_seconds", perf_counter() - began)

    def _try(self, one: Notification) -> None:
        try:
            self._send(one)
        except NotificationError as error:
            self._fail(one, error.code, str(error), error)
        except StorageError as error:
            self.complain("ledger does not answer; the notification is sent later", error)
        except Exception:
            log.exception("notification failed")
            self._fail(one, "internal", "A fault of ours.")
        else:
            log.info("delivered", status=one.status, host=one.host, attempt=one.attempts + 1)
            self._note("delivered", lambda: self._outbox.delivered(one))

    def _send(self, one: Notification) -> None:
        job, outputs = self._outbox.content(one)
        body = body_of(one, job, outputs, self._links)
        self._poster.post(one.url, signed_headers(one.id, body, self._secrets, self._clock()), body)

    def _note(self, outcome: str, write: Callable[[], object]) -> None:
        """Write down how a try ended. If that fails, the lease runs out, and it is sent once more."""
        self._metrics.count("darkroom_notifications_total", outcome=outcome)
        try:
            write()
        except StorageError as error:
            self.complain("not noted; the notification is sent once more", error)

    def _fail(self, one: Notification, code: str, why: str, error: NotificationError | None = None) -> None:
        """Note a failed try: retried by the schedule, or failed for good after the last one or 410."""

        def write() -> None:
            wait_s = None if isinstance(error, EndpointGone) else self._timing.notify_wait(one.attempts + 1)
            least_s = float(getattr(error, "retry_after_s", 0))
            due_in_ms = None if wait_s is None else int(max(wait_s, least_s) * 1000)
            message = self._redactor.text(why)
            if self._outbox.failed(one, self.name, code, message, due_in_ms=due_in_ms):
                tell, event = log.warning, "not delivered"
                if due_in_ms is None:
                    tell, event = log.error, "notification failed"
                tell(event, code=code, why=message, attempt=one.attempts + 1, again_in_ms=due_in_ms)

        self._note(code, write)


def from_notifications(notifications: Notifications, clock: Clock) -> Read:
    """Read the counts of notifications, a few seconds old at most."""
    known = TtlCache(notifications.counts, REMEMBERED_S)

    def read() -> Mapping[str, float]:
        standing = known()
        return {
            "darkroom_notifications_pending": standing.pending,
            "darkroom_notifications_failed": standing.failed,
            "darkroom_oldest_pending_notification_age_seconds": age_s(standing.oldest_pending_at, clock),
        }

    return read


def warnings_of(notifications: Notifications, clock: Clock) -> Callable[[], Mapping[str, str]]:
    """Warn of applications that refuse their notifications, and of those that failed in the last day."""

    def warnings() -> Mapping[str, str]:
        retrying, failed = notifications.failing(least=TROUBLED, failed_since=clock() - LATELY_MS)
        found = {
            f"notifications to {host}": f"{number} failed {TROUBLED} times or more and are retried. "
            "`darkroom notifications` says why."
            for host, number in retrying.items()
        }
        if failed:
            found["notifications"] = (
                f"{failed} failed for good in the last 24 hours. `darkroom notifications --failed` lists "
                "them, and `darkroom notifications replay` sends them again."
            )
        return found

    return warnings
