"""How the client asks a running Darkroom over HTTP, and what it raises when that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx

from receiver.schemas.types import Resource

UNSENDABLE = "The token, the idempotency key or a text has characters that cannot be sent."

Value = TypeVar("Value", bound=Resource)
Parsed = TypeVar("Parsed")


class ClientError(Exception):
    """Root of what the client raises; `str(error)` says what happened, for a person to read."""


class ApiError(ClientError):
    """The service refused: `code` is its short word for why, `faults` name each field that is wrong."""

    def __init__(self, code: str, detail: str, status: int, faults: Sequence[Mapping[str, str]] = ()) -> None:
        self.code = code
        self.detail = detail
        self.status = status
        self.faults = [dict(fault) for fault in faults]
        super().__init__(detail)


class Unreachable(ClientError):
    """Nothing answered at that address, or what answered is not Darkroom."""


class Damaged(ClientError):
    """The bytes that came are not those that the archive holds; nothing was kept of them."""


class Http:
    """Requests to one Darkroom. Each method raises ApiError if it refuses, Unreachable if it is not there."""

    def __init__(
        self, url: str, token: str | None, client: httpx.Client | None, *, timeout_s: float = 30
    ) -> None:
        self._timeout_s = timeout_s
        self.url = url.rstrip("/")
        self._headers = {"authorization": f"Bearer {token.strip()}"} if token else {}
        self._own = client is None
        # A proxy from the environment cannot reach this machine's own loopback.
        self._client = client or httpx.Client(trust_env=not _loopback(self.url))

    def close(self) -> None:
        """Close the connections, unless the HTTP client was passed in."""
        if self._own:
            self._client.close()

    def ask(self, method: str, path: str, *, held_s: float = 0, **request: Any) -> Any:
        """Send one request, and answer the JSON that came; `held_s`: how long it is held on purpose."""
        headers = self._headers | request.pop("headers", {})
        try:
            response = self._client.request(
                method,
                self.url + path,
                headers=headers,
                timeout=httpx.Timeout(held_s + self._timeout_s, connect=min(self._timeout_s, 10)),
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
            raise self.stranger() from None

    def pages(
        self,
        name: str,
        kind: type[Value],
        *,
        limit: int | None,
        filters: Mapping[str, str | None],
        page_size: int,
    ) -> Iterator[Value]:
        """Read a list page by page, as it is needed; `limit` is how many to answer in all."""
        query: dict[str, Any] = {key: value for key, value in filters.items() if value is not None}
        left = limit
        while left is None or left > 0:
            query["limit"] = page_size if left is None else min(page_size, left)
            page = self.ask("GET", f"/v1/{name}", params=query)
            rows = self.read(lambda page: page[name], page)
            for row in rows:
                yield self.read(kind.model_validate, row)
            left = None if left is None else left - len(rows)
            query["cursor"] = page.get("next_cursor")
            if not query["cursor"]:
                return

    @contextmanager
    def open(
        self, path: str, headers: Mapping[str, str] | None = None, *, timeout_s: float = 60
    ) -> Iterator[httpx.Response]:
        """Open an answer whose body is read piece by piece; `timeout_s` is for each piece."""
        try:
            with self._client.stream(
                "GET",
                self.url + path,
                headers=self._headers | dict(headers or {}),
                follow_redirects=False,
                timeout=httpx.Timeout(timeout_s, connect=10),
            ) as response:
                if response.is_error:
                    response.read()
                    raise self._refusal(response)
                yield response
        except httpx.LocalProtocolError:
            raise ApiError("invalid_request", UNSENDABLE, 422) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from error

    def small(self, path: str, most: int) -> bytes:
        """Read a whole body of `most` bytes at most; a longer one is not Darkroom's."""
        body = b""
        with self.open(path, {"accept-encoding": "identity"}) as response:
            for piece in response.iter_raw():
                body += piece
                if len(body) > most:
                    raise self.stranger(f" (it sent more than {most} bytes)")
        return body

    def resource(self, kind: type[Value], method: str, path: str, **request: Any) -> Value:
        """Send one request and parse the resource in its response."""
        return self.read(kind.model_validate, self.ask(method, path, **request))

    def read(self, read: Callable[[Any], Parsed], view: Any) -> Parsed:
        """Read an answer's JSON with `read`; what is not in Darkroom's shape raises Unreachable."""
        try:
            return read(view)
        except (KeyError, TypeError, AttributeError, ValueError):
            raise self.stranger() from None

    def stranger(self, more: str = "") -> Unreachable:
        """The error that says that something else answered."""
        return Unreachable(f"What answered at {self.url} is not Darkroom{more}.")

    def _refusal(self, response: httpx.Response) -> ClientError:
        try:
            told, status = response.json(), response.status_code
            return ApiError(str(told["code"]), str(told["detail"]), status, told.get("faults", ()))
        except (ValueError, KeyError, TypeError, AttributeError):
            return self.stranger(f" (it said {response.status_code})")

    def _unreachable(self, error: Exception) -> Unreachable:
        why = str(error) or type(error).__name__
        return Unreachable(f"No Darkroom could be reached at {self.url}: {why}.")


def _loopback(url: str) -> bool:
    # No parser that raises: what is no URL raises when it is used.
    host = url.partition("://")[2]
    return host.startswith(("127.", "localhost", "[::1]"))
