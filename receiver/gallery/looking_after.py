"""The pages beside the pictures, connected: jobs, the submit form, status and usage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from receiver.api.health import Health
from receiver.cache import TtlCache
from receiver.gallery.jobs import JobsPages
from receiver.gallery.page import PageHandler
from receiver.gallery.pages import Part
from receiver.gallery.status import StatusPage
from receiver.gallery.submit import SubmitPage
from receiver.gallery.usage import UsagePage
from storage.models import JobCounts

if TYPE_CHECKING:
    from receiver.api.jobs import Api
    from receiver.memory import Memory

COUNTS_S = 0.5
"""How old the counts beside the words for a status may be; `jobs.js` looks no sooner after an event."""


def looking_after(frame: PageHandler, memory: Memory, api: Api, health: Health) -> list[Part]:
    """Make these pages from the parts of the service."""
    counts = TtlCache(memory.ledger.job_counts, COUNTS_S)
    gateways = list(api.submitter.gateways)
    return [
        _jobs(frame, memory, api, counts),
        SubmitPage(frame, api.submitter, memory.ledger, memory.search, memory.facets, api.queued),
        StatusPage(frame, memory.ledger, memory.circuits, health, gateways, api.clock),
        UsagePage(frame, memory.usage, memory.facets, counts, api.clock),
    ]


def _jobs(
    frame: PageHandler, memory: Memory, api: Api, counts: Callable[[], Mapping[str, JobCounts]]
) -> JobsPages:
    return JobsPages(
        frame=frame,
        ledger=memory.ledger,
        search=memory.search,
        notifications=memory.notifications,
        retrier=api.retrier,
        counts=counts,
        queued=api.queued,
        clock=api.clock,
    )
