import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from receiver.callbacks.intake import Intake
from receiver.telemetry.metrics import Metrics
from storage.ledger.database import Database
from storage.ledger.deliveries import DeliveryResult
from storage.ledger.ledger import Ledger
from tests.support.ledgers import Clock, offer, running


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Database.open(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")) as database:
        ledger = Ledger(database, Clock())
        running(ledger)
        yield ledger


def test_a_sender_that_left_does_not_stop_the_others(ledger: Ledger) -> None:
    arrived = threading.Event()
    intake = Intake(ledger, arrived.set, Metrics([]))

    async def senders() -> list[DeliveryResult]:
        gone = asyncio.create_task(intake.take(offer(body=b"gone")))
        stays = asyncio.create_task(intake.take(offer(body=b"stays")))
        await asyncio.sleep(0)
        assert intake.waiting() == 2
        gone.cancel()
        await asyncio.wait([gone])
        intake.start()
        return [await stays, await intake.take(offer(body=b"later"))]

    assert asyncio.run(senders()) == [DeliveryResult.ACCEPTED, DeliveryResult.ACCEPTED]
    assert arrived.is_set()
    intake.stop()
    assert {delivery.body for delivery in ledger.deliveries("job-1")} == {b"stays", b"later"}


def test_callbacks_are_written_together(ledger: Ledger) -> None:
    metrics = Metrics([])
    intake = Intake(ledger, lambda: None, metrics)
    bodies = [b"%d" % (number // 2) for number in range(600)]  # each comes twice

    async def senders() -> list[DeliveryResult]:
        waiting = [asyncio.create_task(intake.take(offer(body=body))) for body in bodies]
        await asyncio.sleep(0)
        assert intake.waiting() == len(bodies)
        intake.start()
        return await asyncio.gather(*waiting)

    receipts = asyncio.run(senders())
    intake.stop()
    assert receipts == [DeliveryResult.ACCEPTED, DeliveryResult.DUPLICATE] * 300
    assert len(ledger.deliveries("job-1")) == 300
    assert "darkroom_intake_batch_callbacks_count 3.0" in metrics.page().decode()
