"""The fault proxy does the harm that scenes ask it for; the rest of it, each scene shows."""

from collections.abc import Iterator

import httpx
import pytest

from tests.faults import harm
from tests.faults.proxy import Proxy
from tests.support.recorder import CallbackReceiver

BODY = b"an image, as it were" * 1000


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
    assert target.requests.qsize() == heard
    proxy.disarm()
    assert [client.post(path).status_code for path in ("/a", "/b")] == [200, 200]
    assert armed.struck == 1
