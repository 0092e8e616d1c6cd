"""How many requests one token or address may make: the count itself, and what the routes make of it."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from receiver.errors import TooManyRequests
from receiver.http.limits import LARGE, LargeBodies, Rate, address_key
from receiver.schedule import system_clock
from tests.callbacks.test_callbacks import completed, running_job, signed
from tests.support.live import IMAGEN, Live, Movable, Start
from tests.telemetry.test_metrics import value

NOON = 1_795_348_800_000
TOKENS = [
    "web:submit:a-token-of-the-web-team",
    "ops:admin:a-token-of-operations",
    "eye:read:a-token-of-the-readers",
]


def stopped() -> Movable:
    """A clock that stands still unless it is set forward."""
    return Movable(lambda: NOON)


def taken(rate: Rate, key: str, tries: int) -> int:
    """How many of so many requests are let through."""
    passed = 0
    for _ in range(tries):
        try:
            rate.take(key, "too many")
        except TooManyRequests:
            continue
        passed += 1
    return passed


def test_a_minutes_worth_passes_and_fills_up_again() -> None:
    clock = stopped()
    rate = Rate(60, clock)
    assert taken(rate, "a", 200) == 60
    assert taken(rate, "b", 1) == 1, "each key has a bucket of its own"
    with pytest.raises(TooManyRequests) as caught:
        rate.take("a", "too many")
    assert caught.value.headers == {"retry-after": "1"}
    clock.forward(10)
    assert taken(rate, "a", 200) == 10
    clock.forward(3600)
    assert taken(rate, "a", 200) == 60, "a bucket never holds more than one minute's worth"
    assert taken(Rate(0, clock), "a", 10_000) == 10_000, "zero is no limit"


def test_what_was_taken_already_is_counted_later() -> None:
    clock = stopped()
    rate = Rate(10, clock)
    rate.charge("a", 8)
    assert taken(rate, "a", 9) == 2
    rate.charge("a", 1_000_000)
    clock.forward(60)
    assert taken(rate, "a", 99) == 10, "no debt is longer than a minute"


def test_memory_is_bounded_and_freed() -> None:
    clock = stopped()
    rate = Rate(10, clock, most_keys=500)
    for number in range(20_000):
        rate.take(number, "too many")
    assert len(rate) == 500
    clock.forward(61)
    rate.take("the next one", "too many")
    assert len(rate) == 1


def test_a_clock_set_back_refuses_nobody_for_long() -> None:
    clock = stopped()
    rate = Rate(10, clock)
    assert taken(rate, "a", 11) == 10
    clock.forward(-86_400)
    assert taken(rate, "a", 1) == 0
    clock.forward(60)
    assert taken(rate, "a", 99) == 10


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("::c000:201", "192.0.2.1", False),
        ("unknown", "x" * 30_000, True),
    ],
)
def test_ipv6_is_counted_by_its_first_64_bits(one: str, other: str, same: bool) -> None:
    assert (address_key(one) == address_key(other)) is same


@pytest.fixture(scope="module")
def clock() -> Movable:
    """Real time, because the service's own waits are real; it is set forward from test to test."""
    return Movable(system_clock)


@pytest.fixture(scope="module")
def limited(start_shared: Start, clock: Movable) -> Live:
    limits = {"api_token": 5, "bad_tokens": 4, "callback_token": 6, "body_timeout": 0.5}
    trusted = ["127.0.0.0/8"]
    return start_shared(work=False, clock=clock, api_tokens=TOKENS, limits=limits, trusted_proxies=trusted)


@pytest.fixture(autouse=True)
def _fresh(clock: Movable) -> None:
    clock.forward(120)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token.rpartition(':')[2]}"}


@pytest.fixture
def job(limited: Live) -> str:
    """The callback URL of a job that is running."""
    theirs = f"theirs-{threading.get_ident()}-{time.monotonic_ns()}"
    limited.http.headers.update(bearer(TOKENS[0]))
    job_id = running_job(limited, theirs)
    limited.http.headers.pop("authorization")
    return f"{limited.callback_url(job_id)}#{theirs}"


def call(job: str, **more: Any) -> httpx.Response:
    """A good callback, word for word the same each time."""
    url, _, theirs = job.partition("#")
    body = completed(theirs)
    return httpx.post(url, content=body, headers={**signed(body), **more})


def test_each_api_token_has_a_limit_of_its_own(limited: Live) -> None:
    answers = [limited.http.get("/v1/status", headers=bearer(TOKENS[2])) for _ in range(4)]
    answers += [limited.http.post("/v1/jobs", headers=bearer(TOKENS[2]), json=IMAGEN) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200] * 4 + [403] + [429] * 3
    refused = answers[-1]
    assert refused.json()["code"] == "too_many_requests"
    assert int(refused.headers["retry-after"]) == 12
    assert refused.headers["x-content-type-options"] == "nosniff"
    page = limited.http.get("/metrics", headers=bearer(TOKENS[1])).text
    assert value(page, "darkroom_api_requests_refused_total") == 3
    assert limited.http.get("/v1/status", headers=bearer(TOKENS[1])).status_code == 200


def test_bad_tokens_are_limited_by_address(limited: Live) -> None:
    guesses = [limited.http.get("/v1/status", headers=bearer(f"guess-number-{n}-of-many")) for n in range(7)]
    assert [answer.status_code for answer in guesses] == [401] * 4 + [429] * 3
    assert limited.http.get("/v1/status", headers=bearer(TOKENS[0])).status_code == 200
    elsewhere = {**bearer("guess-number-1-of-many"), "x-forwarded-for": "203.0.113.77"}
    assert limited.http.get("/v1/status", headers=elsewhere).status_code == 401


def test_last_untrusted_forwarded_address_counts(limited: Live) -> None:
    """Each proxy appends whom it heard from; what stands before that, a client may have made up."""
    guess = bearer("guess-number-1-of-many")
    lines = [f"203.0.113.{n}, 198.51.100.7, 127.0.0.{n}" for n in range(6)]
    answers = [limited.http.get("/v1/status", headers=guess | {"x-forwarded-for": line}) for line in lines]
    assert [answer.status_code for answer in answers] == [401] * 4 + [429] * 2


def test_nobody_but_a_trusted_proxy_is_believed(start: Start) -> None:
    live = start(work=False, api_tokens=TOKENS, limits={"bad_tokens": 2}, trusted_proxies=["10.0.0.0/8"])
    lines = [{"x-forwarded-for": f"203.0.113.{n}"} for n in range(4)]
    assert [live.http.get("/v1/status", headers=line).status_code for line in lines] == [401, 401, 429, 429]


def test_open_api_stays_closed_through_a_proxy(start: Start) -> None:
    live = start(work=False, trusted_proxies=["127.0.0.0/8"])
    assert live.http.get("/v1/status").status_code == 200
    for address in ("203.0.113.9", "127.0.0.1", "::1", ""):
        forwarded = {"x-forwarded-for": address}
        assert live.http.get("/v1/status", headers=forwarded).status_code == 401


def test_bad_callback_tokens_are_limited_by_address(limited: Live, job: str) -> None:
    token = job.partition("#")[0].rpartition("/")[2]
    bad = [
        "/callbacks/apiframe/x.y.z",
        f"/callbacks/api-in-one/{token}",
        f"/callbacks/nobody/{token}",
        "/callbacks/apiframe/",
        f"/callbacks/apiframe/{token[:-1]}",
        f"/callbacks/apiframe/{'a' * 4000}",
    ]
    first = [limited.http.post(path, content=b"{}") for path in bad[:4]]
    assert {answer.status_code for answer in first} == {401}
    assert len({answer.text for answer in first}) == 1
    later = [limited.http.post(path, content=b"{}") for path in bad]
    assert {answer.status_code for answer in later} == {429}
    assert len({(answer.text, answer.headers["retry-after"]) for answer in later}) == 1
    assert call(job).status_code == 200, "what others at this address do is not counted to a true token"
    elsewhere = limited.http.post(bad[0], content=b"{}", headers={"x-forwarded-for": "2001:db8::1"})
    assert elsewhere.status_code == 401


def test_a_callback_token_has_a_limit_of_its_own(limited: Live, job: str) -> None:
    answers = [call(job, **{"x-forwarded-for": f"203.0.113.{number}"}) for number in range(8)]
    assert [answer.status_code for answer in answers] == [200] * 6 + [429] * 2
    assert answers[-1].json()["code"] == "too_many_requests"


def test_large_bodies_use_the_limit_up_sooner(limited: Live, job: str) -> None:
    url = job.partition("#")[0]
    large = b'{"padding": "' + b"x" * (4 * LARGE) + b'"}'
    assert httpx.post(url, content=large, headers=signed(large)).status_code == 400
    answers = [call(job).status_code for _ in range(3)]
    assert answers == [200, 429, 429]


def test_one_large_body_at_a_time_for_one_token(start: Start) -> None:
    live = start(work=False, limits={"callback_token": 0})
    theirs = ["theirs-large", "theirs-small"]
    urls = {name: live.callback_url(running_job(live, name)) for name in theirs}
    body = completed("theirs-large")[:-1] + b', "padding": "' + b"x" * (4 * LARGE) + b'"}'
    begun, go_on = threading.Event(), threading.Event()

    def slowly() -> Iterator[bytes]:
        yield body[: 3 * LARGE]
        begun.set()
        go_on.wait(10)
        yield body[3 * LARGE :]

    def send(content: Any) -> httpx.Response:
        return httpx.post(urls["theirs-large"], content=content, headers=signed(body), timeout=30)

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(send, slowly())
        assert begun.wait(10)
        refused = send(body)
        for _ in range(500):  # the service may not have read the beginning of the slow one yet
            if refused.status_code == 429:
                break
            refused = send(body)
        small = completed("theirs-small")
        beside = httpx.post(urls["theirs-small"], content=small, headers=signed(small))
        go_on.set()
        assert slow.result(30).status_code == 200
    assert (refused.status_code, beside.status_code) == (429, 200)


def test_large_bodies_of_many_tokens_take_turns() -> None:
    async def take_turns() -> list[str]:
        large = LargeBodies(at_once=1)
        seen: list[str] = []
        arrived = asyncio.Event()

        async def second() -> None:
            arrived.set()
            async with large.one_of("b"):
                seen.append("second")

        async with large.one_of("a"):
            waiting = asyncio.create_task(second())
            await arrived.wait()
            await asyncio.sleep(0)
            seen.append("first")
        await asyncio.wait_for(waiting, 5)
        async with large.one_of("a"):  # what was given back can be taken again
            return seen

    assert asyncio.run(take_turns()) == ["first", "second"]


@pytest.mark.alone
def test_a_body_that_does_not_come_in_time_is_refused(limited: Live, job: str) -> None:
    url, never = job.partition("#")[0], threading.Event()

    def dripping() -> Iterator[bytes]:
        for _ in range(100):
            yield b" "
            never.wait(0.02)

    began = time.monotonic()
    answer = httpx.post(url, content=dripping(), timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (408, "too_slow")
    assert answer.headers["connection"] == "close"
    assert 0.4 < time.monotonic() - began < 1.9
    token = bearer(TOKENS[0])
    assert limited.http.post("/v1/jobs", content=dripping(), headers=token).status_code == 408


def test_an_open_api_is_not_limited(start: Start) -> None:
    live = start(work=False, limits={"api_token": 1, "bad_tokens": 1})
    assert [live.http.get("/v1/status").status_code for _ in range(5)] == [200] * 5
    page = {"origin": "https://evil.example"}
    assert [live.http.get("/v1/status", headers=page).status_code for _ in range(3)] == [401, 429, 429]
    assert live.http.get("/v1/status").status_code == 200


def test_refused_requests_are_counted_in_the_log(limited: Live, capfd: pytest.CaptureFixture[str]) -> None:
    marked = {"x-request-id": "flooding"}
    for _ in range(60):
        limited.http.post("/callbacks/apiframe/x.y.z", headers=marked)
    seen = ""
    for _ in range(250):
        seen += "".join(capfd.readouterr())
        if "requests over their limit" in seen:
            break
        threading.Event().wait(0.02)
    counted = [line for line in seen.splitlines() if "requests over their limit" in line]
    assert counted
    assert len([line for line in seen.splitlines() if "flooding" in line]) <= 2 * 4 + len(counted)
