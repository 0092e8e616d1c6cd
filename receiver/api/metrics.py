"""Serve `GET /metrics`, in Prometheus' text format."""

from dataclasses import dataclass

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.requests import Request
from starlette.responses import Response

from receiver.http.routing import Answer, Operation
from receiver.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class MetricsPage:
    """Serve `GET /metrics` to callers with the scope `read`."""

    metrics: Metrics

    @Operation(
        "GET /metrics",
        "show_metrics",
        answers={200: Answer(str, "The metrics.", media_types=("text/plain",))},
    )
    def show(self, _request: Request) -> Response:
        """Show every metric in Prometheus' text format."""
        return Response(self.metrics.page(), headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})
