"""Is this process alive, and can it take work: for load balancers, and for people who wonder why not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock
from time import monotonic

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from receiver import answers
from receiver.errors import DarkroomError
from receiver.queries import NoQuery
from receiver.routes import Answer, Operation, Served
from storage.errors import StorageError

log = structlog.get_logger("darkroom.health")

REMEMBERED_S = 2.0
"""A check is not repeated more often than this: anybody may ask, and a check costs something."""

HEALTHZ = Operation(
    "GET /healthz",
    "check_health",
    query=NoQuery,
    answers={200: Answer(answers.Alive, "The process runs.")},
)
READYZ = Operation(
    "GET /readyz",
    "check_readiness",
    query=NoQuery,
    answers={
        200: Answer(answers.Readiness, "Every part can be used."),
        503: Answer(answers.Readiness, "A part cannot be used now."),
    },
)

Check = Callable[[], None]
"""Returns if a part can be used now, and raises an error that says why not."""


class Health:
    """`/healthz` answers while the process runs; `/readyz` asks each part."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks
        self._lock = Lock()
        self._asked_at = float("-inf")
        self._answers: dict[str, str] = {}

    def routes(self) -> list[Served]:
        """The routes of this part."""
        return [Served(HEALTHZ, self.healthz), Served(READYZ, self.readyz)]

    async def healthz(self, _request: Request) -> Response:
        """Answer that the process is alive."""
        return JSONResponse({"status": "ok"})

    async def readyz(self, _request: Request) -> Response:
        """Answer whether every part can be used: 200, or 503 and what is wrong with which."""
        answers = await run_in_threadpool(self.ask)
        ready = all(answer == "ok" for answer in answers.values())
        status = "ready" if ready else "not ready"
        return JSONResponse({"status": status, "checks": answers}, 200 if ready else 503)

    def forget(self) -> None:
        """Ask again next time, however recent the last answer is."""
        self._asked_at = float("-inf")

    def ask(self) -> dict[str, str]:
        """Run the checks, unless that was done a moment ago."""
        # Whoever comes while the parts are being asked gets the last answer: waiting would fill the threads.
        if monotonic() - self._asked_at >= REMEMBERED_S and self._lock.acquire(blocking=not self._answers):
            try:
                self._answers = {name: _answer(name, check) for name, check in self._checks.items()}
                self._asked_at = monotonic()
            finally:
                self._lock.release()
        return self._answers


def _answer(name: str, check: Check) -> str:
    try:
        check()
    except (StorageError, DarkroomError) as error:
        log.warning("not ready", part=name, why=str(error))
        return str(error)
    except Exception:
        log.exception("check failed", part=name)
        return "The check itself failed; the log says how."
    return "ok"
