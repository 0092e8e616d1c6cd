"""Serve `/healthz` and `/readyz`: whether the process is alive, and whether every part can be used."""

from collections.abc import Callable, Mapping, Sequence
from time import monotonic

import structlog
from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import Response

from receiver.api.responses import json_response
from receiver.cache import TtlCache
from receiver.errors import DarkroomError, Unready
from receiver.http.routing import Answer, Operation
from receiver.schemas.status import Alive, Readiness
from storage.archive.store_facts import StoreFacts
from storage.errors import StorageError
from storage.ledger.backlog import Held
from storage.models import Clock

log = structlog.get_logger("darkroom.health")

REMEMBERED_S = 2.0
"""The TTL of the cached checks: the route is public, and a check costs something."""


Check = Callable[[], None]
"""Returns if a part can be used now, and raises an error that says why not."""

Warn = Callable[[], Mapping[str, str]]
"""Returns what an operator should know although work goes on: a sentence for each gateway, or other name."""

ASKING = 4
"""How many requests may wait for the checks at once; only one of them runs them."""
BROKEN = "The check itself failed; the log says how."


class Health:
    """`/healthz` responds while the process runs; `/readyz` checks each part."""

    def __init__(self, checks: Mapping[str, Check], warnings: Sequence[Warn] = ()) -> None:
        self._checks = checks
        self._warnings = warnings
        self._known = TtlCache(self._find, REMEMBERED_S)
        # Of their own: requests wait for the first result, and it may hang with the bucket.
        self._threads = CapacityLimiter(ASKING)

    @Operation("GET /healthz", "check_health", answers={200: Answer(Alive, "The process runs.")}, scope=None)
    async def healthz(self, _request: Request) -> Response:
        """Return that the process is alive."""
        return json_response(Alive(status="ok"))

    @Operation(
        "GET /readyz",
        "check_readiness",
        answers={
            200: Answer(Readiness, "Every part can be used."),
            503: Answer(Readiness, "A part cannot be used now."),
        },
        scope=None,
    )
    async def readyz(self, _request: Request) -> Response:
        """Return whether every part can be used: 200, or 503 and what is wrong with which."""
        found = await to_thread.run_sync(self.ask, limiter=self._threads)
        return json_response(found, 200 if found.ready else 503)

    def forget(self) -> None:
        """Clear the cache."""
        self._known.forget()

    def ask(self) -> Readiness:
        """Return the result of the checks, cached for `REMEMBERED_S`. Warnings do not make it unready."""
        return self._known()

    def _find(self) -> Readiness:
        checks = {name: _checked(name, check) for name, check in self._checks.items()}
        warnings: dict[str, str] = {}
        for warn in self._warnings:
            warnings |= _warned(warn)
        ready = all(result == "ok" for result in checks.values())
        return Readiness(status="ready" if ready else "not ready", checks=checks, warnings=warnings)


def oldest_result(oldest_ready_at: Callable[[], int | None], *, limit_s: float, clock: Clock) -> Check:
    """Return a check that no result has waited too long to be archived.

    `oldest_ready_at` returns since when the oldest one waits (milliseconds), or None if none does.
    """

    def check() -> None:
        since = oldest_ready_at()
        if since is None or (waited_s := (clock() - since) / 1000) <= limit_s:
            return
        raise Unready(
            f"The oldest result has waited {waited_s / 3600:.1f} hours to be archived, and may wait "
            f"{limit_s / 3600:.1f} (DARKROOM_READY__OLDEST_RESULT); gateways delete images after 24. "
            "Look at why its job waits: `darkroom jobs --status ready`."
        )

    return check


def bucket_warnings(facts: Callable[[], StoreFacts]) -> Warn:
    """Return what warns of a bucket's weaker paths."""

    def warn() -> Mapping[str, str]:
        warnings = facts().warnings
        return {"archive": " ".join(warnings)} if warnings else {}

    return warn


def held_results(held: Callable[[], Sequence[Held]]) -> Warn:
    """Return what warns of the jobs that wait until somebody mends what is wrong with their result."""

    def warn() -> Mapping[str, str]:
        return {
            f"{one.gateway} {one.code}": f"Jobs that wait because of this: {one.jobs}. "
            f"`darkroom jobs --code {one.code}` shows why, and what to do."
            for one in held()
        }

    return warn


def worker_away_s(
    last_seen_at: Callable[[], int | None], clock: Clock, now_s: Callable[[], float] = monotonic
) -> Callable[[], float]:
    """Return what tells for how many seconds no worker was seen, since this process began at most.

    `last_seen_at` is that of `Workers`. `now_s` is any clock that only goes forward.
    """
    began = now_s()

    def away_s() -> float:
        up_s, seen_at = now_s() - began, last_seen_at()
        return up_s if seen_at is None else min(up_s, max(0.0, (clock() - seen_at) / 1000))

    return away_s


def worker_seen(away_s: Callable[[], float], *, limit_s: float) -> Check:
    """Return a check that a worker was seen lately, in any process."""

    def check() -> None:
        if (waited_s := away_s()) > limit_s:
            raise Unready(
                f"No worker has been seen for {waited_s:.0f} seconds, so nothing is submitted, downloaded or "
                f"archived; {limit_s:g} are allowed (DARKROOM_READY__NO_WORKER). Fix: see in the log why the "
                "worker process ends, or start `darkroom work`."
            )

    return check


def failures(checks: Mapping[str, Check]) -> dict[str, str]:
    """Run checks, and return why each failed that did."""
    results = {name: _checked(name, check) for name, check in checks.items()}
    return {name: result for name, result in results.items() if result != "ok"}


def _checked(name: str, check: Check) -> str:
    try:
        check()
    except (StorageError, DarkroomError) as error:
        log.warning("not ready", part=name, why=str(error))
        return str(error)
    except Exception:
        log.exception("check failed", part=name)
        return BROKEN
    return "ok"


def _warned(warn: Warn) -> Mapping[str, str]:
    try:
        return warn()
    except StorageError:
        # The ledger's own check says so already.
        return {}
    except Exception:
        log.exception("warnings not read")
        return {"warnings": BROKEN}
