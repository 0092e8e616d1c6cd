"""Write a resource, or a page of a list, as the JSON of a response."""

from collections.abc import Mapping
from typing import Protocol
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from receiver.http.routing import Header
from receiver.schemas.types import Resource

LINK = Header("Link", 'The next page, with `rel="next"`; absent on the last one.', always=False)


class _Page(Protocol):
    @property
    def next_cursor(self) -> str | None: ...
    def to_json(self) -> bytes: ...


def json_response(
    resource: Resource | _Page, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a resource as JSON."""
    return Response(resource.to_json(), status, headers, "application/json")


def page_response(request: Request, page: _Page) -> Response:
    """Return a page of a list, with a link to the next one."""
    headers: Mapping[str, str] = {}
    if page.next_cursor:
        following = [(key, value) for key, value in request.query_params.multi_items() if key != "cursor"]
        query = urlencode([*following, ("cursor", page.next_cursor)])
        headers = {"link": f'<{request.url.path}?{query}>; rel="next"'}
    return json_response(page, headers=headers)
