"""Poll many jobs with one request, where a gateway has a list of jobs and many are due."""

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock

import structlog

from receiver.errors import GatewayError, GatewayUnavailable, OutcomeUnknown, RateLimited
from receiver.gateways.base import Completion, Gateway, State
from receiver.gateways.client import GatewayClient
from storage.ledger.backlog import Backlog
from storage.models import Clock, Job

log = structlog.get_logger("darkroom.bulk_poll")

MANY = 5
"""With fewer jobs due, each is polled by itself."""
FRESH_MS = 5_000
"""How long a list is good for jobs that came due before it was made."""
MAX_PAGES = 10
"""A job that is not among so many of the newest is polled by itself."""


@dataclass(frozen=True, slots=True)
class _List:
    made_at: int
    completions: Mapping[str, Completion]


class BulkPoller:
    """A cache of the gateways' newest lists. Thread-safe."""

    def __init__(self, backlog: Backlog, sender: GatewayClient, clock: Clock) -> None:
        self._backlog = backlog
        self._sender = sender
        self._clock = clock
        self._lists: dict[str, _List] = {}
        self._lock = Lock()

    def find(self, gateway: Gateway, job: Job) -> Completion | None:
        """Return what a list says of a job; None if the job must be polled by itself.

        Raises GatewayError if the gateway is broken, but not for a list that it refuses or garbles.
        """
        if gateway.list_request(None) is None or job.gateway_job_id is None:
            return None
        # One at a time, so that the others find what the first one requested.
        with self._lock:
            known = self._lists.get(gateway.name)
            if known is None or not self._good_for(known, job):
                if not self._backlog.many_due(gateway.name, MANY):
                    return None
                known = self._lists[gateway.name] = self._ask(gateway)
        found = known.completions.get(job.gateway_job_id)
        # A list may leave out the images.
        return None if found is not None and found.state is State.SUCCEEDED and not found.images else found

    def _good_for(self, known: _List, job: Job) -> bool:
        # Made after the job came due: what woke the job may be news that an older list has not.
        due_at = job.next_attempt_at or 0
        return due_at <= known.made_at and 0 <= self._clock() - known.made_at <= FRESH_MS

    def _ask(self, gateway: Gateway) -> _List:
        made_at, cursor = self._clock(), None
        completions: dict[str, Completion] = {}
        try:
            for _ in range(MAX_PAGES):
                request = gateway.list_request(cursor)
                assert request is not None
                page = gateway.read_list(self._sender.send(request))
                completions |= page.completions
                if (cursor := page.next_cursor) is None:
                    break
        except (RateLimited, GatewayUnavailable, OutcomeUnknown):
            raise
        except GatewayError as error:
            log.warning("list not read", gateway=gateway.name, code=error.code, why=str(error))
        log.info("polled in bulk", gateway=gateway.name, jobs=len(completions))
        return _List(made_at, completions)
