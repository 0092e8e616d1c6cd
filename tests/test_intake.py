from __future__ import annotations

import threading
from pathlib import Path

import pytest

from receiver.errors import Unready
from receiver.intake import Intake
from receiver.metrics import Metrics
from storage.database import Database
from storage.deliveries import Receipt
from storage.ledger import Ledger
from tests.ledgers import Clock, offer, running


def test_a_sender_that_went_away_does_not_stop_the_others(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    ledger, arrived = Ledger(database, Clock()), threading.Event()
    running(ledger)
    intake = Intake(ledger, arrived.set, Metrics([]))
    gone, stays = intake.offer(offer(body=b"gone")), intake.offer(offer(body=b"stays"))
    assert gone.cancel()
    intake.start()
    assert stays.result(10) is Receipt.ACCEPTED
    assert intake.offer(offer(body=b"later")).result(10) is Receipt.ACCEPTED
    assert arrived.is_set()
    intake.stop()
    assert {delivery.body for delivery in ledger.deliveries("job-1")} == {b"stays", b"later"}
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
        intake.offer(offer()).result(10)
    intake.stop()
    database.close()
