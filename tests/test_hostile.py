"""Whatever comes in over HTTP is answered 2xx or 4xx: never a 5xx, never nothing."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.live import IMAGEN, ULTRA, Live, started
from tests.test_callbacks import signed

QUICKLY = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TEXT = st.text(max_size=60)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    [
        "jobId",
        "task_id",
        "id",
        "status",
        "event",
        "result",
        "images",
        "data",
        "output",
        "seed",
        "code",
        "error",
    ]
)
NEAR_CALLBACK = st.dictionaries(FIELDS, JSON | st.sampled_from(["COMPLETED", "completed", 200]), max_size=8)
# What an HTTP client can send at all: no DEL, and no space at either end.
SENDABLE = st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f")
HEADER = st.text(SENDABLE, max_size=80).map(str.strip)


@pytest.fixture(scope="module")
def target(s3_server: Any, sandbox: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A service whose worker does nothing, with a job at each gateway."""
    with started(s3_server, tmp_path_factory.mktemp("hostile"), sandbox=sandbox, work=False) as running:
        yield running


@pytest.fixture(scope="module")
def urls(target: Live) -> list[str]:
    """Signed callback URLs that are valid."""
    return [target.callback_url(str(target.submit(body)["id"])) for body in (IMAGEN, ULTRA)]


@QUICKLY
@given(gateway=TEXT, token=TEXT, body=st.binary(max_size=200))
def test_no_path_breaks_the_webhook_endpoint(target: Live, gateway: str, token: str, body: bytes) -> None:
    path = (
        f"/callbacks/{quote(gateway, safe='', errors='replace')}/{quote(token, safe='/', errors='replace')}"
    )
    assert 400 <= target.http.post(path, content=body).status_code < 500


@QUICKLY
@given(body=st.binary(max_size=400) | JSON.map(json.dumps).map(str.encode), which=st.integers(0, 1))
def test_no_body_breaks_it_behind_a_true_token(
    target: Live, urls: list[str], body: bytes, which: int
) -> None:
    assert 200 <= target.http.post(urls[which], content=body).status_code < 500


@QUICKLY
@given(callback=NEAR_CALLBACK, which=st.integers(0, 1))
def test_no_callback_that_is_nearly_right_breaks_it(
    target: Live, urls: list[str], callback: dict[str, Any], which: int
) -> None:
    body = json.dumps(callback).encode()
    assert 200 <= target.http.post(urls[which], content=body, headers=signed(body)).status_code < 500


@QUICKLY
@given(
    names=st.lists(st.sampled_from(["x-webhook-signature", "content-type", "x-webhook-event", "user-agent"])),
    values=st.lists(HEADER, min_size=4, max_size=4),
)
def test_no_header_breaks_it(target: Live, urls: list[str], names: list[str], values: list[str]) -> None:
    headers = [(name.encode(), value.encode("latin-1")) for name, value in zip(names, values, strict=False)]
    assert 200 <= target.http.post(urls[0], content=b"{}", headers=headers).status_code < 500


@QUICKLY
@given(
    query=st.dictionaries(
        st.sampled_from(["q", "seed", "model", "gateway", "job", "sha256", "cursor", "limit", "tag.a"])
        | TEXT,
        TEXT,
        max_size=4,
    )
)
def test_no_query_breaks_the_search(target: Live, query: dict[str, str]) -> None:
    encoded = "&".join(
        f"{quote(name, safe='', errors='replace')}={quote(value, safe='', errors='replace')}"
        for name, value in query.items()
    )
    assert target.http.get(f"/v1/outputs?{encoded}").status_code in {200, 422}


@QUICKLY
@given(body=JSON)
def test_no_submission_breaks_the_api(target: Live, body: Any) -> None:
    assert target.http.post("/v1/jobs", content=json.dumps(body).encode()).status_code in {202, 422}


@pytest.mark.parametrize(
    "raw",
    [
        b"POST /callbacks/a/b HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /callbacks/a/b HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999999\r\n\r\n",
        b"POST /callbacks/\xff\xfe/%ff HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
        b"POST /callbacks/a/%0a%0d HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
        b"POST /callbacks/a/b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_is_hardly_http_is_refused_and_the_next_one_served(target: Live, raw: bytes) -> None:
    host, port = target.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(65536)
    assert b" 4" in answer[:13] or answer == b""
    assert httpx.get(f"{target.url}/healthz").status_code == 200
