"""The tenth invariant: no stored field, log line, metric or page holds a secret or opens anything."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import httpx

from receiver.embedded import EmbeddedS3
from receiver.sandbox import SandboxServer
from tests.live import IMAGEN, ULTRA
from tests.processes import environment, free_port, serving
from tests.services import S3Access
from tests.test_callbacks import completed, signed

PRESIGNED = "the-life-of-a-link"
"""The signature in the query of the presigned links that the gateways below name."""


class Parrot(BaseHTTPRequestHandler):
    """A gateway that refuses every submission, and repeats in its answer all that came with it."""

    heard: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        """Refuse."""
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.heard.append(asked)
        told = f"refused: {dict(self.headers)} {asked} https://cdn.example/1.png?X-Amz-Signature={PRESIGNED}"
        body = json.dumps({"code": 400, "message": told, "error": {"message": told, **asked}}).encode()
        self.send_response(400)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def parrot() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Parrot) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _until_running(http: httpx.Client, job_id: str) -> str:
    for _ in range(200):
        job = http.get(f"/v1/jobs/{job_id}", params={"wait": 0.05}).json()
        if job["status"] == "running":
            return str(job["gateway_job_id"])
    raise AssertionError(job)


def _echoing(http: httpx.Client, sandbox: SandboxServer, name: str) -> str:
    """A job whose callback repeats the URL that it is sent to, our keys, and links with signatures."""
    job_id = str(http.post("/v1/jobs", json={**IMAGEN, "params": {"sandbox": "no_callback"}}).json()["id"])
    theirs = sandbox.wait(_until_running(http, job_id))
    assert theirs.callback_url is not None
    query = f"?X-Amz-Signature={PRESIGNED}"
    echo = f"sent to {theirs.callback_url} with afk_sandbox; see https://cdn.example/log{query}"
    image = theirs.images[0] if name == "archived" else "http://10.1.2.3/1.png"
    told = json.loads(completed(theirs.id, image + query)) | {"log": echo, "webhookUrl": theirs.callback_url}
    if name == "said no":
        told |= {"status": "FAILED", "event": "failed", "error": echo}
    body = json.dumps(told).encode()
    headers = signed(body) | {"x-webhook-note": echo, "user-agent": echo[:200]}
    assert http.post(theirs.callback_url, content=body, headers=headers).status_code == 200
    return job_id


def _everything_told(http: httpx.Client) -> dict[str, str]:
    """Every page of the API, and how each job and output is shown."""
    ids = {
        name: [one["id"] for one in http.get(f"/v1/{name}", params={"limit": 500}).json()[name]]
        for name in ("jobs", "outputs")
    }
    paths = ["/v1/jobs", "/v1/outputs", "/v1/books", "/v1/gateways", "/metrics", "/readyz", "/healthz"]
    paths += [f"/v1/{name}/{one}" for name, every in ids.items() for one in every]
    return {path: http.get(path).text for path in (*paths, "/openapi.json")}


def test_10_nothing_that_is_kept_or_shown_holds_a_secret_a_live_token_or_a_presigned_link(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path: Path
) -> None:
    """10: no stored field, log line, metric or page holds a secret, a live callback token, a presigned link.

    Upheld by `Redactor` (receiver/redaction.py) wherever something is kept: `sent` and `_not_taken` in
    receiver/submit.py, `_result` and `_failure` in receiver/reconcile.py, `kept` and `_kept` in
    receiver/callbacks.py, `source_url` and `_reason` in receiver/collect.py, every line in receiver/logs.py;
    by `scrub` and `_insert` (storage/deliveries.py) and `moving` (storage/moves.py): once a job is over,
    links lose their queries, or go; and by `Edge` (receiver/edge.py): the log has no token of a path.
    """
    token = "a-token-of-the-api-itself"
    with parrot() as url:
        variables = environment(
            s3_server, sandbox, tmp_path, free_port(),
            DARKROOM_API_TOKENS=f"me:admin:{token}", DARKROOM_LOG_LEVEL="debug",
            DARKROOM_GATEWAYS__API_IN_ONE__BASE_URL=url,
        )  # fmt: skip
        bearer = {"authorization": f"Bearer {token}"}
        with (
            serving(variables, tmp_path) as process,
            httpx.Client(base_url=process.url, headers=bearer, trust_env=False, timeout=40) as http,
        ):
            ids = [_echoing(http, sandbox, name) for name in ("archived", "said no", "forbidden image")]
            ids.append(str(http.post("/v1/jobs", json=ULTRA).json()["id"]))
            ended = [http.get(f"/v1/jobs/{job_id}", params={"wait": 30}).json() for job_id in ids]
            link = http.get(f"/v1/outputs/{ids[0]}.0/image").headers["location"]
            places = {path: text.encode() for path, text in _everything_told(http).items()}
            assert process.terminate()[0] == 0
    errors = [job["error"] and job["error"]["code"] for job in ended]
    assert errors == [None, "generation_failed", "forbidden_address", "gateway_refused"]
    places["log"] = process.log.read_bytes()
    places |= {path.name: path.read_bytes() for path in (tmp_path / "data").glob("ledger.sqlite3*")}
    store = S3Access(s3_server.endpoint, s3_server.access_key, s3_server.secret_key).open(
        bucket=variables["DARKROOM_S3__BUCKET"]
    )
    for stored in store.list(""):
        places[stored.key] = (
            store.read(stored.key, max_bytes=1_000_000) + repr(store.head(stored.key)).encode()
        )
    told = b"".join(places.values())
    assert told.count(b"[removed]") > 20, "what is looked for was there to be taken out"
    assert all(job_id.encode() in places[place] for job_id in ids for place in ("log", "ledger.sqlite3"))

    (asked,) = Parrot.heard
    callback_urls = [
        asked["callback_url"],
        *(report.callback_url for report in sandbox.jobs() if report.callback_url),
    ]
    live = [one.rpartition("/")[2] for one in callback_urls if str(variables["DARKROOM_PORT"]) in one]
    assert len(live) == len(ids)
    secret = {
        "afk_sandbox", "aio_sandbox", s3_server.secret_key, token, PRESIGNED,
        (tmp_path / "data" / "secret-key").read_text().strip(),
        link.partition("X-Amz-Signature=")[2].partition("&")[0],
        *live, *(one.partition(".")[0] for one in live),
    }  # fmt: skip
    assert all(len(one) > 10 for one in secret)
    assert [(place, one) for place, kept in places.items() for one in secret if one.encode() in kept] == []
