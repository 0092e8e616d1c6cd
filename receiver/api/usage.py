"""`GET /v1/usage`: what was spent, by gateway, model, day or tag."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from receiver.api.query_params import UsageQuery
from receiver.http.admission import Admission
from receiver.http.routing import Answer, Operation, Served, guarded
from receiver.schemas import responses
from storage.models import Clock, rfc3339
from storage.search.usage import Spent, Usage, UsageFilter, UsageReport

USAGE = Operation(
    "GET /v1/usage",
    "show_usage",
    scope="read",
    query=UsageQuery,
    answers={200: Answer(responses.Usage, "What was spent.")},
)


@dataclass(frozen=True, slots=True)
class UsageApi:
    """The route that tells what was spent."""

    usage: Usage
    admission: Admission
    clock: Clock

    def routes(self) -> list[Served]:
        """The routes of this part."""
        return [guarded(USAGE, self.show, self.admission)]

    async def show(self, _request: Request, query: UsageQuery) -> Response:
        """Add up the credits, jobs and images of a time."""
        wanted = query.wanted(self.clock())
        found = await run_in_threadpool(self.usage.read, wanted, limit=query.limit)
        return JSONResponse(usage_view(wanted, found))


def usage_view(wanted: UsageFilter, found: UsageReport) -> responses.Usage:
    """What was spent, as the API shows it."""
    return {
        "by": wanted.by,
        "tag": wanted.tag,
        "gateway": wanted.gateway,
        "since": rfc3339(wanted.since),
        "until": rfc3339(wanted.until),
        "groups": [{"value": group.value, **_spent(group.spent)} for group in found.groups],
        "others": None if found.others is None else _spent(found.others),
        "total": _spent(found.total),
    }


def _spent(spent: Spent) -> responses.Spent:
    return {
        "jobs": spent.jobs,
        "jobs_without_credits": spent.unknown,
        "outputs": spent.outputs,
        "credits": _number(spent.credits),
        "credits_estimated": _number(spent.estimated),
    }


def _number(amount: Decimal | None) -> float | None:
    return None if amount is None else float(amount)
