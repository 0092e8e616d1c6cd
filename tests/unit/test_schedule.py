import pytest

from receiver.schedule import Timing


@pytest.mark.parametrize(
    ("polls", "due"), [(0, 30), (1, 90), (2, 210), (3, 510), (4, 1110), (5, 2910), (6, 4710), (7, 6510)]
)
def test_polls_grow_rare_where_a_callback_is_expected(polls: int, due: float) -> None:
    assert Timing().poll_due(polls, callback_expected=True) == due


def test_schedules_go_on_as_long_as_anybody_asks() -> None:
    for expected in (True, False):
        assert Timing().poll_due(100_000, callback_expected=expected) < float("inf")
        assert Timing().poll_wait(100_000, callback_expected=expected) in {10, 1800}


def test_an_outage_is_asked_after_ever_more_rarely() -> None:
    timing = Timing(jitter=0)
    assert [timing.outage_wait(since) for since in (0, 1, 2, 4, 299, 9999)] == [1, 1, 2, 4, 299, 300]


def test_polls_without_callbacks_go_from_2_s_to_10() -> None:
    timing = Timing()
    due = [timing.poll_due(polls, callback_expected=False) for polls in range(12)]
    waits = [later - earlier for earlier, later in zip([0, *due], due, strict=False)]
    assert waits[0] == 2
    assert waits == sorted(waits)
    assert waits[-1] == 10


@pytest.mark.parametrize(("attempts", "least"), [(0, 1), (1, 2), (5, 32), (9, 300), (1000, 300)])
def test_backoff_doubles_up_to_a_limit_and_adds_jitter(attempts: int, least: float) -> None:
    waits = [Timing().backoff(attempts) for _ in range(200)]
    assert min(waits) >= least
    assert max(waits) <= least * 1.1


def test_downloads_are_tried_soon_and_then_rarer() -> None:
    timing = Timing(jitter=0)
    assert [timing.download_wait(tries) for tries in range(7)] == [0, 2, 10, 30, 120, 180, 270]
    assert [timing.download_wait(tries) for tries in (13, 10**6)] == [3600, 3600]
