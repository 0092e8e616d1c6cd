"""Keys that a gateway publishes: fetched apart from callbacks, seldom, and kept when a fetch fails."""

import base64
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import httpx
import pytest

from receiver.callbacks.keys import LEAST_MS, LIFE_MS, PublicKeys
from receiver.errors import BadSignature, GatewayUnavailable
from receiver.gateways.api_in_one import ApiInOne
from receiver.gateways.replicate import TABLE, Replicate
from receiver.gateways.settings import settings_of
from receiver.gateways.table import Signing
from receiver.sandbox.core.signing import four_lines, jwk
from receiver.signatures import FAL, IDEOGRAM, KeyScheme, public_keys
from storage.models import Verdict
from tests.support.gateway_samples import adapter

KEYS_URL = "https://rest.fal.ai/.well-known/jwks.json"
NOW_S = 1_763_769_600
BODY = b'{"hello":"world"}'
PRIVATE = bytes(range(32))
PUBLIC = base64.urlsafe_b64decode("A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=")
# As computed by hand from the documents of fal and Ideogram.
FAL_HEX = (
    "87854697ad095fbafd76289d6ec10d4edf0596f6bd77b59dc7aafee3548d0e86"
    "768dc5bebda39abccd1780305f5330d19386d8be42b3f86262b9ed3f8f80a100"
)
IDEOGRAM_HEX = (
    "1f807e51cd17d2202c8a3c5023ac4096b7f99817feae263c895531e7d4178b3f"
    "9c65e5059c31de9beee530c522df108e55c6ee0906cebeb96fa1cb5d39279d01"
)


class Published(Replicate):
    """A gateway that signs with keys that it publishes."""

    table = replace(TABLE, signing=Signing("fal", "keys", keys=KEYS_URL))


GATEWAY = Published(settings_of(Published.table, Published.Settings)(api_key="r8_key"))


def signed(scheme: KeyScheme, message_id: str, signature: str) -> dict[str, str]:
    first, second = scheme.id_headers
    return {
        first: message_id,
        second: "user-1",
        scheme.time_header: str(NOW_S),
        scheme.header: signature,
    }


HEADERS = signed(FAL, "req-1", FAL_HEX)


@pytest.mark.parametrize(
    ("scheme", "message_id", "signature"), [(FAL, "req-1", FAL_HEX), (IDEOGRAM, "gen-1", IDEOGRAM_HEX)]
)
def test_vectors(scheme: KeyScheme, message_id: str, signature: str) -> None:
    headers = signed(scheme, message_id, signature)
    found = scheme.verify(headers, BODY, NOW_S, [b"\0" * 32, PUBLIC])
    assert found is not None
    assert (found.key_index, found.message_id, found.timestamp) == (1, message_id, NOW_S)
    assert found.proves_body
    assert four_lines(PRIVATE, message_id, "user-1", NOW_S, BODY) == signature


@pytest.mark.parametrize(
    ("change", "now_s", "verdict"),
    [
        ({}, NOW_S, Verdict.VALID),
        ({}, NOW_S + 301, Verdict.STALE),
        ({}, NOW_S - 301, Verdict.STALE),
        ({FAL.header: None}, NOW_S, Verdict.ABSENT),
        ({FAL.header: FAL_HEX.upper()}, NOW_S, Verdict.VALID),
        ({FAL.header: FAL_HEX[:-2] + "01"}, NOW_S, None),
        ({FAL.header: FAL_HEX + "00"}, NOW_S, None),
        ({FAL.header: "x" * 128}, NOW_S, None),
        ({FAL.header: ""}, NOW_S, None),
        ({FAL.time_header: str(NOW_S + 1)}, NOW_S, None),
        ({FAL.time_header: None}, NOW_S, None),
        ({FAL.id_headers[0]: "req-1\nuser-1"}, NOW_S, None),
        ({FAL.id_headers[1]: None}, NOW_S, None),
    ],
)
def test_a_callback_is_judged_by_published_keys(
    change: dict[str, str | None], now_s: float, verdict: Verdict | None
) -> None:
    headers = {name: value for name, value in {**HEADERS, **change}.items() if value is not None}
    if verdict is None:
        with pytest.raises(BadSignature):
            GATEWAY.verify(headers, BODY, now_s=now_s, keys=[PUBLIC])
        return
    assert GATEWAY.verify(headers, BODY, now_s=now_s, keys=[PUBLIC]) is verdict


def test_without_keys_nothing_is_proven() -> None:
    assert GATEWAY.verify(HEADERS, BODY, now_s=NOW_S) is Verdict.ABSENT


@pytest.mark.parametrize(
    ("document", "keys"),
    [
        ({"keys": [jwk(PRIVATE)]}, [PUBLIC]),
        ({"keys": [jwk(PRIVATE, kid="a"), {"kty": "RSA", "n": "x"}, {"x": "short"}, 7, None]}, [PUBLIC]),
        ({"keys": [{**jwk(PRIVATE), "crv": "X25519"}]}, []),
        ({"keys": "none"}, []),
        ({"keys": {}}, []),
        ({}, []),
    ],
)
def test_what_is_no_key_is_skipped(document: dict[str, Any], keys: list[bytes]) -> None:
    assert list(public_keys(document)) == keys
    assert list(GATEWAY.read_keys(httpx.Response(200, json=document))) == keys


class Fetched:
    """Answers the fetches of keys in turn, and counts them."""

    def __init__(self, *answers: Sequence[bytes] | None, used: Sequence[str] = ("replicate",)) -> None:
        self.answers, self.now = list(answers), 1_000_000_000_000
        self.requests: list[httpx.Request] = []
        gateways = {"replicate": GATEWAY, "api-in-one": adapter(ApiInOne, "aio_key")}
        self.keys = PublicKeys(gateways, self.send, lambda: self.now, used=used)

    def send(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if answer is None:
            raise GatewayUnavailable("rest.fal.ai refused the connection.")
        return httpx.Response(200, json={"keys": [jwk(one) for one in answer]})

    def settle(self, do: Callable[[], Any]) -> Any:
        found = do()
        for thread in threading.enumerate():
            if thread.name == "gateway-keys":
                thread.join(10)
        return found


OTHER = bytes(range(1, 33))


def test_keys_are_fetched_at_the_start_and_once_a_day() -> None:
    fetched = Fetched([PRIVATE], [OTHER])
    fetched.settle(fetched.keys.start)
    assert [str(one.url) for one in fetched.requests] == [KEYS_URL]
    assert "authorization" not in fetched.requests[0].headers
    assert fetched.keys.of("replicate") == (PUBLIC,)
    fetched.now += LIFE_MS - 1
    assert fetched.settle(lambda: fetched.keys.of("replicate")) == (PUBLIC,)
    assert len(fetched.requests) == 1
    fetched.now += 1
    fetched.settle(lambda: fetched.keys.of("replicate"))
    assert len(fetched.requests) == 2
    assert fetched.keys.of("replicate") not in ((), (PUBLIC,))


def test_a_gateway_that_is_not_used_is_asked_for_its_keys_by_a_callback_only() -> None:
    fetched = Fetched([PRIVATE], used=())
    fetched.settle(fetched.keys.start)
    assert fetched.requests == []
    fetched.settle(lambda: fetched.keys.of("replicate"))
    assert fetched.keys.of("replicate") == (PUBLIC,)


def test_a_signature_by_an_unknown_key_has_them_fetched_again_once_a_minute() -> None:
    fetched = Fetched([PRIVATE], [PRIVATE, OTHER])
    fetched.settle(fetched.keys.start)
    assert fetched.keys.refetch("replicate") is False
    fetched.now += LEAST_MS
    assert fetched.settle(lambda: fetched.keys.refetch("replicate")) is True
    assert fetched.keys.refetch("replicate") is False
    assert len(fetched.keys.of("replicate")) == 2


@pytest.mark.parametrize("answer", [None, []])
def test_keys_outlive_a_fetch_that_fails(answer: Sequence[bytes] | None) -> None:
    fetched = Fetched(answer, [PRIVATE], answer, [PRIVATE])
    fetched.settle(fetched.keys.start)
    assert fetched.keys.of("replicate") == ()
    fetched.now += LEAST_MS
    fetched.settle(lambda: fetched.keys.of("replicate"))
    fetched.now += LIFE_MS
    fetched.settle(lambda: fetched.keys.of("replicate"))
    assert fetched.keys.of("replicate") == (PUBLIC,)
    assert len(fetched.requests) == 3, "and it is not asked in vain all the time"


def test_a_gateway_without_published_keys_is_never_asked() -> None:
    fetched = Fetched()
    assert fetched.keys.of("api-in-one") == ()
    assert fetched.keys.refetch("api-in-one") is False
    assert fetched.requests == []
