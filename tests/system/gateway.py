"""Stand in for Apiframe: take jobs over HTTP, send signed callbacks on demand, and serve images."""

import hashlib
import hmac
import io
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import httpx
from PIL import Image

API_KEY = "afk_system_test"


@dataclass
class Taken:
    number: int
    callback_url: str
    image: bytes
    done: bool = False
    downloading: threading.Event = field(default_factory=threading.Event)
    """Set once somebody asks for the image."""
    downloadable: threading.Event = field(default_factory=threading.Event)
    """The image is held back until this is set."""


class Gateway:
    """Serves as long as its block lasts."""

    def __init__(self) -> None:
        self._jobs: list[Taken] = []
        self._changed = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"gateway": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        for job in self._jobs:
            job.downloadable.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def taken(self) -> int:
        return len(self._jobs)

    def job(self, number: int) -> Taken:
        """Wait for the job of that number, from 0."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._jobs) > number, 20), "no such job came"
            return self._jobs[number]

    def take(self, body: dict[str, Any]) -> Taken:
        """Take a job; its image is like no other."""
        with self._changed:
            number = len(self._jobs)
            self._jobs.append(Taken(number, body["webhookUrl"], _png(number)))
            self._changed.notify_all()
            return self._jobs[number]

    def said_of(self, job: Taken) -> dict[str, Any]:
        """Return what a callback or a poll says of a job."""
        theirs = f"job-{job.number}"
        if not job.done:
            return {"id": theirs, "jobId": theirs, "status": "PROCESSING"}
        result = {"images": [f"{self.url}/images/{job.number}.png"]}
        return {"id": theirs, "jobId": theirs, "status": "COMPLETED", "creditCost": 4, "result": result}

    def complete(self, number: int, *, to: str | None = None, hold_image: bool = False) -> httpx.Response:
        """Finish a job and send its callback, to another URL if one is given."""
        job = self.job(number)
        job.done = True
        if not hold_image:
            job.downloadable.set()
        body = json.dumps({"event": "completed", **self.said_of(job)}).encode()
        digest = hmac.new(hashlib.sha256(API_KEY.encode()).digest(), body, hashlib.sha256).hexdigest()
        headers = {"content-type": "application/json", "x-webhook-signature": f"sha256={digest}"}
        return httpx.post(to or job.callback_url, content=body, headers=headers, trust_env=False)


class _Handler(BaseHTTPRequestHandler):
    gateway: Gateway

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.headers["x-api-key"] != API_KEY:
            return self._answer(401, "application/json", b'{"error": "no such key"}')
        job = self.gateway.take(body)
        answer = {"jobId": f"job-{job.number}", "status": "QUEUED"}
        return self._answer(202, "application/json", json.dumps(answer).encode())

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2].removesuffix(".png").removeprefix("job-")
        if not name.isdigit():
            return self._answer(200, "application/json", b'{"jobs": []}')
        job = self.gateway.job(int(name))
        if not self.path.startswith("/images/"):
            return self._answer(200, "application/json", json.dumps(self.gateway.said_of(job)).encode())
        job.downloading.set()
        job.downloadable.wait(60)
        return self._answer(200, "image/png", job.image)

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        try:
            self.send_response(status)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:
            pass  # the process that asked was killed

    def log_message(self, *_: object) -> None:
        pass


def _png(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (number * 40 % 256, 90, 160)).save(file, "PNG")
    return file.getvalue()
