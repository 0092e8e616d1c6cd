"""Several values at the same time, as far as threads are free."""

import threading

import pytest

from receiver.jobs.image_threads import ImageThreads


def test_values_are_worked_on_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=20)

    def call(value: int) -> int:
        together.wait()
        return 10 * value

    assert ImageThreads(2).each(call, [1, 2, 3]) == [10, 20, 30]


def test_without_a_free_thread_the_caller_does_all() -> None:
    assert ImageThreads(0).each(lambda _: threading.get_ident(), [1, 2, 3]) == [threading.get_ident()] * 3
    assert ImageThreads(1).each(str, []) == []


def test_an_error_is_raised_once_all_are_done() -> None:
    done: list[int] = []

    def call(value: int) -> None:
        if value == 1:
            raise ValueError("the first")
        done.append(value)

    threads = ImageThreads(1)
    for _ in range(3):  # each thread is free again
        with pytest.raises(ValueError, match="the first"):
            threads.each(call, [1, 2, 3])
    assert sorted(done) == [2, 2, 2, 3, 3, 3]
