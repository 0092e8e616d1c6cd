from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import event, text

from storage.errors import Conflict, LeaseLost, Misconfigured, NotFound, Unavailable
from storage.ledger.database import Database
from storage.ledger.deliveries import MAX_DELIVERIES, DeliveryResult, without_queries
from storage.ledger.job_counts import total
from storage.ledger.ledger import LEASE_MS, Ledger
from storage.ledger.transitions import MAX_MOVES, MOVES
from storage.models import Attempt, FoundBy, ImageRef, Job, JobError, JobResult, Status, Verdict
from storage.search.facets import FacetCount, Facets
from storage.search.filters import SearchFilter
from storage.search.search import Search
from tests.support.ledgers import (
    REQUEST,
    Clock,
    add,
    add_job,
    add_output,
    migrated_to,
    offer,
    output,
    running,
)


def test_a_job_is_read_back_as_it_was_added(ledger: Ledger, clock: Clock) -> None:
    job = add(ledger)
    assert ledger.job("job-1") == job
    assert job.status is Status.QUEUED
    assert job.request == REQUEST
    assert job.moves == ((Status.QUEUED, clock.now),)
    with pytest.raises(NotFound):
        ledger.job("job-2")


def test_same_key_and_request_give_the_first_job(ledger: Ledger) -> None:
    first, new = add_job(ledger, "job-1", "apiframe", REQUEST, idempotency_key="k")
    again, newer = add_job(ledger, "job-2", "apiframe", REQUEST, idempotency_key="k")
    assert (new, newer) == (True, False)
    assert again == first
    assert total(list(ledger.job_counts().values())).accepted == 1
    with pytest.raises(Conflict):
        add_job(ledger, "job-2", "apiframe", replace(REQUEST, seed="1"), idempotency_key="k")


def test_a_lease_holds_until_it_runs_out(ledger: Ledger, clock: Clock) -> None:
    add(ledger)
    assert [job.id for job in ledger.claim("one", 5)] == ["job-1"]
    assert ledger.claim("two", 5) == []
    clock.now += LEASE_MS - 1
    ledger.renew("one", ["job-1"])
    clock.now += LEASE_MS - 1
    assert ledger.claim("two", 5) == []
    clock.now += 1
    assert [job.leased_by for job in ledger.claim("two", 5)] == ["two"]
    ledger.release("two")
    assert [job.leased_by for job in ledger.claim("three", 5)] == ["three"]


def test_a_worker_that_lost_its_lease_can_change_nothing(ledger: Ledger, clock: Clock) -> None:
    add(ledger)
    (job,) = ledger.claim("one", 1)
    clock.now += LEASE_MS
    ledger.claim("two", 1)
    with pytest.raises(LeaseLost):
        ledger.move(job, Status.SUBMITTING, "one")
    with pytest.raises(LeaseLost):
        ledger.postpone(job, "one", due_in_ms=0)
    assert ledger.job("job-1").status is Status.QUEUED


def test_no_move_leads_out_of_a_terminal_status() -> None:
    assert [status for status in Status if status.terminal] == [
        status for status in Status if not MOVES[status]
    ]


@pytest.mark.parametrize("start", list(Status))
@pytest.mark.parametrize("to", list(Status))
def test_only_legal_moves_are_made(ledger: Ledger, start: Status, to: Status) -> None:
    add(ledger)
    (job,) = ledger.claim("w", 1)
    for step in _way_to(start):
        job = ledger.move(job, step, "w", keep_lease=True)
    if to in MOVES[start]:
        assert ledger.move(job, to, "w").status is to
    else:
        with pytest.raises(Conflict):
            ledger.move(job, to, "w")
        assert ledger.job("job-1").status is start


def _way_to(status: Status) -> list[Status]:
    if status is Status.CANCELLED:
        return [status]
    way = [Status.SUBMITTING, Status.RUNNING, Status.READY]
    if status in {Status.ARCHIVED, Status.PARTIAL, Status.FAILED}:
        return [*way, status]
    return way[: way.index(status) + 1] if status in way else []


def test_a_terminal_job_is_due_no_more_and_keeps_no_links(ledger: Ledger) -> None:
    job = running(ledger)
    ledger.add_deliveries([offer(body=b"x", theirs="theirs-job-1")])
    (job,) = ledger.claim("w", 1)
    images = (ImageRef("https://cdn.example/1.png?sig=abc"),)
    job = ledger.move(job, Status.READY, "w", result=JobResult(images=images), keep_lease=True)
    assert ledger.job("job-1").result.images == images
    ledger.move(job, Status.ARCHIVED, "w")
    done = ledger.job("job-1")
    assert done.next_attempt_at is None
    assert done.result.images == ()
    assert ledger.next_due() is None


def test_a_callback_wakes_its_job_and_is_kept_as_it_came(ledger: Ledger, clock: Clock) -> None:
    running(ledger)
    assert ledger.claim("w", 1) == []
    assert ledger.add_deliveries([offer(body=b'{"a": 1}')]) == [DeliveryResult.ACCEPTED]
    (delivery,) = ledger.pending_deliveries("job-1")
    assert delivery.body == b'{"a": 1}'
    assert delivery.signature is Verdict.VALID
    assert [job.id for job in ledger.claim("w", 1)] == ["job-1"]


def test_a_callback_while_leased_makes_due_again(ledger: Ledger, clock: Clock) -> None:
    add(ledger)
    (job,) = ledger.claim("w", 1)
    job = ledger.move(job, Status.SUBMITTING, "w", keep_lease=True)
    ledger.add_deliveries([offer(theirs="theirs")])
    job = ledger.move(job, Status.RUNNING, "w", gateway_job_id="theirs", due_in_ms=30_000)
    assert job.next_attempt_at == clock.now


def test_callbacks_are_listed_without_bodies(ledger: Ledger, database: Database) -> None:
    job = running(ledger)
    ledger.add_deliveries([offer(body=b"%03d" % number) for number in range(9)])
    (job,) = ledger.claim("w", 1)
    first = ledger.deliveries("job-1")[0]
    assert first.body == b"000"
    ledger.move(job, Status.READY, "w", applied={first.id: "ready"})
    found = Search(database).deliveries("job-1", limit=4)
    assert [one.id for one in found] == [one.id for one in [first, *ledger.deliveries("job-1")[-3:]]]
    assert [one.effect for one in found] == ["ready", "late", "late", "late"]
    assert {one.body for one in found} == {b""}
    assert found[-1].body_sha256 == ledger.deliveries("job-1")[-1].body_sha256


@pytest.mark.parametrize(
    ("job_id", "theirs", "result"),
    [
        ("job-1", "theirs-job-1", DeliveryResult.ACCEPTED),
        ("job-1", None, DeliveryResult.ACCEPTED),
        ("job-1", "another", DeliveryResult.MISMATCH),
        ("job-2", "theirs-job-1", DeliveryResult.MISMATCH),  # before the answer to its own submission
        ("job-0", "theirs-job-1", DeliveryResult.UNKNOWN_JOB),
        ("job-3", "theirs-job-1", DeliveryResult.LATER_JOB),
    ],
)
def test_a_callback_must_speak_of_its_own_job(
    ledger: Ledger, job_id: str, theirs: str | None, result: DeliveryResult
) -> None:
    running(ledger)
    add(ledger, "job-2")
    assert ledger.add_deliveries([offer(job_id, theirs=theirs)]) == [result]
    accepted = result is DeliveryResult.ACCEPTED
    assert len(ledger.deliveries("job-1")) == accepted
    again = DeliveryResult.DUPLICATE if accepted else result
    assert ledger.add_deliveries([offer(job_id, theirs=theirs)]) == [again]


def test_a_missing_image_is_noted_and_replaced(ledger: Ledger, database: Database, clock: Clock) -> None:
    running(ledger)
    add_output(ledger, output(sha256="ab"))
    assert [ledger.note_missing(output()) for _ in range(2)] == [True, False]
    (known,) = ledger.outputs("job-1")
    assert Search(database).outputs_of(["job-1", "job-2"]) == {"job-1": [known], "job-2": []}
    assert known.missing_since == clock.now
    ledger.note_found(known)
    assert ledger.outputs("job-1")[0].missing_since is None
    with pytest.raises(Conflict):
        add_output(ledger, output(sha256="cd"))
    ledger.note_missing(known)
    add_output(ledger, output(sha256="cd"))
    assert [(one.sha256, one.missing_since) for one in ledger.outputs("job-1")] == [("cd", None)]
    assert Facets(database).read(SearchFilter()).counted == 1


def test_a_callback_to_an_empty_ledger_is_of_a_lost_job(ledger: Ledger) -> None:
    assert ledger.add_deliveries([offer("job-0")]) == [DeliveryResult.LATER_JOB]


def test_a_late_callback_is_kept_and_changes_nothing(ledger: Ledger) -> None:
    running(ledger)
    ledger.add_deliveries([offer(body=b'{"url": "https://x.example/i.png?X-Signature=secret"}')])
    (job,) = ledger.claim("w", 1)
    assert b"secret" in ledger.deliveries("job-1")[0].body
    done = ledger.move(job, Status.FAILED, "w")
    late = offer(body=b'"https://x.example/i.png?sig=1"')
    assert ledger.add_deliveries([late]) == [DeliveryResult.ACCEPTED]
    assert ledger.job("job-1") == done
    assert [delivery.effect for delivery in ledger.deliveries("job-1")] == ["late", "late"]
    assert {delivery.body for delivery in ledger.deliveries("job-1")} == {
        b'{"url": "https://x.example/i.png?[removed]"}', b'"https://x.example/i.png?[removed]"'
    }  # fmt: skip


@pytest.mark.parametrize(
    ("link", "kept"),
    [
        (b"HTTPS://x.example/i.png?sig=1", b"HTTPS://x.example/i.png?[removed]"),
        (b"https%3A%2F%2Fx.example%2Fi.png%3Fsig%3D1", b"https%3A%2F%2Fx.example%2Fi.png%3F[removed]"),
        (rb"https://x.example/i.png\u003fsig=1", rb"https://x.example/i.png\u003f[removed]"),
        *((body, body) for body in (b"", b"?", b"no links ? here", b"https://a.example/x?", b"\xff\xfe?")),
        (b"http:" * 800_000, b"http:" * 800_000),  # in one go
    ],
    ids=range(9),
)
def test_links_lose_their_queries_however_they_are_spelt(link: bytes, kept: bytes) -> None:
    assert without_queries(b'{"u": "' + link + b'"}') == b'{"u": "' + kept + b'"}'


def test_an_output_added_twice_is_there_once(ledger: Ledger) -> None:
    add(ledger)
    add_output(ledger, output())
    add_output(ledger, output())
    assert ledger.outputs("job-1") == [output()]
    with pytest.raises(Conflict):
        add_output(ledger, output(sha256="cd"))


def test_job_counts_say_where_every_job_is(ledger: Ledger, database: Database, clock: Clock) -> None:
    add(ledger, "job-2", "api-in-one")
    (job,) = ledger.claim("w", 1)
    ledger.move(job, Status.FAILED, "w", error=JobError("x", "y", "gateway"))
    ready = running(ledger)
    ledger.add_deliveries([offer()])
    (ready,) = ledger.claim("w", 1)
    ledger.move(ready, Status.READY, "w", found_by=FoundBy.POLL)
    pages = ledger.job_counts()
    assert pages["apiframe"].counts[Status.READY] == 1
    assert pages["apiframe"].found_by_polling == 1
    assert pages["apiframe"].oldest_unfinished_at == clock.now
    assert pages["api-in-one"].counts[Status.FAILED] == 1
    assert pages["api-in-one"].oldest_unfinished_at is None
    assert total(list(pages.values())).accepted == 2
    assert all(page.balanced for page in pages.values())
    with database.write() as connection:
        connection.execute(text("DELETE FROM jobs WHERE id = 'job-2'"))
    assert not ledger.job_counts()["api-in-one"].balanced, "a job is gone"


def test_attempts_count_while_a_submission_falls_back(ledger: Ledger) -> None:
    add(ledger)
    for number in range(200):
        (job,) = ledger.claim("w", 1)
        job = ledger.move(job, Status.SUBMITTING, "w", keep_lease=True)
        job = ledger.move(job, Status.QUEUED, "w")
        assert job.attempts == number + 1
    assert len(job.moves) <= MAX_MOVES
    assert all(after in MOVES[before] for (before, _), (after, _) in pairwise(job.moves))
    assert job.moves[0][0] is Status.QUEUED
    (job,) = ledger.claim("w", 1)
    job = ledger.move(job, Status.SUBMITTING, "w", keep_lease=True)
    assert ledger.move(job, Status.RUNNING, "w").attempts == 0


def test_a_postponed_job_is_due_when_it_was_said(ledger: Ledger, clock: Clock) -> None:
    add(ledger)
    (job,) = ledger.claim("w", 1)
    assert ledger.next_due() is None
    ledger.postpone(job, "w", due_in_ms=500)
    assert ledger.next_due() == clock.now + 500
    assert ledger.claim("w", 1) == []
    clock.now += 500
    assert [job.attempts for job in ledger.claim("w", 1)] == [1]


def test_a_postponed_job_may_ignore_callbacks(ledger: Ledger, clock: Clock) -> None:
    running(ledger)
    ledger.add_deliveries([offer()])
    (job,) = ledger.claim("w", 1)
    ledger.postpone(job, "w", due_in_ms=500, ignore_callbacks=True)
    assert ledger.claim("w", 1) == []
    clock.now += 500
    (job,) = ledger.claim("w", 1)
    assert ledger.postpone(job, "w", due_in_ms=500).next_attempt_at == clock.now


def test_migrations_make_exactly_the_schema(database: Database) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from storage.ledger.schema import GRAMS, metadata

    def ours(name: str | None, kind: str, _parents: object) -> bool:
        return kind != "table" or name is None or not name.startswith(GRAMS)  # a virtual table and its own

    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": ours})
        assert compare_metadata(context, metadata) == []


def test_first_schema_is_brought_up_to_date(tmp_path: Path, clock: Clock) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
    with migrated_to(url, "0001") as connection:
        for status, due in (("queued", 5), ("ready", 6), ("archived", None)):
            values = {
                "id": status,
                "status": status,
                "due": due,
                "moves": f'[["queued", 1], ["{status}", 2]]',
            }
            connection.execute(text(FIRST_SCHEMA_JOB), values)
        connection.execute(text("INSERT INTO accepted VALUES ('apiframe', 3)"))
        connection.execute(text(FIRST_SCHEMA_OUTPUT))
    database = Database.open(url)
    ledger = Ledger(database, clock)
    queued, ready, archived = (ledger.job(job_id) for job_id in ("queued", "ready", "archived"))
    assert (queued.records, ready.records, archived.records) == (0, 0, 1)
    assert (queued.ready_at, ready.ready_at) == (None, 2)
    assert {job.submission for job in (queued, ready, archived)} == {1}
    assert queued.attempt_log == ()
    assert ledger.job_counts()["apiframe"].balanced
    assert [job.id for job in ledger.claim("w", 5)] == ["queued", "ready"]
    search = Search(database)
    for asked in (
        SearchFilter(words=("FÉ",)),
        SearchFilter(tags={"for": "web"}),
        SearchFilter(seed="9"),
        SearchFilter(model="m"),
    ):
        assert [one.output.id for one in search.outputs(asked, limit=5).rows] == ["archived.0"], asked
    newest_first = [job.id for job in search.jobs(SearchFilter(), limit=5).rows]
    assert newest_first == ["ready", "queued", "archived"], "by time, then by id"
    assert Facets(database).read(SearchFilter()).tag == [FacetCount("for=web", 1)]
    database.close()


FIRST_SCHEMA_JOB = """
INSERT INTO jobs (id, gateway, status, request_sha256, model, prompt, prompt_folded, params, tags, ignored,
    callback_expected, credits_estimated, images, attempts, next_attempt_at, created_at, updated_at, moves)
VALUES (:id, 'apiframe', :status, '', 'm', 'Café', 'café', '{}', '{"for": "web"}', '[]',
    0, 0, '[]', 0, :due, 1, 2, :moves)
"""


FIRST_SCHEMA_OUTPUT = """
INSERT INTO outputs (job_id, "index", key, sha256, bytes, media_type, width, height, seed, stored_at)
VALUES ('archived', 0, 'images/0.png', 'ab', 3, 'image/png', 1, 1, '9', 2)
"""


def test_a_ledger_from_the_future_is_not_touched(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
    database = Database.open(url)
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(Misconfigured, match="newer Darkroom"):
        Database.open(url)


@pytest.mark.parametrize("url", ["nonsense", "nosuchdatabase://host/name", "sqlite:////proc/nowhere/x.db"])
def test_a_url_that_cannot_be_used_names_its_setting(url: str) -> None:
    with pytest.raises((Misconfigured, Unavailable), match=r"DARKROOM_DATABASE_URL|did not answer"):
        Database.open(url)


def test_a_broken_ledger_is_unavailable_not_a_crash(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "ledger.sqlite3"
    database = Database.open(f"sqlite:///{path}")
    ledger = Ledger(database, clock)
    database.close()
    path.write_bytes(b"no database at all, " * 100)
    with pytest.raises(Unavailable):
        add(ledger)
    with pytest.raises(Unavailable):
        ledger.ping()
    database.close()


def test_an_answer_after_a_lost_lease_is_kept_once(ledger: Ledger, clock: Clock) -> None:
    add(ledger)
    (job,) = ledger.claim("one", 1)
    job = ledger.move(job, Status.SUBMITTING, "one", keep_lease=True)
    clock.now += LEASE_MS
    (again,) = ledger.claim("two", 1)
    with pytest.raises(LeaseLost):
        ledger.move(job, Status.RUNNING, "one", gateway_job_id="theirs")
    assert ledger.note_submission(job, "theirs", "req-1")
    assert not ledger.note_submission(job, "another", None), "the first one stands"
    assert ledger.job("job-1").gateway_job_id == "theirs"
    ledger.move(again, Status.RUNNING, "two")
    assert ledger.job("job-1").gateway_job_id == "theirs"


def test_an_answer_with_the_images_outlives_a_lost_lease(ledger: Ledger, clock: Clock) -> None:
    add(ledger)
    (job,) = ledger.claim("one", 1)
    job = ledger.move(job, Status.SUBMITTING, "one", keep_lease=True)
    clock.now += LEASE_MS
    (again,) = ledger.claim("two", 1)
    ledger.postpone(again, "two", due_in_ms=900_000)
    answer = replace(offer(body=b"answer").delivery, signature=Verdict.ANSWER)
    with pytest.raises(LeaseLost):
        ledger.move(job, Status.RUNNING, "one", answer=answer)
    assert ledger.deliveries(job.id) == []
    assert ledger.note_submission(job, None, None, answer)
    assert ledger.pending_deliveries(job.id) == [answer]
    assert [due.id for due in ledger.claim("three", 1)] == [job.id], "it is due at once"


def test_an_answer_that_came_before_has_its_body_again(ledger: Ledger) -> None:
    """Word for word what an unsigned callback said: it was redacted when the job was over."""
    job = running(ledger)
    told = offer(body=b'{"b64_json": "%s"}' % (b"iVBORw0KGgo" + b"A" * 60))
    ledger.add_deliveries([told])
    (job,) = ledger.claim("w", 1)
    job = ledger.move(job, Status.FAILED, "w", applied={told.delivery.id: "hint"})
    assert ledger.deliveries(job.id)[0].body == b'{"b64_json": "[removed]"}'
    job = ledger.reopen(job, Status.RUNNING, Attempt.once("retry", "asked", "", 1))
    (job,) = ledger.claim("w", 1)
    answer = replace(told.delivery, id="other", signature=Verdict.ANSWER, applied_at=2, effect="ready")
    ledger.move(job, Status.READY, "w", answer=answer, keep_lease=True)
    assert ledger.deliveries(job.id) == [replace(answer, id=told.delivery.id)]


def test_one_job_has_a_limit_of_different_callbacks(ledger: Ledger) -> None:
    running(ledger)
    many = [offer(body=str(number).encode()) for number in range(MAX_DELIVERIES + 5)]
    many = [replace(one, delivery=replace(one.delivery, id=str(n))) for n, one in enumerate(many)]
    receipts = ledger.add_deliveries(many)
    assert receipts.count(DeliveryResult.ACCEPTED) == MAX_DELIVERIES
    assert receipts[-5:] == [DeliveryResult.TOO_MANY] * 5
    assert ledger.add_deliveries([many[0]]) == [DeliveryResult.DUPLICATE]


def test_a_reopened_job_begins_again_where_legal(ledger: Ledger) -> None:
    job = running(ledger)
    attempt = Attempt.once("retry", "asked", "", 1)
    with pytest.raises(Conflict):
        ledger.reopen(job, Status.QUEUED, attempt)
    failed = _fail(ledger)
    again = ledger.reopen(failed, Status.QUEUED, attempt)
    assert (again.submission, again.gateway_job_id, again.attempts, again.error) == (2, None, 0, None)
    assert again.submission_id == "job-1.2"
    assert again.reopened
    with pytest.raises(Conflict, match="moved meanwhile"):
        ledger.reopen(failed, Status.QUEUED, attempt)
    late = offer(body=b"of the first submission", theirs="theirs-job-1")
    assert ledger.add_deliveries([late]) == [DeliveryResult.ACCEPTED]
    assert ledger.deliveries("job-1")[-1].effect == "late"
    assert ledger.pending_deliveries("job-1") == []
    assert ledger.add_deliveries([replace(late, submission=3)]) == [DeliveryResult.LATER_JOB]


def _fail(ledger: Ledger) -> Job:
    ledger.add_deliveries([offer(body=b"wakes it")])
    (job,) = ledger.claim("w", 1)
    return ledger.move(job, Status.FAILED, "w", error=JobError("x", "y", "gateway"))


def test_a_connection_in_use_at_the_close_is_closed(database: Database) -> None:
    event.listen(database._engine, "checkin", lambda *_: database.close(), once=True)
    with database.read() as connection:
        driver = connection.connection.dbapi_connection
    assert driver is not None
    with pytest.raises(Exception, match="closed"):
        driver.cursor().execute("SELECT 1")
