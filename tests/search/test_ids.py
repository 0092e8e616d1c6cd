"""An id is found by its beginning: whole, unique, or with those that it may mean; by an index, everywhere."""

from typing import Any

import pytest
from sqlalchemy import event, text

from storage.errors import Ambiguous, NotFound
from storage.ledger.database import Database
from storage.ledger.ledger import Ledger
from storage.models import Output
from storage.search.facets import Facets
from storage.search.filters import SearchFilter
from storage.search.ids import Ids
from storage.search.search import Search
from tests.support.ledgers import add, add_output

FIRST = "01a201ee-8cc4-7255-b42d-d6cf39ac8954"
ALIKE = [f"01a201ef-0000-7000-8000-{number:012x}" for number in range(8)]
NOBODY = "01a201f0-0000-7000-8000-000000000000"


@pytest.fixture
def ids(database: Database, ledger: Ledger) -> Ids:
    for job_id in (FIRST, *ALIKE):
        add(ledger, job_id)
        add_output(ledger, Output(job_id, 0, f"images/{job_id}", "ab", 3, "image/png", 1, 1, 1))
    add_output(ledger, Output(FIRST, 1, "images/1", "cd", 3, "image/png", 1, 1, 1))
    return Ids(database)


@pytest.mark.parametrize("length", [8, 9, 13, 18, 19, 23, 35, 36])
def test_a_beginning_that_fits_one_is_that_one(ids: Ids, length: int) -> None:
    assert ids.job(FIRST[:length]) == FIRST
    assert ids.job(FIRST[:length].upper()) == FIRST
    assert ids.output(f"{FIRST[:length]}.1") == f"{FIRST}.1"


def test_one_that_fits_several_names_the_newest(ids: Ids) -> None:
    with pytest.raises(Ambiguous, match=r"01a201ef is the beginning of several ids: .*, and more") as several:
        ids.job("01a201ef")
    assert several.value.candidates == ALIKE[:2:-1]
    with pytest.raises(Ambiguous) as several:
        ids.output(f"{ALIKE[0][:20]}.0")
    assert several.value.candidates == [f"{job_id}.0" for job_id in ALIKE[:2:-1]]
    assert ids.output("01a201ee.0") == f"{FIRST}.0"


@pytest.mark.parametrize(
    "beginning",
    [
        "01a201e",
        "01a201f0",
        "01a201ee8cc4",
        "01a201ee-8cc4-7255b",
        "01a2%1ee",
        "01a201e_",
        "",
        "x" * 36,
        NOBODY + "0",
    ],
)
def test_what_is_no_beginning_of_any_is_not_found(ids: Ids, beginning: str) -> None:
    for find, name in ((ids.job, beginning), (ids.output, f"{beginning}.0"), (ids.notification, beginning)):
        if len(beginning) != 36:
            with pytest.raises(NotFound):
                find(name)
    for number in ("2", "x", "-1", "", str(2**64), "0" * 5000):
        with pytest.raises(NotFound):
            ids.output(f"{FIRST[:8]}.{number}")


def test_a_search_takes_the_beginning_of_its_job(ids: Ids, database: Database) -> None:
    search, wanted = Search(database), SearchFilter(job=FIRST[:9])
    assert [job.id for job in search.jobs(wanted, limit=5).rows] == [FIRST]
    assert [one.output.id for one in search.outputs(wanted, limit=5).rows] == [f"{FIRST}.0", f"{FIRST}.1"]
    assert search.newer_ids(wanted, f"{FIRST}.1", limit=5) == [f"{FIRST}.0"]
    assert Facets(database).read(wanted).counted == 2
    assert search.jobs(SearchFilter(job=NOBODY[:8]), limit=5).rows == []
    with pytest.raises(Ambiguous):
        search.outputs(SearchFilter(job="01a201ef"), limit=5)


@pytest.mark.parametrize("kind", ["job", "output", "notification"])
def test_it_is_looked_up_in_the_primary_key(ids: Ids, database: Database, kind: str) -> None:
    asked: list[tuple[str, Any]] = []
    with database.read() as connection:
        engine, sqlite = connection.engine, connection.dialect.name == "sqlite"
    event.listen(engine, "before_cursor_execute", lambda *of: asked.append((of[2], of[3])))
    beginning = "01a201f0" + ".0" * (kind == "output")
    with pytest.raises(NotFound):
        getattr(ids, kind)(beginning)
    ((sql, values),) = [one for one in asked if "BETWEEN" in one[0]]
    with database.read() as connection:
        if not sqlite:  # which scans tables as small as these
            connection.execute(text("SET LOCAL enable_seqscan = off"))
        explain = "EXPLAIN QUERY PLAN" if sqlite else "EXPLAIN"
        plan = str(connection.exec_driver_sql(f"{explain} {sql}", values).all())
    assert ("_id>? AND" in plan or "(id>? AND" in plan) if sqlite else "Index Cond" in plan, plan
    assert ("SCAN" not in plan) if sqlite else ("Seq Scan" not in plan), plan
