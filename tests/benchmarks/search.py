"""How fast a large archive answers, and what searching needs on the disk.

For each size a ledger is written (`tests/benchmarks/archive.py`), `darkroom serve` is started on it, and one
client asks it over HTTP, one request after the other. Beside it stands what looking at every prompt costs in
the same ledger.
"""

import random
from collections.abc import Callable
from contextlib import closing
from statistics import quantiles
from time import perf_counter

import httpx
from sqlalchemy import text

from storage.ledger.database import Database
from storage.models import rfc3339
from tests.benchmarks import archive
from tests.benchmarks.figures import Figure
from tests.benchmarks.grounds import DATABASES, Grounds, Kind

SIZES = (100_000, 1_000_000)
QUICK = (6_000,)
TIMES = 200
DEEP = 1_000
"""Which page is the deep one."""
LIMIT = 50
DAY_MS = 24 * 3600 * 1000
SEARCH = ("grams", "terms", "tallies", "pk_terms", "pk_tallies", "ix_jobs_number", "ix_jobs_status_number")
"""What is there for searching alone, tables and indexes; FTS5's have longer names."""
SCAN = "every prompt, two words"
Ask = Callable[[random.Random], str]


def run(grounds: Grounds) -> list[Figure]:
    return [line for kind in DATABASES for line in _figures(grounds, kind)]


def _figures(grounds: Grounds, kind: Kind) -> list[Figure]:
    lines = []
    for outputs in QUICK if grounds.quick else SIZES:
        sizes, found = _measure(grounds, kind, outputs)
        where = f"{outputs:,} outputs, {kind}"
        lines += [Figure("search", f"{name}, {where}", size, "MB") for name, size in sizes.items()]
        for name, took in found.items():
            each = [took["p50_ms"], took["p99_ms"]]
            what = f"{name}, p99, {where}"
            against = "looking at every prompt, p50"
            lines.append(Figure("search", what, each[1], "ms", against, found[SCAN]["p50_ms"], each=each))
    return lines


def _measure(
    grounds: Grounds, kind: Kind, outputs: int
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    ledger = grounds.grown_ledger(kind, outputs, images=archive.IMAGES, callbacks=False)
    figures: dict[str, dict[str, float]] = {}
    words = archive.common_words()
    with closing(Database.open(ledger)) as database:
        sizes = _sizes(database, kind)
        # Nothing is to be done in this ledger; limits are for strangers.
        limits = {"DARKROOM_LIMITS__BAD_TOKENS": "0"}
        with (
            grounds.serving(ledger, "--no-work", **limits) as process,
            httpx.Client(base_url=process.url, timeout=60, trust_env=False) as http,
        ):
            cursor = _deep_cursor(database)
            for name, ask in _questions(words, cursor).items():
                figures[name] = _time(http, ask, 20 if grounds.quick else TIMES)
        figures[SCAN] = _scan(database, kind, words)
    return sizes, figures


def _questions(words: list[str], cursor: str) -> dict[str, Ask]:
    def two_words(chance: random.Random) -> str:
        return f"q={chance.choice(words[:50])}+{chance.choice(words[50:1000])}"

    def model_and_date(chance: random.Random) -> str:
        day = archive.BEGAN + chance.randrange(358) * DAY_MS
        return f"model=imagen4&since={rfc3339(day)}&until={rfc3339(day + 7 * DAY_MS)}"

    def seed(chance: random.Random) -> str:
        return f"seed={chance.randrange(100_000)}"

    def tag(chance: random.Random) -> str:
        return f"tag.campaign={chance.choice(archive.CAMPAIGNS)}"

    questions: dict[str, Ask] = {
        "everything": lambda _chance: "",
        "two words": two_words,
        "two characters (Chinese, Japanese)": lambda chance: f"q={chance.choice(('寿司', '東京', '夜景'))}",
        "seed": seed,
        "model and a week": model_and_date,
        "tag": tag,
        "tag and word": lambda chance: f"{tag(chance)}&q={chance.choice(words[:50])}",
    }
    pages: dict[str, Ask] = {f"outputs, {name}": _of("/v1/outputs", ask) for name, ask in questions.items()}
    deep = {f"outputs, page {DEEP}": _of("/v1/outputs", lambda _chance: f"cursor={cursor}")}
    deep[f"outputs, page {DEEP} of a word"] = _of("/v1/outputs", lambda _chance: f"q=the&cursor={cursor}")
    counts = {"facets, everything": _of("/v1/facets", lambda _chance: "")}
    counts["facets, two words"] = _of("/v1/facets", two_words)
    gallery = {"gallery, everything": _of("/", lambda _chance: "")}
    gallery |= {"gallery, two words": _of("/", two_words), "gallery, tag": _of("/", _as_query(tag))}
    return pages | deep | counts | gallery


def _of(path: str, ask: Ask) -> Ask:
    limit = f"&limit={LIMIT}" if path == "/v1/outputs" else ""
    return lambda chance: f"{path}?{ask(chance)}{limit}".replace("?&", "?").removesuffix("?")


def _as_query(ask: Ask) -> Ask:
    return lambda chance: "q=tag:" + ask(chance).removeprefix("tag.").replace("=", "%3D")


def _time(http: httpx.Client, ask: Ask, times: int) -> dict[str, float]:
    chance, took = random.Random(7), []
    for _ in range(times + 5):
        path = ask(chance)
        began = perf_counter()
        answer = http.get(path)
        took.append((perf_counter() - began) * 1000)
        answer.raise_for_status()
    # The first ones wait for statements to be compiled, once in a process's life.
    cuts = quantiles(took[5:], n=100)
    return {"p50_ms": cuts[49], "p99_ms": cuts[98]}


def _scan(database: Database, kind: Kind, words: list[str]) -> dict[str, float]:
    """What the same page costs by looking at every prompt, for words that few prompts have."""
    chance, took = random.Random(7), []
    stands = "instr" if kind == "sqlite" else "strpos"
    both = " AND ".join(f"{stands}(prompt_folded, :{word}) > 0" for word in ("one", "other"))
    query = text(f"SELECT id FROM jobs WHERE {both} ORDER BY number DESC LIMIT 50")
    with database.read() as connection:
        for _ in range(10):
            pair = {"one": chance.choice(words[:50]), "other": chance.choice(words[50:1000])}
            began = perf_counter()
            connection.execute(query, pair).all()
            took.append((perf_counter() - began) * 1000)
    return {"p50_ms": sorted(took)[5], "p99_ms": max(took)}


def _deep_cursor(database: Database) -> str:
    skipped = (DEEP - 1) * LIMIT // archive.IMAGES
    query = text("SELECT id FROM jobs ORDER BY number DESC LIMIT 1 OFFSET :skipped")
    with database.read() as connection:
        jobs = connection.scalar(text("SELECT count(*) FROM jobs"))
        job_id = connection.scalar(query, {"skipped": min(skipped, int(jobs or 0)) - 1})
    return f"{job_id}.{archive.IMAGES - 1}"


def _sizes(database: Database, kind: Kind) -> dict[str, float]:
    by_name = "SELECT name, sum(pgsize) FROM dbstat GROUP BY name"
    if kind == "postgresql":
        by_name = (
            "SELECT relname, pg_relation_size(pg_class.oid) FROM pg_class JOIN pg_namespace ON "
            "pg_namespace.oid = relnamespace WHERE nspname = 'public' AND relkind IN ('r', 'i')"
        )
    with database.read() as connection:
        sizes = {str(name): int(size) for name, size in connection.execute(text(by_name))}
    index = sum(size for name, size in sizes.items() if name in SEARCH or "grams_" in name)
    return {"the ledger": sum(sizes.values()) / 1e6, "of which to search": index / 1e6}
