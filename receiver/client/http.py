"""Send HTTP requests to a running Darkroom, parse the responses, and raise ClientError."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx

from receiver.schemas.types import Resource
from storage.network import failure

NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
)
"""Errors after which nothing of a request was sent."""
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
    """There is no response from that address, or it is not one of Darkroom."""

    def __init__(self, detail: str, *, sent: bool = True) -> None:
        self.sent = sent
        """Whether the request may have been received."""
        super().__init__(detail)


class Damaged(ClientError):
    """The received bytes are not those of the archive; none of them were kept."""


class Http:
    """Requests to one Darkroom. Each method raises ApiError for an error response, else Unreachable."""

    def __init__(
        self,
        url: str,
        token: str | None,
        client: httpx.Client | None,
        on_hint: Callable[[str], None],
        *,
        timeout_s: float,
        page_size: int,
    ) -> None:
        self._on_hint = on_hint
        self._timeout_s = timeout_s
        self._page_size = page_size
        self.url = url.rstrip("/")
        self._headers = {"authorization": f"Bearer {token.strip()}"} if token else {}
        self._own = client is None
        # A proxy from the environment cannot reach this machine's own loopback; what is trusted holds there.
        self._client = client or httpx.Client(
            verify=httpx.create_ssl_context(), trust_env=not _loopback(self.url)
        )

    def close(self) -> None:
        """Close the connections, unless the HTTP client was passed in."""
        if self._own:
            self._client.close()

    def ask(self, method: str, path: str, *, held_s: float = 0, **request: Any) -> Any:
        """Send one request and return the JSON of its response, which is held for `held_s` on purpose."""
        headers = self._headers | request.pop("headers", {})
        timeout = httpx.Timeout(held_s + self._timeout_s, connect=min(self._timeout_s, 10))
        with self._translated():
            response = self._client.request(
                method, self.url + path, headers=headers, timeout=timeout, follow_redirects=False, **request
            )
        if not response.is_success:
            raise self._refusal(response)
        try:
            return response.json()
        except ValueError:
            raise self.stranger() from None

    def pages(
        self, name: str, kind: type[Value], limit: int | None, /, **filters: str | None
    ) -> Iterator[Value]:
        """Yield the rows of a list, `limit` at most; a page is requested when it is needed."""
        query = given(**filters)
        left = limit
        while left is None or left > 0:
            query["limit"] = self._page_size if left is None else min(self._page_size, left)
            page = self.ask("GET", f"/v1/{name}", params=query)
            rows = self.read(lambda page: page[name], page)
            for hint in page.get("hints", ()) if "cursor" not in query else ():
                self._on_hint(str(hint))
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
        """Open a response whose body is read piece by piece; `timeout_s` is for each piece."""
        sent = self._headers | dict(headers or {})
        timeout = httpx.Timeout(timeout_s, connect=10)
        stream = self._client.stream
        with (
            self._translated(),
            stream("GET", self.url + path, headers=sent, follow_redirects=False, timeout=timeout) as response,
        ):
            if response.is_error:
                response.read()
                raise self._refusal(response)
            yield response

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
        """Return a response's JSON as parsed by `read`; raise Unreachable if it has another shape."""
        try:
            return read(view)
        except (KeyError, TypeError, AttributeError, ValueError):
            raise self.stranger() from None

    def stranger(self, more: str = "") -> Unreachable:
        """Return the error for a response that is not Darkroom's."""
        return Unreachable(f"What answered at {self.url} is not Darkroom{more}.")

    def _refusal(self, response: httpx.Response) -> ClientError:
        try:
            problem, status = response.json(), response.status_code
            return ApiError(str(problem["code"]), str(problem["detail"]), status, problem.get("faults", ()))
        except (ValueError, KeyError, TypeError, AttributeError):
            return self.stranger(f" (it said {response.status_code})")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise errors of httpx as ClientError."""
        try:
            yield
        except (httpx.LocalProtocolError, UnicodeEncodeError):
            # Their own words would show the token.
            raise ApiError("invalid_request", UNSENDABLE, 422) from None
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise Unreachable(f"{self.url} is no URL such as http://HOST:PORT.", sent=False) from error
        except httpx.HTTPError as error:
            why, sent = failure(error), not isinstance(error, NOT_SENT)
            raise Unreachable(f"No Darkroom could be reached at {self.url}: it {why}.", sent=sent) from error


def given(**fields: Any) -> dict[str, Any]:
    """Return the fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def _loopback(url: str) -> bool:
    # No parser that raises: what is no URL raises when it is used.
    return re.match(r"https?://(127\.[0-9.]+|localhost|\[::1\])(:|/|$)", url) is not None
