"""Serve `/v1/notifications`: list and show webhooks to applications, and send one again."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, Field
from starlette.requests import Request
from starlette.responses import Response

from receiver import errors
from receiver.api.query_params import Moment
from receiver.api.responses import LINK, json_response, page_response
from receiver.http.query import Query
from receiver.http.routing import Answer, Operation
from receiver.query.times import read_moment
from receiver.schemas.notification import Notification, NotificationPage
from receiver.schemas.types import JobName, NotificationId, NotificationName
from storage.ledger.notifications import Notifications
from storage.models import Clock, NotificationState
from storage.search.ids import Ids

_EARLIER = {"owed": "pending", "given_up": "failed"}
"""What earlier versions called two of the states."""


def _state(value: object) -> object:
    return _EARLIER.get(value, value) if isinstance(value, str) else value


class NotificationQuery(Query):
    """Of `GET /v1/notifications`."""

    job: JobName | None = None
    """The id of the job that they are about, or its beginning."""
    state: Annotated[NotificationState, BeforeValidator(_state)] | None = None
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
    due: Callable[[], None]
    """Called when one is due."""
    clock: Clock
    ids: Ids

    @Operation(
        "GET /v1/notifications",
        "list_notifications",
        answers={200: Answer(NotificationPage, "A page of notifications.", (LINK,))},
        errors=(errors.NoSuchThing, errors.AmbiguousId),
    )
    def list(self, request: Request, query: NotificationQuery) -> Response:
        """List notifications, those of the newest job first."""
        since = None if query.since is None else read_moment(query.since, self.clock())
        job_id = None if query.job is None else self.ids.job(query.job)
        page = self.notifications.page(
            job_id=job_id, state=query.state, since=since, limit=query.limit, cursor=query.cursor
        )
        shown = tuple(Notification.of(one) for one in page.rows)
        return page_response(request, NotificationPage(notifications=shown, next_cursor=page.next_cursor))

    @Operation(
        "GET /v1/notifications/{id}",
        "show_notification",
        path={"id": NotificationName},
        answers={200: Answer(Notification, "The notification.")},
    )
    def show(self, request: Request) -> Response:
        """Show one notification."""
        return json_response(Notification.of(self.notifications.one(request.path_params["id"])))

    @Operation(
        "POST /v1/notifications/{id}/replay",
        "replay_notification",
        scope="submit",
        path={"id": NotificationName},
        answers={200: Answer(Notification, "The notification, waiting to be sent.")},
    )
    def replay(self, request: Request) -> Response:
        """Send a notification again, even if it was delivered; its tries are counted from 0."""
        one = self.notifications.replay(request.path_params["id"])
        self.due()
        return json_response(Notification.of(one))
