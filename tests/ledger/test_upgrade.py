"""A ledger and a record that an earlier Darkroom wrote: opened, migrated, and gone on with.

`tests/samples/ledger` holds what the code of commit 1972d4e wrote: a job in each status, callbacks, a
delivered and two other notifications, and a circuit.
"""

import gzip
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from storage.archive.archive import Archive
from storage.archive.keys import Keys
from storage.archive.object_store import ObjectStore
from storage.archive.record import record_document
from storage.ledger.circuits import Circuits
from storage.ledger.database import Database
from storage.ledger.ledger import Ledger
from storage.ledger.notifications import Notifications
from storage.models import Attempt, Status, Verdict
from storage.search.filters import SearchFilter
from storage.search.search import Search

SAMPLES = Path(__file__).parents[1] / "samples" / "ledger"
LATER = 1_795_000_000_000 + 86_400_000


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Database]:
    path = tmp_path / "ledger.sqlite3"
    path.write_bytes(gzip.decompress((SAMPLES / "1972d4e.sqlite3.gz").read_bytes()))
    database = Database.open(f"sqlite:///{path}")
    yield database
    database.close()


def test_old_ledger_is_read(old: Database) -> None:
    ledger = Ledger(old, lambda: LATER)
    for status in Status:
        job = ledger.job(f"{status}-1")
        assert (job.status, job.request.seed, job.moves[-1][0]) == (status, "12345678901234567890", status)
    (counts,) = ledger.job_counts().values()
    assert counts.balanced
    assert set(counts.counts.values()) == {1}
    assert [one.signature for one in ledger.pending_deliveries("running-1")] == [Verdict.VALID]
    found = Search(old).outputs(SearchFilter(words=("寿司",), tags={"campaign": "menu"}), limit=9).rows
    assert [hit.output.id for hit in found] == ["partial-1.0", "archived-1.0"]
    notifications = Notifications(old, lambda: LATER)
    counted = notifications.counts()
    assert (counted.owed, counted.given_up) == (2, 0)
    (circuit,) = Circuits(old, lambda: LATER).every()
    assert (circuit.name, circuit.failures) == ("apiframe", 1)


def test_old_ledger_goes_on(old: Database) -> None:
    ledger = Ledger(old, lambda: LATER)
    again, new = ledger.add_job(
        "other-id",
        "apiframe",
        ledger.job("queued-1").request,
        idempotency_key="key-queued-1",
        notify_url="https://app.example/hook?token=x",
    )
    assert (again.id, new) == ("queued-1", False)
    claimed = {job.status: job for job in ledger.claim("w", 9)}
    assert set(claimed) == {Status.QUEUED, Status.SUBMITTING, Status.RUNNING, Status.READY}
    sent = ledger.move(claimed[Status.QUEUED], Status.SUBMITTING, "w", keep_lease=True)
    ledger.move(sent, Status.RUNNING, "w", gateway_job_id="theirs-queued-1")
    archived = ledger.move(claimed[Status.READY], Status.ARCHIVED, "w", records=1)
    assert archived.status is Status.ARCHIVED
    (waiting,) = ledger.pending_deliveries("running-1")
    ledger.move(claimed[Status.RUNNING], Status.FAILED, "w", applied={waiting.id: "failed"})
    retry = Attempt.once("retry", "asked", "", LATER)
    ledger.reopen(ledger.job("failed-1"), Status.QUEUED, retry)
    assert next(iter(ledger.job_counts().values())).balanced


def test_old_record_reads_the_same(old: Database, store: ObjectStore) -> None:
    written = (SAMPLES / "1972d4e.record.json").read_bytes()
    ledger, keys = Ledger(old, lambda: LATER), Keys()
    job = ledger.job("archived-1")
    store.put_new(
        keys.record(job),
        io.BytesIO(written),
        size=len(written),
        sha256=hashlib.sha256(written).hexdigest(),
        content_type="application/json",
        metadata={},
    )
    assert Archive(store, keys).read_record(job) == json.loads(written)
    made = record_document(
        replace(job, moves=job.moves[:-1]),
        ledger.outputs(job.id),
        ledger.deliveries(job.id),
        closing=job.moves[-1],
        missing=None,
        seed_supported=True,
        store=store.facts,
    )
    assert made.pop("store")["verified_by"] == "read_back", "what older versions did not say"
    result = made["result"]
    added = [result.pop(name) for name in ("images_requested", "images_returned", "withheld")]
    assert added == [job.request.num_images, None, []], "what came is not known of old jobs"
    assert json.loads(json.dumps(made | {"supersedes": None})) == json.loads(written)
