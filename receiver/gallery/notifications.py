"""Serve the page Notifications: list them, send one again, and send a test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.datastructures import QueryParams
from starlette.responses import RedirectResponse, Response

from receiver.api.notifications import NotificationQuery, NotificationRoutes
from receiver.errors import InvalidRequest, TooManyRequests
from receiver.gallery.page import PageRequest
from receiver.http.query import read_query
from receiver.notifications.trial import TrialResult
from storage.ledger.notifications import Notification
from storage.models import NotificationState
from storage.paging import Page

A_PAGE = 50
FILTERS = ("state", "job", "cursor")


@dataclass(frozen=True, slots=True)
class NotificationsPage:
    """The page `/notifications`."""

    routes: NotificationRoutes

    def show(self, visit: PageRequest) -> Response:
        """List notifications, those of the newest job first."""
        return self._page(visit)

    def test(self, visit: PageRequest) -> Response:
        """Send a test notification, and show what was answered."""
        url = visit.form.get("url", "").strip()
        try:
            result = self.routes.trials.send(url or None, may_read=visit.may("admin"))
            return self._page(visit, url=url, result=result)
        except InvalidRequest as error:
            return self._page(visit, url=url, faults=error.faults, status=error.status)
        except TooManyRequests as error:
            faults = [{"field": "url", "message": str(error)}]
            return self._page(visit, url=url, faults=faults, status=error.status)

    def replay(self, visit: PageRequest) -> Response:
        """Send a notification again."""
        self.routes.notifications.replay(visit.request.path_params["id"])
        self.routes.due()
        return RedirectResponse("/notifications", 303)

    def _page(
        self,
        visit: PageRequest,
        *,
        url: str = "",
        result: TrialResult | None = None,
        faults: Sequence[Mapping[str, str]] = (),
        status: int = 200,
    ) -> Response:
        given = {name: visit.given(name) or "" for name in FILTERS}
        found: Page[Notification] = Page([], None)
        wrong: Sequence[Mapping[str, str]] = ()
        try:
            asked = {name: value for name, value in given.items() if value} | {"limit": str(A_PAGE)}
            found = self.routes.page(read_query(NotificationQuery, QueryParams(asked)))
        except InvalidRequest as error:
            wrong, status = error.faults, error.status
        return visit.page(
            "notifications.html",
            status=status,
            found=found.rows,
            next_cursor=found.next_cursor,
            given=given,
            faults=wrong,
            states=["", *(state.value for state in NotificationState)],
            url=url,
            result=result,
            fault="; ".join(fault["message"] for fault in faults),
            may_send=visit.may("submit"),
        )
