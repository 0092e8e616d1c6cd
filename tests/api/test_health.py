"""`/readyz`: what makes the service unready, and what is only worth a word."""

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from receiver.api.health import Check, Health, Warn, oldest_result, worker_away_s, worker_seen
from storage.errors import Unavailable
from tests.support.ledgers import Clock

HOUR = 3600


def ask(health: Health) -> httpx.Response:
    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(Starlette(routes=[Route("/readyz", health.readyz)]))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get("/readyz")

    return asyncio.run(get())


def fine() -> None:
    """Nothing is wrong."""


@pytest.mark.parametrize(
    ("waited_s", "ready"), [(None, True), (0, True), (6 * HOUR, True), (6 * HOUR + 1, False)]
)
def test_a_result_that_waits_too_long_makes_it_unready(waited_s: int | None, ready: bool) -> None:
    clock = Clock()
    since = None if waited_s is None else clock.now - waited_s * 1000
    results = oldest_result(lambda: since, limit_s=6 * HOUR, clock=clock)
    answer = ask(Health({"ledger": fine, "results": results}))
    assert answer.status_code == (200 if ready else 503)
    assert answer.json()["checks"]["ledger"] == "ok"
    if not ready:
        assert "DARKROOM_READY__OLDEST_RESULT" in answer.json()["checks"]["results"]
        assert "24" in answer.json()["checks"]["results"]


@pytest.mark.parametrize(
    ("up_s", "seen_s_ago", "ready"),
    [
        (59, None, True),  # a start takes its time
        (61, None, False),
        (3600, 5, True),
        (3600, 59, True),  # a few missed signs are no reason
        (3600, 61, False),
        (30, 3000, True),  # the whole installation was restarted
        (3600, -30, True),  # another machine's clock is ahead
    ],
)
def test_no_worker_for_a_while_makes_it_unready(up_s: int, seen_s_ago: int | None, ready: bool) -> None:
    clock, times = Clock(), [1000.0]
    seen_at = None if seen_s_ago is None else clock.now - seen_s_ago * 1000
    away_s = worker_away_s(lambda: seen_at, clock, lambda: times[-1])
    times.append(1000.0 + up_s)
    answer = ask(Health({"workers": worker_seen(away_s, limit_s=60)}))
    assert answer.status_code == (200 if ready else 503)
    if not ready:
        assert "No worker has been seen for 61 seconds" in answer.json()["checks"]["workers"]
        assert "`darkroom work`" in answer.json()["checks"]["workers"]


def test_warnings_that_cannot_be_read_are_left_out() -> None:
    def away() -> dict[str, str]:
        raise Unavailable("The ledger's database did not answer.")

    def no_ledger() -> None:
        away()

    checks: dict[str, Check] = {"ledger": no_ledger}
    warnings: list[Warn] = [away, lambda: {"api-in-one": "paused"}]
    answer = ask(Health(checks, warnings))
    assert answer.status_code == 503
    assert answer.json()["checks"] == {"ledger": "The ledger's database did not answer."}
    assert answer.json()["warnings"] == {"api-in-one": "paused"}


def test_a_broken_check_is_told_without_its_innards() -> None:
    def broken() -> None:
        raise RuntimeError("innards")

    def broken_warning() -> dict[str, str]:
        raise RuntimeError("innards")

    answer = ask(Health({"ledger": broken}, [broken_warning]))
    assert answer.status_code == 503
    assert "innards" not in answer.text


def test_checks_are_not_run_for_everybody_who_asks() -> None:
    runs = []
    health = Health({"ledger": lambda: runs.append(1)})
    for _ in range(5):
        assert health.ask().ready
    assert len(runs) == 1
    health.forget()
    health.ask()
    assert len(runs) == 2
