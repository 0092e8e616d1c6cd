"""The eighth invariant: everything in the ledger that a rebuild needs is in the bucket, field by field."""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import reduce
from operator import getitem, itemgetter
from typing import Any
from urllib.parse import urlsplit

from storage.archive.object_store import ObjectStore
from storage.archive.record import SCHEMA
from storage.ledger.job_numbers import first_number
from storage.ledger.schema import deliveries, jobs, outputs
from storage.ledger.search_index import fold
from storage.models import JobError, JobRequest, JobResult, Status
from tests.jobs.test_invariants import rows
from tests.support.ledgers import add_job
from tests.support.live import IMAGEN, ULTRA, Live, Start
from tests.support.sandbox import mend

Record = Mapping[str, Any]


def _ms(at: str | None) -> int | None:
    return None if at is None else round(datetime.fromisoformat(at).timestamp() * 1000)


JOBS: dict[str, Callable[[Record], Any]] = {
    "id": lambda record: record["job"]["id"],
    "number": lambda record: first_number(_ms(record["job"]["moves"][0]["at"]) or 0),
    "gateway": lambda record: record["job"]["gateway"],
    "status": lambda record: record["job"]["status"],
    "idempotency_key": lambda record: record["job"]["idempotency_key"],
    "request_sha256": lambda record: record["job"]["request_sha256"],
    "model": lambda record: record["request"]["asked"]["model"],
    "prompt": lambda record: record["request"]["asked"]["prompt"],
    "prompt_folded": lambda record: fold(record["request"]["asked"]["prompt"]),
    "negative_prompt": lambda record: record["request"]["asked"]["negative_prompt"],
    "aspect_ratio": lambda record: record["request"]["asked"]["aspect_ratio"],
    "num_images": lambda record: record["request"]["asked"]["num_images"],
    "seed": lambda record: record["seed"]["requested"],
    "params": lambda record: record["request"]["asked"]["params"],
    "tags": lambda record: record["job"]["tags"],
    "ignored": lambda record: record["request"]["asked"]["ignored"],
    "gateway_job_id": lambda record: record["job"]["gateway_job_id"],
    "gateway_request_id": lambda record: next(iter(record["evidence"]["gateway_request_ids"]), None),
    "callback_expected": lambda record: record["evidence"]["callback_expected"],
    "sent": lambda record: record["request"]["sent"],
    "result_model": lambda record: record["result"]["model_reported"],
    "result_seed": lambda record: record["seed"]["returned"],
    "echoed_seed": lambda record: record["seed"]["echoed"],
    "credits": lambda record: record["result"]["credits"],
    "credits_estimated": lambda record: record["result"]["credits_estimated"],
    "images_returned": lambda record: record["result"]["images_returned"],
    "withheld": lambda record: record["result"]["withheld"] or None,
    "credits_before": lambda record: record["result"]["credits_before"],
    "credits_before_estimated": lambda record: record["result"]["credits_before_estimated"],
    "reply": lambda record: record["result"]["reply"],
    "found_by": lambda record: record["evidence"]["found_by"],
    "error_code": lambda record: (record["result"]["missing"] or {"code": None})["code"],
    "error_message": lambda record: (record["result"]["missing"] or {"message": None})["message"],
    "error_at_fault": lambda record: (record["result"]["missing"] or {"at_fault": None})["at_fault"],
    "created_at": lambda record: _ms(record["job"]["moves"][0]["at"]),
    "updated_at": lambda record: _ms(record["job"]["moves"][-1]["at"]),
    "moves": lambda record: [[move["status"], _ms(move["at"])] for move in record["job"]["moves"]],
    "attempt_log": lambda record: [
        [one["step"], one["code"], one["message"], _ms(one["first_at"]), _ms(one["last_at"]), one["times"]]
        for one in record["job"]["attempts"]
    ],
    "request_id": lambda record: record["job"]["request_id"],
    "submission": lambda record: record["job"]["submission"],
    "submission_at": lambda record: _ms(record["job"]["submitted_at"]),
    "ready_at": lambda record: _ms(record["job"]["moves"][-2]["at"]),
    "records": lambda record: record["number"],
}
"""How each column of `jobs` is had from a record; its `number` is the one in its key."""

LEFT_OUT: dict[str, Any] = {
    "images": [],  # links to fetch from, which a job that is over has no use for
    "error_details": None,  # only refusals have them, and a job that was refused has no record
    # Told in part only, because its path and query may hold a secret: scheme and host are in the record, and
    # the digest of the request is of all of it. A job that is retried after a rebuild notifies nobody.
    "notify_url": None,
    "poll_url": None,  # a job that is over is polled where the gateway's table says
    "called_off_at": None,  # it is archived all the same, because it was finished before
    "attempts": 0,  # of the step at hand: none, once a job is over
    "next_attempt_at": None,  # the same
    "leased_by": None,  # the same
    "leased_until": None,  # the same
}
"""The columns that no record has, or not whole: what a rebuilt job has there, and why."""

OUTPUTS: dict[str, Callable[[Record, Record], Any]] = {
    "job_id": lambda record, _: record["job"]["id"],
    "downloaded_at": lambda _, one: _ms(one["downloaded_at"]),
    "stored_at": lambda _, one: _ms(one["stored_at"]),
    # What is missing from the bucket, the bucket itself says.
    "missing_since": lambda *_: None,
    **{
        name: lambda _, one, name=name: one[name]  # type: ignore[misc]
        for name in (
            "index", "key", "sha256", "bytes", "media_type", "declared_type", "width", "height", "seed",
            "source_url", "version_id",
        )
    },
}  # fmt: skip


DELIVERIES: dict[str, Callable[[Record, Record], Any]] = {
    "job_id": lambda record, _: record["job"]["id"],
    "gateway": lambda record, _: record["job"]["gateway"],
    "received_at": lambda _, one: _ms(one["received_at"]),
    "id": lambda _, one: one["id"],
    "body_sha256": lambda _, one: one["body_sha256"],
    "signature": lambda _, one: one["signature"],
    "effect": lambda _, one: one["effect"],
}
LEFT_TO_THE_LEDGER = {"headers", "body", "applied_at"}
"""What a record has only the digest of: what gateways say in private, as they say it."""

TOLD_BESIDES = (
    ("supersedes",),
    ("seed", "supported"),
    ("result", "model_requested"),
    ("evidence", "confirmed_by"),
)
"""What only the record tells, or tells once more; readers may rely on it."""


def _latest_records(store: ObjectStore, prefix: str) -> Iterator[Record]:
    """The latest record of every job, by nothing but the bucket and its fixed place in it."""
    latest: dict[str, tuple[int, str]] = {}
    for stored in store.list(prefix):
        job_id, _, which = stored.key.rpartition("/")[2].removesuffix(".json").partition(".")
        latest[job_id] = max(latest.get(job_id, (0, "")), (int(which or 1), stored.key))
    for number, key in latest.values():
        yield {**json.loads(store.read(key, max_bytes=1_000_000)), "number": number}


def _without_secrets(row: dict[str, Any], record: Record) -> None:
    """Take out what must not be in the bucket: the path and query of the address that is to be notified."""
    url = row.pop("notify_url")
    assert record["job"]["notify_url"] == (url and "{0.scheme}://{0.netloc}".format(urlsplit(url)))
    row["notify_url"] = LEFT_OUT["notify_url"]


def _within_the_closing_step(row: dict[str, Any], rebuilt: dict[str, Any]) -> None:
    """Take out what the record cannot know: it is written a moment before the move that closes the job."""
    assert 0 <= row.pop("updated_at") - rebuilt.pop("updated_at") < 10_000
    for moves in (row["moves"], rebuilt["moves"]):
        moves[-1].pop()
    if row["status"] == "partial":
        # The last look for the images that are missing is noted together with that move.
        for log in (row["attempt_log"], rebuilt["attempt_log"]):
            log[-1] = log[-1][:2]


def assert_rebuilt(live: Live, prefix: str) -> list[dict[str, Any]]:
    """Compare every column of every job and output with what the bucket says of it; answers all values."""
    records = sorted(_latest_records(live.bucket.store, prefix), key=lambda record: str(record["job"]["id"]))
    database = live.service.resources.database
    from_bucket = [LEFT_OUT | {name: read(record) for name, read in JOBS.items()} for record in records]
    ours = rows(database, jobs)
    for row, rebuilt, record in zip(ours, from_bucket, records, strict=True):
        _within_the_closing_step(row, rebuilt)
        _without_secrets(row, record)
        assert row == rebuilt
    images = [
        {name: read(record, one) for name, read in OUTPUTS.items()}
        for record in records
        for one in record["outputs"]
    ]
    assert rows(database, outputs) == images
    seen = [
        {name: read(record, one) for name, read in DELIVERIES.items()}
        for record in records
        for one in record["evidence"]["deliveries"]
    ]
    known = [
        {name: row[name] for name in row.keys() - LEFT_TO_THE_LEDGER} for row in rows(database, deliveries)
    ]
    assert sorted(seen, key=itemgetter("id")) == sorted(known, key=itemgetter("id"))
    for record in records:
        assert record["schema"] == SCHEMA
        for path in TOLD_BESIDES:
            reduce(getitem, path, record)
    for image in images:
        assert live.bucket.store.digest(image["key"]) == (image["sha256"], image["bytes"])
    return [*ours, *images]


def test_8_the_ledger_follows_from_the_bucket_alone(start: Start) -> None:
    """8: the ledger can be rebuilt from the bucket alone, whatever the template of image keys.

    Upheld by `record_document` (storage/archive/record.py): every field that is read here; and by
    `Keys.record` (storage/archive/keys.py): its fixed place. A new column must be in a record too, or be left
    out for a reason. A job without a record, because it failed or is not over, is not in the bucket.
    """
    assert JOBS.keys() | LEFT_OUT.keys() == set(jobs.columns.keys())
    assert OUTPUTS.keys() == set(outputs.columns.keys())
    assert DELIVERIES.keys() | LEFT_TO_THE_LEDGER == set(deliveries.columns.keys())
    s3 = {"bucket": f"t-{secrets.token_hex(6)}", "prefix": "team/"}
    same: dict[str, Any] = {"s3": s3, "key_template": "art/{tag:for}/{sha256}-{job_id}-{index}.{ext}"}
    idle = start(work=False, **same)
    job_id = _everything_asked(idle)
    live = start(gateways={"replicate": idle.sandbox.settings()["replicate"]}, **same)
    assert live.finish(job_id)["status"] == "partial"
    tagged = {"tags": {"for": "rebuild"}}
    fault = {"fault": "lost_answer+withheld_image", "times": 1}
    one = live.make(ULTRA, seed=7, num_images=2, **tagged, fault=fault)
    another = live.make(IMAGEN, **tagged)
    model = "black-forest-labs/flux-schnell"
    echoing = live.make({"gateway": "replicate", "model": model, "prompt": "a kite"}, seed=7, **tagged)
    assert one["status"] == another["status"] == echoing["status"] == "archived"
    values = assert_rebuilt(live, "team/records/")
    mend(live.sandbox, live.job(job_id).gateway_job_id or "")
    live.parts.retrier.retry(job_id)
    live.parts.worker.wake()
    assert live.finish(job_id)["status"] == "archived"
    values += assert_rebuilt(live, "team/records/")
    assert {row.get("credits_before") for row in values} == {None, 0, 12.5}
    told = {name for row in values for name, value in row.items() if value not in (None, [], {})}
    assert {*JOBS, *OUTPUTS} - told == {"updated_at", "version_id", "missing_since"}, (
        "each was something once"
    )
    assert max(row.get("records", 0) for row in values) == 2


def _everything_asked(idle: Live) -> str:
    """A job that was asked for with all that there is, and is on its second submission."""
    ledger, job_id = idle.service.resources.ledger, "01a201ee-0000-7000-8000-000000000000"
    request = JobRequest(
        model="imagen4-ultra",
        prompt="A Bowl of ÄPFEL",
        negative_prompt="chopsticks",
        aspect_ratio="16:9",
        num_images=3,
        seed="12345",
        params={"sandbox": "partial_images"},
        tags={"for": "rebuild"},
        ignored=("strength",),
    )
    url = "https://me.invalid/hooks/T0/secret?key=one"
    more = {"idempotency_key": "k", "notify_url": url, "request_id": "r-1"}
    add_job(ledger, job_id, "api-in-one", request, **more)
    (job,) = ledger.claim("test", 1)
    job = ledger.move(job, Status.SUBMITTING, "test", keep_lease=True)
    error = JobError("generation_failed", "No.", "gateway")
    result = JobResult(credits=12.5, credits_estimated=True)
    ledger.move(job, Status.FAILED, "test", error=error, result=result)
    idle.parts.retrier.retry(job_id, resubmit=True)
    return job_id
