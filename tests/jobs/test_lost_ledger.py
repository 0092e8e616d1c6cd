"""A ledger that lacks jobs of its bucket: nothing is charged again, nothing is lost, and it is said."""

import hashlib
import io
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any, ClassVar

import httpx
import pytest

from receiver.errors import LedgerIncomplete
from receiver.ledger_check import NO_LONGER_NEEDED, LedgerCheck
from storage.archive.archive import Archive
from storage.archive.keys import Keys
from storage.archive.object_store import ObjectStore, StoredObject
from storage.errors import Unavailable
from storage.ledger.ledger import Ledger
from storage.models import Job, JobError, Status
from tests.callbacks.test_callbacks import completed, signed
from tests.jobs.test_postgres_service import KEYS
from tests.support.ledgers import REQUEST, Clock, add_job
from tests.support.live import IMAGEN, Live, Start
from tests.support.running import command
from tests.support.services import S3Access

FIRST, SECOND, THIRD = (f"019a9f3e-5c1d-7b42-9d0e-00000000000{number}" for number in (1, 2, 3))
SETTING = "DARKROOM_LEDGER__ACCEPT_INCOMPLETE"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.exhaustive)])
def fresh(request: pytest.FixtureRequest, start: Start, tmp_path: Path) -> Start:
    """Start services with an empty ledger over a bucket in which a job is archived."""
    lost = start(tmp_path / "lost", secret_keys=KEYS)
    lost.make(IMAGEN)
    database = {} if request.param == "sqlite" else {"database_url": request.getfixturevalue("postgres_url")}

    def begin(**more: Any) -> Live:
        return start(tmp_path / "fresh", s3=bucket_of(lost), secret_keys=KEYS, **database | more)

    return begin


def bucket_of(live: Live) -> dict[str, Any]:
    return {"bucket": live.settings.s3.bucket}


def submit(live: Live, key: str = "again") -> httpx.Response:
    return live.http.post("/v1/jobs", json=IMAGEN, headers={"idempotency-key": key})


def test_an_empty_ledger_over_records_says_so(fresh: Start, capsys: pytest.CaptureFixture[str]) -> None:
    live = fresh()
    assert "the ledger is incomplete" in capsys.readouterr().out
    answer = submit(live)
    assert (answer.status_code, answer.json()["code"]) == (503, "ledger_incomplete")
    assert answer.headers["retry-after"]
    (record,) = live.bucket.store.list("records/")
    for said in (
        answer.json()["detail"],
        live.http.get("/readyz").json()["checks"]["history"],
        live.http.get("/v1/status").json()["problems"]["history"],
        live.http.get("/status").text,
    ):
        assert SETTING in said
        assert record.key in said
        assert "restore the ledger" in said
    assert live.http.get("/readyz").status_code == 503
    done = command("status", DARKROOM_URL=live.url)
    assert (done.returncode, SETTING in done.stderr) == (1, True)
    assert live.http.get("/v1/status").json()["accepted"] == 0


def test_a_callback_of_a_lost_job_shall_come_again(fresh: Start) -> None:
    live = fresh()
    token = live.service.resources.tokens.make("apiframe", FIRST)
    body = completed("theirs")
    url = f"{live.url}/callbacks/apiframe/{token}"
    answer = httpx.post(url, content=body, headers=signed(body))
    assert (answer.status_code, answer.json()["code"]) == (503, "ledger_incomplete")
    assert answer.headers["retry-after"]


def test_once_accepted_it_fits_on_every_replica(fresh: Start) -> None:
    accepting, other = fresh(ledger={"accept_incomplete": True}), fresh(work=False)
    assert submit(other).status_code == 503
    token = accepting.service.resources.tokens.make("apiframe", FIRST)
    body = completed("theirs")
    url = f"{accepting.url}/callbacks/apiframe/{token}"
    assert httpx.post(url, content=body, headers=signed(body)).status_code == 404
    warned = accepting.http.get("/readyz").json()
    assert (warned["status"], SETTING in warned["warnings"]["history"]) == ("ready", True)
    job = submit(accepting)
    assert accepting.finish(job.json()["id"])["status"] == "archived"
    until(lambda: submit(other).json().get("id") == job.json()["id"])
    until(lambda: accepting.http.get("/readyz").json()["warnings"]["history"] == NO_LONGER_NEEDED)
    assert other.http.get("/v1/status").json()["problems"] == {}


def until(true: Callable[[], bool]) -> None:
    """Wait for what is looked at again after a while only."""
    deadline = monotonic() + 20
    while not true():
        assert monotonic() < deadline
        threading.Event().wait(0.1)


def test_a_restored_ledger_sends_nothing_again(start: Start, tmp_path: Path) -> None:
    """It has a job that waits, which was sent since; that is not sent and charged a second time."""
    (tmp_path / "restored").mkdir()
    queued = start(tmp_path / "lost", secret_keys=KEYS, work=False)
    waiting = queued.submit(IMAGEN)["id"]
    with closing(sqlite3.connect(tmp_path / "lost" / "ledger.sqlite3")) as ledger:
        ledger.execute("VACUUM INTO ?", [str(tmp_path / "restored" / "ledger.sqlite3")])
    first = start(tmp_path / "lost", s3=bucket_of(queued), secret_keys=KEYS)
    assert first.finish(waiting)["status"] == "archived"
    first.make(IMAGEN)
    made = len(first.sandbox.jobs())
    restored = start(tmp_path / "restored", s3=bucket_of(queued), secret_keys=KEYS)
    answer = submit(restored)
    assert (answer.status_code, answer.json()["code"]) == (503, "ledger_incomplete")
    assert "older than the bucket" in answer.json()["detail"]
    until(lambda: (restored.job(waiting).error or NONE).code == "ledger_incomplete")
    assert restored.job(waiting).status is Status.QUEUED
    assert len(first.sandbox.jobs()) == made


NONE = JobError("", "", "")


class Away(ObjectStore):
    """A store that lists nothing while it is away."""

    away: ClassVar[threading.Event] = threading.Event()

    def list(self, prefix: str, **more: Any) -> Iterator[StoredObject]:
        """List, or raise Unavailable."""
        if self.away.is_set():
            raise Unavailable("The store is away.")
        return super().list(prefix, **more)


@dataclass
class Pair:
    """A ledger, and a bucket that has records."""

    ledger: Ledger
    clock: Clock
    store: ObjectStore
    prefix: str = ""

    @property
    def keys(self) -> Keys:
        return Keys(prefix=self.prefix)

    def record(self, job_id: str, number: int = 1) -> None:
        job = Job(job_id, "apiframe", Status.ARCHIVED, REQUEST, self.clock.now, self.clock.now, None)
        self.put(self.keys.record(job, number))

    def put(self, key: str) -> None:
        more: Any = {"content_type": "application/json", "metadata": {}}
        self.store.put_new(key, io.BytesIO(b"{}"), size=2, sha256=hashlib.sha256(b"{}").hexdigest(), **more)

    def accept(self, job_id: str) -> None:
        add_job(self.ledger, job_id, "apiframe", REQUEST)

    def send(self, job_id: str) -> None:
        self.accept(job_id)
        (job,) = self.ledger.claim("w", 1)
        job = self.ledger.move(job, Status.SUBMITTING, "w", keep_lease=True)
        self.ledger.move(job, Status.RUNNING, "w", gateway_job_id=f"theirs-{job_id}", due_in_ms=10**9)

    def check(self, *, accepted: bool = False) -> LedgerCheck:
        return LedgerCheck(Archive(self.store, self.keys), self.ledger, accepted=accepted, again_s=0)

    def fits(self) -> bool:
        try:
            self.check().check()
        except LedgerIncomplete:
            return False
        return True


@pytest.fixture(params=["deep/er/", pytest.param("", marks=pytest.mark.exhaustive)])
def pair(request: pytest.FixtureRequest, ledger: Ledger, clock: Clock, s3_access: S3Access) -> Pair:
    store = s3_access.open(Away)
    store.check(create=True)
    return Pair(ledger, clock, store, request.param)


def test_a_ledger_fits_if_it_knows_the_last_record(pair: Pair) -> None:
    assert pair.fits(), "both are new"
    pair.record(FIRST)
    assert not pair.fits()
    pair.send(FIRST)
    assert pair.fits()
    pair.record(FIRST, 2)
    assert pair.fits(), "a retry wrote it"
    pair.clock.now += 86_400_000
    pair.record(SECOND)
    assert not pair.fits(), "the ledger is from before"
    pair.send(SECOND)
    pair.accept(THIRD)
    assert pair.fits()


def test_a_job_that_waits_and_has_a_record_was_sent(pair: Pair) -> None:
    pair.accept(FIRST)
    pair.record(FIRST)
    assert not pair.fits(), "the ledger is from before it was sent"
    (job,) = pair.ledger.claim("w", 1)
    job = pair.ledger.move(job, Status.SUBMITTING, "w", keep_lease=True)
    assert not pair.fits()
    pair.ledger.move(job, Status.RUNNING, "w", gateway_job_id="theirs")
    assert pair.fits(), "it will find its image and record"


def test_a_job_that_waits_before_the_newest_record_was_sent(pair: Pair) -> None:
    """Its record came last of all, so that a restored ledger knows a later one."""
    pair.accept(FIRST)
    pair.record(SECOND)
    pair.clock.now += 1
    pair.accept(SECOND)
    first, second = sorted(pair.ledger.claim("w", 2), key=lambda job: job.id)
    for status in (Status.SUBMITTING, Status.RUNNING, Status.READY):
        second = pair.ledger.move(second, status, "w", keep_lease=True)
    pair.ledger.move(second, Status.ARCHIVED, "w", records=1)
    assert pair.fits(), "the first one waits, and has none"
    pair.record(FIRST)
    assert not pair.fits(), "the ledger is from before it was sent"
    first = pair.ledger.move(first, Status.SUBMITTING, "w", keep_lease=True)
    assert not pair.fits()
    pair.ledger.move(first, Status.RUNNING, "w", gateway_job_id="theirs")
    assert pair.fits()


def test_a_ledger_that_is_restored_fits_at_once(pair: Pair) -> None:
    pair.record(FIRST)
    check = pair.check()
    with pytest.raises(LedgerIncomplete, match="has no jobs"):
        check.check()
    pair.send(FIRST)
    check.check()


def test_what_others_keep_in_the_bucket_is_no_record(pair: Pair) -> None:
    pair.put("readme.txt")
    pair.put(f"others/records/2026/11/22/{FIRST}.json")
    for number in range(60):
        pair.put(f"{pair.prefix}records/2026/report-{number}.json")
    pair.put(f"{pair.prefix}records/{FIRST}.json")
    assert pair.fits()
    pair.record(FIRST)
    assert not pair.fits()


def test_a_store_that_is_away_is_asked_when_it_is_back(pair: Pair) -> None:
    check = pair.check()
    Away.away.set()
    try:
        with pytest.raises(LedgerIncomplete, match="Not known yet"):
            check.check()
    finally:
        Away.away.clear()
    check.check()


def test_a_ledger_with_jobs_does_not_wait_for_the_store(pair: Pair) -> None:
    pair.accept(FIRST)
    pair.clock.now += 1000
    pair.record(SECOND)
    check = pair.check()
    Away.away.set()
    try:
        check.check()
    finally:
        Away.away.clear()
    with pytest.raises(LedgerIncomplete, match="older than the bucket"):
        check.check()


def test_a_store_that_may_not_be_listed_is_not_compared(pair: Pair) -> None:
    pair.record(FIRST)
    pair.store.facts = replace(pair.store.facts, lists=False)
    assert pair.fits()


def test_it_is_asked_once_if_all_is_well(pair: Pair) -> None:
    check = pair.check()
    check.check()
    pair.record(FIRST)
    check.check()


def test_a_ledger_of_another_bucket_is_a_warning(start: Start, tmp_path: Path) -> None:
    first = start(tmp_path / "a")
    first.make(IMAGEN)
    second = start(tmp_path / "a")  # settings_for gives it a bucket of its own
    ready = second.http.get("/readyz").json()
    assert ready["status"] == "ready"
    assert "another bucket" in ready["warnings"]["history"]
    assert "history" not in first.http.get("/readyz").json()["warnings"]
    assert second.make(IMAGEN)["status"] == "archived"
