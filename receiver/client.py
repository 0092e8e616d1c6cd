"""The typed HTTP client of a running Darkroom; the commands use it, and so may any Python program.

Errors:

ClientError
├── ApiError      the service answered, and refused; `code` says why
├── Unreachable   nobody answered, or not as Darkroom does
└── Damaged       a download's bytes are not those of the archive; nothing was kept
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import IO, Any, Literal, Self, TypeVar
from urllib.parse import quote

import httpx

from receiver.replies import (
    Books,
    Gateways,
    Job,
    Notification,
    Output,
    to_books,
    to_gateways,
    to_job,
    to_notification,
    to_output,
)

DEFAULT_URL = "http://127.0.0.1:8321"
HELD_S = 30.0
"""How long one request is held while waiting for a job; `wait` sends as many as it takes."""

UNSENDABLE = "The token, the idempotency key or a text has characters that cannot be sent."

Value = TypeVar("Value")


class ClientError(Exception):
    """Root of what this client raises; `str(error)` says what happened, for a person to read."""


class ApiError(ClientError):
    """The service refused: `code` is its short word for why, `faults` name each field that is wrong."""

    def __init__(self, code: str, detail: str, status: int, faults: Sequence[Mapping[str, str]] = ()) -> None:
        self.code = code
        self.detail = detail
        self.status = status
        self.faults = [dict(fault) for fault in faults]
        super().__init__(detail)


class Unreachable(ClientError):
    """Nobody answered at that address, or what answered is not Darkroom."""


class Damaged(ClientError):
    """The bytes that came are not those that the archive holds; nothing was kept of them."""


class Darkroom:
    """A running Darkroom, over its HTTP API.

        with Darkroom() as darkroom:
            job = darkroom.submit(gateway="apiframe", model="imagen-4-fast", prompt="a red kite")
            job = darkroom.wait(job.id, timeout_s=120)
            for output in darkroom.outputs(job=job.id):
                print(darkroom.download(output, "pictures"))

    Every method raises ApiError if the service refuses, and Unreachable if it cannot be reached.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        token: str | None = None,
        *,
        client: httpx.Client | None = None,
        page_size: int = 100,
    ) -> None:
        """`token` is one of DARKROOM_API_TOKENS, without its name and scope; `client` stays the caller's.

        `page_size`: how many jobs or outputs one request asks for, 500 at most.
        """
        self.url = url.rstrip("/")
        self._headers = {"authorization": f"Bearer {token.strip()}"} if token else {}
        self._page_size = page_size
        self._own = client is None
        # A proxy from the environment cannot reach this machine's own loopback.
        self._client = client or httpx.Client(trust_env=not _loopback(self.url))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, unless the HTTP client was passed in."""
        if self._own:
            self._client.close()

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
        return self._read(to_job, self._ask("POST", "/v1/jobs", json=body, headers=headers))

    def job(self, job_id: str, wait: float = 0) -> Job:
        """Show one job, once it is finished or `wait` seconds have passed (60 at most)."""
        query = {"wait": wait} if wait else {}
        path = f"/v1/jobs/{quote(job_id, safe='')}"
        return self._read(to_job, self._ask("GET", path, params=query, timeout_s=wait + 30))

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
        return self._read(to_job, self._ask("POST", path, json={"resubmit": resubmit}))

    def jobs(self, *, limit: int | None = None, **filters: str | None) -> Iterator[Job]:
        """List jobs, newest first: `gateway`, `model`, `q`, `status`, `code`, `since`, `until`, or
        `**{"tag.x": "y"}`.

        `limit` is how many to answer in all; pages are asked for as they are needed.
        """
        return self._pages("jobs", to_job, limit, filters)

    def outputs(self, *, limit: int | None = None, **filters: str | None) -> Iterator[Output]:
        """Search outputs, those of the newest job first; filters as in `jobs`, and `sha256`."""
        return self._pages("outputs", to_output, limit, filters)

    def output(self, output_id: str) -> Output:
        """Show one output; `raw` has the job that made it."""
        return self._read(to_output, self._ask("GET", _path(output_id)))

    def notifications(self, *, limit: int | None = None, **filters: str | None) -> Iterator[Notification]:
        """List what applications were told, of the newest job first: `job`, `state` (owed, delivered or
        given_up), `since`.
        """
        return self._pages("notifications", to_notification, limit, filters)

    def replay(self, notification_id: str) -> Notification:
        """Send a notification again, whatever became of it, with its tries counted anew."""
        path = f"/v1/notifications/{quote(notification_id, safe='')}/replay"
        return self._read(to_notification, self._ask("POST", path))

    def books(self) -> Books:
        """Show the books."""
        return self._read(to_books, self._ask("GET", "/v1/books"))

    def gateways(self) -> Gateways:
        """Show how the gateways are, and the hosts of their images."""
        return self._read(to_gateways, self._ask("GET", "/v1/gateways"))

    def link(self, output_id: str) -> str:
        """A fresh presigned link to an output's image; anybody who has it can read the image for a while."""
        with self._open(f"{_path(output_id)}/image") as response:
            return response.headers["location"]

    @contextmanager
    def image(self, output_id: str) -> Iterator[Iterator[bytes]]:
        """Open an output's bytes, piece by piece; their digest is the caller's to check.

            with darkroom.image(output.id) as pieces, open("kite.png", "wb") as file:
                file.writelines(pieces)

        Use `download` for a checked file.
        """
        with self._open(f"{_path(output_id)}/image?stream=1") as response:
            yield response.iter_bytes()

    def download(
        self, output: Output, folder: str | Path, *, on_bytes: Callable[[int], None] | None = None
    ) -> Path:
        """Write an output's image to `<folder>/<output id>.<extension>`, and answer where it is.

        The file appears whole or not at all, after its SHA-256 was found to be the archive's; raises
        Damaged otherwise, and OSError if it cannot be written. A file with the right digest that is there
        already stays, and nothing is fetched; any other file of that name is replaced. `on_bytes` is called
        with the length of each piece.
        """
        path = Path(folder) / output.file_name
        if path.is_file() and _digest(path) == output.sha256:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            with draft.open("xb") as file:
                self._fetch(output, file, on_bytes or (lambda _length: None))
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        return path

    def _fetch(self, output: Output, file: IO[bytes], on_bytes: Callable[[int], None]) -> None:
        digest = hashlib.sha256()
        with self.image(output.id) as pieces:
            for piece in pieces:
                file.write(piece)
                digest.update(piece)
                on_bytes(len(piece))
        file.flush()
        if (came := digest.hexdigest()) != output.sha256:
            raise Damaged(f"{output.id}: what came has SHA-256 {came}, but {output.sha256} was archived.")

    def _pages(
        self, name: str, read: Callable[[Any], Value], left: int | None, filters: Mapping[str, str | None]
    ) -> Iterator[Value]:
        query: dict[str, Any] = {key: value for key, value in filters.items() if value is not None}
        while left is None or left > 0:
            query["limit"] = self._page_size if left is None else min(self._page_size, left)
            page = self._ask("GET", f"/v1/{name}", params=query)
            rows = self._read(lambda page: page[name], page)
            for row in rows:
                yield self._read(read, row)
            left = None if left is None else left - len(rows)
            query["cursor"] = page.get("next_cursor")
            if not query["cursor"]:
                return

    def _ask(self, method: str, path: str, *, timeout_s: float = 30, **request: Any) -> Any:
        headers = self._headers | request.pop("headers", {})
        try:
            response = self._client.request(
                method,
                self.url + path,
                headers=headers,
                timeout=httpx.Timeout(timeout_s, connect=10),
                follow_redirects=False,
                **request,
            )
        except (httpx.LocalProtocolError, UnicodeEncodeError):
            # Their own words would show the token.
            raise ApiError("invalid_request", UNSENDABLE, 422) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from error
        if not response.is_success:
            raise self._refusal(response)
        try:
            return response.json()
        except ValueError:
            raise self._stranger() from None

    @contextmanager
    def _open(self, path: str) -> Iterator[httpx.Response]:
        try:
            with self._client.stream(
                "GET", self.url + path, headers=self._headers, follow_redirects=False, timeout=60
            ) as response:
                if response.is_error:
                    response.read()
                    raise self._refusal(response)
                yield response
        except httpx.LocalProtocolError:
            raise ApiError("invalid_request", UNSENDABLE, 422) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from error

    def _read(self, read: Callable[[Any], Value], view: Any) -> Value:
        try:
            return read(view)
        except (KeyError, TypeError, AttributeError):
            raise self._stranger() from None

    def _refusal(self, response: httpx.Response) -> ClientError:
        try:
            told, status = response.json(), response.status_code
            return ApiError(str(told["code"]), str(told["detail"]), status, told.get("faults", ()))
        except (ValueError, KeyError, TypeError, AttributeError):
            return self._stranger(f" (it said {response.status_code})")

    def _unreachable(self, error: Exception) -> Unreachable:
        why = str(error) or type(error).__name__
        return Unreachable(f"No Darkroom could be reached at {self.url}: {why}.")

    def _stranger(self, more: str = "") -> Unreachable:
        return Unreachable(f"What answered at {self.url} is not Darkroom{more}.")


def _path(output_id: str) -> str:
    return f"/v1/outputs/{quote(output_id, safe='')}"


def _loopback(url: str) -> bool:
    # No parser that raises: what is no URL is told when it is used.
    host = url.partition("://")[2]
    return host.startswith(("127.", "localhost", "[::1]"))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
