"""The typed HTTP client of a running Darkroom; the commands use it, and so may any Python program.

Errors:

ClientError
├── ApiError      the service answered, and refused; `code` says why
├── Unreachable   no answer, or not one of Darkroom
└── Damaged       a download's bytes are not those of the archive; nothing was kept
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any, Literal, Self
from urllib.parse import quote

import httpx

from receiver.client.download import Patience, digest_of, fetch
from receiver.client.events import Event, listen
from receiver.client.http import Http, Value
from receiver.schemas.job import Job
from receiver.schemas.notification import Notification
from receiver.schemas.output import Output
from receiver.schemas.status import Gateways, ServiceStatus
from receiver.schemas.usage import Facets, Usage

DEFAULT_URL = "http://127.0.0.1:8321"
HELD_S = 30.0
"""How long one request is held while waiting for a job; `wait` sends as many as it takes."""

MOST_THUMBNAIL = 1024 * 1024
"""Bytes of a thumbnail; they are small, so more is not one."""


class Darkroom:
    """A running Darkroom, over its HTTP API.

        with Darkroom() as darkroom:
            job = darkroom.submit(gateway="apiframe", model="imagen-4-fast", prompt="a red kite")
            job = darkroom.wait(job.id, timeout_s=120)
            for output in darkroom.search(job=job.id):
                print(darkroom.download(output, "pictures"))

    Every method raises ApiError if the service refuses, and Unreachable if it cannot be reached. Threads
    may share one.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        token: str | None = None,
        *,
        client: httpx.Client | None = None,
        page_size: int = 100,
        timeout_s: float = 30,
        retry_delays_s: Sequence[float] = (0.5, 1, 2),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`token` is one of DARKROOM_API_TOKENS, without its name and scope; `client` stays the caller's.

        `page_size`: how many jobs or outputs one request asks for, 500 at most. `timeout_s`: how
        long an answer may take, beyond what was asked to be waited for. `retry_delays_s`: a broken
        download or stream of events goes on after each of these waits, and fails after the last.
        """
        self._http = Http(url, token, client, timeout_s=timeout_s)
        self.url = self._http.url
        self._page_size = page_size
        self._patience = Patience(retry_delays_s, sleep)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, unless the HTTP client was passed in."""
        self._http.close()

    def submit(
        self,
        *,
        gateway: str,
        model: str,
        prompt: str,
        negative_prompt: str | None = None,
        aspect_ratio: str | None = None,
        num_images: int | None = None,
        seed: str | int | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        unsupported: Literal["refuse", "ignore"] = "refuse",
        notify_url: str | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Submit a job; it is safe in the ledger once this returns, and sent to its gateway soon after.

        The same `idempotency_key` with the same request answers the job that is there already. `notify_url`
        is where to tell once it is over; None leaves that to the service's settings, and "" means nowhere.
        """
        asked = {
            "gateway": gateway,
            "model": model,
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "aspect_ratio": aspect_ratio,
            "num_images": num_images,
            "seed": seed,
            "params": dict(params or {}),
            "tags": dict(tags or {}),
            "unsupported": unsupported,
            "notify_url": notify_url,
        }
        body = {name: value for name, value in asked.items() if value is not None}
        headers = {} if idempotency_key is None else {"idempotency-key": idempotency_key}
        return self._http.resource(Job, "POST", "/v1/jobs", json=body, headers=headers)

    def job(self, job_id: str, wait: float = 0) -> Job:
        """Show one job, once it is finished or `wait` seconds have passed (60 at most)."""
        query = {"wait": wait} if wait else {}
        path = f"/v1/jobs/{quote(job_id, safe='')}"
        return self._http.resource(Job, "GET", path, params=query, held_s=wait)

    def wait(self, job_id: str, timeout_s: float) -> Job:
        """Show one job once it is finished, or as it is after `timeout_s` seconds: look at `finished`."""
        deadline = monotonic() + timeout_s
        while True:
            job = self.job(job_id, wait=max(0.0, min(HELD_S, deadline - monotonic())))
            if job.finished or monotonic() >= deadline:
                return job

    def retry(self, job_id: str, *, resubmit: bool = False) -> Job:
        """Put a failed or partial job back to work: its gateway is asked for the result again.

        With `resubmit` it is sent to the gateway once more, which may be charged once more. ApiError has the
        code `needs_resubmit` where nothing else could help, and `not_retryable` where nothing can.
        """
        path = f"/v1/jobs/{quote(job_id, safe='')}/retry"
        return self._http.resource(Job, "POST", path, json={"resubmit": resubmit})

    def jobs(self, *, limit: int | None = None, **filters: str | None) -> Iterator[Job]:
        """List jobs, newest first: `gateway`, `model`, `q`, `status`, `code`, `since`, `until`, or
        `**{"tag.x": "y"}`.

        `limit` is how many to answer in all; pages are asked for as they are needed.
        """
        return self._pages("jobs", Job, limit, filters)

    def search(
        self, q: str | None = None, *, limit: int | None = None, **filters: str | None
    ) -> Iterator[Output]:
        """Find archived images; those of the newest job first.

            darkroom.search('kite "red sky" -blurry model:imagen4 since:7d', limit=10)
            darkroom.search(sha256="1017830d...", **{"tag.campaign": "menu"})

        `q` is the query language; the filters are those of `GET /v1/outputs`, and all must hold. `limit` is
        how many to answer in all; pages are asked for as they are needed.
        """
        return self._pages("outputs", Output, limit, {"q": q, **filters})

    def facets(self, q: str | None = None, **filters: str | None) -> Facets:
        """Count what `search` finds with the same words and filters: by gateway, model, day and tag."""
        query = {name: value for name, value in {"q": q, **filters}.items() if value is not None}
        return self._http.resource(Facets, "GET", "/v1/facets", params=query)

    def output(self, output_id: str) -> Output:
        """Show one output; `raw` has the job that made it."""
        return self._http.resource(Output, "GET", _path(output_id))

    def notifications(self, *, limit: int | None = None, **filters: str | None) -> Iterator[Notification]:
        """List notifications, of the newest job first: `job`, `state` (owed, delivered or
        given_up), `since`.
        """
        return self._pages("notifications", Notification, limit, filters)

    def replay(self, notification_id: str) -> Notification:
        """Send a notification again, delivered or not; the count of tries starts over."""
        path = f"/v1/notifications/{quote(notification_id, safe='')}/replay"
        return self._http.resource(Notification, "POST", path)

    def status(self) -> ServiceStatus:
        """Return the job counts, in total and by gateway."""
        return self._http.resource(ServiceStatus, "GET", "/v1/status")

    def gateways(self) -> Gateways:
        """Show how the gateways are, and the hosts of their images."""
        return self._http.resource(Gateways, "GET", "/v1/gateways")

    def usage(
        self,
        *,
        by: Literal["gateway", "model", "day", "tag"] | None = None,
        tag: str | None = None,
        gateway: str | None = None,
        since: str | None = None,
        until: str | None = None,
        limit: int | None = None,
    ) -> Usage:
        """Add up credits, jobs and images: by gateway, or as `by` says, or by the values of a `tag`.

            for model, spent in darkroom.usage(by="model", since="7d").groups:
                print(model, spent.credits, spent.jobs)

        Without `since` it is today and the 29 days before; a year is the most.
        """
        asked = {"by": by, "tag": tag, "gateway": gateway, "since": since, "until": until, "limit": limit}
        query = {name: value for name, value in asked.items() if value is not None}
        return self._http.resource(Usage, "GET", "/v1/usage", params=query)

    def link(self, output_id: str) -> str:
        """A fresh presigned link to an output's image; anybody who has it can read the image for a while."""
        with self._http.open(f"{_path(output_id)}/image") as response:
            return response.headers["location"]

    @contextmanager
    def image(self, output_id: str) -> Iterator[Iterator[bytes]]:
        """Open an output's bytes, piece by piece; their digest is the caller's to check.

            with darkroom.image(output.id) as pieces, open("kite.png", "wb") as file:
                file.writelines(pieces)

        Use `download` for a checked file.
        """
        with self._http.open(f"{_path(output_id)}/image?stream=1") as response:
            yield response.iter_bytes()

    def record(self, output_id: str) -> Mapping[str, Any]:
        """The record of the job that made an output, as it is in the bucket."""
        return self._http.read(_record, self._http.ask("GET", f"{_path(output_id)}/record"))

    def thumbnail(self, output_id: str) -> bytes:
        """An output's thumbnail, in WebP; ApiError has the code `no_thumbnail` where none can be made."""
        return self._http.small(f"{_path(output_id)}/thumbnail", MOST_THUMBNAIL)

    def events(
        self, since: str | None = None, *, job: str | None = None, gateway: str | None = None
    ) -> Iterator[Event]:
        """What happens from now on, as it happens: jobs that move, outputs that are archived.

            for event in darkroom.events():
                print(event.kind, event.data)

        Of one job or one gateway only, if they are given. It never ends by itself. `since` is the `id` of
        an event: what came after it comes first; an event `reset` means that not all of that is known any
        more. A broken connection is taken up again after the last event, and Unreachable is raised if that
        does not help.
        """
        return listen(self._http, since, {"job": job, "gateway": gateway}, self._patience)

    def download(
        self,
        output: Output,
        folder: str | Path,
        *,
        name: str | Path | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> Path:
        """Write an output's image to `<folder>/<output id>.<extension>`, and answer where it is.

        The file appears whole or not at all, after its SHA-256 was found to be the archive's; raises
        Damaged otherwise, and OSError if it cannot be written. A file with the right digest that is there
        already stays, and nothing is fetched; any other file of that name is replaced.

        If the connection breaks, it asks for the rest, a few times; what came stays in a hidden file beside
        it, and the next call goes on from there. `name` is a path below `folder` to use instead; another
        file that has it is not replaced, and FileExistsError is raised. `on_bytes` is called with the
        length of each piece; what was there of an earlier call comes as one piece, and a negative length
        takes back what has to be fetched again.
        """
        path = Path(folder) / (output.file_name if name is None else _below(name))
        if path.is_file() and digest_of(path) == output.sha256:
            return path
        if name is not None and path.exists():
            raise FileExistsError(f"{path} is there already, and is another file")
        path.parent.mkdir(parents=True, exist_ok=True)
        told = on_bytes or (lambda _length: None)
        fetch(self._http, output, path, on_bytes=told, patience=self._patience, over=name is None)
        return path

    def _pages(
        self, name: str, kind: type[Value], limit: int | None, filters: Mapping[str, str | None]
    ) -> Iterator[Value]:
        return self._http.pages(name, kind, limit=limit, filters=filters, page_size=self._page_size)


def _path(output_id: str) -> str:
    return f"/v1/outputs/{quote(output_id, safe='')}"


def _record(record: Any) -> Mapping[str, Any]:
    return record if record["schema"] and record["outputs"] else {}


def _below(name: str | Path) -> Path:
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise ValueError(f"{name} does not lie below the folder")
    return path
