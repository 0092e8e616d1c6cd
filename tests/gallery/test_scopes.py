"""Which session may open which page: every route of the gallery, with each scope and without a session."""

from collections.abc import Mapping

import httpx
import pytest
from starlette.routing import Route

from receiver.http.routing import Served
from tests.support.galleries import SECRETS, Hung

LADDER = ("read", "submit", "admin")
"""Each scope may do what those before it may."""

PAGES: Mapping[str, str | None] = {
    "GET /": "read",
    "GET /outputs/{id}": "read",
    "GET /find": "read",
    "POST /find": "read",
    "GET /sign-in": None,
    "POST /sign-in": None,
    "POST /sign-out": "read",
    "GET /jobs": "read",
    "GET /jobs/{id}": "read",
    "GET /jobs/{id}/resubmit": "submit",
    "POST /jobs/{id}/retry": "submit",
    "POST /jobs/{id}/cancel": "submit",
    "GET /submit": "submit",
    "POST /submit": "submit",
    "GET /notifications": "read",
    "POST /notifications/test": "submit",
    "POST /notifications/{id}/replay": "submit",
    "GET /status": "read",
    "GET /usage": "read",
    "GET /static/{name}": None,
}
"""The least scope that each needs; None: it is for whoever comes."""


def routes(hung: Hung) -> dict[str, Route]:
    return {
        f"{method} {route.path}": route
        for route in hung.live.service.asgi(work=False).routes
        if isinstance(route, Route) and not isinstance(route, Served)
        for method in route.methods or ()
        if method != "HEAD"
    }


def test_every_page_is_in_the_table(hung: Hung) -> None:
    assert set(routes(hung)) == set(PAGES)


@pytest.mark.parametrize("at", [at for at, scope in PAGES.items() if scope is not None])
def test_a_page_is_for_its_scope_and_those_above(hung: Hung, at: str) -> None:
    method, _, path = at.partition(" ")
    needed = PAGES[at]
    assert needed is not None
    path = path.replace("{id}", hung.kite["outputs"][0]["id"] if "outputs" in path else hung.kite["id"])
    with httpx.Client(base_url=hung.live.url, trust_env=False) as client:
        answer = client.request(method, path)
        assert (answer.status_code, answer.headers["location"][:9]) == (303, "/sign-in?")
        if method == "GET":
            assert client.head(path).status_code == 303
    for scope in SECRETS:
        with hung.visitor(scope) as client:
            status = client.request(method, path).status_code
            if LADDER.index(scope) < LADDER.index(needed):
                assert status == 403, scope
            elif method == "POST":
                # A form without anything in it is refused for what it is.
                assert status == 422, scope
            else:
                # An archived job needs no second submission, which is told on a page, too.
                assert status in {200, 409}, scope
