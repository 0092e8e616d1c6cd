"""The parts of notifying, connected; `receiver.app` puts them into the service."""

from __future__ import annotations

from dataclasses import dataclass

from receiver.api.notifications import NotificationRoutes
from receiver.http.admission import Admission
from receiver.notifications.sender import Notifier, from_notifications
from receiver.notifications.transport import Poster
from receiver.notifications.url_policy import NotifyPolicy
from receiver.redaction import Redactor
from receiver.schedule import Timing
from receiver.settings import NotifySettings
from receiver.telemetry.metrics import Metrics
from storage.ledger.database import Database
from storage.ledger.notifications import Notifications
from storage.ledger.outbox import Outbox
from storage.models import Clock


@dataclass(frozen=True, slots=True)
class NotifyParts:
    """What notifies, and what shows it."""

    notifier: Notifier
    routes: NotificationRoutes


def notify_parts(
    settings: NotifySettings,
    policy: NotifyPolicy,
    *,
    database: Database,
    notifications: Notifications,
    admission: Admission,
    timing: Timing,
    clock: Clock,
    redactor: Redactor,
    metrics: Metrics,
) -> NotifyParts:
    """Connect them."""
    notifier = Notifier(
        Outbox(database, clock),
        Poster(policy, timeout_s=settings.timeout),
        policy.secrets,
        timing=timing,
        clock=clock,
        redactor=redactor,
        metrics=metrics,
        concurrency=settings.concurrency,
        timeout_s=settings.timeout,
    )
    metrics.watch(from_notifications(notifications, clock))
    return NotifyParts(notifier, NotificationRoutes(notifications, admission, notifier.wake, clock))
