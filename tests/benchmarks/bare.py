"""What callbacks are measured beside: `python -m tests.benchmarks.bare PORT [LEDGER]`.

Without a ledger uvicorn and Starlette with a route that reads the body and answers 204, and nothing else.
With one, what a user would write by hand: itsdangerous verifies the token, json reads the body, and one
durable insert a request keeps it in SQLite. It checks no signature, and has no limits, redaction or metrics.
"""

import hashlib
import json
import sys
import threading
import time
from collections.abc import Awaitable, Callable

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

BEGIN = """
PRAGMA journal_mode=WAL;
PRAGMA synchronous=FULL;
CREATE TABLE IF NOT EXISTS deliveries(job TEXT, sha256 TEXT, body BLOB, at REAL, PRIMARY KEY(job, sha256));
"""


async def bare(request: Request) -> Response:
    await request.body()
    return Response(status_code=204)


async def ready(_request: Request) -> Response:
    return Response("ready")


def by_hand(ledger: str) -> Callable[[Request], Awaitable[Response]]:
    # Imported here, because the bare route's memory and start are measured too.
    import sqlite3

    from itsdangerous import URLSafeTimedSerializer

    from receiver.callbacks.tokens import SALT
    from tests.benchmarks.ledgers import LIFETIME_S, SECRET_KEY

    tokens = URLSafeTimedSerializer(SECRET_KEY, SALT, signer_kwargs={"digest_method": hashlib.sha256})
    mine = threading.local()

    def keep(job: str, body: bytes) -> bool:
        if not hasattr(mine, "ledger"):
            mine.ledger = sqlite3.connect(ledger, timeout=30, isolation_level=None)
            mine.ledger.executescript(BEGIN)
        row = job, hashlib.sha256(body).hexdigest(), body, time.time()
        added = mine.ledger.execute("INSERT OR IGNORE INTO deliveries VALUES (?, ?, ?, ?)", row)
        return bool(added.rowcount)

    async def take(request: Request) -> Response:
        _, job = tokens.loads(request.path_params["token"], max_age=LIFETIME_S)
        body = await request.body()
        json.loads(body)
        new = await run_in_threadpool(keep, job, body)
        return JSONResponse({"status": "accepted" if new else "duplicate"})

    return take


def main() -> None:
    port, *ledger = sys.argv[1:]
    take = by_hand(*ledger) if ledger else bare
    routes = [Route("/callbacks/{gateway}/{token:path}", take, methods=["POST"]), Route("/readyz", ready)]
    uvicorn.run(Starlette(routes=routes), port=int(port), access_log=False, log_config=None)


if __name__ == "__main__":
    main()
