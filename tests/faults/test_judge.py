"""The judge must see each kind of damage; otherwise what it lets pass means nothing."""

import io
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver.demo.seaweedfs import EmbeddedS3
from tests.faults.forks import Forks
from tests.faults.judge import Problem, judge
from tests.faults.table import Row, Table
from tests.faults.world import Accepted, World, world
from tests.support.running import environment


@pytest.fixture(scope="module")
def finished(
    s3_server: EmbeddedS3, forks: Forks, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """A world where all went well: a job at each gateway, the second with two images."""
    with world(s3_server, forks, tmp_path_factory.mktemp("judge")) as here:
        here.start()
        here.submit("apiframe")
        here.submit("api-in-one", num_images=2)
        here.settle()
        yield here


@pytest.fixture
def here(finished: World) -> Iterator[World]:
    """The same for each test, whatever it breaks: ledger, objects and submissions are put back."""
    with closing(sqlite3.connect(finished.ledger)) as ours, closing(sqlite3.connect(":memory:")) as kept:
        ours.backup(kept)
        accepted = list(finished.accepted)
        objects = {
            stored.key: _object(finished, stored.key) for stored in finished.store.list(finished.prefix)
        }
        yield finished
        kept.backup(ours)
    finished.accepted[:] = accepted
    for stored in list(finished.store.list(finished.prefix)):
        finished.store.delete(stored.key)
    for key, (body, metadata) in objects.items():
        _put(finished, key, body, metadata)


def _object(here: World, key: str) -> tuple[bytes, dict[str, str]]:
    with here.store.stream(key) as stream:
        return b"".join(stream.chunks), dict(stream.object.metadata)


def _put(here: World, key: str, body: bytes, metadata: dict[str, str]) -> None:
    digest = sha256(body).hexdigest()
    here.store.put_new(
        key, io.BytesIO(body), size=len(body), sha256=digest, content_type="image/png", metadata=metadata
    )


def change(here: World, statement: str, *arguments: object) -> None:
    """Damage the ledger behind the service's back."""
    with closing(sqlite3.connect(here.ledger)) as connection:
        assert connection.execute(statement, arguments).rowcount > 0
        connection.commit()


def problems(here: World, kind: str) -> list[str]:
    return [problem.what for problem in judge(here).problems if problem.kind == kind]


def first_key(here: World, what: str) -> str:
    return next(stored.key for stored in here.store.list(f"{here.prefix}{what}/"))


def job_of(here: World, gateway: str) -> Accepted:
    return next(job for job in here.accepted if job.gateway == gateway)


def test_there_is_nothing_to_say_where_all_went_well(here: World) -> None:
    verdict = judge(here)
    assert verdict.problems == (), str(verdict)
    assert (verdict.jobs, verdict.archived, verdict.failed) == (2, 2, {})
    assert verdict.callbacks_sent == verdict.callbacks_answered == 2
    assert str(verdict) == "all is well"


def test_a_count_that_is_not_the_jobs_is_wrong(here: World) -> None:
    change(here, "UPDATE job_counts SET status = 'failed' WHERE status = 'archived' AND jobs = 1")
    assert any("the status counts" in what for what in problems(here, "wrong"))


def test_an_image_with_one_other_bit_is_lost(here: World) -> None:
    key = first_key(here, "images")
    body, metadata = _object(here, key)
    here.store.delete(key)
    _put(here, key, body[:-1] + bytes([body[-1] ^ 1]), metadata)
    assert any("is another" in what for what in problems(here, "lost"))


def test_an_image_the_gateway_never_made_is_lost(here: World) -> None:
    (row, *_) = here.rows("SELECT * FROM outputs")
    key, record = row["key"], f"{here.prefix}records/{row['key'].split('images/')[1].rpartition('/')[0]}.json"
    body, metadata = _object(here, key)
    other = body[:-1] + bytes([body[-1] ^ 1])
    document, kept = _object(here, record)
    for name in (key, record):
        here.store.delete(name)
    _put(here, key, other, metadata)
    _put(here, record, document.replace(row["sha256"].encode(), sha256(other).hexdigest().encode()), kept)
    change(here, "UPDATE outputs SET sha256 = ? WHERE key = ?", sha256(other).hexdigest(), key)
    assert any("is another" in what for what in problems(here, "lost"))


PARTIAL = '[["queued", 1], ["submitting", 2], ["running", 3], ["ready", 4], ["partial", 5]]'
FAILED = """UPDATE jobs SET status = 'failed', error_message = '', error_at_fault = 'gateway',
    moves = '[["queued", 1], ["submitting", 2], ["failed", 3]]', error_code = """
BACKWARDS = '[["queued", 1], ["submitting", 2], ["ready", 3], ["running", 4], ["ready", 5], ["archived", 6]]'


@pytest.mark.parametrize(
    ("damage", "kind", "found", "times"),
    [
        ("UPDATE outputs SET bytes = bytes + 1", "wrong", "contradict each other", 2),
        (f"UPDATE jobs SET status = 'partial', moves = '{PARTIAL}'", "wrong", "which its record denies", 2),
        ("UPDATE jobs SET records = 2", "wrong", "has 1 records, and the ledger knows 2", 2),
        ("""UPDATE jobs SET status = 'running', moves = '[["queued", 1]]'""", "lost", "for ever", 2),
        (f"UPDATE jobs SET moves = '{BACKWARDS}'", "wrong", "not legal", 2),
        ("UPDATE deliveries SET body_sha256 = 'other'", "lost", "was answered 2xx and is not there", 2),
        ("UPDATE deliveries SET applied_at = NULL", "wrong", "was never applied", 2),
        ('DELETE FROM outputs WHERE "index" = 1', "wrong", "names other outputs than the ledger", 1),
        ('DELETE FROM outputs WHERE "index" = 1', "lost", "with 1 images, and there were more", 1),
        (f"{FAILED} 'archive_conflict'", "lost", "and its gateway had made its images", 2),
        (f"{FAILED} 'submission_unconfirmed'", "lost", "and its callback was there", 2),
    ],
)  # fmt: skip
def test_damage_to_the_ledger_is_seen(here: World, damage: str, kind: str, found: str, times: int) -> None:
    change(here, damage)
    seen = problems(here, kind)
    assert sum(found in what for what in seen) == times, seen


def lose_job(here: World) -> None:
    job = job_of(here, "apiframe")
    for table in ("deliveries", "outputs"):
        change(here, f"DELETE FROM {table} WHERE job_id = ?", job.job_id)
    change(here, "DELETE FROM jobs WHERE id = ?", job.job_id)


def lose_callback(here: World) -> None:
    change(here, "DELETE FROM deliveries WHERE job_id = ?", job_of(here, "apiframe").job_id)


def double_image(here: World) -> None:
    key = first_key(here, "images")
    _put(here, f"{key}-again", *_object(here, key))


@pytest.mark.parametrize(
    ("damage", "seen"),
    [
        (lambda here: here.store.delete(first_key(here, "images")), {"lost": "is not in the bucket"}),
        (
            lambda here: here.store.delete(first_key(here, "records")),
            {"lost": "has no record", "wrong": "is in no record"},
        ),
        (lose_job, {"lost": "was accepted and is not there", "wrong": "not every accepted job is accounted"}),
        (lambda here: here.accepted.pop(), {"doubled": "is of no submission"}),
        (lose_callback, {"lost": "was answered 2xx and is not there"}),
        (double_image, {"doubled": "there are 2 objects of output", "wrong": "is in no record"}),
    ],
    ids=["image", "record", "job", "submission", "callback", "second object"],
)
def test_what_is_missing_or_there_twice_is_seen(
    here: World, damage: Callable[[World], object], seen: dict[str, str]
) -> None:
    damage(here)
    for kind, found in seen.items():
        assert any(found in what for what in problems(here, kind)), kind


def test_a_job_that_was_never_accepted_is_seen(here: World) -> None:
    here.accepted.append(replace(here.accepted[0], key="k", job_id="not-there", prompt="nobody's"))
    lost = problems(here, "lost")
    assert any("job not-there was accepted" in what for what in lost)
    assert any("3 submissions were answered, the status counts 2" in what for what in lost)


def test_the_table_adds_up_what_was_lost_too(here: World) -> None:
    table, good = Table(), replace(judge(here), problems=())
    table.add([Row.of("a fault", good)] * 2)
    table.add([Row.of("another", replace(good, problems=(Problem("lost", "an image"),)))])
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.lines()]
    assert cells[0][:3] == ["fault", "jobs", "callbacks sent"]
    assert cells[2] == ["a fault", "4", "4", "4", "4", "0", "0", "0", "0"]
    assert cells[3][-2:] == ["1", "0"]


REPORTING = """
from tests.faults.judge import Verdict

def test_scene(report):
    report({fault!r}, Verdict(1, 1, 1, 1, 0, {{}}, ()))

def test_other_scene(report):
    report("in both files", Verdict(2, 2, 2, 2, 0, {{}}, ()))
"""


def test_the_table_is_whole_over_processes(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["tests.faults.table"]')
    for name in ("one", "two"):
        (tmp_path / f"test_{name}.py").write_text(REPORTING.format(fault=name))
    subprocess.run(
        [sys.executable, "-m", "pytest", "-n2", str(tmp_path)],
        cwd=tmp_path, env=environment(DARKROOM_FAULTS_TABLE="table.json"), check=True,
    )  # fmt: skip
    rows = {row["fault"]: row["jobs"] for row in json.loads((tmp_path / "table.json").read_text())}
    assert rows == {"one": 1, "two": 1, "in both files": 4}


# Last, because the sandbox cannot forget it.
def test_a_submission_that_was_repeated_is_doubled(here: World) -> None:
    (made,) = [report for report in here.sandbox.jobs() if report.gateway == "api-in-one"]
    body: dict[str, Any] = {"model": made.model, "prompt": made.prompt, "num_images": 2}
    answer = httpx.post(
        f"{here.sandbox.url}/api/v1/images/generations",
        json=body,
        headers={"authorization": "Bearer aio_sandbox"},
    )
    assert answer.status_code == 200
    here.sandbox.wait(answer.json()["data"]["task_id"])
    doubled = problems(here, "doubled")
    assert any("was given one job 2 times" in what for what in doubled)
    assert any("credits were spent" in what for what in doubled)
