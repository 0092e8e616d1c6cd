"""List every metric; `receiver.telemetry.metrics` emits no other."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from receiver import errors
from receiver.errors import DarkroomError
from receiver.gateways.base import State
from storage.models import FoundBy, Status


@dataclass(frozen=True, slots=True)
class Label:
    """A label and its values. Without `values` the code bounds them: routes, methods."""

    name: str
    values: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """A metric: its name with the unit in it, its description, its labels, a histogram's buckets."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    sentence: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()
    read: bool = False
    """Whether its values are read at each scrape, and not counted as things happen."""


def _codes(root: type[DarkroomError]) -> Iterator[str]:
    if "code" in vars(root):
        yield root.code
    for kind in root.__subclasses__():
        yield from _codes(kind)


def _label(name: str, *values: str) -> Label:
    return Label(name, frozenset(values))


GATEWAY = Label("gateway")
"""A configured gateway; any other name from outside becomes `unknown`."""
STATUS = _label("status", *Status)
STEP = _label("status", *(status for status in Status if not status.terminal))
CALLBACK = _label(
    "outcome", "accepted", "duplicate", "disconnected", "internal", "unready", "body_too_large",
    "too_many_requests", "too_slow", "ledger_incomplete", *_codes(errors.CallbackError),
)  # fmt: skip
SUBMISSION = _label("outcome", "accepted", *_codes(errors.GatewayError))
POLL = _label("outcome", *State, *_codes(errors.GatewayError))
DOWNLOAD = _label("outcome", "done", "unready", *_codes(errors.ImageError))
NOTIFIED = _label("outcome", "delivered", "internal", *_codes(errors.NotificationError))
HELD = _label("code", *errors.MENDABLE)
PAUSE = _label("code", *_codes(errors.GatewayError))

FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SLOW = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
LONG = (0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 14400, 43200, 86400)
BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def _counter(name: str, sentence: str, *labels: Label) -> MetricSpec:
    return MetricSpec(name, "counter", sentence, labels)


def _histogram(name: str, sentence: str, buckets: tuple[float, ...], *labels: Label) -> MetricSpec:
    return MetricSpec(name, "histogram", sentence, labels, buckets)


def _read(name: str, sentence: str, *labels: Label) -> MetricSpec:
    return MetricSpec(name, "counter" if name.endswith("_total") else "gauge", sentence, labels, read=True)


_HTTP = (
    _counter("darkroom_http_requests_total", "HTTP requests; `route` is the template, or `none`.",
             Label("route"), Label("method"), Label("status")),
    _histogram("darkroom_http_request_seconds",
               "Seconds from a request until its whole response; `?wait=` and `/v1/events` wait on purpose.",
               FAST, Label("route"), Label("method")),
    _counter("darkroom_api_requests_refused_total", "Requests over their rate limit, refused with 429."),
    _read("darkroom_requests_waiting", "Requests that wait for jobs to move: `?wait=` and `/v1/events`."),
)  # fmt: skip

_CALLBACKS = (
    _counter("darkroom_callbacks_total", "Callbacks, by outcome.", GATEWAY, CALLBACK),
    _counter("darkroom_callbacks_bad_token_total",
             "Callbacks refused as `bad_token`, by the reason, which the response does not give.", GATEWAY,
             _label("reason", "forged", "expired", "foreign", "missing")),
    _histogram("darkroom_callback_seconds", "Seconds from a callback's arrival until it was on disk.", FAST,
               GATEWAY),
    _histogram("darkroom_intake_batch_callbacks", "Callbacks written in one commit.", BATCH),
    _read("darkroom_intake_waiting_callbacks", "Callbacks waiting in memory for a commit."),
    _counter("darkroom_callbacks_unwritten_total",
             "Callbacks refused with 503, because the ledger failed or too many were waiting. Must not grow.",
             _label("reason", "ledger", "full")),
)  # fmt: skip

_GATEWAYS = (
    _counter("darkroom_submissions_total", "Submissions, by the gateway's response.", GATEWAY, SUBMISSION),
    _counter("darkroom_polls_total", "Polls of jobs, by the gateway's response.", GATEWAY, POLL),
    _histogram("darkroom_gateway_request_seconds", "Seconds until the response of a gateway.", SLOW, GATEWAY,
               _label("call", "submit", "poll")),
    _counter("darkroom_results_total",
             "Results, by how they were found; `poll` means that the expected callback did not come.",
             GATEWAY, _label("found_by", *FoundBy)),
    _counter("darkroom_short_results_total", "Results with fewer images than requested.", GATEWAY),
    _read("darkroom_gateway_paused", "1 while nothing is submitted to a gateway, by the code of the reason.",
          GATEWAY, PAUSE),
)  # fmt: skip

_WORK = (
    _counter("darkroom_moves_total", "Moves that this process and its workers made, by the new status.",
             GATEWAY, STATUS),
    _histogram("darkroom_step_seconds", "Seconds that a step took, by where the job was.", SLOW, STEP),
    _counter("darkroom_steps_failed_total", "Steps that failed with an unexpected error. Must be 0.", STEP),
    _counter("darkroom_leases_lost_total", "Leases that went to another worker in the middle of a step."),
    MetricSpec("darkroom_worker_jobs", "gauge", "Jobs being worked on in this process and its workers."),
    _read("darkroom_worker_slots",
          "Jobs that this process and its workers may work on at once; 0 where they do no work."),
    _read("darkroom_worker_away_seconds",
          "Seconds since a worker of any process was last seen in the ledger, at most since this one began."),
)  # fmt: skip

_IMAGES = (
    _counter("darkroom_downloads_total", "Downloads of images, by outcome.", GATEWAY, DOWNLOAD),
    _counter("darkroom_download_bytes_total", "Bytes of the images downloaded.", GATEWAY),
    _histogram("darkroom_download_seconds", "Seconds of a successful download.", SLOW, GATEWAY),
    _counter("darkroom_images_archived_total", "Images stored in the bucket and verified.", GATEWAY),
    _counter("darkroom_archived_bytes_total", "Bytes of the images stored in the bucket.", GATEWAY),
    _histogram("darkroom_result_to_archive_seconds",
               "Seconds from the callback or poll with a result until its images were archived.", LONG,
               GATEWAY),
    _counter("darkroom_store_errors_total", "Failed operations on the bucket, by kind.",
             _label("kind", "unavailable", "misconfigured", "refused", "corrupt", "conflict")),
)  # fmt: skip

_LEDGER = (
    _read("darkroom_jobs", "Jobs in the ledger, by status.", GATEWAY, STATUS),
    _read("darkroom_jobs_accepted_total", "Jobs that were ever accepted.", GATEWAY),
    _read("darkroom_jobs_found_by_polling",
          "Jobs whose expected callback did not come, and whose result a poll found.", GATEWAY),
    _read("darkroom_status_balanced", "1 if every accepted job is accounted for. Must be 1."),
    _read("darkroom_oldest_unfinished_job_age_seconds", "Age of the oldest unfinished job.", GATEWAY),
    _read("darkroom_oldest_unarchived_result_age_seconds",
          "Age of the oldest result that is not archived, but for those in darkroom_jobs_held."),
    _read("darkroom_images_missing",
          "Archived images that were found missing from the bucket, or of another length, and are not back."),
    _read("darkroom_jobs_held",
          "Unfinished jobs whose result or image somebody has to mend; they are tried again meanwhile.",
          GATEWAY, HELD),
    _read("darkroom_jobs_due", "Jobs whose next step is due, those being worked on included."),
    _read("darkroom_deliveries_waiting", "Callbacks on disk, not applied to their job yet."),
    _counter("darkroom_ledger_errors_total", "Failed operations on the ledger, by the part that made them.",
             _label("part", "intake", "worker", "notifier", "metrics", "events", "wakeup")),
)  # fmt: skip

_NOTIFICATIONS = (
    _counter("darkroom_notifications_total", "Tries to notify an application, by how they ended.", NOTIFIED),
    _histogram("darkroom_notification_seconds", "Seconds that a try took, however it ended.", SLOW),
    _read("darkroom_notifications_pending", "Notifications that are still to be delivered."),
    _read("darkroom_notifications_failed", "Notifications that failed for good; a replay sends them again."),
    _read("darkroom_oldest_pending_notification_age_seconds", "Age of the oldest pending one."),
)

_PROCESS = (
    _read("darkroom_build_info", "1, with the version.", Label("version")),
    _read("python_info", "1, with the version of Python.",
          *map(Label, ("implementation", "major", "minor", "patchlevel", "version"))),
    _read("process_resident_memory_bytes", "Memory that the process holds."),
    _read("process_virtual_memory_bytes", "Memory that the process has reserved."),
    _read("process_cpu_seconds_total", "Processor time that the process has used."),
    _read("process_open_fds", "Open files and connections."),
    _read("process_max_fds", "How many of them there may be."),
    _read("process_start_time_seconds", "When the process started, in seconds since 1970."),
)  # fmt: skip

METRICS = (*_HTTP, *_CALLBACKS, *_GATEWAYS, *_WORK, *_IMAGES, *_LEDGER, *_NOTIFICATIONS, *_PROCESS)
