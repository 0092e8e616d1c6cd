"""The fault proxy itself: each harm it does, as a plain client sees it."""

from __future__ import annotations

import hashlib
import io
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from time import monotonic

import httpx
import pytest

from receiver.sandbox import SandboxServer
from storage.archive.object_store import ObjectStore
from storage.errors import Conflict, Corrupt, Unavailable
from tests.faults import harm
from tests.faults.proxy import Proxy
from tests.faults.wire import damaged
from tests.support.callback_receiver import CallbackReceiver
from tests.support.sandbox import FAST
from tests.support.services import S3Access

BODY = b"an image, as it were" * 1000
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def target() -> Iterator[CallbackReceiver]:
    with CallbackReceiver() as receiver:
        yield receiver


@pytest.fixture
def proxy(target: CallbackReceiver) -> Iterator[Proxy]:
    with Proxy(target.url) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: Proxy) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=proxy.url, trust_env=False, timeout=5) as client:
        yield client


@pytest.fixture
def s3(s3_access: S3Access) -> Iterator[Proxy]:
    with Proxy(s3_access.endpoint) as proxy:
        yield proxy


@pytest.fixture
def bucket(s3: Proxy, s3_access: S3Access) -> ObjectStore:
    """A bucket that is reached through the proxy."""
    store = replace(s3_access, endpoint=s3.url).open()
    store.check(create=True)
    return store


def put(bucket: ObjectStore, key: str, body: bytes = BODY) -> None:
    sha256 = hashlib.sha256(body).hexdigest()
    bucket.put_new(
        key, io.BytesIO(body), size=len(body), sha256=sha256, content_type="image/png", metadata={"a": "b"}
    )


def test_everything_passes_while_nothing_is_armed(
    proxy: Proxy, client: httpx.Client, target: CallbackReceiver
) -> None:
    assert [client.post("/a", content=BODY).status_code for _ in range(2)] == [200, 200]
    first = target.next()
    assert (first.path, first.body) == ("/a", BODY)
    assert first.headers["host"] == proxy.url.removeprefix("http://")
    assert [call.request.body for call in proxy.calls] == [BODY, BODY]
    assert [call.answered.status for call in proxy.calls if call.answered] == [200, 200]


def test_chunked_requests_and_streamed_answers_pass() -> None:
    with SandboxServer(FAST) as sandbox, Proxy(sandbox.url) as proxy:
        body = iter([b'{"prompt": "a red', b' kite"}'])
        answer = httpx.post(
            f"{proxy.url}/api/v1/images/generations",
            content=body,
            headers={"authorization": "Bearer aio_sandbox"},
            trust_env=False,
        )
        assert answer.json()["code"] == 200
        (job,) = sandbox.jobs()
        assert sandbox.wait(job.id).prompt == "a red kite"
        image = httpx.get(f"{proxy.url}/images/{job.id}/0.png", trust_env=False)
        assert image.content == sandbox.image_bytes(job.id)


def test_down_and_up_again(proxy: Proxy, client: httpx.Client, target: CallbackReceiver) -> None:
    for _ in range(3):
        assert client.post("/").status_code == 200
        proxy.down()
        with pytest.raises(httpx.TransportError):
            client.post("/")
        with pytest.raises(httpx.ConnectError):
            client.post("/")
        proxy.up()
    assert client.post("/").status_code == 200


def test_connections_reset_at_once(proxy: Proxy, client: httpx.Client) -> None:
    proxy.reset_on_accept = True
    with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
        client.post("/")
    proxy.reset_on_accept = False
    assert client.post("/").status_code == 200


@pytest.mark.parametrize(
    ("action", "error"), [(harm.drop, httpx.RemoteProtocolError), (harm.reset, httpx.ReadError)]
)
def test_requests_that_the_target_never_hears(
    proxy: Proxy,
    client: httpx.Client,
    target: CallbackReceiver,
    action: harm.Action,
    error: type[Exception],
) -> None:
    armed = proxy.arm(action, times=1)
    with pytest.raises(error):
        client.post("/")
    assert target.none_left()
    assert client.post("/").status_code == 200
    assert armed.struck == 1


def test_an_answer_that_is_swallowed(proxy: Proxy, client: httpx.Client, target: CallbackReceiver) -> None:
    proxy.arm(harm.swallow, times=1)
    with pytest.raises(httpx.RemoteProtocolError):
        client.post("/", content=BODY)
    assert target.next().body == BODY


@pytest.mark.parametrize(("action", "heard"), [(harm.stall, 0), (harm.swallow_and_stall, 1)])
def test_an_answer_that_never_comes(
    proxy: Proxy, client: httpx.Client, target: CallbackReceiver, action: harm.Action, heard: int
) -> None:
    armed = proxy.arm(action, times=1)
    with pytest.raises(httpx.ReadTimeout):
        client.post("/", timeout=0.3)
    armed.wait(1)
    assert target.waiting.qsize() == heard


def test_a_proxy_closes_although_an_answer_is_stalled(target: CallbackReceiver) -> None:
    before = threading.active_count()
    with Proxy(target.url) as proxy, socket.create_connection(("127.0.0.1", proxy.port)) as sock:
        armed = proxy.arm(harm.stall)
        sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        armed.wait()
    assert threading.active_count() < before + 20


def test_a_slow_answer(proxy: Proxy, client: httpx.Client) -> None:
    proxy.arm(harm.slow(0.3))
    began = monotonic()
    assert client.post("/").status_code == 200
    assert monotonic() - began >= 0.3


def test_an_answer_that_is_cut(proxy: Proxy, client: httpx.Client) -> None:
    proxy.arm(harm.cut(30), times=1)
    with pytest.raises(httpx.RemoteProtocolError):
        client.post("/")
    proxy.arm(harm.cut(-1), times=1)
    with pytest.raises(httpx.RemoteProtocolError):
        client.post("/")


def test_an_answer_of_our_own_for_what_fits(
    proxy: Proxy, client: httpx.Client, target: CallbackReceiver
) -> None:
    with proxy.armed(harm.answer(503, b"no", retry_after="7"), method="POST", path="^/a") as armed:
        assert [client.post(path).status_code for path in ("/a", "/b", "/a")] == [503, 200, 503]
        assert client.post("/a").headers["retry-after"] == "7"
        assert armed.struck == 3
    assert client.post("/a").status_code == 200
    assert [target.next().path for _ in range(2)] == ["/b", "/a"]


def test_disarming_ends_every_fault(proxy: Proxy, client: httpx.Client) -> None:
    proxy.arm(harm.drop)
    proxy.disarm()
    assert client.post("/").status_code == 200


def test_waiting_for_a_fault_that_does_not_strike(proxy: Proxy) -> None:
    with pytest.raises(TimeoutError, match="0 times"):
        proxy.arm(harm.drop).wait(1, timeout_s=0.01)


def test_a_target_that_is_away() -> None:
    with Proxy("http://127.0.0.1:1") as proxy, pytest.raises(httpx.RemoteProtocolError):
        httpx.post(proxy.url, trust_env=False)


def test_signed_requests_pass_to_the_store(bucket: ObjectStore, s3: Proxy) -> None:
    put(bucket, "image.png")
    head = bucket.head("image.png")
    assert (head.sha256, head.bytes, head.metadata) == (SHA256, len(BODY), {"a": "b"})
    assert bucket.digest("image.png") == (SHA256, len(BODY))
    assert [found.key for found in bucket.list("")] == ["image.png"]
    assert any(call.request.method == "PUT" and call.request.body == BODY for call in s3.calls)


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (500, "InternalError", Unavailable),
        (503, "SlowDown", Unavailable),
        (412, "PreconditionFailed", Conflict),
        (409, "ConditionalRequestConflict", Unavailable),
    ],
)
def test_errors_of_a_store(
    bucket: ObjectStore, s3: Proxy, status: int, code: str, error: type[Exception]
) -> None:
    with s3.armed(harm.s3_error(status, code), method="PUT", path="image"), pytest.raises(error):
        put(bucket, "image.png")
    put(bucket, "image.png")
    assert bucket.head("image.png").sha256 == SHA256


def test_a_write_that_took_place_although_its_answer_was_lost(bucket: ObjectStore, s3: Proxy) -> None:
    with s3.armed(harm.swallow, method="PUT", path="image", times=1), pytest.raises(Conflict):
        put(bucket, "image.png")
    assert bucket.head("image.png").sha256 == SHA256


def test_a_checksum_that_is_wrong(bucket: ObjectStore, s3: Proxy) -> None:
    put(bucket, "image.png")
    wrong = harm.altered(lambda told: told.with_header("x-amz-checksum-sha256", "A" * 43 + "="))
    with s3.armed(wrong, method="HEAD|GET", path="image"):
        assert bucket.head("image.png").sha256 == "00" * 32
        with pytest.raises(Corrupt):
            bucket.digest("image.png")


def test_a_body_that_is_damaged(bucket: ObjectStore, s3: Proxy) -> None:
    put(bucket, "image.png")
    with s3.armed(harm.altered(damaged), method="GET", path="image"), pytest.raises(Corrupt):
        bucket.digest("image.png")
    assert bucket.digest("image.png") == (SHA256, len(BODY))
