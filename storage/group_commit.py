"""Commit what several threads want to write at the same time in one transaction (group commit).

A commit waits for the disk, and costs the same for one change as for many. The first thread that wants to
write does so for all that have come to wait by then; there is no thread of its own and no pause, so a change
that comes alone is written at once.
"""

from collections.abc import Callable, Sequence
from threading import Lock, RLock
from typing import Generic, TypeVar

from storage.errors import Unavailable

T = TypeVar("T")
R = TypeVar("R")

MOST = 32
"""How many changes one transaction writes, so that no other write waits long."""


class _Waiting(Generic[T, R]):
    def __init__(self, one: T) -> None:
        self.one = one
        self.outcome: R | BaseException | None = None
        self.done = False

    def settle(self, outcome: R | BaseException) -> None:
        self.outcome, self.done = outcome, True


class GroupCommit(Generic[T, R]):
    """Writes changes in groups. Thread-safe."""

    def __init__(self, write: Callable[[Sequence[T]], Sequence[R]]) -> None:
        """`write` writes several changes in one transaction, all or none, and returns the result of each."""
        self._write = write
        self._lock = Lock()
        # The thread whose turn it is may write once more from within: then that is written first.
        self._turn = RLock()
        self._waiting: list[_Waiting[T, R]] = []

    def run(self, one: T) -> R:
        """Write a change, durably, and return its result; raises what writing it alone raises."""
        mine: _Waiting[T, R] = _Waiting(one)
        with self._lock:
            self._waiting.append(mine)
        while not mine.done:
            with self._turn:
                if not mine.done:
                    self._write_waiting()
        if isinstance(mine.outcome, BaseException):
            raise mine.outcome
        return mine.outcome  # type: ignore[return-value]

    def _write_waiting(self) -> None:
        with self._lock:
            group, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
        if len(group) > 1:
            self._write_together(group)
        for one in group:
            # Which of them could not be written, each alone will tell.
            if not one.done:
                self._write_alone(one)

    def _write_together(self, group: Sequence[_Waiting[T, R]]) -> None:
        outcomes: Sequence[R | BaseException] = ()
        try:
            outcomes = self._write([one.one for one in group])
        except Unavailable as error:
            outcomes = [error] * len(group)
        except Exception:  # noqa: BLE001 - it comes again for the one that it is about
            return
        for one, outcome in zip(group, outcomes, strict=True):
            one.settle(outcome)

    def _write_alone(self, one: _Waiting[T, R]) -> None:
        try:
            (result,) = self._write([one.one])
        except BaseException as error:  # noqa: BLE001 - raised again in the thread whose change it is
            one.settle(error)
        else:
            one.settle(result)
