"""The tenth invariant: no stored field, log line, metric or page holds a secret or opens anything."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.sandbox import SandboxServer
from tests.callbacks.test_callbacks import completed, signed
from tests.support.live import IMAGEN, ULTRA
from tests.support.processes import MIB, environment, free_port, serving
from tests.support.sandbox import connect, take
from tests.support.services import S3Access

PRESIGNED = "the-life-of-a-link"
"""The signature in the query of the presigned links that the gateways below name."""
QUERY = f"?X-Amz-Signature={PRESIGNED}"
KEYS = "afk_sandbox aio_sandbox"
TAKEN = {
    "taken, without an answer": "n1_silent",
    "taken, and fails": "n2_fails",
    "taken, and made": "n3_made",
}
"""The prompts that the gateway below takes, and its ids of those tasks."""


class Parrot(BaseHTTPRequestHandler):
    """A gateway, and a host of images, that repeats whatever it knows and should not say.

    It refuses every prompt that it does not know.
    """

    protocol_version = "HTTP/1.1"
    heard: ClassVar[list[dict[str, Any]]] = []
    """The submissions."""
    picture: ClassVar[bytes] = b""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.heard.append(asked)
        if (task := TAKEN.get(asked["prompt"])) is not None:
            self._answer(200, {"code": 200, "data": {"task_id": task}})
        else:
            told = self._told(asked)
            self._answer(400, {"code": 400, "message": told, "asked": [told], **asked})

    def do_GET(self) -> None:
        """Be an image that is there, gone or too large; or say how a task is, or that nobody knows."""
        here = f"http://{self.headers['host']}"
        task = {"task_id": self.path.rpartition("/")[2]}
        told = self._told(self.heard[-1] if self.heard else {})
        if self.path.startswith("/there/"):
            self._send(200, self.picture)
        elif self.path.startswith("/large/"):
            self._send(200, bytes(2 * MIB))
        elif self.path.endswith("n2_fails"):
            self._answer(200, {"code": 200, "data": task | {"status": "failed", "error": told}})
        elif self.path.endswith("n3_made"):
            images = [f"{here}/{name}/afk_sandbox/1.jpg{QUERY}" for name in ("there", "large")]
            self._answer(200, {"code": 200, "data": task | {"status": "completed", "images": images}})
        else:
            self._answer(404 if self.path.startswith("/gone/") else 500, {"message": told})

    def _told(self, asked: dict[str, Any]) -> str:
        return f"{KEYS}: {asked.get('callback_url')} https://cdn.example/1.png{QUERY} {dict(self.headers)}"

    def _answer(self, status: int, answer: dict[str, Any]) -> None:
        self._send(status, json.dumps(answer).encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        with suppress(ConnectionError):  # who finds it too large does not read on
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def parrot(picture: bytes) -> Iterator[tuple[str, type[Parrot]]]:
    class Ours(Parrot):
        heard: ClassVar[list[dict[str, Any]]] = []

    Ours.picture = picture
    with ThreadingHTTPServer(("127.0.0.1", 0), Ours) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", Ours
        finally:
            server.shutdown()
            thread.join()


def _await(http: httpx.Client, job_id: str, done: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    job: dict[str, Any] = {}
    for _ in range(400):
        job = http.get(f"/v1/jobs/{job_id}", params={"wait": 0.05}).json()
        if done(job):
            return job
    raise AssertionError(job)


def _submit(http: httpx.Client, body: dict[str, Any]) -> str:
    answer = http.post("/v1/jobs", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def _echoing(http: httpx.Client, sandbox: SandboxServer, image: str | None) -> str:
    """A job whose callback repeats the URL that it is sent to, our keys, and links with signatures.

    It names an image, or says that the job failed. Another one comes when the job is over.
    """
    job_id = _submit(http, {**IMAGEN, "params": {"sandbox": "no_callback"}})
    theirs = sandbox.wait(str(_await(http, job_id, lambda job: job["status"] == "running")["gateway_job_id"]))
    assert theirs.callback_url is not None
    echo = f"{KEYS} see https://cdn.example/log{QUERY}, sent to {theirs.callback_url}"
    link = (image or theirs.images[0]) + QUERY
    told = json.loads(completed(theirs.id, link)) | {"log": echo, "url": theirs.callback_url}
    if image is None:
        told |= {"status": "FAILED", "event": "failed", "error": echo}
    for late in (False, True):
        body = json.dumps(told | {"late": late}).encode()
        headers = signed(body) | {"x-webhook-note": echo, "user-agent": echo[:200]}
        assert http.post(theirs.callback_url, content=body, headers=headers).status_code == 200
        _await(http, job_id, lambda job: job["status"] in {"archived", "failed"})
    return job_id


def _asked_about(http: httpx.Client, heard: list[dict[str, Any]], prompt: str) -> str:
    """A job about which its gateway is asked, because of a callback that is no proof."""
    job_id = _submit(http, ULTRA | {"prompt": prompt})
    _await(http, job_id, lambda job: job["status"] == "running")
    hint = json.dumps({"code": 200, "data": {"task_id": TAKEN[prompt], "status": "completed"}})
    assert http.post(heard[-1]["callback_url"], content=hint).status_code == 200
    _await(http, job_id, lambda job: job["error"])
    return job_id


def _everything_told(http: httpx.Client) -> dict[str, str]:
    ids = {
        name: [one["id"] for one in http.get(f"/v1/{name}", params={"limit": 500}).json()[name]]
        for name in ("jobs", "outputs")
    }
    paths = ["/v1/jobs", "/v1/outputs", "/v1/status", "/v1/gateways", "/metrics", "/readyz", "/healthz"]
    paths += [f"/v1/{name}/{one}" for name, every in ids.items() for one in every]
    paths += [f"/v1/outputs/{one}/{what}" for one in ids["outputs"] for what in ("record", "thumbnail")]
    return {path: http.get(path).text for path in (*paths, "/openapi.json")}


@pytest.mark.exhaustive
def test_10_nothing_kept_or_shown_holds_a_secret(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path: Path
) -> None:
    """10: no stored field, log line, metric or page holds a secret, a live callback token, a presigned link.

    Upheld by `Redactor` (receiver/redaction.py) wherever something is kept: in receiver/jobs/submit.py
    `sent`, `_not_taken` and `_details`; in receiver/jobs/reconcile.py `_result`, `_failure` and
    `_unanswered`; in receiver/callbacks/endpoint.py `kept` and `_kept`; in receiver/jobs/archive.py
    `_note`, `_reason` and `_attempt`; in receiver/jobs/circuit_breaker.py the message of a circuit; in
    receiver/telemetry/logs.py every line. And by `scrub` and `_insert` (storage/ledger/deliveries.py) and
    `columns_of_move` (storage/ledger/transitions.py): once a job is over, links lose their queries, or go.
    What adapters do to gateways' words, and receiver/http/middleware.py to paths, comes on top of that.
    """
    token = "a-token-of-the-api-itself"
    picture = sandbox.image_bytes(_made(sandbox))
    with parrot(picture) as (url, gateway):
        variables = environment(
            s3_server, sandbox, tmp_path, free_port(),
            DARKROOM_API_TOKENS=f"me:admin:{token}", DARKROOM_LOG_LEVEL="debug",
            DARKROOM_GATEWAYS__API_IN_ONE__BASE_URL=url, DARKROOM_DOWNLOAD__MAX_BYTES=str(MIB),
        )  # fmt: skip
        bearer = {"authorization": f"Bearer {token}"}
        with (
            serving(variables, tmp_path) as process,
            httpx.Client(base_url=process.url, headers=bearer, trust_env=False, timeout=40) as http,
        ):
            images = [f"{url}/{name}/aio_sandbox/1.jpg" for name in ("there", "gone", "large")]
            ids = [_echoing(http, sandbox, image) for image in (*images, None)]
            ids.append(_submit(http, ULTRA))
            _await(http, ids[-1], lambda job: job["status"] == "failed")
            ids += [_asked_about(http, gateway.heard, prompt) for prompt in TAKEN]
            ended = [http.get(f"/v1/jobs/{job_id}").json() for job_id in ids]
            link = http.get(f"/v1/outputs/{ids[0]}.0/image").headers["location"]
            places = {path: text.encode() for path, text in _everything_told(http).items()}
            assert process.terminate()[0] == 0
    assert [job["error"] and job["error"]["code"] for job in ended] == [
        None, None, "image_too_large", "generation_failed", "gateway_refused", "gateway_unavailable",
        "generation_failed", "image_too_large",
    ]  # fmt: skip
    places["log"] = process.log.read_bytes()
    places |= {path.name: path.read_bytes() for path in (tmp_path / "data").glob("ledger.sqlite3*")}
    bucket = variables["DARKROOM_S3__BUCKET"]
    store = S3Access(s3_server.endpoint, s3_server.access_key, s3_server.secret_key).open(bucket=bucket)
    for stored in store.list(""):
        kept = store.read(stored.key, max_bytes=MIB) + repr(store.head(stored.key)).encode()
        places[stored.key] = kept
    assert sum(kept.count(b"[removed]") for kept in places.values()) > 20, "it was there to be taken out"
    assert all(job_id.encode() in places[place] for job_id in ids for place in ("log", "ledger.sqlite3"))

    urls = [asked["callback_url"] for asked in gateway.heard]
    urls += [report.callback_url for report in sandbox.jobs() if report.callback_url]
    live = [one.rpartition("/")[2] for one in urls if f":{variables['DARKROOM_PORT']}/" in one]
    assert len(live) == len(ids)
    secret = {
        *KEYS.split(), s3_server.secret_key, token, PRESIGNED,
        (tmp_path / "data" / "secret-key").read_text().strip(),
        link.partition("X-Amz-Signature=")[2].partition("&")[0],
        *live, *(one.partition(".")[0] for one in live),
    }  # fmt: skip
    assert all(len(one) > 10 for one in secret)
    assert [(place, one) for place, kept in places.items() for one in secret if one.encode() in kept] == []


def _made(sandbox: SandboxServer) -> str:
    with connect(sandbox, x_api_key="afk_sandbox") as client:
        theirs = take(client)
    return sandbox.wait(theirs).id
