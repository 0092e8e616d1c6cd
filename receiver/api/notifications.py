"""The routes under `/v1/notifications`: what applications were told, and telling them again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from receiver.api.jobs import LINK, listed
from receiver.api.query_params import Moment
from receiver.http.admission import Admission
from receiver.http.query import NoQuery, Query
from receiver.http.routing import Answer, Operation, Served, guarded
from receiver.query.times import read_moment
from receiver.schemas import responses
from storage.ledger.notifications import Notification, Notifications, State
from storage.models import Clock, rfc3339


class NotificationQuery(Query):
    """Of `GET /v1/notifications`."""

    job: responses.JobId | None = None
    """The id of the job that they tell of."""
    state: State | None = None
    """What became of them."""
    since: Moment | None = None
    """The job came to rest then or later: a date, an RFC 3339 time, or how long ago, such as `7d`."""
    limit: int = Field(50, ge=1, le=500)
    """How many a page holds."""
    cursor: responses.NotificationId | None = None
    """The `next_cursor` of the page before."""


LIST = Operation(
    "GET /v1/notifications",
    "list_notifications",
    scope="read",
    query=NotificationQuery,
    answers={200: Answer(responses.NotificationPage, "A page of notifications.", (LINK,))},
)
REPLAY = Operation(
    "POST /v1/notifications/{id}/replay",
    "replay_notification",
    scope="submit",
    path={"id": responses.NotificationId},
    query=NoQuery,
    answers={200: Answer(responses.Notification, "The notification, owed again.")},
)


@dataclass(frozen=True, slots=True)
class NotificationRoutes:
    """What applications were told, for whoever wants to know, and to have it told again."""

    notifications: Notifications
    admission: Admission
    owed: Callable[[], None]
    """Called when one is to be sent again."""
    clock: Clock

    def routes(self) -> list[Served]:
        """The routes of this part."""
        return [guarded(LIST, self.list, self.admission), guarded(REPLAY, self.replay, self.admission)]

    async def list(self, request: Request, query: NotificationQuery) -> Response:
        """List notifications, those of the newest job first."""
        since = None if query.since is None else read_moment(query.since, self.clock())
        page = await run_in_threadpool(
            self.notifications.page,
            job_id=query.job,
            state=query.state,
            since=since,
            limit=query.limit,
            cursor=query.cursor,
        )
        return listed(request, "notifications", [notification_view(one) for one in page.rows], page)

    async def replay(self, request: Request, _query: NoQuery) -> Response:
        """Send a notification again, whatever became of it, with its tries counted anew."""
        one = await run_in_threadpool(self.notifications.replay, request.path_params["id"])
        self.owed()
        return JSONResponse(notification_view(one))


def notification_view(one: Notification) -> responses.Notification:
    """A notification as the API shows it."""
    return {
        "id": one.id,
        "job_id": one.job_id,
        "number": one.number,
        "type": f"job.{one.status}",
        "state": one.state,
        "host": one.host,
        "at": rfc3339(one.at),
        "attempts": one.attempts,
        "tried_at": _time(one.tried_at),
        "next_attempt_at": _time(one.next_attempt_at),
        "delivered_at": _time(one.delivered_at),
        "code": one.code,
        "message": one.message,
    }


def _time(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)
