"""What is away at the start: it is tried again in the background, and nobody uses it before it is open."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from structlog.testing import capture_logs

from receiver.opening import Opening, Part
from receiver.telemetry.outage import Outage
from storage.errors import Corrupt, Misconfigured, NotFound, StorageError, Unavailable, Unusable
from storage.gate import Gate

AWAY = Unavailable("It is away.")


def elsewhere(call: Callable[[], None]) -> None:
    """Call something in another thread."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(call).result()


def test_a_closed_gate_lets_only_its_opener_through() -> None:
    gate = Gate()
    gate.check()
    gate.close(AWAY)
    with gate.passing():
        gate.check()
        with pytest.raises(Unavailable, match="It is away"):
            elsewhere(gate.check)
    with pytest.raises(Unavailable):
        gate.check()
    gate.open()
    elsewhere(gate.check)


@pytest.mark.parametrize(
    ("why", "raised"),
    [
        (Misconfigured("No such bucket."), Misconfigured),
        (Unusable("It is of a newer version."), Misconfigured),
        (NotFound("There is no probe."), Unavailable),
        (Corrupt("The probe has other bytes."), Unavailable),
    ],
)
def test_no_reason_passes_for_one_of_an_object(why: StorageError, raised: type[StorageError]) -> None:
    gate = Gate()
    gate.close(why)
    with pytest.raises(StorageError, match=str(why)) as caught:
        gate.check()
    assert type(caught.value) is raised


def test_an_outage_is_logged_ever_more_rarely() -> None:
    now = 0.0
    outage = Outage(lambda: now)
    logged = []
    for now in range(400):
        if outage.is_news("away" if now < 250 else "refused"):
            logged.append(now)
    assert logged == [0, 30, 90, 210, 250]
    assert outage.end() == 399
    assert outage.end() is None
    assert outage.is_news("away")


class Scripted:
    """A part whose tries end so, one after the other, and then well."""

    def __init__(self, name: str, *ends: Exception) -> None:
        self.ends = list(ends)
        self.tries = 0
        self.part = Part(name, Gate(), self.open)

    def open(self) -> None:
        self.tries += 1
        if self.ends:
            raise self.ends.pop(0)


@contextmanager
def opened(*parts: Part) -> Iterator[tuple[list[int], list[dict[str, object]]]]:
    """Open these parts; yields the failures that were waited for, and what was logged until all are open."""
    waits: list[int] = []
    all_open = threading.Event()

    def wait_s(failures: int) -> float:
        waits.append(failures)
        return 0

    with capture_logs() as logs:
        opening = Opening(parts, wait_s, all_open.set)
        opening.start()
        assert all_open.wait(10)
        opening.stop()
        yield waits, [dict(one) for one in logs]


def test_a_part_is_tried_until_it_is_open() -> None:
    broken = RuntimeError("innards")
    bucket = Scripted("bucket", AWAY, AWAY, Misconfigured("A wrong key."), broken, NotFound("No probe."))
    ledger = Scripted("ledger")
    with opened(ledger.part, bucket.part) as (waits, logs):
        assert (ledger.tries, bucket.tries, waits) == (1, 6, [1, 2, 3, 4, 5])
        bucket.part.gate.check()
        said = [(one["event"], one.get("why")) for one in logs]
    waiting = "waiting for the bucket"
    assert said[:2] == [(waiting, "It is away."), (waiting, "A wrong key.")]
    assert said[-1] == ("the bucket is there, going on", None)
    assert not any("innards" in f"{why}" for _, why in said)


def test_what_is_there_is_not_talked_about() -> None:
    with opened(Scripted("ledger").part, Scripted("bucket").part) as (waits, logs):
        assert (waits, logs) == ([], [])


def test_what_can_never_work_is_not_tried_again() -> None:
    ledger = Scripted("ledger", AWAY, Unusable("It is of a newer version."))
    failed = threading.Event()
    opening = Opening([ledger.part], lambda _: 0)
    opening.on_failure(failed.set)
    opening.start()
    assert failed.wait(10)
    opening.stop()
    assert ledger.tries == 2
    with pytest.raises(Unusable, match="newer version"):
        opening.raise_failure()
    with pytest.raises(Misconfigured):
        ledger.part.gate.check()


def test_a_try_that_hangs_delays_the_others_for_a_moment_only() -> None:
    over = threading.Event()

    def hang() -> None:
        over.wait(30)

    hanging = Part("bucket", Gate(), hang)
    ledger = Scripted("ledger")
    opening = Opening([hanging, ledger.part], lambda _: 0)
    opening.start(patience_s=0.05)
    with pytest.raises(Unavailable, match="is being opened"):
        hanging.gate.check()
    over.set()
    opening.stop()
    assert ledger.tries == 1
