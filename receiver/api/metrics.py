"""Serve `GET /metrics`, in Prometheus' text format."""

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.requests import Request
from starlette.responses import Response

from receiver.http.admission import Admission
from receiver.http.query import NoQuery
from receiver.http.routing import Answer, Operation, Served, guarded
from receiver.telemetry.metrics import Metrics

SHOWN = Operation(
    "GET /metrics",
    "show_metrics",
    scope="read",
    query=NoQuery,
    answers={200: Answer(str, "The metrics.", media_types=("text/plain",))},
)


class MetricsPage:
    """Serve `GET /metrics` to callers with the scope `read`."""

    def __init__(self, metrics: Metrics, admission: Admission) -> None:
        self._metrics = metrics
        self._admission = admission

    def routes(self) -> list[Served]:
        """The routes of this part."""
        return [guarded(SHOWN, self.show, self._admission)]

    def show(self, _request: Request, _query: NoQuery) -> Response:
        """Show every metric in Prometheus' text format."""
        return Response(self._metrics.page(), headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})
