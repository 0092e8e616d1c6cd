"""Serve the page Status: job counts, and the health of gateways, bucket and ledger."""

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.responses import Response

from receiver.api.health import Health
from receiver.gallery.page import PageHandler, PageRequest
from receiver.schemas.status import Gateways, ServiceStatus
from storage.ledger.circuits import Circuits
from storage.ledger.job_counts import total
from storage.ledger.ledger import Ledger
from storage.models import Clock, Status


@dataclass(frozen=True, slots=True)
class StatusPage:
    """The page `/status`."""

    frame: PageHandler
    ledger: Ledger
    circuits: Circuits
    health: Health
    gateways: Sequence[str]
    """The gateways that are configured."""
    clock: Clock

    def show(self, visit: PageRequest) -> Response:
        """Show whether every accepted job is accounted for, and what is unhealthy."""
        pages, now = self.ledger.job_counts(), self.clock()
        states = Gateways.of(sorted(self.gateways), self.circuits.every(), now)
        return visit.page(
            "status.html",
            counts=ServiceStatus.of_gateways(total(list(pages.values())), pages, now),
            statuses=[status.value for status in Status],
            gateways=states.gateways,
            image_hosts=states.image_hosts,
            health=self.health.ask(),
        )
