"""Ask a gateway about many jobs with one request, where it has a list of them and many are due."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock

import structlog

from receiver.gateways.base import Completion, Gateway
from receiver.sending import Sender
from storage.backlog import Backlog
from storage.records import Clock, Job

log = structlog.get_logger("darkroom.overview")

MANY = 5
"""With fewer jobs due, each is asked about by itself."""
FRESH_MS = 5_000
"""How long a list is good for jobs that came due before it was made."""
MAX_PAGES = 10
"""A job that is not among so many of the newest is asked about by itself."""


@dataclass(frozen=True, slots=True)
class _List:
    made_at: int
    completions: Mapping[str, Completion]


class Overview:
    """The lists that gateways gave lately. Thread-safe."""

    def __init__(self, backlog: Backlog, sender: Sender, clock: Clock) -> None:
        self._backlog = backlog
        self._sender = sender
        self._clock = clock
        self._lists: dict[str, _List] = {}
        self._lock = Lock()

    def find(self, gateway: Gateway, job: Job) -> Completion | None:
        """What a list says of a job; None if there is no list of use, or the job is not in it.

        Raises GatewayError if the gateway does not give the list.
        """
        if gateway.listing(None) is None or job.gateway_job_id is None:
            return None
        # One at a time, so that the others find what the first one asked for.
        with self._lock:
            known = self._lists.get(gateway.name)
            if known is None or not self._good_for(known, job):
                if not self._backlog.many_due(gateway.name, MANY):
                    return None
                known = self._lists[gateway.name] = self._ask(gateway)
        return known.completions.get(job.gateway_job_id)

    def _good_for(self, known: _List, job: Job) -> bool:
        # Made after the job came due: what woke the job may be news that an older list has not.
        due_at = job.next_attempt_at or 0
        return due_at <= known.made_at and 0 <= self._clock() - known.made_at <= FRESH_MS

    def _ask(self, gateway: Gateway) -> _List:
        made_at, cursor = self._clock(), None
        completions: dict[str, Completion] = {}
        for _ in range(MAX_PAGES):
            request = gateway.listing(cursor)
            assert request is not None
            page = gateway.listed(self._sender.send(request))
            completions |= page.completions
            cursor = page.next_cursor
            if cursor is None:
                break
        log.info("asked about many", gateway=gateway.name, jobs=len(completions))
        return _List(made_at, completions)
