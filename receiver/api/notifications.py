"""Serve `/v1/notifications`: list webhooks to applications, and send one again."""

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from receiver.api.query_params import Moment
from receiver.api.responses import LINK, json_response, page_response
from receiver.http.query import Query
from receiver.http.routing import Answer, Operation
from receiver.query.times import read_moment
from receiver.schemas.notification import Notification, NotificationPage
from receiver.schemas.types import JobId, NotificationId
from storage.ledger.notifications import Notifications
from storage.models import Clock, NotificationState


class NotificationQuery(Query):
    """Of `GET /v1/notifications`."""

    job: JobId | None = None
    """The id of the job that they are about."""
    state: NotificationState | None = None
    """Their state: waiting to be sent, delivered, or failed after every retry."""
    since: Moment | None = None
    """The job finished then or later: a date, an RFC 3339 time, or how long ago, such as `7d`."""
    limit: int = Field(50, ge=1, le=500)
    """How many a page has."""
    cursor: NotificationId | None = None
    """The `next_cursor` of the previous page."""


@dataclass(frozen=True, slots=True)
class NotificationRoutes:
    """The routes under `/v1/notifications`."""

    notifications: Notifications
    owed: Callable[[], None]
    """Called when one is due."""
    clock: Clock

    @Operation(
        "GET /v1/notifications",
        "list_notifications",
        answers={200: Answer(NotificationPage, "A page of notifications.", (LINK,))},
    )
    def list(self, request: Request, query: NotificationQuery) -> Response:
        """List notifications, those of the newest job first."""
        since = None if query.since is None else read_moment(query.since, self.clock())
        page = self.notifications.page(
            job_id=query.job, state=query.state, since=since, limit=query.limit, cursor=query.cursor
        )
        shown = tuple(Notification.of(one) for one in page.rows)
        return page_response(request, NotificationPage(notifications=shown, next_cursor=page.next_cursor))

    @Operation(
        "POST /v1/notifications/{id}/replay",
        "replay_notification",
        scope="submit",
        path={"id": NotificationId},
        answers={200: Answer(Notification, "The notification, waiting to be sent.")},
    )
    def replay(self, request: Request) -> Response:
        """Send a notification again, even if it was delivered; its tries are counted from 0."""
        one = self.notifications.replay(request.path_params["id"])
        self.owed()
        return json_response(Notification.of(one))
