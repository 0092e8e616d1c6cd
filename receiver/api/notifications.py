"""Serve `/v1/notifications`: list and show webhooks to applications, send one again, and send a test."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from receiver import errors
from receiver.api.query_params import Moment
from receiver.api.responses import LINK, json_response, page_response
from receiver.http.admission import Admission
from receiver.http.limits import read_body
from receiver.http.query import Query
from receiver.http.routing import Answer, Body, Operation
from receiver.notifications.trial import Trials
from receiver.query.times import read_moment
from receiver.schemas.notification import Notification, NotificationPage, NotificationTest
from receiver.schemas.requests import TestBody, parse_body
from receiver.schemas.types import JobName, NotificationId, NotificationName
from storage.ledger import notifications as ledger
from storage.ledger.notifications import Notifications
from storage.models import Clock, NotificationState, rfc3339
from storage.paging import Page
from storage.search.ids import Ids

MAX_BODY = 16 * 1024
"""Bytes of the body of a test."""

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
    trials: Trials
    admission: Admission
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
        page = self.page(query)
        shown = tuple(Notification.of(one) for one in page.rows)
        return page_response(request, NotificationPage(notifications=shown, next_cursor=page.next_cursor))

    def page(self, query: NotificationQuery) -> Page[ledger.Notification]:
        """Return what `GET /v1/notifications` lists."""
        since = None if query.since is None else read_moment(query.since, self.clock())
        job_id = None if query.job is None else self.ids.job(query.job)
        return self.notifications.page(
            job_id=job_id, state=query.state, since=since, limit=query.limit, cursor=query.cursor
        )

    @Operation(
        "POST /v1/notifications/test",
        "test_notification",
        scope="submit",
        body=Body(TestBody, "Where it goes; the body may be left out.", needed=False),
        answers={200: Answer(NotificationTest, "What became of it.")},
    )
    async def test(self, request: Request) -> Response:
        """Send a test notification to your application, and show what it answered.

        It is signed and sent as every notification is, with `"type": "test"`, but once: it is not retried.
        """
        within_s = self.admission.limits.body_timeout_s
        content = await read_body(request.headers, request.receive, MAX_BODY, within_s=within_s)
        body = parse_body(TestBody, content or b"{}")
        may_read = request.state.caller.reaches("admin")
        result = await run_in_threadpool(self.trials.send, body.url, may_read=may_read)
        return json_response(NotificationTest.trusted(result, at=rfc3339(result.at)))

    @Operation(
        "GET /v1/notifications/{id:id}",
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
