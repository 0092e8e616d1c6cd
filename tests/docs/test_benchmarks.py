"""The benchmarks say what they found, and send what they say; nothing here asserts how fast anything is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from storage.ledger.database import Database
from storage.ledger.job_counts import total
from storage.ledger.ledger import Ledger
from storage.models import Status
from storage.search.facets import Facets
from storage.search.filters import SearchFilter
from tests.benchmarks import archive, callbacks, ledgers, load, profiling
from tests.benchmarks.__main__ import BENCHMARKS
from tests.benchmarks.figures import COLUMNS, Figure, Target, percentile, table
from tests.benchmarks.grounds import bare, port_of
from tests.support.ledgers import Clock
from tests.support.processes import ROOT

LINK = "http://127.0.0.1:1/0.png"
JOB = ledgers.Begun("0" * 36, "theirs", LINK)


def test_a_figure_is_compared_and_held_to_its_target() -> None:
    def figure(measured: float, target: Target | None) -> Figure:
        return Figure("callbacks", "acknowledged", measured, "a second", "a bare route", 2_000, target)

    half = Target(least=0.5)
    assert (figure(1_000, half).ratio, figure(1_000, half).met) == (0.5, True)
    assert figure(999, half).met is False
    assert figure(1_000, None).met is None
    assert [Target(most=60, of="figure").met(value) for value in (60, 61)] == [True, False]
    assert Figure("growth", "a claim", 1, "ms", target=half).met is False, (
        "there is nothing to compare it with"
    )
    assert str(Target(least=1 / 1.2, most=1.2)) == "at least 0.83 and at most 1.2 times"
    assert percentile([1, 2, 3], 50) == 2
    assert percentile([7], 99) == 7


def test_the_table_has_a_row_for_each_figure() -> None:
    figures = [
        Figure("latency", "p50", 61.25, "ms", "a bare copy", 12.5, Target(most=60, of="figure")),
        Figure("footprint", "resident", 1234.5, "MiB"),
    ]
    assert table(figures).splitlines() == [
        "| what                | measured  | against              | ratio | target     | met |",
        "| ------------------- | --------- | -------------------- | ----- | ---------- | --- |",
        "| latency: p50        | 61.2 ms   | 12.5 ms, a bare copy | 4.90  | at most 60 | no  |",
        "| footprint: resident | 1,234 MiB |                      |       |            |     |",
    ]


def test_every_request_is_sent_and_timed_and_its_answer_counted(tmp_path: Path) -> None:
    file = tmp_path / "requests"
    with bare() as process:
        requests = ledgers.callbacks(port_of(process), [JOB] * 300)
        requests.append(requests[0].replace(b"POST", b"PUT", 1))
        load.write(file, requests)
        at_once = load.result(load.begin(port_of(process), file, connections=4))
        load.write(file, requests[:20])
        paced = load.result(load.begin(port_of(process), file, connections=4, rate=100))
    assert at_once.answers == {"204 ": 300, "405 Method Not Allowed": 1}
    assert len(at_once.waits_ms) == 301
    assert min(at_once.waits_ms) > 0
    assert paced.took_s > 19 / 100, "they were not sent sooner than they were due"


def test_some_callbacks_come_twice_at_once_or_later() -> None:
    requests = [b"%d" % n for n in range(100)]
    sent = ledgers.repeated(requests, 10)
    twice = {request for request, times in Counter(sent).items() if times == 2}
    assert len(twice) == len(sent) - 100 == 10
    gaps = [len(sent) - 1 - sent[::-1].index(request) - sent.index(request) for request in twice]
    assert sorted(gaps)[:5] == [1] * 5
    assert sorted(gaps)[5] > 1
    with pytest.raises(RuntimeError, match="accepted"):
        callbacks.check(load.Sent(answers={'200 {"status":"accepted"}': 9}), new=10, of=10)


def test_jobs_that_are_written_past_the_service_are_whole(
    ledger: Ledger, database: Database, clock: Clock
) -> None:
    ledgers.begin(database, [LINK] * 3)
    (ready,) = ledgers.begin(database, [LINK], ready=True)
    counts = total(list(ledger.job_counts().values()))
    assert counts.balanced
    assert (counts.counts[Status.RUNNING], counts.counts[Status.READY]) == (3, 1)
    clock.now = ledger.job(ready.id).created_at
    (claimed,) = ledger.claim("w", 8)
    assert [image.url for image in claimed.result.images] == [LINK]
    assert ledger.move(claimed, Status.ARCHIVED, "w").status is Status.ARCHIVED
    ledgers.finish(database)
    assert ledger.claim("w", 8) == []
    assert total(list(ledger.job_counts().values())).balanced


def test_a_grown_ledger_is_the_same_in_both_databases(tmp_path: Path, postgres_url: str) -> None:
    found = []
    for url in (f"sqlite:///{tmp_path / 'year.sqlite3'}", postgres_url):
        archive.build(url, 300, images=1, callbacks=True)
        database = Database.open(url)
        ledger = Ledger(database, Clock())
        facets = Facets(database)
        counts = [facets.read(wanted) for wanted in (SearchFilter(), SearchFilter(words=("the",)))]
        job = ledger.job(f"{archive.BEGAN:012x}"[:8] + f"-{archive.BEGAN & 0xFFFF:04x}-7000-8000-{0:012x}")
        found.append((ledger.job_counts(), counts, job, ledger.outputs(job.id), ledger.deliveries(job.id)))
        database.close()
    assert found[0] == found[1]
    assert found[0][4], "it has its callback"


def test_the_readme_has_every_benchmark_and_explains_each_target_that_was_missed() -> None:
    part = (ROOT / "README.md").read_text(encoding="utf-8").partition("## How fast it is\n")[2]
    part = part.partition("\n## ")[0]
    rows = [
        dict(zip(COLUMNS, (cell.strip() for cell in line.strip("|").split("|")), strict=True))
        for line in part.splitlines()
        if re.match(rf"\| ({'|'.join(BENCHMARKS)}): ", line)
    ]
    missed = set()
    for row in rows:
        assert bool(row["met"]) == bool(row["target"]), row
        if row["target"]:
            value = row["ratio"] if row["target"].endswith("times") else row["measured"].split()[0]
            limit = float(re.findall(r"[\d.]+", row["target"])[0])
            found = float(value.replace(",", ""))
            met = found >= limit if "least" in row["target"] else found <= limit
            assert row["met"] == ("yes" if met else "no"), row
        if row["met"] == "no":
            missed.add(row["what"].partition(":")[0])
    assert {row["what"].partition(":")[0] for row in rows} == set(BENCHMARKS)
    assert missed == set(re.findall(r"^- \*\*(.+?)\*\*", part, re.MULTILINE))


def test_a_profile_is_added_up_by_function_and_kind_of_thread(tmp_path: Path) -> None:
    raw = tmp_path / "profile.raw"
    raw.write_text(
        "thread (1): work-1;run (receiver/jobs/worker.py:10);read (site-packages/boto3/s3.py:5) 3\n"
        "thread (2): work-2;run (receiver/jobs/worker.py:12) 1\n"
        'process 3:"python -m receiver serve";process 4:"python -m receiver work";thread (4): MainThread 1\n'
    )
    lines = [line.strip() for line in profiling.summary(raw).splitlines()]
    assert lines[0] == "5 samples"
    assert "60.0 %  work: read (boto3/s3.py)" in lines
    assert "80.0 %  work: run (receiver/jobs/worker.py)" in lines
    assert "20.0 %  MainThread: outside of Python" in lines


def test_the_runner_measures_and_writes_what_it_found(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    command = [sys.executable, "-m", "tests.benchmarks", "latency", "--quick", "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert found["command"] == f"python -m tests.benchmarks latency --quick --json {file}"
    assert found["machine"]["cores"] >= 1
    assert [figure["what"] for figure in found["figures"]] == [
        f"callback to archived, p{percent}, {kind}"
        for kind in ("sqlite", "postgresql")
        for percent in (50, 99)
    ]
    for figure in found["figures"]:
        assert figure["ratio"] == pytest.approx(figure["measured"] / figure["compared"])
        assert f"latency: {figure['what']}" in done.stdout
    assert str(found["machine"]["cpu"]) in done.stdout


def test_an_unknown_benchmark_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "speed"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "there is no speed; there are callbacks, archive, latency" in done.stderr
