"""Whatever comes in over HTTP is answered 2xx or 4xx: never a 5xx, never nothing."""

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.test_connection_limits import connected, everything
from tests.callbacks.test_callbacks import signed
from tests.support.live import IMAGEN, ULTRA, Live, started

QUICKLY = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(max_size=60)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
NAMES = ("jobId", "task_id", "id", "status", "event", "result", "images", "data", "output", "seed", "code")
FIELDS = st.sampled_from([*NAMES, "error"])
NEAR_CALLBACK = st.dictionaries(FIELDS, JSON | st.sampled_from(["COMPLETED", "completed", 200]), max_size=8)
BODY = st.binary(max_size=400) | (JSON | NEAR_CALLBACK).map(json.dumps).map(str.encode)


@pytest.fixture(scope="module")
def target(s3_server: Any, sandbox: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A service whose worker does nothing, with a job at each gateway."""
    # Without limits of pace, because what is refused for its pace is not looked at.
    limits = {"callback_token": 0, "bad_tokens": 0}
    folder = tmp_path_factory.mktemp("hostile")
    with started(s3_server, folder, sandbox=sandbox, work=False, limits=limits) as running:
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
@given(body=BODY, which=st.integers(0, 1), sign=st.booleans())
def test_no_body_breaks_it_behind_a_true_token(
    target: Live, urls: list[str], body: bytes, which: int, sign: bool
) -> None:
    answer = target.http.post(urls[which], content=body, headers=signed(body) if sign else {})
    assert 200 <= answer.status_code < 500


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


def exchange(target: Live, raw: bytes) -> bytes:
    """Send some bytes and no more, and return what comes until the service closes; it must do so in time."""
    with connected(target) as connection:
        with suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
        return everything(connection)


def post(url: str, *lines: bytes, body: bytes = b"", after_path: bytes = b"") -> bytes:
    """A callback byte by byte; `lines` are its head's, without a length unless it is among them."""
    path = httpx.URL(url).raw_path
    head = [b"POST " + path + after_path + b" HTTP/1.1", b"host: x", b"connection: close", *lines]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def status(answer: bytes) -> int | None:
    """The status of an answer; None if there is none."""
    return int(answer[9:12]) if answer else None


def is_well(target: Live) -> bool:
    return target.http.get("/healthz").status_code == 200


NAME = st.text("!#$%&'*+-.^_`|~09azAZ", min_size=1, max_size=30).map(str.encode)
VALUE = st.binary(max_size=60).map(lambda value: bytes(b for b in value if b >= 0x20 and b != 0x7F))
HEARD = st.sampled_from(
    [b"x-webhook-signature", b"x-webhook-event", b"content-type", b"x-request-id", b"user-agent"]
)


@QUICKLY
@given(headers=st.lists(st.tuples(NAME | HEARD, VALUE), max_size=8), which=st.integers(0, 1))
def test_no_bytes_in_a_header_break_it(
    target: Live, urls: list[str], headers: list[tuple[bytes, bytes]], which: int
) -> None:
    framing = {b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade", b"host"}
    lines = [b"%s: %s" % header for header in headers if header[0].lower() not in framing]
    answer = exchange(target, post(urls[which], *lines, b"content-length: 2", body=b"{}"))
    assert status(answer) in range(200, 500), answer
    assert is_well(target)


@QUICKLY
@given(
    lines=st.lists(st.binary(max_size=40), max_size=4),
    tail=st.binary(max_size=40),
    body=st.binary(max_size=60),
)
def test_no_bytes_at_all_in_head_or_path_break_it(
    target: Live, urls: list[str], lines: list[bytes], tail: bytes, body: bytes
) -> None:
    length = b"content-length: %d" % len(body)
    answer = exchange(target, post(urls[0], *lines, length, body=body, after_path=tail))
    assert status(answer) in {None, *range(200, 500)}, answer
    assert is_well(target)


ENCODINGS = ("chunked", "gzip, chunked", "chunked, chunked", "chunked, x", "\x0bchunked", "xchunked", "")
FRAMINGS = [
    *(f"transfer-encoding: {value}".encode() for value in ENCODINGS),
    *(f"content-length: {value}".encode() for value in ("4", "7", "4, 4", "+4", "0x4")),
    b"Transfer-Encoding : chunked", b"content-encoding: gzip", b"expect: 100-continue", b"expect: something",
    b"te: trailers", b"trailer: content-length",
]  # fmt: skip
CHUNKS = [
    b"", b"{}{}", b"2\r\n{}\r\n0\r\n\r\n", b'2;a=b;c="\r\n{}\r\n0\r\nx: y\r\n\r\n',
    b"00000002\r\n{}\r\n0\r\n\r\n", b"fffffffffffffffff\r\n{}", b"-2\r\n{}\r\n0\r\n\r\n", b"2\n{}\n0\n\n",
    b"2\r\n{}",
]  # fmt: skip


@QUICKLY
@given(
    framing=st.lists(st.sampled_from(FRAMINGS), max_size=3),
    body=st.sampled_from(CHUNKS) | st.binary(max_size=40),
)
def test_no_framing_of_a_body_breaks_it(
    target: Live, urls: list[str], framing: list[bytes], body: bytes
) -> None:
    answer = exchange(target, post(urls[0], *framing, body=body))
    assert status(answer) in {None, 100, *range(200, 500)}, answer
    assert b"HTTP/1.1 5" not in answer
    assert is_well(target)
