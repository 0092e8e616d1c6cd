"""The fault proxy does the harm that scenes ask it for; the rest of it, each scene shows."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from storage.archive.object_store import ObjectStore
from storage.errors import Conflict, Corrupt
from tests.faults import harm
from tests.faults.proxy import Proxy
from tests.faults.wire import damaged
from tests.support.callback_receiver import CallbackReceiver
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


def test_down_and_up_again(proxy: Proxy, client: httpx.Client) -> None:
    for _ in range(2):
        assert client.post("/").status_code == 200
        proxy.down()
        with pytest.raises(httpx.TransportError):
            client.post("/")
        proxy.up()


@pytest.mark.parametrize(
    ("action", "error", "heard"),
    [
        (harm.drop, httpx.RemoteProtocolError, 0),
        (harm.reset, httpx.ReadError, 0),
        (harm.swallow, httpx.RemoteProtocolError, 1),
        (harm.stall, httpx.ReadTimeout, 0),
        (harm.swallow_and_stall, httpx.ReadTimeout, 1),
        (harm.cut(30), httpx.RemoteProtocolError, 1),
    ],
)
def test_harm_is_done_once_to_what_fits(
    proxy: Proxy,
    client: httpx.Client,
    target: CallbackReceiver,
    action: harm.Action,
    error: type[Exception],
    heard: int,
) -> None:
    armed = proxy.arm(action, method="POST", path="^/a", times=1)
    with pytest.raises(error):
        client.post("/a", timeout=0.5)
    armed.wait(1)
    assert target.waiting.qsize() == heard
    proxy.disarm()
    assert [client.post(path).status_code for path in ("/a", "/b")] == [200, 200]
    assert armed.struck == 1


def test_a_write_that_took_place_although_its_answer_was_lost(bucket: ObjectStore, s3: Proxy) -> None:
    with s3.armed(harm.swallow, method="PUT", path="image", times=1), pytest.raises(Conflict):
        put(bucket, "image.png")
    assert bucket.head("image.png").sha256 == SHA256


def test_what_a_store_says_can_be_false_or_damaged(bucket: ObjectStore, s3: Proxy) -> None:
    put(bucket, "image.png")
    wrong = harm.altered(lambda told: told.with_header("x-amz-checksum-sha256", "A" * 43 + "="))
    for lie in (wrong, harm.altered(damaged)):
        with s3.armed(lie, method="GET", path="image"), pytest.raises(Corrupt):
            bucket.digest("image.png")
    assert bucket.digest("image.png") == (SHA256, len(BODY))
