"""What threads want to write at the same time is written together, and each gets its own result."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from storage.errors import Conflict, LeaseLost, Unavailable
from storage.statements import GroupCommit


class Writes:
    """Writes numbers, but no negative one; the first group waits until all others have come."""

    def __init__(self, error: Exception | None = None) -> None:
        self.groups: list[list[int]] = []
        self.go_on = threading.Event()
        self._error = error

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.groups.append(list(numbers))
        if len(self.groups) == 1:
            assert self.go_on.wait(20)
        elif self._error is not None and min(numbers) < 0:
            raise self._error
        return [10 * number for number in numbers]


def together(writes: Writes, numbers: Sequence[int]) -> list[int | Exception]:
    """Write one number, and all others while that is under way; return their outcomes."""
    commits = GroupCommit(writes)

    def outcome(number: int) -> int | Exception:
        try:
            return commits.run(number)
        except Exception as error:  # noqa: BLE001 - it is the outcome
            return error

    with ThreadPoolExecutor(len(numbers) + 1) as pool:
        first = pool.submit(outcome, 0)
        others = [pool.submit(outcome, number) for number in numbers]
        while len(commits._waiting) < len(numbers):
            pass
        writes.go_on.set()
        assert first.result() == 0
        return [other.result() for other in others]


def test_what_waits_is_written_at_once() -> None:
    writes = Writes()
    assert together(writes, [1, 2, 3, 4]) == [10, 20, 30, 40]
    assert [sorted(group) for group in writes.groups] == [[0], [1, 2, 3, 4]]


@pytest.mark.parametrize("error", [LeaseLost("gone"), Conflict("another"), RuntimeError("a bug")])
def test_one_that_cannot_be_written_spoils_no_other(error: Exception) -> None:
    assert together(Writes(error), [1, -2, 3]) == [10, error, 30]


def test_a_database_that_is_away_is_asked_once_for_all() -> None:
    away = Unavailable("away")
    writes = Writes(away)
    assert together(writes, [1, -2, 3]) == [away] * 3
    assert len(writes.groups) == 2


def test_a_change_from_within_another_is_written_first() -> None:
    order: list[int] = []

    def write(numbers: Sequence[int]) -> Sequence[int]:
        if numbers == [1]:
            commits.run(2)
        order.extend(numbers)
        return numbers

    commits: GroupCommit[int, int] = GroupCommit(write)
    assert commits.run(1) == 1
    assert order == [2, 1]
