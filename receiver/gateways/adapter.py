"""Speak to a gateway by its table: the adapter of every gateway, which an odd one extends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from receiver import signatures
from receiver.errors import SubmittedBefore
from receiver.gateways import parsing, refusals, requests
from receiver.gateways.base import Completion, Follow, JobList, State, Submission
from receiver.gateways.reading import Reports, compiled
from receiver.gateways.settings import GatewaySettings
from receiver.gateways.table import Call
from storage.models import Job, JobRequest

if TYPE_CHECKING:
    import httpx

MAX_POLL_URL = 2048


class Adapter(Reports):
    """A gateway by its table; what is odd about one is a method of its subclass."""

    def __init__(self, settings: GatewaySettings, name: str | None = None) -> None:
        """Raises SettingsError if a key or secret in the settings cannot be used."""
        super().__init__(settings, name)
        accept, listing = self.table.accept, self.table.listing
        self._accepted_id, self._accepted_url = compiled(accept.id), compiled(accept.poll_url)
        self._accepted, self._not_accepted = compiled(accept.ok), compiled(accept.error)
        self._following = compiled(self.table.poll.follow if self.table.poll else "")
        self._list = (
            [compiled(place) for place in (listing.jobs, listing.more, listing.next)] if listing else []
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self._base_url!r})"

    def unsupported(self, request: JobRequest) -> Mapping[str, str]:
        """Return each parameter that the table has no place for; see `Gateway.unsupported`."""
        return requests.unsupported(self.table, request)

    def faults(self, request: JobRequest) -> list[dict[str, str]]:
        """Validate by the table; see `Gateway.faults`."""
        return requests.faults(self.table, request)

    def estimate(self, request: JobRequest) -> float | None:
        """Return the published price for all images together; None for a model without one."""
        return requests.estimate(self.table.prices, request)

    def submit_request(self, job: Job, callback_url: str | None) -> httpx.Request:
        """Build the submit request; an idempotency key is the submission's id, so a retry is charged once."""
        submit, callback = self.table.submit, self.table.callback
        values = self._values(job, callback_url)
        headers = {**self._headers(), **requests.filled(submit.headers, values, {})}
        query = dict(requests.filled(submit.query, values, {}) or {})
        if self.table.idempotency:
            headers[self.table.idempotency] = job.submission_id
        if callback_url is not None and callback is not None:
            headers |= {callback.header: callback_url} if callback.header else {}
            query |= {callback.query: callback_url} if callback.query else {}
        url = requests.with_query(self._url(submit.path, values), query)
        return requests.request(submit.method, url, headers, self.body(job, callback_url), kind=submit.kind)

    def body(self, job: Job, callback_url: str | None) -> dict[str, Any]:
        """Return the body of the submit request; `params` never replace what is sent here."""
        table, request, callback = self.table, job.request, self.callback_fields()
        family = table.family(request.model)
        used = {name for name, _ in requests.holes(table.submit.body)}
        params = {key: value for key, value in request.params.items() if f"params.{key}" not in used}
        ours = requests.placed(table, family, request) if family else {}
        where = family.block if family and family.block else table.submit.params
        body: dict[str, Any] = (
            requests.filled(table.submit.body, self._values(job, callback_url), table.maps) or {}
        )
        if not where:
            body = {**params, **body, **ours}
        if callback_url is not None and callback is not None:
            path, also = callback
            requests.put(body, path, callback_url)
            body |= dict(also)
        if where:
            inside = _at(body, where)
            if merged := {**params, **inside, **ours}:
                requests.put(body, where, merged)
        return body

    def callback_fields(self) -> tuple[str, Mapping[str, Any]] | None:
        """Return the path of the callback URL in the body, and what goes with it; None if it is elsewhere."""
        callback = self.table.callback
        return (callback.body, callback.also) if callback and callback.body else None

    def read_submission(self, response: httpx.Response) -> Submission:
        """Parse the response to a submission; see `Gateway.read_submission`."""
        if response.status_code == HTTPStatus.CONFLICT and self.idempotent:
            title = self.table.title
            raise SubmittedBefore(f"{title} accepted this job before, under another callback URL.")
        expect = self.table.submit.expect
        if expect and response.is_success and response.status_code not in expect:
            raise refusals.garbled(self._info, response, "its status is not that of an accepted job")
        with refusals.parsed(self._info, response) as data:
            if (code := self._code.of(data)) is not None:
                raise refusals.refusal(self._info, response, code=code)
            if self.table.accept.ok and self._accepted(data) is not True:
                if parsing.prose(self._not_accepted(data)):
                    raise refusals.refusal(self._info, response, code=HTTPStatus.UNPROCESSABLE_ENTITY)
                raise parsing.Unreadable("it does not say that the job was accepted")
            job_id = self.accepted_id(data)
            result = (
                parsing.at_once(lambda: self._read(data, self._polls)) if self.table.accept.result else None
            )
            if job_id is None and result is None:
                raise parsing.Unreadable(f"it has no {self.table.accept.id.rpartition('.')[2]}")
            return Submission(
                job_id, refusals.request_id(response), result, self._own_url(self._accepted_url(data))
            )

    def accepted_id(self, data: dict[str, Any]) -> str | None:
        """Return the gateway's id of a job that it accepted. Raises Unreadable if it is no id."""
        return parsing.name(self._accepted_id(data))

    def keys_request(self) -> httpx.Request | None:
        """Build the request for the JWKS document with its public keys; see `Gateway.keys_request`."""
        url = getattr(self.settings, "keys_url", None)
        return requests.request("GET", url, {}) if url else None

    def read_keys(self, response: httpx.Response) -> tuple[bytes, ...]:
        """Parse a JWKS document, which may have no usable key; see `Gateway.read_keys`."""
        with refusals.parsed(self._info, response) as data:
            return signatures.public_keys(data)

    def poll(self, job: Job) -> httpx.Request:
        """Build the request for a job's state, at the stored URL if the gateway gave one of its own."""
        assert self.table.poll is not None
        if (url := self._own_url(job.poll_url)) is not None:
            return requests.request("GET", url, self._headers())
        return self._call(self.table.poll, job)

    def read_poll(self, response: httpx.Response, job: Job) -> Completion | Follow:
        """Parse the response to a poll; see `Gateway.read_poll`.

        An error code in the body is about the job if the response names one, and else about the request.
        """
        with refusals.parsed(self._info, response, polling=True) as data:
            code, never = self._code.of(data), self.table.errors.never_job
            if code is not None and (code in never or self.job_id(data, self._polls) is None):
                raise refusals.refusal(self._info, response, polling=True, code=code)
            found = self._named(self._read(data, self._polls))
            return self._follow(found, data, job) or found

    def _follow(self, found: Completion, data: dict[str, Any], job: Job) -> Follow | None:
        """Return what is asked next where a success without images says where its result is."""
        url = self._own_url(self._following(data))
        if found.state is not State.SUCCEEDED or found.images or url is None:
            return None

        def read(response: httpx.Response) -> Completion:
            with refusals.parsed(self._info, response, polling=True) as result:
                read = self._read(result, self._polls)
                return replace(read, gateway_job_id=read.gateway_job_id or job.gateway_job_id)

        return Follow(requests.request("GET", url, self._headers()), read)

    def cancel_request(self, job: Job) -> httpx.Request | None:
        """Build the request that cancels a running job; see `Gateway.cancel_request`."""
        return self._call(self.table.cancel, job) if self.table.cancel and job.gateway_job_id else None

    def read_cancel(self, response: httpx.Response) -> None:
        """Check the response to a cancellation; see `Gateway.read_cancel`."""
        if not response.is_success:
            raise refusals.refusal(self._info, response, polling=True)

    def list_request(self, cursor: str | None) -> httpx.Request | None:
        """Build the request for a page of the gateway's list of our jobs; None if it has no such list."""
        if (listing := self.table.listing) is None:
            return None
        url = requests.with_query(f"{self._base_url}{listing.path}", {listing.cursor: cursor})
        return requests.request("GET", url, self._headers())

    def read_list(self, response: httpx.Response) -> JobList:
        """Parse a page of jobs; see `Gateway.read_list`."""
        listing = self.table.listing
        assert listing is not None
        with refusals.parsed(self._info, response, polling=True) as data:
            jobs, more, following = (find(data) for find in self._list)
            found = [self._entry(job) for job in jobs] if isinstance(jobs, list) else []
            following = self.next_cursor(following) if more is True or not listing.more else None
            return JobList({job_id: one for job_id, one in found if job_id}, following)

    def next_cursor(self, value: object) -> str | None:
        """Return the cursor of the next page, of what the table's place for it has."""
        return parsing.label(value)

    def _entry(self, job: object) -> tuple[str | None, Completion]:
        try:
            completion = self._named(self._read(job if isinstance(job, dict) else {}, self._polls))
        except parsing.Unreadable:
            return None, Completion(State.RUNNING, None)
        return completion.gateway_job_id, completion

    def _call(self, call: Call, job: Job) -> httpx.Request:
        values = self._values(job, None)
        body = requests.filled(call.body, values, {}) if call.body is not None else None
        url = self._url(call.path, values)
        return requests.request(call.method, url, self._headers(), body, kind=self.table.submit.kind)

    def _values(self, job: Job, callback_url: str | None) -> dict[str, Any]:
        """Return what the holes of templates are filled with."""
        request, (model, _, version) = job.request, job.request.model.partition(":")
        return {
            "model": request.model,
            "model.0": model,
            "model.1": version or None,
            "id": job.gateway_job_id,
            "prompt": request.prompt,
            **requests.given(request),
            "callback_url": callback_url,
            "callback_secret": self._secret if callback_url is not None else None,
            "submission_id": job.submission_id,
            **{f"params.{name}": value for name, value in request.params.items()},
        }

    def _url(self, path: str, values: requests.Values) -> str:
        url = self._base_url + requests.path(path, values)
        auth = self.table.auth
        return requests.with_query(url, {auth.name: self._api_key}) if auth.style == "query" else url

    def _headers(self) -> dict[str, str]:
        auth = self.table.auth
        return {auth.name: auth.prefix + self._api_key} if auth.style == "header" else {}

    def _own_url(self, url: object) -> str | None:
        """Return a URL that came from outside, if our key may be sent there: on the gateway's own hosts."""
        if not isinstance(url, str) or len(url) > MAX_POLL_URL or not url.isascii() or not url.isprintable():
            return None
        try:
            there, ours = urlsplit(url), urlsplit(self._base_url)
            same = (there.scheme, there.hostname, there.port) == (ours.scheme, ours.hostname, ours.port)
            own = there.scheme == "https" and there.port in {None, 443} and self._is_own(there.hostname or "")
        except ValueError:
            return None
        plain = there.username is None and there.password is None and "\\" not in url and " " not in url
        return url if plain and (same or own) else None

    def _is_own(self, host: str) -> bool:
        return any(host == one or host.endswith(f".{one}") for one in self.table.poll_hosts)

    @property
    def _secret(self) -> str | None:
        """The secret that the gateway is told to sign with, where it takes one."""
        signing = self.table.signing
        if signing is None or signing.by not in {"derived", "setting"}:
            return None
        # Of several the last one signs: those before it are of before.
        secrets = self._signing_secrets()
        return (secrets[0] if signing.by == "derived" else secrets[-1]) if secrets else None


def _at(body: dict[str, Any], path: str) -> dict[str, Any]:
    for step in path.split("."):
        body = body.get(step, {})
    return body
