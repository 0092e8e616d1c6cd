"""Counts by facet, and the year-long ledger of the benchmarks: against what the ledger itself writes."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from storage.errors import TookTooLong
from storage.ledger.database import Database
from storage.ledger.ledger import Ledger
from storage.ledger.schema import tallies, terms
from storage.models import JobRequest, JobResult, Output, Status, UsageBy
from storage.search.facets import FacetCount, Facets
from storage.search.filters import SearchFilter
from storage.search.planner import CrossJoin, plan
from storage.search.search import Search
from storage.search.usage import Usage, UsageFilter
from tests.benchmarks import archive
from tests.support.ledgers import Clock, add_job, add_output


def make(ledger: Ledger, number: int, **asked: Any) -> str:
    """A job with `number % 3 + 1` images, archived."""
    job_id = f"job-{number:04}"
    request = JobRequest(**{"model": "m", "prompt": "a kite", **asked})
    add_job(ledger, job_id, ("apiframe", "api-in-one")[number % 2], request)
    (job,) = ledger.claim("w", 1)
    job = ledger.move(job, Status.SUBMITTING, "w", keep_lease=True)
    reported = JobResult(model="reported" if number % 5 == 0 else None)
    job = ledger.move(job, Status.READY, "w", keep_lease=True, result=reported)
    for index in range(number % 3 + 1):
        digest = f"{number:060}{index:04}"
        add_output(ledger, Output(job_id, index, f"{job_id}/{index}", digest, 3, "image/png", 1, 1, 1))
    ledger.move(job, Status.ARCHIVED, "w")
    return job_id


@pytest.fixture
def filled(ledger: Ledger, clock: Clock) -> Ledger:
    for number in range(30):
        clock.now += 3 * 3600 * 1000
        tags = {"for": "web", "n": str(number % 4)} if number % 2 else {}
        make(ledger, number, prompt=f"a kite {number}", model=f"m{number % 3}", tags=tags)
    return ledger


def test_of_too_many_the_newest_are_counted(filled: Ledger, database: Database) -> None:
    told = Facets(database, most_jobs=4).read(SearchFilter(words=("kite",)))
    assert not told.complete
    assert told.counted == sum(number % 3 + 1 for number in range(26, 30))


def test_spellings_of_a_model_are_one(ledger: Ledger, database: Database, clock: Clock) -> None:
    for number, model in (
        (1, "Imagen-4"),
        (2, "imagen-4"),
        (4, "IMAGEN-4"),
        (7, "Imagen-4"),
        (8, "\u0130magen"),
    ):
        make(ledger, number, model=model)
    # Of 2, 3, 2, 2 and 3 images: by those of Imagen-4, which are most.
    one = [FacetCount("Imagen-4", 9), FacetCount("\u0130magen", 3)]
    assert Facets(database).read(SearchFilter()).model == one
    assert Facets(database).read(SearchFilter(words=("kite",))).model == one
    report = Usage(database).read(UsageFilter(UsageBy.MODEL, 0, clock.now + 1), limit=10)
    spent = {group.value: (group.spent.jobs, group.spent.outputs) for group in report.groups}
    assert spent == {"Imagen-4": (4, 9), "\u0130magen": (1, 3)}
    assert report.total.jobs == 5


def test_an_output_added_again_is_not_counted_again(filled: Ledger, database: Database) -> None:
    before = Facets(database).read(SearchFilter())
    add_output(filled, filled.outputs("job-0002")[1])
    assert Facets(database).read(SearchFilter()) == before


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_benchmarks_ledger_is_as_the_ledger_writes_it(
    tmp_path: Path, ledger: Ledger, database: Database, clock: Clock
) -> None:
    archive.build(tmp_path / "year.sqlite3", 120)
    year = Database.open(f"sqlite:///{tmp_path / 'year.sqlite3'}")
    for found in reversed(Search(year).jobs(SearchFilter(), limit=500).rows):
        clock.now = found.created_at
        add_job(ledger, found.id, found.gateway, found.request)
        (job,) = ledger.claim("w", 1)
        job = ledger.move(job, Status.SUBMITTING, "w", keep_lease=True)
        job = ledger.move(job, Status.READY, "w", keep_lease=True)
        for output in Ledger(year, clock).outputs(found.id):
            add_output(ledger, output)
        ledger.move(job, Status.ARCHIVED, "w")
    for table in (terms, tallies):
        query = select(table).order_by(*table.primary_key)
        with year.read() as theirs, database.read() as ours:
            assert theirs.execute(query).all() == ours.execute(query).all()
    pieces = text("SELECT rowid FROM grams WHERE grams MATCH :piece ORDER BY rowid")
    for piece in ("the", "寿司", "e", "func"):
        value = {"piece": " ".join(piece[n : n + 3].encode().hex() for n in range(max(1, len(piece) - 2)))}
        with year.read() as theirs, database.read() as ours:
            assert theirs.execute(pieces, value).all() == ours.execute(pieces, value).all()
    assert Search(year).jobs(SearchFilter(words=("寿司",)), limit=5).rows
    year.close()


def test_a_slow_search_is_broken_off_alone(tmp_path: Path) -> None:
    archive.build(tmp_path / "year.sqlite3", 8_000)
    year = Database.open(f"sqlite:///{tmp_path / 'year.sqlite3'}")
    reads_everything = SearchFilter(between={"width": (99_999, None)})
    with pytest.raises(TookTooLong, match="ask for less"):
        Search(year, within_s=0).outputs(reads_everything, limit=50)
    assert Search(year).outputs(reads_everything, limit=50).rows == []
    assert Search(year, within_s=0).outputs(SearchFilter(), limit=1).rows, "which takes no time to speak of"
    year.close()


@pytest.mark.parametrize(
    ("wanted", "walks"),
    [
        (SearchFilter(status=Status.ARCHIVED), "jobs"),
        (SearchFilter(status=Status.ARCHIVED, tags={"n": "1"}), "terms"),
        (SearchFilter(status=Status.ARCHIVED, words=("kite",), tags={"n": "1"}), "terms"),
        (SearchFilter(status=Status.FAILED, tags={"n": "1"}), "jobs"),
    ],
)
def test_of_two_conditions_the_rarer_one_leads(
    filled: Ledger, database: Database, wanted: SearchFilter, walks: str
) -> None:
    with database.read() as connection:
        way = plan(connection, wanted, with_images=False, limit=51)
    assert isinstance(way.rows, CrossJoin) == (walks == "terms")
