"""Tell applications that a job of theirs is over: at least once each time, in order for each job.

What is owed stands in the ledger, so nothing is lost however this process ends. Its threads are its own: a
receiver that is slow holds up neither the archive nor, beyond its share of them, other receivers.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from time import monotonic, perf_counter

import structlog
import uuid_utils

from receiver.cache import TtlCache
from receiver.errors import EndpointGone, NotificationError
from receiver.notifications.message import body_of, headers_of
from receiver.notifications.transport import Poster
from receiver.redaction import Redactor
from receiver.schedule import REMEMBERED_S, Timing, age_s
from receiver.telemetry.metrics import Metrics, Read
from storage.errors import StorageError
from storage.ledger.notifications import Notification, Notifications
from storage.ledger.outbox import Outbox
from storage.models import Clock, Job, Status

log = structlog.get_logger("darkroom.notifying")

Step = Callable[[Job, str], Job]

IDLE_S = 1.0
"""The longest sleep: another process may have moved a job, or somebody asked for a replay there."""

LEASE_SLACK_MS = 5_000
"""How much longer than a try may take it is leased for: after that its sender is thought to be dead."""

TROUBLED = 3
"""So many failures of one notification are worth a warning; the first ones pass by themselves."""
LATELY_MS = 24 * 3600 * 1000


class Notifier:
    """Threads that send what is due, and then wait to be woken."""

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
    ) -> None:
        """`secrets` sign, each of them; `concurrency`: how many are sent at once, a quarter to one host.

        `timeout_s` is how long a try of the `poster` may take.
        """
        self.name = f"notifier.{uuid_utils.uuid7().hex[-12:]}"
        self._outbox = outbox
        self._poster = poster
        self._secrets = list(secrets)
        self._timing = timing
        self._clock = clock
        self._redactor = redactor
        self._metrics = metrics
        self._concurrency = concurrency
        self._per_host = max(1, concurrency // 4)
        self._lease_ms = int(timeout_s * 1000) + LEASE_SLACK_MS
        self._queue: queue.SimpleQueue[Notification | None] = queue.SimpleQueue()
        self._held: dict[str, Notification] = {}
        self._idle = threading.Condition()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        targets = [self._claim] + [self._work] * concurrency
        self._threads = [
            threading.Thread(target=target, name=f"notify-{number}", daemon=True)
            for number, target in enumerate(targets)
        ]

    def start(self) -> None:
        """Begin to send."""
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Look for what is due now."""
        self._wake.set()

    def after(self, steps: Mapping[Status, Step]) -> dict[Status, Step]:
        """The same steps of a job's life; what one of them made owed is looked for at once."""
        return {status: self._after(step) for status, step in steps.items()}

    def stop(self, timeout_s: float) -> None:
        """Begin nothing more, let what is being sent end for a while, and give the rest back."""
        deadline = monotonic() + timeout_s
        self._stopping.set()
        self._wake.set()
        if self._threads[0].is_alive():
            self._threads[0].join(timeout_s)
        for _ in range(self._concurrency):
            self._queue.put(None)
        with self._idle:
            while self._held and (left := deadline - monotonic()) > 0:
                self._idle.wait(left)
        try:
            self._outbox.release(self.name)
        except StorageError as error:
            self._complain("notifications not given back; their leases run out", error)

    def _after(self, step: Step) -> Step:
        def waking(job: Job, worker: str) -> Job:
            moved = step(job, worker)
            if moved.status.terminal and moved.notify_url is not None:
                self.wake()
            return moved

        return waking

    def _claim(self) -> None:
        while not self._stopping.is_set():
            try:
                pause = self._claim_once()
            except Exception as error:  # noqa: BLE001 - this thread must not end
                self._complain("ledger does not answer", error)
                pause = IDLE_S
            self._wake.wait(pause)
            self._wake.clear()

    def _claim_once(self) -> float:
        """Lease what there is room for; answers for how many seconds there is nothing more to do."""
        with self._idle:
            held = list(self._held.values())
        room = self._concurrency - len(held)
        full = [
            host for host, number in Counter(one.host for one in held).items() if number >= self._per_host
        ]
        if room <= 0 or (due := self._outbox.next_due(full)) is None:
            return IDLE_S
        if (wait_ms := due - self._clock()) > 0:
            return min(IDLE_S, wait_ms / 1000)
        claimed = self._outbox.claim(
            self.name, room, per_host=self._per_host, held=held, lease_ms=self._lease_ms
        )
        with self._idle:
            self._held |= {one.id: one for one in claimed}
        for one in claimed:
            self._queue.put(one)
        return 0 if claimed else IDLE_S

    def _work(self) -> None:
        while (one := self._queue.get()) is not None:
            try:
                if not self._stopping.is_set():
                    with structlog.contextvars.bound_contextvars(job=one.job_id, number=one.number):
                        self._see_through(one)
            except Exception:  # this thread must not end
                log.exception("notification left as it is until its lease runs out", id=one.id)
            finally:
                with self._idle:
                    del self._held[one.id]
                    self._idle.notify_all()
                self._wake.set()

    def _see_through(self, one: Notification) -> None:
        began = perf_counter()
        try:
            self._send(one)
        except NotificationError as error:
            failure = error
            self._note(one, failure.code, lambda: self._failed(one, failure))
        except StorageError as error:
            self._complain("ledger does not answer; the notification is taken up again later", error)
        except Exception:
            log.exception("notification failed")
            self._note(one, "internal", lambda: self._put_off(one, "internal", "A fault of ours.", 0))
        else:
            self._note(one, "delivered", lambda: self._outbox.delivered(one))
        self._metrics.observe("darkroom_notification_seconds", perf_counter() - began)

    def _send(self, one: Notification) -> None:
        job, outputs = self._outbox.content(one)
        body = body_of(one, job, outputs)
        self._poster.post(one.url, headers_of(one, body, self._secrets, self._clock()), body)

    def _note(self, one: Notification, outcome: str, write: Callable[[], object]) -> None:
        """Write down how a try ended. If that fails, the lease runs out, and it is sent once more."""
        self._metrics.count("darkroom_notifications_total", outcome=outcome)
        if outcome == "delivered":
            log.info("notified", status=one.status, host=one.host, attempt=one.attempts + 1)
        try:
            write()
        except StorageError as error:
            self._complain("not noted; the notification is sent once more", error)

    def _failed(self, one: Notification, error: NotificationError) -> None:
        least_s = float(getattr(error, "retry_after_s", 0))
        give_up = isinstance(error, EndpointGone)
        self._put_off(one, error.code, self._redactor.text(str(error)), least_s, give_up=give_up)

    def _put_off(
        self, one: Notification, code: str, message: str, least_s: float, *, give_up: bool = False
    ) -> None:
        wait_s = None if give_up else self._timing.notify_wait(one.attempts + 1)
        due_in_ms = None if wait_s is None else int(max(wait_s, least_s) * 1000)
        if self._outbox.failed(one, self.name, code, message, due_in_ms=due_in_ms):
            tell = log.error if due_in_ms is None else log.warning
            event = "notification given up" if due_in_ms is None else "not notified"
            tell(event, code=code, why=message, attempt=one.attempts + 1, again_in_ms=due_in_ms)

    def _complain(self, what: str, error: Exception) -> None:
        self._metrics.count("darkroom_ledger_errors_total", part="notifier")
        log.error(what, why=str(error), exc_info=None if isinstance(error, StorageError) else error)


def from_notifications(notifications: Notifications, clock: Clock) -> Read:
    """Read how the notifications stand, a few seconds old at most."""
    known = TtlCache(notifications.counts, REMEMBERED_S)

    def read() -> Mapping[str, float]:
        standing = known()
        return {
            "darkroom_notifications_pending": standing.owed,
            "darkroom_notifications_failed": standing.given_up,
            "darkroom_oldest_pending_notification_age_seconds": age_s(standing.oldest_owed_at, clock),
        }

    return read


def warnings_of(notifications: Notifications, clock: Clock) -> Callable[[], Mapping[str, str]]:
    """Warn of receivers that do not take what they are sent, and of what was given up in the last day."""

    def warnings() -> Mapping[str, str]:
        failing, given_up = notifications.failing(least=TROUBLED, given_up_since=clock() - LATELY_MS)
        told = {
            f"notifications to {host}": f"{number} were not taken at {TROUBLED} tries or more, and are tried "
            "again. `darkroom notifications` says why."
            for host, number in failing.items()
        }
        if given_up:
            told["notifications"] = (
                f"{given_up} were given up in the last 24 hours. `darkroom notifications --failed` lists "
                "them, and `darkroom notifications replay` sends them again."
            )
        return told

    return warnings
