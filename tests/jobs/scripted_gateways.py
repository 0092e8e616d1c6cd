"""Both gateways' wire protocols behind an HTTP client, and a server of their images, as a test wants them."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any, Literal

import httpx
from itsdangerous.encoding import base64_decode
from PIL import Image

from tests.support.raw_server import Script, reply

KEYS = {"apiframe": "afk_scripted", "api-in-one": "aio_scripted"}
MODELS = {"apiframe": "imagen-4", "api-in-one": "imagen4-ultra"}
PATHS = {"apiframe": "/v2/images/generate", "api-in-one": "/api/v1/images/generations"}

Gone = Literal["there", "404", "403", "500", "text", "cut"]
State = Literal["running", "succeeded", "failed"]
Kind = Literal["progress", "completed", "failed", "empty", "nameless"]


class Manner(StrEnum):
    """How an exchange with a gateway goes."""

    WELL = "well"
    UNREACHABLE = "unreachable"
    """The request never arrives."""
    LOST = "lost"
    """It is done, and the answer never comes."""
    CUT = "cut"
    """It is done, and the connection breaks in the answer."""
    GARBLED = "garbled"
    """It is done, and the answer cannot be read."""
    BROKEN = "broken"
    """Nothing is done: 500."""
    BROKEN_LATE = "broken late"
    """It is done: 500."""
    DOWN = "down"
    """Nothing is done: 503."""
    BUSY = "busy"
    """Nothing is done: 429."""
    LOCKED = "locked"
    """Nothing is done: 401."""
    POOR = "poor"
    """Nothing is done: 402."""
    REFUSED = "refused"
    """Nothing is done: a submission is wrong, a job is not known."""


DONE = frozenset({Manner.WELL, Manner.LOST, Manner.CUT, Manner.GARBLED, Manner.BROKEN_LATE})
CERTAINLY_NOT = frozenset({Manner.UNREACHABLE, Manner.BUSY, Manner.LOCKED, Manner.POOR, Manner.REFUSED})
"""After these even a sender that must never send twice may send again."""
STATUSES = {
    Manner.BROKEN: 500,
    Manner.BROKEN_LATE: 500,
    Manner.DOWN: 503,
    Manner.BUSY: 429,
    Manner.LOCKED: 401,
    Manner.POOR: 402,
}


@dataclass
class Theirs:
    id: str
    gateway: str
    prompt: str
    images: int
    callback_url: str | None
    submission: int
    state: State = "running"
    pictures: dict[int, Gone] = field(default_factory=dict)
    """How each image can be had; what is not named is there."""

    def bytes_of(self, index: int) -> bytes:
        return picture(f"{self.id}/{index}")


@lru_cache(maxsize=4096)
def picture(name: str) -> bytes:
    """A small PNG that is another one for each name."""
    file = io.BytesIO()
    Image.frombytes("RGB", (4, 2), hashlib.sha256(name.encode()).digest()[:24]).save(file, "PNG")
    return file.getvalue()


class ScriptedGateways(httpx.BaseTransport):
    """Takes the requests of a `Sender`'s client; `manner` is how it treats them."""

    def __init__(self, images_url: str) -> None:
        self.images_url = images_url
        self.manner = Manner.WELL
        self.jobs: dict[str, Theirs] = {}
        self.arrived: Counter[tuple[str, str, int]] = Counter()
        """By gateway, prompt and submission: requests that may have been taken, for all that their sender
        can know."""
        self.keys: dict[str, tuple[bytes, Theirs]] = {}
        """Apiframe's idempotency keys, each with the body that it came with and the job it stands for."""
        self.contradictions: list[str] = []
        self.between: Callable[[str], None] = lambda _where: None
        """Called before a request is treated, and after that, before its answer goes back."""
        self.submission_of: Callable[[str], int] = lambda _prompt: 1
        """Which submission of a job is under way; asked where there is no callback URL that says it."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        manner = self.manner
        self.between("request")
        if manner is Manner.UNREACHABLE:
            raise httpx.ConnectError("scripted", request=request)
        answer = self._treat(request, manner)
        self.between("answer")
        if manner is Manner.LOST:
            raise httpx.ReadTimeout("scripted", request=request)
        if manner is Manner.CUT:
            raise httpx.RemoteProtocolError("scripted", request=request)
        if manner is Manner.GARBLED:
            return httpx.Response(200, content=b"<html>Welcome</html>")
        if manner in STATUSES:
            headers = {"retry-after": "7"} if manner is Manner.BUSY else {}
            return httpx.Response(STATUSES[manner], json={"error": manner}, headers=headers)
        return answer

    def _treat(self, request: httpx.Request, manner: Manner) -> httpx.Response:
        path = request.url.path
        if request.method == "POST":
            gateway = next(name for name, ours in PATHS.items() if ours == path)
            return self._submit(gateway, request, manner)
        if path == "/v2/jobs":
            jobs = [self._shown(job) for job in self.jobs.values() if job.gateway == "apiframe"]
            return httpx.Response(200, json={"jobs": jobs, "hasMore": False})
        job = self.jobs.get(path.rpartition("/")[2])
        if job is None or manner is Manner.REFUSED:
            return httpx.Response(404, json={"code": 404, "message": "no such job", "data": None})
        return httpx.Response(200, json=self._shown(job))

    def _submit(self, gateway: str, request: httpx.Request, manner: Manner) -> httpx.Response:
        body = json.loads(request.content)
        url = body.get("webhookUrl" if gateway == "apiframe" else "callback_url")
        submission = self.submission_of(body["prompt"]) if url is None else _submission(url)
        key = request.headers.get("idempotency-key", "")
        known = self.keys.get(key)
        if known is not None:
            if known[0] != request.content:
                self.contradictions.append(f"{key} came with another body")
                return httpx.Response(409, json={"error": "another body"})
            return self._taken(known[1])
        if manner not in CERTAINLY_NOT:
            self.arrived[gateway, body["prompt"], submission] += 1
        if manner is Manner.REFUSED:
            return httpx.Response(422, json={"error": "the model does not exist"})
        if manner not in DONE:
            return httpx.Response(500)
        job = Theirs(
            id=f"{gateway[:6]}-{len(self.jobs) + 1}",
            gateway=gateway,
            prompt=body["prompt"],
            images=_images(body["prompt"]),
            callback_url=url,
            submission=submission,
        )
        self.jobs[job.id] = job
        if gateway == "apiframe":
            self.keys[key] = (request.content, job)
        return self._taken(job)

    def _taken(self, job: Theirs) -> httpx.Response:
        if job.gateway == "apiframe":
            return httpx.Response(200, json={"jobId": job.id, "status": "QUEUED"})
        data = {"task_id": job.id, "status": "IN_PROGRESS"}
        return httpx.Response(200, json={"code": 200, "message": "success", "data": data})

    def _shown(self, job: Theirs) -> dict[str, Any]:
        kind: dict[str, Kind] = {"running": "progress", "succeeded": "completed", "failed": "failed"}
        body: dict[str, Any] = json.loads(self.told(job, kind[job.state]))
        return {**body, "id": job.id} if job.gateway == "apiframe" else body

    def told(self, job: Theirs, kind: Kind) -> bytes:
        """What a callback says of a job; `nameless` does not say which job it is."""
        links = [f"{self.images_url}/{job.id}/{index}?key=k" for index in range(job.images)]
        if job.gateway == "apiframe":
            status = {"progress": "PROCESSING", "failed": "FAILED"}.get(kind, "COMPLETED")
            body: dict[str, Any] = {"event": kind, "jobId": job.id, "status": status, "model": "imagen-4"}
            if status == "COMPLETED":
                body["result"] = {"images": [] if kind == "empty" else links}
            return json.dumps(body).encode()
        status = {"progress": "IN_PROGRESS", "failed": "failed"}.get(kind, "completed")
        data: dict[str, Any] = {"task_id": job.id, "status": status, "error": None}
        if kind == "nameless":
            del data["task_id"]
        if status == "completed":
            data["output"] = {"image_urls": [] if kind == "empty" else links}
        return json.dumps({"code": 200, "message": "success", "data": data}).encode()

    def scripts(self) -> Pictures:
        return Pictures(self)


class Pictures(dict[str, "Script | bytes"]):
    """The answers of the server of images, made when they are asked for."""

    def __init__(self, gateways: ScriptedGateways) -> None:
        super().__init__()
        self._gateways = gateways

    def __missing__(self, path: str) -> bytes:
        _, name, index = path.split("/")
        job = self._gateways.jobs[name]
        how, data = job.pictures.get(int(index), "there"), job.bytes_of(int(index))
        if how == "text":
            return reply(b"no image at all", Content_Type="image/png")
        if how == "cut":
            return reply(data[:-20], length=len(data))
        if how != "there":
            return reply(status=f"{how} Scripted")
        return reply(data, Content_Type="image/png")


def signature(body: bytes) -> dict[str, str]:
    key = hashlib.sha256(KEYS["apiframe"].encode()).digest()
    return {"x-webhook-signature": f"sha256={hmac.new(key, body, hashlib.sha256).hexdigest()}"}


def _submission(callback_url: str) -> int:
    payload = json.loads(base64_decode(callback_url.rpartition("/")[2].split(".")[0]))
    return int(payload[2]) if len(payload) > 2 else 1


def _images(prompt: str) -> int:
    """How many images are made: the last word of a prompt says it."""
    return int(prompt.rpartition(" ")[2])
