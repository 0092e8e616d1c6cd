"""A ledger as if an archive had grown for a year, written straight into the database.

Prompts are made of some thousand words that are as unevenly common as words are (Zipf's law), some of them
Chinese or Japanese; two images a job. The same number gives the same ledger.
"""

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import fields
from itertools import accumulate, islice
from operator import attrgetter
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from sqlalchemy import Table, text

from storage.ledger import schema
from storage.ledger.database import Database
from storage.ledger.job_numbers import first_number
from storage.ledger.job_writer import new_job, request_digest
from storage.ledger.search_index import HAS_IMAGE, INDEX_WORDS, day, pieces_of, term
from storage.models import Delivery, JobRequest, Output, Status, Verdict
from storage.statements import to_json

BEGAN = 1_764_000_000_000
"""When the first job was taken in: 2025-11-24."""
YEAR_MS = 365 * 24 * 3600 * 1000
IMAGES = 2
BATCH = 1_000
"""Jobs that are written together."""

MODELS = {
    "apiframe": ("imagen-4-fast", "imagen-4", "imagen-4-ultra", "flux-pro"),
    "api-in-one": ("imagen4", "imagen4-fast", "imagen4-ultra"),
}
CAMPAIGNS = [f"c{number:03}" for number in range(200)]
SIZES = ((1024, 1024), (1280, 896), (2816, 1536), (896, 1280))
CJK = (
    "寿司 拉面 山水 江南 水墨 黄昏 古镇 小桥 流水 熊猫 竹林 樱花 富士山 浮世絵 夕焼け 猫 犬 海辺 東京 夜景",
    "雨の日 提灯 金魚 花火 一碗热气腾腾的拉面 赛博朋克 未来城市 写真 水彩 油絵",
)


def build(
    where: Path | str, outputs: int, *, images: int = IMAGES, callbacks: bool = False, also: Path | str = ""
) -> None:
    """Write a new ledger with so many outputs: a file of SQLite, or whatever a URL names.

    With `callbacks` it has those too, one for each job. The same ledger is written to `also`, if that is
    given, since to make one takes longer than to write it.
    """
    tallies: Counter[tuple[str, str]] = Counter()
    accepted: Counter[str] = Counter()
    found_by: list[tuple[str, int]] = []
    with ExitStack() as opened:
        ledgers = [
            opened.enter_context(closing(Database.open(f"sqlite:///{one}" if isinstance(one, Path) else one)))
            for one in (where, also)
            if one
        ]

        def insert(table: Table, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
            some = list(rows)
            for ledger in ledgers:
                _insert(ledger, table, names, some)

        jobs = _jobs(outputs // images, images)
        while batch := list(islice(jobs, BATCH)):
            insert(schema.jobs, list(batch[0][0]), [_values(job) for job, _ in batch])
            insert(schema.outputs, _OUTPUT, [_of_output(image) for _, made in batch for image in made])
            if callbacks:
                made_of = [_of_delivery(_delivery(job)) for job, _ in batch]
                insert(schema.deliveries, _DELIVERY, [_plain(row) for row in made_of])
            for ledger in ledgers:
                _index_words(ledger, [job for job, _ in batch])
            for job, made in batch:
                accepted[job["gateway"]] += 1
                tallies.update({facet: len(made) for facet in _facets(job)})
                found_by += [(one, job["number"]) for one in _terms(job, made)]
        insert(schema.terms, ("term", "number"), sorted(found_by))
        insert(schema.tallies, ("facet", "value", "outputs"), [(*kind, n) for kind, n in tallies.items()])
        insert(schema.accepted, ("gateway", "jobs"), accepted.items())
        for ledger in ledgers:
            if ledger.shared:
                # As the server does by itself in a ledger that has grown for a while.
                with ledger.autocommit() as connection:
                    connection.execute(text("VACUUM ANALYZE"))


def _insert(database: Database, table: Table, names: Sequence[str], rows: list[Sequence[Any]]) -> None:
    """Write rows by the driver alone, which is several times as fast."""
    with database.write() as connection:
        driver: Any = connection.connection.driver_connection
        columns = ", ".join(f'"{name}"' for name in names)
        if not database.shared:
            places = ", ".join("?" * len(names))
            driver.executemany(f"INSERT INTO {table.name} ({columns}) VALUES ({places})", rows)
            return
        with driver.cursor() as cursor, cursor.copy(f"COPY {table.name} ({columns}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)


def _plain(row: Sequence[Any]) -> list[Any]:
    """A row as drivers take it: JSON as text."""
    return [to_json(value) if isinstance(value, dict | list | tuple) else value for value in row]


def _values(row: dict[str, Any]) -> list[Any]:
    return _plain(list(row.values()))


_OUTPUT = [field.name for field in fields(Output)]
_DELIVERY = [field.name for field in fields(Delivery)]
_of_output, _of_delivery = attrgetter(*_OUTPUT), attrgetter(*_DELIVERY)


def _index_words(database: Database, jobs: list[dict[str, Any]]) -> None:
    """Make jobs findable by the words of their prompts."""
    with database.write() as connection:
        if database.shared:
            connection.execute(INDEX_WORDS, {"first": jobs[0]["number"], "last": jobs[-1]["number"]})
        else:
            add = text(f"INSERT INTO {schema.GRAMS} (rowid, pieces) VALUES (:number, :pieces)")
            pieces = [{"number": job["number"], "pieces": pieces_of(job["prompt_folded"])} for job in jobs]
            connection.execute(add, pieces)


def common_words() -> list[str]:
    """The words of the prompts, the commonest first: those of the longest English text that Python brings."""
    told = Counter(re.findall(r"[a-z]{2,}", " ".join(topics.values()).lower()))
    words = [word for word, _ in told.most_common()]
    rare, common = " ".join(CJK).split(), 20
    return words[:common] + rare[::2] + words[common:] + rare[1::2]


def _jobs(number: int, images: int) -> Iterator[tuple[dict[str, Any], list[Output]]]:
    chance = random.Random(number)
    words = common_words()
    # Added up once, and not anew for each prompt.
    weights = list(accumulate(1 / rank for rank in range(1, len(words) + 1)))
    for n in range(number):
        created = BEGAN + n * YEAR_MS // number
        gateway = chance.choices(list(MODELS), (3, 2))[0]
        request = JobRequest(
            model=chance.choice(MODELS[gateway]),
            prompt=" ".join(chance.choices(words, cum_weights=weights, k=chance.randint(6, 20))),
            seed=str(chance.randrange(100_000)) if n % 2 else None,
            tags={"campaign": chance.choice(CAMPAIGNS), "for": chance.choice(("web", "print", "shop"))},
        )
        yield _job(n, created, gateway, request, images, chance)


def _job(
    n: int, created: int, gateway: str, request: JobRequest, images: int, chance: random.Random
) -> tuple[dict[str, Any], list[Output]]:
    job_id = f"{created:012x}"[:8] + f"-{created & 0xFFFF:04x}-7000-8000-{n:012x}"
    moved = [[status, created + 1000 * after] for after, status in enumerate(Status) if after < 5]
    job = new_job(job_id, gateway, request, created) | {
        "number": first_number(created),
        "status": Status.ARCHIVED,
        "request_sha256": request_digest(gateway, request, None),
        "gateway_job_id": f"theirs-{n}",
        "credits": float(chance.choice((4, 8, 16))),
        "reply": {"status": "COMPLETED", "images": images},
        "found_by": "callback",
        "next_attempt_at": None,
        "updated_at": created + 4000,
        "ready_at": created + 3000,
        "moves": moved,
        "records": 1,
    }
    width, height = chance.choice(SIZES)
    made = [
        Output(
            job_id=job_id,
            index=index,
            key=f"images/{day(job['number']).replace('-', '/')}/{job_id}/{index}.png",
            sha256=f"{chance.getrandbits(256):064x}",
            bytes=chance.randrange(500_000, 2_000_000),
            media_type="image/jpeg" if gateway == "apiframe" else "image/png",
            width=width,
            height=height,
            stored_at=created + 4000,
        )
        for index in range(images)
    ]
    return job, made


def _delivery(job: dict[str, Any]) -> Delivery:
    reply = {"jobId": job["gateway_job_id"], **job["reply"], "model": job["model"], "progress": 100}
    body = json.dumps(reply | {"links": ["https://cdn2.apiframe.ai/images/made-1.png?[removed]"]}).encode()
    return Delivery(
        id=job["id"],
        job_id=job["id"],
        gateway=job["gateway"],
        received_at=job["ready_at"],
        headers={"content-type": "application/json", "user-agent": "Apiframe/2"},
        body=body,
        body_sha256=hashlib.sha256(body).hexdigest(),
        signature=Verdict.VALID,
        applied_at=job["ready_at"],
        effect="ready",
    )


def _facets(job: dict[str, Any]) -> list[tuple[str, str]]:
    tags = [("tag", f"{name}={value}") for name, value in job["tags"].items()]
    return [("gateway", job["gateway"]), ("model", job["model"]), ("day", day(job["number"])), *tags]


def _terms(job: dict[str, Any], images: list[Output]) -> set[str]:
    known = {(facet, value) for facet, value in _facets(job) if facet != "day"}
    known |= {("type", image.media_type) for image in images}
    known |= {("size", f"{image.width}x{image.height}") for image in images}
    seed = {term("seed", job["seed"])} if job["seed"] else set()
    return {term(*one) for one in known} | seed | {HAS_IMAGE}
