"""Words are looked up on PostgreSQL, not looked for in every prompt."""

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from sqlalchemy import event, insert, text

from storage.errors import Misconfigured
from storage.ledger.database import Database
from storage.ledger.rows import new_job
from storage.ledger.schema import jobs
from storage.models import JobRequest
from storage.search.filters import SearchFilter
from storage.search.search import Search
from tests.support.ledgers import migrated_to
from tests.support.postgres import Postgres

JOBS = 20_000
COMMON = "a bowl of ramen with steam, ラーメンの写真, number"
RARE = {7: "100%_sure \\ kite", 1500: "いくら寿司の写真", 2900: "Ünïcode kïte"}


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


@pytest.mark.parametrize(
    ("words", "number"),
    [
        (("kite", "sure"), 7),
        (("100%_sure",), 7),
        (("\\ kite",), 7),
        (("いくら寿司",), 1500),
        (("KÏTE",), 2900),
        (("ünï",), 2900),
    ],
)
def test_a_rare_word_is_looked_up_in_the_index(
    database: Database, words: tuple[str, ...], number: int
) -> None:
    asked: list[tuple[str, object]] = []
    with database.read() as connection:
        engine = connection.engine
    event.listen(engine, "before_cursor_execute", lambda *of: asked.append((of[2], of[3])))
    page = Search(database).jobs(SearchFilter(words=words), limit=10)
    assert [job.id for job in page.rows] == [f"job-{number}"]
    ((sql, values),) = [one for one in asked if "folded LIKE" in one[0]]
    with database.read() as connection:
        plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {sql}", values).scalars())  # type: ignore[arg-type]
    assert "ix_grams_folded" in plan
    assert "Seq Scan" not in plan


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
