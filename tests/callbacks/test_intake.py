from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from receiver.callbacks.intake import Intake
from receiver.errors import Unready
from receiver.telemetry.metrics import Metrics
from storage.ledger.database import Database
from storage.ledger.deliveries import DeliveryResult
from storage.ledger.ledger import Ledger
from tests.support.ledgers import Clock, offer, running


def test_a_sender_that_went_away_does_not_stop_the_others(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    ledger, arrived = Ledger(database, Clock()), threading.Event()
    running(ledger)
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
    database.close()


def test_callbacks_that_come_together_are_written_together_and_each_is_answered(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    ledger, metrics = Ledger(database, Clock()), Metrics([])
    running(ledger)
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
    database.close()


def test_what_could_not_be_written_is_not_answered_as_if_it_were(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    database = Database.open(f"sqlite:///{path}")
    ledger = Ledger(database, Clock())
    running(ledger)
    database.close()
    path.write_bytes(b"no database at all, " * 100)
    metrics = Metrics([])
    intake = Intake(ledger, lambda: None, metrics)
    intake.start()
    with pytest.raises(Unready):
        asyncio.run(intake.take(offer()))
    intake.stop()
    database.close()
