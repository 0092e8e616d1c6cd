"""Pages of other origins: those that are set may use the API with a token, and no others may do anything."""

import json
from pathlib import Path

import httpx
import pytest

from receiver.errors import SettingsError
from receiver.settings import load, require
from tests.support.galleries import SECRETS, TOKENS
from tests.support.live import IMAGEN, Live, Start

APP = "https://app.example.com"
BEARER = {"authorization": f"Bearer {SECRETS['submit']}"}
ALLOWED = "access-control-allow-origin"


@pytest.fixture(scope="module", params=["", "/photos"])
def shared(
    request: pytest.FixtureRequest, start_shared: Start, tmp_path_factory: pytest.TempPathFactory
) -> str:
    folder = tmp_path_factory.mktemp("shared")
    more = {"cors_origins": f"{APP}:443/, http://localhost:3000", "path_prefix": request.param or "/"}
    live: Live = start_shared(folder, api_tokens=TOKENS, work=False, **more)
    return f"{live.url}{request.param}"


def preflight(url: str, origin: str, method: str = "POST", headers: str = "authorization") -> httpx.Response:
    asked = {
        "origin": origin,
        "access-control-request-method": method,
        "access-control-request-headers": headers,
    }
    return httpx.options(url, headers=asked, trust_env=False)


@pytest.mark.parametrize("origin", [APP, "http://localhost:3000"])
@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("POST", "/v1/jobs", "authorization,content-type,idempotency-key"),
        ("GET", "/v1/events", "authorization,last-event-id"),
        ("PATCH", "/v1/outputs/x", "authorization,content-type"),
        ("DELETE", "/v1/outputs/x", "authorization"),
        ("GET", "/v1/outputs/x/image", "authorization,range,if-none-match"),
    ],
)
def test_a_browser_may_ask_first(shared: str, origin: str, method: str, path: str, headers: str) -> None:
    answer = preflight(shared + path, origin, method, headers)
    assert (answer.status_code, answer.headers[ALLOWED]) == (200, origin)
    assert method in answer.headers["access-control-allow-methods"]
    assert "access-control-allow-credentials" not in answer.headers


def test_a_page_uses_the_api_with_its_token(shared: str) -> None:
    asked = {"origin": APP} | BEARER
    made = httpx.post(f"{shared}/v1/jobs", json=IMAGEN, headers=asked, trust_env=False)
    assert (made.status_code, made.headers[ALLOWED]) == (202, APP)
    assert "Origin" in made.headers["vary"]
    assert {"Link", "Location"} <= set(made.headers["access-control-expose-headers"].split(", "))
    for path, status in (("/v1/jobs/nothing", 404), ("/v1/jobs?limit=x", 422)):
        answer = httpx.get(shared + path, headers=asked, trust_env=False)
        assert (answer.status_code, answer.headers[ALLOWED]) == (status, APP), "its errors can be read"
    refused = httpx.get(f"{shared}/v1/jobs", headers={"origin": APP}, trust_env=False)
    assert (refused.status_code, refused.headers[ALLOWED]) == (401, APP)


def test_a_page_follows_events(shared: str) -> None:
    asked = {"origin": APP} | BEARER
    with httpx.stream("GET", f"{shared}/v1/events", headers=asked, timeout=20, trust_env=False) as answer:
        assert answer.headers[ALLOWED] == APP
        lines = answer.iter_lines()
        assert next(lines).startswith("retry:")
        made = httpx.post(f"{shared}/v1/jobs", json=IMAGEN, headers=asked, trust_env=False).json()
        data = next(line for line in lines if line.startswith("data:") and made["id"] in line)
        assert json.loads(data.removeprefix("data:"))


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://app.example.com", f"{APP}.evil.example", "null"]
)
def test_other_origins_are_not_allowed(shared: str, origin: str) -> None:
    refused = preflight(f"{shared}/v1/jobs", origin)
    answer = httpx.get(f"{shared}/v1/jobs", headers={"origin": origin} | BEARER, trust_env=False)
    for one in (refused, answer):
        assert ALLOWED not in one.headers
    assert refused.status_code == 400


@pytest.mark.parametrize(
    "path", ["/", "/sign-in", "/callbacks/apiframe/x", "/metrics", "/healthz", "/openapi.json"]
)
def test_only_the_api_is_shared(shared: str, path: str) -> None:
    answer = httpx.get(shared + path, headers={"origin": APP} | BEARER, trust_env=False)
    assert ALLOWED not in answer.headers
    assert preflight(shared + path, APP).status_code == 405


def test_no_page_acts_by_a_cookie(shared: str) -> None:
    with httpx.Client(trust_env=False) as client:
        signed_in = client.post(f"{shared}/sign-in", data={"token": SECRETS["admin"]})
        assert signed_in.status_code == 303
        assert client.get(f"{shared}/v1/jobs").status_code == 200
        answer = client.get(f"{shared}/v1/jobs", headers={"origin": APP})
        assert (answer.status_code, "access-control-allow-credentials" in answer.headers) == (401, False)
        assert client.get(f"{shared}/v1/jobs", headers={"origin": APP} | BEARER).status_code == 200


def test_by_default_nothing_is_shared(live: Live) -> None:
    assert preflight(f"{live.url}/v1/jobs", APP).status_code == 405
    assert ALLOWED not in live.http.get("/v1/jobs", headers={"origin": "http://127.0.0.1"}).headers


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "https://*.example.com",
        "https://a.example/path",
        "a.example",
        "null",
        "ftp://a.example",
        "https://é.example",
    ],
)
def test_only_exact_origins_can_be_set(origin: str) -> None:
    with pytest.raises(SettingsError, match="DARKROOM_CORS_ORIGINS"):
        load(cors_origins=origin)


def test_origins_need_tokens(live: Live, tmp_path: Path) -> None:
    settings = live.settings.model_copy(update={"cors_origins": [APP], "data_dir": tmp_path})
    with pytest.raises(SettingsError, match="DARKROOM_API_TOKENS: pages of DARKROOM_CORS_ORIGINS"):
        require(settings)
