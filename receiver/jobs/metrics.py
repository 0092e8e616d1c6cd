"""Read the gauges of jobs from the ledger: counts by status, backlog, ages, paused gateways."""

from collections.abc import Callable, Mapping

from receiver.cache import TtlCache
from receiver.errors import MENDABLE
from receiver.schedule import REMEMBERED_S, age_s
from receiver.telemetry.metrics import Read, Values
from storage.ledger.backlog import Backlog
from storage.ledger.ledger import Ledger
from storage.models import Clock, JobCounts, Status


def from_process(waiting: Callable[[], int]) -> Read:
    """Read what lies in this process' memory: callbacks waiting for a commit."""
    return lambda: {"darkroom_intake_waiting_callbacks": waiting()}


def from_ledger(ledger: Ledger, backlog: Backlog, clock: Clock) -> Read:
    """Read the job counts and the backlog, a few seconds old at most."""
    known = TtlCache(lambda: (ledger.job_counts(), backlog.read()), REMEMBERED_S)

    def read() -> Values:
        pages, waiting = known()
        return {
            "darkroom_jobs": {
                (gateway, status): page.counts[status] for gateway, page in pages.items() for status in Status
            },
            "darkroom_jobs_accepted_total": _by_gateway(pages, lambda page: page.accepted),
            "darkroom_jobs_found_by_polling": _by_gateway(pages, lambda page: page.found_by_polling),
            "darkroom_status_balanced": all(page.balanced for page in pages.values()),
            "darkroom_oldest_unfinished_job_age_seconds": _by_gateway(
                pages, lambda page: age_s(page.oldest_unfinished_at, clock)
            ),
            "darkroom_images_missing": waiting.images_missing,
            "darkroom_jobs_due": waiting.jobs_due,
            "darkroom_deliveries_waiting": waiting.deliveries,
        }

    return read


def from_results(oldest_ready_at: Callable[[], int | None], clock: Clock) -> Read:
    """Read the age of the oldest result that is not archived; `oldest_ready_at` says when it was ready."""
    return lambda: {"darkroom_oldest_unarchived_result_age_seconds": age_s(oldest_ready_at(), clock)}


def from_held(backlog: Backlog) -> Read:
    """Read how many jobs wait until somebody mends what is wrong with their result."""
    return lambda: {
        "darkroom_jobs_held": {(one.gateway, one.code): one.jobs for one in backlog.held(MENDABLE)}
    }


def from_pauses(reasons: Callable[[], Mapping[str, str]]) -> Read:
    """Read which gateways are paused; `reasons` returns the error code of each."""
    return lambda: {"darkroom_gateway_paused": dict.fromkeys(reasons().items(), 1)}


def _by_gateway(
    pages: Mapping[str, JobCounts], value: Callable[[JobCounts], float]
) -> dict[tuple[str, ...], float]:
    return {(gateway,): value(page) for gateway, page in pages.items()}
