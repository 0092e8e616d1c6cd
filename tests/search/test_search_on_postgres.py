"""Rare words are looked up on PostgreSQL, and common ones looked for among the newest prompts."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from sqlalchemy import event, insert, text

from storage.errors import Misconfigured
from storage.ledger.database import Database
from storage.ledger.job_writer import new_job
from storage.ledger.schema import jobs
from storage.ledger.search_index import fold, is_piece
from storage.models import JobRequest
from storage.search.filters import SearchFilter
from storage.search.search import Search
from tests.support.ledgers import migrated_to
from tests.support.postgres import Postgres

JOBS = 20_000
COMMON = "a bowl of ramen with steam, ラーメンの写真, number"
RARE = {7: "100%_sure \\ kite", 1500: "いくら寿司の写真", 2900: "Ünïcode kïte", 4000: "a 9x zoom"}


@pytest.fixture(scope="module")
def database(postgres: Postgres, postgres_template: str) -> Iterator[Database]:
    """A ledger of so many jobs that looking at each costs more, and PostgreSQL knows what they are."""
    url = postgres.url(postgres.create(postgres_template))
    opened = Database.open(url)
    with opened.write() as connection:
        rows = [row(number) for number in range(JOBS)]
        connection.execute(insert(jobs), rows)
        found_by = [{"number": one["number"], "folded": one["prompt_folded"]} for one in rows]
        connection.execute(text("INSERT INTO grams VALUES (:number, :folded)"), found_by)
    with psycopg.connect(url, autocommit=True) as vacuum:
        vacuum.execute("VACUUM ANALYZE")
    yield opened
    opened.close()


def row(number: int) -> dict[str, object]:
    request = JobRequest(model="imagen-4", prompt=RARE.get(number, f"{COMMON} {number}"))
    made = new_job(f"job-{number}", "apiframe", request, number)
    return {**made, "number": number, "request_sha256": "00"}


WORDS, SHORT = "ix_grams_folded", "ix_grams_short_pieces"


@pytest.mark.parametrize(
    ("words", "number", "index"),
    [
        (("kite", "sure"), 7, WORDS),
        (("100%_sure",), 7, WORDS),
        (("\\ kite",), 7, WORDS),
        (("いくら寿司",), 1500, WORDS),
        (("KÏTE",), 2900, WORDS),
        (("ünï",), 2900, WORDS),
        (("寿司",), 1500, SHORT),
        (("寿", "くら"), 1500, SHORT),
        (("Nï",), 2900, SHORT),
        (("9x",), 4000, SHORT),
    ],
)
def test_a_rare_word_is_looked_up_in_the_index(
    database: Database, words: tuple[str, ...], number: int, index: str
) -> None:
    found, plan = planned(database, words, "OFFSET")
    assert found == [f"job-{number}"]
    assert index in plan
    assert "Seq Scan" not in plan


def test_a_common_word_is_looked_for_among_the_newest(database: Database) -> None:
    for words in (("ramen",), ("ラー",), ("ra",), ("写", "bowl")):
        found, plan = planned(database, words, "JOIN jobs")
        assert found == [f"job-{JOBS - number}" for number in range(1, 11)]
        assert not any(index in plan for index in (WORDS, SHORT, "Seq Scan"))


def planned(database: Database, words: tuple[str, ...], part: str) -> tuple[list[str], str]:
    """The jobs that are found, and the plan of the last statement with `part` in it."""
    asked: list[tuple[str, Any]] = []
    with database.read() as connection:
        engine = connection.engine

    def note(*of: Any) -> None:
        asked.append((of[2], of[3]))

    event.listen(engine, "before_cursor_execute", note)
    page = Search(database).jobs(SearchFilter(words=words), limit=10)
    event.remove(engine, "before_cursor_execute", note)
    sql, values = [one for one in asked if part in one[0]][-1]
    with database.read(within_s=10) as connection:
        plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {sql}", values).scalars())
    return [job.id for job in page.rows], plan


@pytest.mark.parametrize("prompt", ["a kite", "an 8k 寿司, café 2", "", "9", "ｱ9\n é", "𠮷野 1", "12:30 ½"])
def test_short_words_are_indexed_as_they_are_looked_up(database: Database, prompt: str) -> None:
    folded = fold(prompt)
    every = {folded[n : n + size] for size in (1, 2) for n in range(len(folded) + 1 - size)}
    with database.read() as connection:
        pieces = connection.scalar(text("SELECT short_pieces(:folded)"), {"folded": folded})
    assert set(pieces or ()) == {piece for piece in every if is_piece(piece)}


def test_a_user_who_may_not_make_tables_is_told_so(postgres: Postgres) -> None:
    name = postgres.create()
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS guest")
        connection.execute("CREATE ROLE guest LOGIN")
    url = postgres.url(name).replace("//postgres@", "//guest@")
    with pytest.raises(Misconfigured, match="DARKROOM_DATABASE_URL must own the database"):
        Database.open(url)


def test_prompts_from_before_the_index_are_found(postgres: Postgres) -> None:
    url = postgres.url(postgres.create())
    with migrated_to(url, "0003") as connection:
        connection.execute(insert(jobs), [row(7)])
    with closing(Database.open(url)) as opened:
        assert [job.id for job in Search(opened).jobs(SearchFilter(words=("kite",)), limit=10).rows] == [
            "job-7"
        ]
