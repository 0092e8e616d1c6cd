"""Provide the typed HTTP client of a running Darkroom, for the commands and any Python program.

Errors:

ClientError
├── ApiError      the service responded with an error; `code` says which
├── Unreachable   no response, or not one of Darkroom
└── Damaged       a download's bytes are not those of the archive; nothing was kept
"""

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
from receiver.client.http import Http, given
from receiver.schemas.batch import Batch, BatchResult
from receiver.schemas.job import Job, OutputShown
from receiver.schemas.notification import Notification, NotificationTest
from receiver.schemas.offers import Models
from receiver.schemas.output import Output
from receiver.schemas.status import Gateways, ServiceStatus
from receiver.schemas.usage import Facets, Usage

DEFAULT_URL = "http://127.0.0.1:8321"
HELD_S = 30.0
"""How long one of the requests of `wait` is held."""
MOST_TEST_S = 120.0
"""The most that DARKROOM_NOTIFY__TIMEOUT lets an application take."""
MOST_THUMBNAIL = 1024 * 1024
"""The most bytes of a thumbnail."""


class Darkroom:
    """A running Darkroom, over its HTTP API.

        with Darkroom() as darkroom:
            job = darkroom.submit(gateway="apiframe", model="imagen-4-fast", prompt="a red kite")
            job = darkroom.wait(job.id, timeout_s=120)
            for output in darkroom.search(job=job.id):
                print(darkroom.download(output, "pictures"))

    Every method raises ApiError for an error response, and Unreachable without a response. An id may be given
    by its beginning, 8 characters or more; if several have it, ApiError has the code `ambiguous_id`.
    Thread-safe.
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
        on_hint: Callable[[str], None] = lambda _hint: None,
    ) -> None:
        """`token` is one of DARKROOM_API_TOKENS, without its name and scope; `client` stays the caller's.

        `page_size`: how many rows one request of a list returns, 500 at most. `timeout_s`: of a response,
        beyond a requested wait. `retry_delays_s`: a broken download or stream of events is retried after
        each of these waits. `on_hint` is called with each hint on what of a search may be mistyped.
        """
        self._http = Http(url, token, client, on_hint, timeout_s=timeout_s, page_size=page_size)
        self.url = self._http.url
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
        """Submit a job; it is in the ledger once this returns, and sent to its gateway soon after.

        The same request with the same `idempotency_key` returns the existing job. `notify_url` is notified
        when the job finishes: None leaves that to the service's settings, and "" means nowhere.
        """
        body = given(
            gateway=gateway,
            model=model,
            prompt=prompt,
            negative_prompt=negative_prompt,
            aspect_ratio=aspect_ratio,
            num_images=num_images,
            seed=seed,
            params=dict(params or {}),
            tags=dict(tags or {}),
            unsupported=unsupported,
            notify_url=notify_url,
        )
        headers = given(**{"idempotency-key": idempotency_key})
        return self._http.resource(Job, "POST", "/v1/jobs", json=body, headers=headers)

    def submit_batch(
        self, jobs: Sequence[Mapping[str, Any]], *, dry_run: bool = False
    ) -> tuple[BatchResult, ...]:
        """Submit up to 100 jobs in one request; returns the result of each, in order.

            imagen = {"gateway": "apiframe", "model": "imagen-4-fast"}
            for result in darkroom.submit_batch([imagen | {"prompt": prompt} for prompt in prompts]):
                print(result.job.id if result.job else result.problem.detail)

        Each is a mapping with the arguments of `submit`. One that is refused has a `problem`, and does not
        stop the others. `dry_run` only judges them: nothing is created.
        """
        rows = [given(**job) for job in jobs]
        sent = {"jobs": rows, "dry_run": dry_run}
        found = self._http.resource(Batch, "POST", "/v1/jobs/batch", json=sent).results
        if len(found) != len(rows):
            raise self._http.stranger()
        return found

    def job(self, job_id: str, wait: float = 0) -> Job:
        """Return one job, once it is finished or `wait` seconds have passed (60 at most)."""
        query = {"wait": wait} if wait else {}
        path = f"/v1/jobs/{quote(job_id, safe='')}"
        return self._http.resource(Job, "GET", path, params=query, held_s=wait)

    def wait(self, job_id: str, timeout_s: float) -> Job:
        """Return one job once it is finished, or as it is after `timeout_s` seconds: look at `finished`."""
        deadline = monotonic() + timeout_s
        while True:
            job = self.job(job_id, wait=max(0.0, min(HELD_S, deadline - monotonic())))
            if job.finished or monotonic() >= deadline:
                return job

    def cancel(self, job_id: str) -> Job:
        """Cancel a job that was not sent yet; ApiError has the code `not_cancellable` if it may have been."""
        return self._http.resource(Job, "POST", f"/v1/jobs/{quote(job_id, safe='')}/cancel")

    def retry(self, job_id: str, *, resubmit: bool = False) -> Job:
        """Retry a failed, partial or cancelled job: ask its gateway for the result again.

        `resubmit` sends it to the gateway again, which may be charged again. ApiError has the code
        `needs_resubmit` if only that can help, and `not_retryable` if nothing can.
        """
        path = f"/v1/jobs/{quote(job_id, safe='')}/retry"
        return self._http.resource(Job, "POST", path, json={"resubmit": resubmit})

    def jobs(self, *, limit: int | None = None, **filters: str | None) -> Iterator[Job]:
        """List jobs, `limit` at most, newest first; the filters are those of `GET /v1/jobs`."""
        return self._http.pages("jobs", Job, limit, **filters)

    def search(
        self, q: str | None = None, *, limit: int | None = None, **filters: str | None
    ) -> Iterator[Output]:
        """Search archived images, `limit` at most, those of the newest job first.

            darkroom.search('kite "red sky" -blurry model:imagen4 since:7d', limit=10)
            darkroom.search(sha256="1017830d...", **{"tag.campaign": "menu"})

        `q` is the query language; the filters are those of `GET /v1/outputs`, and all must hold.
        """
        return self._http.pages("outputs", Output, limit, q=q, **filters)

    def facets(self, q: str | None = None, **filters: str | None) -> Facets:
        """Count what `search` finds with the same query and filters: by gateway, model, day and tag."""
        return self._http.resource(Facets, "GET", "/v1/facets", params=given(q=q, **filters))

    def output(self, output_id: str) -> OutputShown:
        """Return one output, with the `job` that made it."""
        return self._http.resource(OutputShown, "GET", _path(output_id))

    def notifications(self, *, limit: int | None = None, **filters: str | None) -> Iterator[Notification]:
        """List notifications of the newest job first, by the filters of `GET /v1/notifications`."""
        return self._http.pages("notifications", Notification, limit, **filters)

    def notification(self, notification_id: str) -> Notification:
        """Return one notification, by the id that its messages have in `webhook-id`."""
        path = f"/v1/notifications/{quote(notification_id, safe='')}"
        return self._http.resource(Notification, "GET", path)

    def replay(self, notification_id: str) -> Notification:
        """Send a notification again, delivered or not; the count of tries starts over."""
        path = f"/v1/notifications/{quote(notification_id, safe='')}/replay"
        return self._http.resource(Notification, "POST", path)

    def test_notification(self, url: str | None = None) -> NotificationTest:
        """Send a test notification, by default to DARKROOM_NOTIFY__URL of the service."""
        path, sent = "/v1/notifications/test", given(url=url)
        return self._http.resource(NotificationTest, "POST", path, json=sent, held_s=MOST_TEST_S)

    def status(self) -> ServiceStatus:
        """Return the job counts, in total and by gateway."""
        return self._http.resource(ServiceStatus, "GET", "/v1/status")

    def models(self, gateway: str | None = None) -> Models:
        """Return the known models of all gateways, or of one, with what each takes and costs."""
        return self._http.resource(Models, "GET", "/v1/models", params=given(gateway=gateway))

    def gateways(self) -> Gateways:
        """Return the circuit breakers of the gateways and their image hosts."""
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
        """Add up credits, jobs and images: by gateway, or by `by`, or by the values of a `tag`.

            for model, spent in darkroom.usage(by="model", since="7d").groups:
                print(model, spent.credits, spent.jobs)

        Without `since` it is today and the 29 days before; a year is the most.
        """
        query = given(by=by, tag=tag, gateway=gateway, since=since, until=until, limit=limit)
        return self._http.resource(Usage, "GET", "/v1/usage", params=query)

    def link(self, output_id: str) -> str:
        """Return a fresh presigned link to an output's image, which works for a while without a token."""
        with self._http.open(f"{_path(output_id)}/image") as response:
            return response.headers["location"]

    @contextmanager
    def image(self, output_id: str) -> Iterator[Iterator[bytes]]:
        """Open an output's bytes, piece by piece; `download` also verifies them.

        with darkroom.image(output.id) as pieces, open("kite.png", "wb") as file:
            file.writelines(pieces)
        """
        with self._http.open(f"{_path(output_id)}/image?stream=1") as response:
            yield response.iter_bytes()

    def record(self, output_id: str) -> Mapping[str, Any]:
        """Return the record of the job that made an output, as it is in the bucket."""
        return self._http.read(_record, self._http.ask("GET", f"{_path(output_id)}/record"))

    def thumbnail(self, output_id: str) -> bytes:
        """Return an output's thumbnail in WebP; ApiError has the code `no_thumbnail` if none can be made."""
        return self._http.small(f"{_path(output_id)}/thumbnail", MOST_THUMBNAIL)

    def events(
        self, since: str | None = None, *, job: str | None = None, gateway: str | None = None
    ) -> Iterator[Event]:
        """Yield events from now on: status changes of jobs, and archived outputs.

            for event in darkroom.events():
                print(event.kind, event.data)

        `since` is the `id` of an event: those after it come first; an event `reset` means that some of them
        are missing. A broken connection is resumed after the last event, with retries; then Unreachable is
        raised. It never ends by itself.
        """
        return listen(self._http, since, self._patience, job=job, gateway=gateway)

    def download(
        self,
        output: Output,
        folder: str | Path,
        *,
        name: str | Path | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> Path:
        """Download an output's image to `<folder>/<output id>.<extension>`, and return that path.

        The file appears complete or not at all, after its SHA-256 was verified; raises Damaged otherwise, and
        OSError if it cannot be written. A file with the right digest is kept; any other of that name is
        replaced. A broken connection is resumed, with retries; what was received stays in a hidden file
        beside it, and the next call continues it.

        `name` is a path below `folder` to use instead; raises FileExistsError if another file has it.
        `on_bytes` is called with the length of each piece, first with that of an earlier call; a negative
        length takes back what must be downloaded again.
        """
        path = Path(folder) / (output.file_name if name is None else _below(name))
        if path.is_file() and digest_of(path) == output.sha256:
            return path
        if name is not None and path.exists():
            raise FileExistsError(f"{path} is there already, and is another file")
        path.parent.mkdir(parents=True, exist_ok=True)
        counted = on_bytes or (lambda _length: None)
        fetch(self._http, output, path, on_bytes=counted, patience=self._patience, over=name is None)
        return path


def _path(output_id: str) -> str:
    return f"/v1/outputs/{quote(output_id, safe='')}"


def _record(record: Any) -> Mapping[str, Any]:
    return record if record["schema"] and record["outputs"] else {}


def _below(name: str | Path) -> Path:
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise ValueError(f"{name} does not lie below the folder")
    return path
