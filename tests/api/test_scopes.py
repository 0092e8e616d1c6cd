"""Which token may do what: every route of the service, with a token of every scope and without one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.routing import Route

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.http.routing import Served
from receiver.sandbox import SandboxServer
from tests.support.live import Live, started

JOB = "00000000-0000-7000-8000-000000000000"
IDS = {"{id}": JOB, "{id:id}": JOB, "{gateway}": "apiframe", "{token:path}": "none"}
SECRETS = {"read": "reader-reader-reader", "submit": "submit-submit-submit", "admin": "admin-admin-admin-a"}
LADDER = ("read", "submit", "admin")
"""Each scope may do what those before it may."""

ROUTES: dict[str, tuple[str | None, int]] = {
    "POST /callbacks/{gateway}/{token:path}": (None, 401),  # whatever the API's token: only its own counts
    "GET /callbacks/{gateway}/{token:path}": (None, 401),
    "POST /v1/jobs": ("submit", 422),
    "POST /v1/jobs/batch": ("submit", 422),
    "GET /v1/jobs": ("read", 200),
    "GET /v1/jobs/{id:id}": ("read", 404),
    "POST /v1/jobs/{id}/retry": ("submit", 404),
    "POST /v1/jobs/{id}/cancel": ("submit", 404),
    "GET /v1/outputs": ("read", 200),
    "GET /v1/outputs/{id}": ("read", 404),
    "GET /v1/outputs/{id}/image": ("read", 404),
    "GET /v1/outputs/{id}/thumbnail": ("read", 404),
    "GET /v1/outputs/{id}/record": ("read", 404),
    "GET /v1/notifications": ("read", 200),
    "GET /v1/notifications/{id:id}": ("read", 404),
    "POST /v1/notifications/test": ("submit", 422),
    "POST /v1/notifications/{id}/replay": ("submit", 404),
    "GET /v1/status": ("read", 200),
    "GET /v1/facets": ("read", 200),
    "GET /v1/models": ("read", 200),
    "GET /v1/gateways": ("read", 200),
    "GET /v1/events": ("read", 200),
    "GET /v1/usage": ("read", 200),
    "GET /metrics": ("read", 200),
    "GET /healthz": (None, 200),
    "GET /readyz": (None, 200),
    "GET /openapi.json": (None, 200),
    "GET /docs": (None, 200),
    "GET /docs.css": (None, 200),
}
"""The least scope that each route needs, and what it answers to whoever has it, in an empty ledger."""


@pytest.fixture(scope="module")
def guarded(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    folder: Path = tmp_path_factory.mktemp("scopes")
    tokens = [f"{scope}-token:{scope}:{secret}" for scope, secret in SECRETS.items()]
    with started(s3_server, folder, sandbox=sandbox, api_tokens=tokens) as running:
        yield running


def ask(live: Live, at: str, token: str | None) -> tuple[int, str]:
    method, path = at.split(" ")
    for name, value in IDS.items():
        numbered = "outputs" in path or "notifications" in path
        path = path.replace(name, f"{value}.1" if numbered else value)
    # It has no end by itself.
    path += "?wait=0" * path.endswith("/events")
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    answer = live.http.request(method, path, headers=headers)
    assert answer.headers.get("www-authenticate") == ("Bearer" if answer.status_code == 401 else None)
    told = answer.content and answer.headers.get("content-type") == "application/problem+json"
    return answer.status_code, answer.json()["code"] if told else ""


def test_every_route_is_in_the_table(guarded: Live) -> None:
    served = {
        f"{method} {route.path}"
        for route in guarded.service.asgi(work=False).routes
        if isinstance(route, Served)
        for method in route.methods or ()
        if method != "HEAD"
    }
    # The pages of the gallery are in a table of their own: tests/gallery/test_scopes.py.
    assert served == set(ROUTES)
    assert all(isinstance(route, Route) for route in guarded.service.asgi(work=False).routes)


@pytest.mark.parametrize("at", ROUTES)
def test_a_route_answers_its_scope_and_those_above_it_only(guarded: Live, at: str) -> None:
    scope, status = ROUTES[at]
    for caller, secret in SECRETS.items():
        told, code = ask(guarded, at, secret)
        if scope is not None and LADDER.index(caller) < LADDER.index(scope):
            assert (told, code) == (403, "forbidden"), caller
        else:
            assert told == status, caller


@pytest.mark.parametrize("at", ROUTES)
@pytest.mark.parametrize("token", [None, "nobody-nobody-nobody"])
def test_a_stranger_gets_no_farther_than_the_open_routes(guarded: Live, at: str, token: str | None) -> None:
    scope, status = ROUTES[at]
    told, code = ask(guarded, at, token)
    assert (told, code) == (401, "unauthorized") if scope is not None else told == status
    method, _, path = at.partition(" ")
    if method == "GET" and scope is not None:
        assert ask(guarded, f"HEAD {path}", token)[0] == 401
