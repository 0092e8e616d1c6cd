"""How fast a large archive answers: `python -m tests.benchmarks.search [--outputs N ...] [--json FILE]`.

For each size a ledger is written (`tests/benchmarks/archive.py`), `darkroom serve` is started on it, and one
client asks it over HTTP, one request after the other. Beside it stands what looking at every prompt costs in
the same file, and the answers of both are compared.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from time import perf_counter
from typing import Any

import httpx

from receiver.embedded import EmbeddedS3
from receiver.sandbox import SandboxServer
from storage.records import rfc3339
from tests.benchmarks import archive
from tests.live import QUICK
from tests.processes import environment, free_port, serving

TIMES = 200
DEEP = 1_000
"""Which page is the deep one."""
LIMIT = 50
DAY_MS = 24 * 3600 * 1000
SEARCH = ("grams_data", "grams_idx", "terms", "tallies", "ix_jobs_number", "ix_jobs_status_number")

Ask = Callable[[random.Random], str]


def main() -> None:
    """Measure and print."""
    asked = argparse.ArgumentParser(prog="python -m tests.benchmarks.search", description=__doc__)
    asked.add_argument("--outputs", type=int, nargs="+", default=[100_000, 1_000_000], metavar="N")
    asked.add_argument("--keep", type=Path, metavar="DIR", help="keep the ledgers here, and use those there")
    asked.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    options = asked.parse_args()
    with tempfile.TemporaryDirectory() as name, SandboxServer(QUICK) as sandbox:
        folder = Path(name)
        with EmbeddedS3(folder / "s3") as s3:
            figures = {n: _measure(n, options.keep or folder, folder, s3, sandbox) for n in options.outputs}
    _print(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


def _measure(
    outputs: int, kept: Path, folder: Path, s3: EmbeddedS3, sandbox: SandboxServer
) -> dict[str, Any]:
    path = kept / f"ledger-{outputs}.sqlite3"
    figures: dict[str, Any] = {}
    if not path.exists():
        began = perf_counter()
        archive.build(path, outputs)
        figures["build_s"] = perf_counter() - began
    figures |= _sizes(path, outputs)
    words = archive.common_words()
    variables = environment(s3, sandbox, folder, free_port(), DARKROOM_DATABASE_URL=f"sqlite:///{path}")
    # Nothing is to be done in this ledger; limits are for strangers.
    variables |= {"DARKROOM_LIMITS__API_TOKEN": "0", "DARKROOM_LIMITS__BAD_TOKENS": "0"}
    with serving(variables, folder, "--no-work") as process, _client(process.url) as http:
        cursor = _deep_cursor(path)
        for name, ask in _questions(words, cursor).items():
            figures[name] = _time(http, ask)
    figures["every prompt, two words"] = _scan(path, words)
    return figures


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


def _time(http: httpx.Client, ask: Ask) -> dict[str, float]:
    chance, took = random.Random(7), []
    for _ in range(TIMES + 5):
        path = ask(chance)
        began = perf_counter()
        answer = http.get(path)
        took.append((perf_counter() - began) * 1000)
        answer.raise_for_status()
    # The first ones wait for statements to be compiled, once in a process's life.
    cuts = quantiles(took[5:], n=100)
    return {"p50_ms": cuts[49], "p99_ms": cuts[98]}


def _scan(path: Path, words: list[str]) -> dict[str, float]:
    """What the same page costs by looking at every prompt, for words that few prompts have."""
    chance, took = random.Random(7), []
    connection = sqlite3.connect(path)
    query = (
        "SELECT id FROM jobs WHERE instr(prompt_folded, ?) AND instr(prompt_folded, ?) "
        "ORDER BY number DESC LIMIT 50"
    )
    for _ in range(10):
        pair = chance.choice(words[:50]), chance.choice(words[50:1000])
        began = perf_counter()
        connection.execute(query, pair).fetchall()
        took.append((perf_counter() - began) * 1000)
    connection.close()
    return {"p50_ms": sorted(took)[5], "p99_ms": max(took)}


def _deep_cursor(path: Path) -> str:
    connection = sqlite3.connect(path)
    skipped = (DEEP - 1) * LIMIT // archive.IMAGES
    (job_id,) = connection.execute(
        "SELECT id FROM jobs ORDER BY number DESC LIMIT 1 OFFSET ?", (skipped - 1,)
    ).fetchone()
    connection.close()
    return f"{job_id}.{archive.IMAGES - 1}"


def _sizes(path: Path, outputs: int) -> dict[str, float]:
    connection = sqlite3.connect(path)
    sizes = dict(connection.execute("SELECT name, sum(pgsize) FROM dbstat GROUP BY name"))
    connection.close()
    index = sum(sizes.get(name, 0) for name in SEARCH)
    return {"ledger_mb": sum(sizes.values()) / 1e6, "index_mb": index / 1e6, "index_b": index / outputs}


@contextmanager
def _client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
        yield http


def _print(figures: dict[int, dict[str, Any]]) -> None:
    for outputs, found in figures.items():
        built = f"written in {found['build_s']:.0f} s, " if "build_s" in found else ""
        print(
            f"{outputs:,} outputs: {built}ledger {found['ledger_mb']:.0f} MB, of which to search "
            f"{found['index_mb']:.0f} MB ({found['index_b']:.0f} bytes an output)"
        )
    names = [name for name, found in next(iter(figures.values())).items() if isinstance(found, dict)]
    print(f"\n{'milliseconds, p50 / p99':40}" + "".join(f"{outputs:>18,}" for outputs in figures))
    for name in names:
        cells = [f"{found[name]['p50_ms']:8.1f} /{found[name]['p99_ms']:8.1f}" for found in figures.values()]
        print(f"{name:40}" + "".join(cells))


if __name__ == "__main__":
    main()
