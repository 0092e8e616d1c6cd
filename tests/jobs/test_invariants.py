"""The ten invariants of a job's life, each shown by the least that fails without it.

Each test says which code upholds its invariant: take that out, and the test fails. What happens at every
step when the process is killed there is shown in `tests/faults`. That objects are created only and with
their digest is in `tests/contracts/test_object_store.py`, and what is done where one is there already in
`tests/archive`. The seventh is in `test_life.py`. The eighth to the tenth take more room, and stand in
`test_invariants_rebuild.py`, `test_invariants_accounting.py` and `test_invariants_secrets.py`.
"""

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Table, select

from receiver.gateways.client import GatewayClient
from receiver.resources import Factories
from storage.archive.object_store import ObjectStore
from storage.errors import Unavailable
from storage.ledger.database import Database
from storage.ledger.deliveries import DeliveryResult, NewDelivery
from storage.ledger.ledger import Ledger
from storage.models import Status
from tests.callbacks.test_callbacks import Post, completed, in_both_ways, running_job, signed
from tests.jobs.test_life import _theirs as await_running
from tests.support.live import FAST, IMAGEN, ULTRA, Start

IMPATIENT = replace(FAST, unconfirmed=0.5)
"""What nobody confirms is given up at once."""
CALLBACKS_ONLY = replace(FAST, callback_polls=(3600,))
"""Nobody asks a gateway that was to call back, so that what is found was found by a callback."""


def on_disk(folder: Path, query: str, *values: object) -> list[Any]:
    """What somebody else finds in the ledger's file now."""
    with closing(sqlite3.connect(f"file:{folder / 'ledger.sqlite3'}?mode=ro", uri=True)) as connection:
        return connection.execute(query, values).fetchall()


@contextmanager
def unwritable_log(ledger: Path) -> Iterator[None]:
    """Nobody can open SQLite's log, as whoever waits for the disk to write it has to."""
    log = ledger.with_name(f"{ledger.name}-wal")
    kept = log.rename(ledger.with_name("kept"))
    log.symlink_to(log)
    try:
        yield
    finally:
        kept.rename(log)


def witness(folder: Path) -> tuple[Callable[..., GatewayClient], list[Any]]:
    """A sender that notes, before each submission leaves, its key and what is in the ledger's file then."""
    seen: list[Any] = []

    class Witness(GatewayClient):
        def send(self, request: httpx.Request) -> httpx.Response:
            if request.method == "POST":
                jobs = on_disk(folder, "SELECT id, status FROM jobs")
                seen.append((request.headers.get("idempotency-key"), jobs))
            return super().send(request)

    return Witness, seen


def rows(database: Database, table: Table) -> list[dict[str, Any]]:
    with database.read() as connection:
        return [
            dict(row) for row in connection.execute(select(table).order_by(*table.primary_key)).mappings()
        ]


def moved(job: Mapping[str, Any]) -> list[str]:
    return [event["status"] for event in job["timeline"] if event["event"] == "moved"]


def test_1_a_job_is_stored_before_it_is_submitted(start: Start, tmp_path: Path) -> None:
    """1: a job is in the ledger before its gateway is called, and a repeated submit is not charged twice.

    Upheld by `Submitter._send` (receiver/jobs/submit.py): the move to submitting, committed by `begin` before
    `_exchange`; and by `Apiframe.submit` (receiver/gateways/apiframe.py): the header Idempotency-Key.
    """
    sender, seen = witness(tmp_path)
    live = start(factories=Factories(sender=sender))
    job = live.make(IMAGEN, fault={"fault": "lost_answer+late", "times": 1, "delay_s": 1})
    assert job["status"] == "archived"
    assert seen == [(job["id"], [(job["id"], "submitting")])] * 2
    assert [report.idempotency_key for report in live.sandbox.jobs()].count(job["id"]) == 1


@pytest.mark.parametrize("fault", ["lost_answer+no_callback", "unavailable"])
def test_2_a_lost_answer_causes_no_second_call(start: Start, tmp_path: Path, fault: str) -> None:
    """2: where a gateway has no idempotency, what it may have taken is never sent again by itself.

    Upheld by `Submitter._not_taken` (receiver/jobs/submit.py): `unknown`, and `_await_callback` for it; and
    by `Submitter._exchange`: a 5xx becomes OutcomeUnknown.
    """
    sender, seen = witness(tmp_path)
    job = start(timing=IMPATIENT, factories=Factories(sender=sender)).make(
        ULTRA, fault={"fault": fault, "times": 1}
    )
    assert len(seen) == 1
    assert (job["status"], job["error"]["code"]) == ("failed", "submission_unconfirmed")


def test_2_nor_after_a_crash_while_it_was_being_called(start: Start, tmp_path: Path) -> None:
    """Upheld by `Submitter.recover` (receiver/jobs/submit.py): `gateway.idempotent` in its
    condition."""
    idle = start(work=False)
    job_id = str(idle.submit(ULTRA)["id"])
    ledger = idle.service.resources.ledger
    (job,) = ledger.claim("killed", 1)
    ledger.move(job, Status.SUBMITTING, "killed")
    sender, seen = witness(tmp_path)
    start(timing=IMPATIENT, factories=Factories(sender=sender))
    job_after = idle.finish(job_id)
    assert seen == []
    assert (job_after["status"], job_after["error"]["code"]) == ("failed", "submission_unconfirmed")


def test_2_and_its_callback_alone_heals_it(start: Start, tmp_path: Path) -> None:
    """Upheld by `Steps.run` (receiver/jobs/steps.py): `_called_back`, before `recover`."""
    sender, seen = witness(tmp_path)
    job = start(factories=Factories(sender=sender)).make(ULTRA, fault={"fault": "lost_answer", "times": 1})
    assert (job["status"], len(seen)) == ("archived", 1)


class Full(Ledger):
    """A ledger whose disk is full for callbacks, while it is told so."""

    full = False

    def add_deliveries(self, offers: Sequence[NewDelivery]) -> list[DeliveryResult]:
        if self.full:
            raise Unavailable("The disk is full.")
        return super().add_deliveries(offers)


@in_both_ways
def test_3_an_answered_callback_is_in_the_ledger(start: Start, tmp_path: Path, post: Post) -> None:
    """3: a callback is answered 2xx only after it is durably in the ledger; else 503 and Retry-After.

    Upheld by `Callbacks.receive` and `receive_whole` (receiver/callbacks/endpoint.py): both respond by the
    intake's future; by `Intake._write` (receiver/callbacks/intake.py): the result is set after `record`, and
    `_refuse` else; by `Unready` (receiver/errors.py): 503, which `receiver/http/middleware.py` answers with
    Retry-After; and by `Database.write` (storage/ledger/database.py): it returns after `flush`
    (storage/ledger/engine.py).
    """
    live = start(work=False, factories=Factories(ledger=Full))
    ledger = live.service.resources.ledger
    assert isinstance(ledger, Full)
    url, body = live.callback_url(running_job(live, "theirs")), completed("theirs")
    ledger.full = True
    refused = post(url, content=body, headers=signed(body))
    assert (refused.status_code, on_disk(tmp_path, "SELECT id FROM deliveries")) == (503, [])
    assert int(refused.headers["retry-after"]) > 0
    ledger.full = False
    assert post(url, content=body, headers=signed(body)).status_code == 200
    assert on_disk(tmp_path, "SELECT body FROM deliveries") == [(body,)]
    later = completed("theirs", "https://images.test/2.png")
    with unwritable_log(tmp_path / "ledger.sqlite3"):
        assert post(url, content=later, headers=signed(later)).status_code == 503, "not on the disk"
    assert post(url, content=later, headers=signed(later)).json() == {"status": "duplicate"}
    # What the disk did not take before it need not take from the log again.
    copy = shutil.copy(tmp_path / "ledger.sqlite3", tmp_path / "copied")
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT count(*) FROM deliveries").fetchone() == (2,)


def test_4_a_repeated_callback_has_the_effect_of_one(start: Start) -> None:
    """4: the same callback, any number of times, at the same instant, in any order, has the effect of one.

    Upheld by `_judge` (storage/ledger/deliveries.py): Receipt.DUPLICATE; by the unique constraint of
    `deliveries` (storage/ledger/schema.py), where two processes write; and by `_insert`
    (storage/ledger/deliveries.py): `late`.
    """
    live = start()
    job_id = str(live.submit(IMAGEN, fault="no_callback")["id"])
    theirs = await_running(live, job_id)
    links = live.sandbox.wait(theirs).images
    url = live.callback_url(job_id)

    def progress(percent: int) -> bytes:
        return json.dumps({"jobId": theirs, "status": "PROCESSING", "progress": percent}).encode()

    def post(body: bytes) -> tuple[int, str]:
        answer = httpx.post(url, content=body, headers=signed(body), timeout=20)
        return answer.status_code, answer.json()["status"]

    done = completed(theirs, links[0])
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(post, [done, progress(50)] * 10))
    assert sorted(answers) == [(200, "accepted")] * 2 + [(200, "duplicate")] * 18
    job = live.finish(job_id)
    assert [post(done), post(progress(50)), post(progress(90))] == [
        (200, "duplicate"), (200, "duplicate"), (200, "accepted"),
    ]  # fmt: skip
    effects = [delivery.effect for delivery in live.service.resources.ledger.deliveries(job_id)]
    assert effects.count("ready") == 1
    assert effects[-1] == "late"
    assert len(effects) == 3
    after = live.http.get(f"/v1/jobs/{job_id}").json()
    assert after["updated_at"] == job["updated_at"]
    assert moved(after) == ["queued", "submitting", "running", "ready", "archived"]
    assert sum(job_id in key for key in sorted(live.keys())) == 2, "one image and one record"


@pytest.mark.parametrize("body", [IMAGEN, ULTRA], ids=["apiframe", "api-in-one"])
def test_5_a_callback_before_the_answer_is_applied(start: Start, body: dict[str, Any]) -> None:
    """5: a callback may arrive before the submit response is stored; it is kept and applied.

    Upheld by `_same_job` (storage/ledger/deliveries.py): a job whose gateway id is not known takes any
    callback of its own URL; and by `_changed` (storage/ledger/job_writer.py): `pending` makes the moved job
    due at once.
    """
    live = start(timing=CALLBACKS_ONLY)
    job = live.make(body, fault="early")
    assert (job["status"], job["found_by"]) == ("archived", "callback")
    (delivery,) = live.service.resources.ledger.deliveries(job["id"])
    running_at = live.job(job["id"]).moved_at(Status.RUNNING)
    assert running_at is not None
    assert delivery.received_at <= running_at, "it was there first"
    assert delivery.effect in {"ready", "hint"}


def test_6_images_come_first_then_the_record(start: Start, tmp_path: Path) -> None:
    """6: first all images, then the record, then the job is archived.

    Upheld by `Archiver.run` and `_close` (receiver/jobs/archive.py): `_fetch_missing`, `write_record`, and
    the Move that `_close` returns, in this order.
    """
    written: list[tuple[str, list[Any]]] = []

    class Chronicle(ObjectStore):
        def put_new(self, key: str, *args: Any, **more: Any) -> Any:
            if "probes/" not in key:
                written.append((key, on_disk(tmp_path, "SELECT status FROM jobs")))
            return super().put_new(key, *args, **more)

    live = start(factories=Factories(store=Chronicle.connect))
    job = live.make(ULTRA | {"num_images": 3})
    images = [output["key"] for output in live.outputs(job["id"])]
    record = live.bucket.archive.record_key(live.job(job["id"]))
    # Several images are stored at the same time, in whatever order.
    assert sorted(written[:-1]) == [(key, [("ready",)]) for key in sorted(images)]
    assert written[-1] == (record, [("ready",)])
