"""Jobs that a gateway is at work on, written straight into a ledger, and the callbacks that end them.

Real ones: each job has its row, its place in the counts and in the search index; each callback has a valid
token and Apiframe's own signature.
"""

import hashlib
import hmac
import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import uuid_utils
from sqlalchemy import RowMapping, func, insert, select, update

from receiver.callbacks.tokens import CallbackTokens
from receiver.schedule import system_clock
from storage.ledger import job_counts
from storage.ledger.database import Database
from storage.ledger.job_numbers import first_number
from storage.ledger.job_writer import new_job, request_digest
from storage.ledger.schema import BEGUN, accepted, jobs
from storage.ledger.search_index import index_job, pieces_of
from storage.models import JobRequest, Status

GATEWAY = "apiframe"
API_KEY = "afk_sandbox"
SECRET_KEY = "0123456789abcdef0123456789abcdef"
LIFETIME_S = 172_800
LATER_MS = 24 * 3600 * 1000
"""When a job is asked about of which no callback came: not while anything is measured."""
BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Begun:
    """A job that its gateway has taken, or has finished."""

    id: str
    theirs: str
    """Its id at the gateway."""
    link: str
    """Where its image is, or will be."""


def begin(database: Database, links: Sequence[str], *, ready: bool = False) -> list[Begun]:
    """Put a job for each link into a ledger: running at its gateway or, if `ready`, finished there."""
    now = system_clock()
    begun = [Begun(str(uuid_utils.uuid7()), str(uuid.uuid4()), link) for link in links]
    for at in range(0, len(begun), BATCH):
        with database.write() as connection:
            for n, job in enumerate(begun[at : at + BATCH], start=at):
                row = _row(job, n, now, ready=ready)
                connection.execute(insert(jobs).values(row))
                index_job(connection, cast("RowMapping", row), pieces_of(row["prompt_folded"]))
            job_counts.count_accepted(connection, GATEWAY)
            page = update(accepted).where(accepted.c.gateway == GATEWAY)
            more = len(begun[at : at + BATCH]) - 1
            connection.execute(page.values(jobs=accepted.c.jobs + more))
    return begun


def unfinished(database: Database) -> int:
    with database.read() as connection:
        return connection.scalar(select(func.count()).select_from(jobs).where(BEGUN)) or 0


def finish(database: Database) -> None:
    """Have every unfinished job be over, so that what is measured next finds nothing to do."""
    over = {"status": Status.FAILED, "next_attempt_at": None, "leased_by": None, "leased_until": None}
    with database.write() as connection:
        connection.execute(update(jobs).where(BEGUN).values(over | {"error_code": "benchmark_over"}))


def callbacks(port: int, begun: Iterable[Begun]) -> list[bytes]:
    """The request by which the gateway says of each job that it is done."""
    tokens = CallbackTokens([SECRET_KEY], max_age_s=LIFETIME_S, clock=system_clock)
    return [_request(port, tokens.make(GATEWAY, job.id), completed(job)) for job in begun]


def repeated(requests: Sequence[bytes], every: int) -> list[bytes]:
    """The same, with each so-manieth sent twice: half of those at once, and half a good while later."""
    found: list[bytes] = []
    for n, request in enumerate(requests):
        found.append(request)
        if n % (2 * every) == 0:
            found.append(request)
        if n % (2 * every) == every:
            found.append(requests[n - n // 2])
    return found


def completed(job: Begun) -> bytes:
    told = {
        "event": "completed",
        "jobId": job.theirs,
        "status": "COMPLETED",
        "progress": 100,
        "result": {"images": [job.link]},
        "model": "imagen-4-fast",
        "creditCost": 4,
        "completedAt": "2026-11-22T10:00:09.000Z",
    }
    return json.dumps(told).encode()


def _request(port: int, token: str, body: bytes) -> bytes:
    mac = hmac.digest(hashlib.sha256(API_KEY.encode()).digest(), body, "sha256")
    head = (
        f"POST /callbacks/{GATEWAY}/{token} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
        "content-type: application/json\r\nuser-agent: Apiframe/2\r\nx-webhook-event: completed\r\n"
        f"x-webhook-signature: sha256={mac.hex()}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _row(job: Begun, n: int, now: int, *, ready: bool) -> dict[str, Any]:
    request = JobRequest(
        model="imagen-4-fast",
        prompt=f"a sleek silver sports car on a coastal highway at sunset, take {n}",
        params={"image_size": "1K", "output_format": "png"},
        tags={"campaign": f"c{n % 50}"},
    )
    steps = [Status.QUEUED, Status.SUBMITTING, Status.RUNNING, *([Status.READY] if ready else [])]
    row = new_job(job.id, GATEWAY, request, now) | {
        "number": first_number(now) + n,
        "request_sha256": request_digest(GATEWAY, request, None),
        "status": steps[-1],
        "gateway_job_id": job.theirs,
        "callback_expected": True,
        "sent": {"model": request.model, "prompt": request.prompt},
        "next_attempt_at": now if ready else now + LATER_MS,
        "submission_at": now,
        "moves": [[status, now] for status in steps],
    }
    if ready:
        done = {"ready_at": now, "images": [{"url": job.link, "seed": None}], "found_by": "callback"}
        row |= done | {"result_model": request.model, "credits": 4.0}
    return row
