"""Serve the page Status: job counts, and the health of gateways, bucket and ledger."""

from dataclasses import dataclass

from starlette.responses import Response

from receiver.api.health import Health
from receiver.api.jobs import Api
from receiver.gallery.page import PageRequest
from receiver.schemas.status import Gateways, ServiceStatus
from storage.ledger.job_counts import total
from storage.models import Status


@dataclass(frozen=True, slots=True)
class StatusPage:
    """The page `/status`."""

    api: Api
    health: Health

    def show(self, visit: PageRequest) -> Response:
        """Show whether every accepted job is accounted for, and what is unhealthy."""
        pages, now, facts = self.api.ledger.job_counts(), self.api.clock(), self.api.store_facts()
        states = Gateways.of(sorted(self.api.submitter.context.gateways), self.api.circuits.every(), now)
        return visit.page(
            "status.html",
            counts=ServiceStatus.of_gateways(total(list(pages.values())), pages, now, facts, {}),
            statuses=[status.value for status in Status],
            gateways=states.gateways,
            image_hosts=states.image_hosts,
            health=self.health.ask(),
        )
