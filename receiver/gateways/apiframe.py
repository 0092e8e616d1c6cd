"""Adapter for Apiframe, version 2 of its API: https://docs-v2.apiframe.ai/docs/images and /docs/webhooks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import httpx
from pydantic import Field

from receiver import signatures
from receiver.errors import BadSignature, MalformedCallback, SubmittedBefore
from receiver.gateways import parsing, refusals, requests
from receiver.gateways.apiframe_models import BY_MODEL, FAMILIES, Family
from receiver.gateways.base import Completion, Gateway, GatewaySettings, JobList, State, Submission
from receiver.settings_types import Origin, Secrets
from storage.models import ImageRef, Job, JobRequest, Verdict

SETTINGS = "DARKROOM_GATEWAYS__APIFRAME"
EVENTS = ("completed", "failed")
"""The requested callbacks: all but `progress`."""
MOST_PROMPT = max(family.most_prompt for family in FAMILIES)
"""The longest prompt that any model accepts, for models that are not known here."""

_CORE = {
    "model": "give it as the field model",
    "prompt": "give it as the field prompt",
    "webhookUrl": "is set by Darkroom",
    "webhook_url": "is set by Darkroom",
    "webhookEvents": "is set by Darkroom",
}


class ApiframeSettings(GatewaySettings):
    """Apiframe."""

    signs_with_key = True

    base_url: Origin = Field("https://api.apiframe.ai", description="Where its API is, without a path.")
    previous_api_keys: Secrets = Field(
        default_factory=list, description="Former API keys: callbacks signed with them are still accepted."
    )
    callback_field: Literal["webhookUrl", "webhook_url"] = Field(
        "webhookUrl", description="The field of the submit request that holds the callback URL."
    )

    def adapter(self) -> Apiframe:
        """Return the adapter."""
        previous = [key.get_secret_value() for key in self.previous_api_keys]
        return Apiframe(self.key, previous, self.base_url, self.callback_field)


class Apiframe(Gateway):
    """The adapter for Apiframe.

    `previous_api_keys` may still sign callbacks that are on their way. `callback_field` is configurable
    because https://apiframe.ai has `webhook_url`, where the schema has `webhookUrl` and forbids other keys.
    `allow_unsigned` because deliveries without a signature have been reported.
    """

    name = "apiframe"
    idempotent = True
    # Its own domain, because it moves its images among the hosts there. Only links from an answer that is
    # signed, or was asked for, are followed.
    image_hosts = ("apiframe.ai",)
    models = tuple(BY_MODEL)

    def __init__(
        self,
        api_key: str,
        previous_api_keys: Sequence[str] = (),
        base_url: str = "https://api.apiframe.ai",
        callback_field: str = "webhookUrl",
        *,
        allow_unsigned: bool = True,
    ) -> None:
        previous = [requests.usable_key(key, f"{SETTINGS}__PREVIOUS_API_KEYS") for key in previous_api_keys]
        keys = (requests.usable_key(api_key, f"{SETTINGS}__API_KEY"), *previous)
        self._api_key = keys[0]
        self._base_url = base_url.rstrip("/")
        self._callback_field = callback_field
        self._allow_unsigned = allow_unsigned
        self._signatures = signatures.Verifier(signatures.APIFRAME_V2, keys)
        self._info = refusals.GatewayInfo("Apiframe", SETTINGS, keys)

    def __repr__(self) -> str:
        return f"Apiframe(base_url={self._base_url!r})"

    def unsupported(self, request: JobRequest) -> Mapping[str, str]:
        """Return each parameter for which the model's block has no key; see `Gateway.unsupported`."""
        asked = {name for name in requests.OUR_FIELDS if getattr(request, name) is not None}
        family = BY_MODEL.get(request.model)
        if family is None:
            reason = f"it is not known where {request.model} on Apiframe takes it; use params"
            return dict.fromkeys(sorted(asked), reason)
        if family.one_image and request.num_images == 1:
            asked.discard("num_images")
        missing = sorted(asked - family.places.keys())
        return dict.fromkeys(missing, f"{request.model} on Apiframe has no such parameter; leave it out")

    def faults(self, request: JobRequest) -> list[dict[str, str]]:
        """Validate by Apiframe's OpenAPI schema (`apiframe_models`); see `Gateway.faults`."""
        family = BY_MODEL.get(request.model)
        own = {self._callback_field: "is set by Darkroom"}
        if family is None:
            return [
                *requests.text_faults("prompt", request.prompt, 1, MOST_PROMPT),
                *requests.params_faults(request.params, {**_CORE, **own}),
            ]
        taken = {**_CORE, **own, **requests.ADVICE, family.block: "give its keys directly in params"}
        taken |= {key: requests.ADVICE[field] for field, key in family.places.items()}
        return [
            *requests.text_faults("prompt", request.prompt, 1, family.most_prompt),
            *_field_faults(family, request),
            *requests.params_faults(request.params, taken),
            *_block_faults(family, request),
        ]

    def submit_request(self, job: Job, callback_url: str | None) -> httpx.Request:
        """Build the submit request. The job's id is the idempotency key, so a retry is charged once."""
        request = job.request
        body: dict[str, Any] = {"model": request.model, "prompt": request.prompt}
        if callback_url is not None:
            body |= {self._callback_field: callback_url, "webhookEvents": list(EVENTS)}
        family = BY_MODEL.get(request.model)
        if family is None:
            # Its block is not known, so `params` must name it: {"newParams": {...}}.
            body = {**request.params, **body}
        elif block := {**request.params, **_placed(family, request)}:
            body[family.block] = block
        headers = {"X-API-Key": self._api_key, "Idempotency-Key": job.submission_id}
        return requests.request("POST", f"{self._base_url}/v2/images/generate", headers, body)

    def read_submission(self, response: httpx.Response) -> Submission:
        """Parse the response to a submission; see `Gateway.read_submission`."""
        if response.status_code == 409:
            raise SubmittedBefore("Apiframe accepted this job before, under another callback URL.")
        with refusals.parsed(self._info, response) as data:
            job_id = _job_id(data, "jobId")
            result = parsing.at_once(lambda: self._completion(data, job_id))
            return Submission(job_id, refusals.request_id(response), result)

    def verify(self, headers: Mapping[str, str], body: bytes) -> Verdict:
        """Verify `X-Webhook-Signature`: HMAC-SHA256 over the raw body. Raises BadSignature.

        No timestamp is signed, so a replay cannot be detected. https://docs-v2.apiframe.ai/docs/webhooks
        """
        try:
            signed = self._signatures.verify(headers, body, now_s=0)
        except BadSignature as error:
            raise BadSignature(
                f"The callback's signature is not Apiframe's. Check {SETTINGS}__API_KEY; "
                f"after a change of keys, list the old one in {SETTINGS}__PREVIOUS_API_KEYS."
            ) from error
        if signed is None and not self._allow_unsigned:
            raise BadSignature("The callback has no signature, though Apiframe's must have one.")
        return Verdict.ABSENT if signed is None else Verdict.VALID

    def read_callback(self, body: bytes) -> Completion:
        """Parse a callback. Raises MalformedCallback if it is not JSON or not Apiframe's shape."""
        try:
            data = parsing.decode(body)
            return self._completion(data, _job_id(data, "jobId"))
        except parsing.Unreadable as error:
            raise MalformedCallback(f"The callback is not one of Apiframe's: {error}.") from error

    def poll_request(self, gateway_job_id: str) -> httpx.Request:
        """Build the request for a job's state: https://docs-v2.apiframe.ai/docs/jobs/get."""
        url = f"{self._base_url}/v2/jobs/{requests.path_part(gateway_job_id)}"
        return requests.request("GET", url, {"X-API-Key": self._api_key})

    def read_poll(self, response: httpx.Response) -> Completion:
        """Parse the response to a poll; see `Gateway.read_poll`.

        A job whose images are purged (`expired`) is still a success.
        """
        with refusals.parsed(self._info, response, polling=True) as data:
            return self._completion(data, _job_id(data, "id", "jobId"))

    def list_request(self, cursor: str | None) -> httpx.Request | None:
        """Build the request for a page of 100 jobs, the limit of https://docs-v2.apiframe.ai/docs/jobs/list."""
        url = f"{self._base_url}/v2/jobs?limit=100"
        if cursor is not None:
            url += f"&cursor={requests.path_part(cursor)}"
        return requests.request("GET", url, {"X-API-Key": self._api_key})

    def read_list(self, response: httpx.Response) -> JobList:
        """Parse a page of jobs; see `Gateway.read_list`."""
        with refusals.parsed(self._info, response, polling=True) as data:
            jobs = data.get("jobs")
            found = [self._entry(job) for job in jobs] if isinstance(jobs, list) else []
            more = data.get("nextCursor") if data.get("hasMore") is True else None
            return JobList(
                {job_id: completion for job_id, completion in found if job_id}, parsing.label(more)
            )

    def _entry(self, job: object) -> tuple[str | None, Completion]:
        entry = job if isinstance(job, dict) else {}
        try:
            job_id = _job_id(entry, "id", "jobId")
            return job_id, self._completion(entry, job_id)
        except parsing.Unreadable:
            return None, Completion(State.RUNNING, None)

    def _completion(self, data: dict[str, Any], job_id: str) -> Completion:
        state = _state(data)
        result = data.get("result") if state is State.SUCCEEDED else None
        images, withheld = _images(result)
        error = None
        if not images:
            paths = ("error.message", "error", *(("status",) if state is State.FAILED else ()))
            error = parsing.first(data, paths)
        return Completion(
            state=state,
            gateway_job_id=job_id,
            images=images,
            withheld=withheld,
            model=parsing.label(data.get("model")),
            seed=parsing.seed(parsing.dig(result, "seed")),
            credits=parsing.amount(data.get("creditCost")),
            error=parsing.prose(error, self._info.secrets),
            reply=data,
            unread=_unread(data, state, images),
        )


def _placed(family: Family, request: JobRequest) -> dict[str, Any]:
    """Return the block's keys for our own fields."""
    values = requests.number_for_seed(requests.given(request))
    return {family.places[name]: value for name, value in values.items() if name in family.places}


def _field_faults(family: Family, request: JobRequest) -> Iterator[requests.Fault]:
    """Validate our own fields, as far as they can be expressed."""
    values = requests.given(request)
    placed = {name: v for name, v in values.items() if name in family.places}
    if (ratio := placed.get("aspect_ratio")) is not None:
        if choices := family.choices.get(family.places["aspect_ratio"]):
            yield from requests.choice_faults("aspect_ratio", ratio, choices)
        elif family.ratio_pattern and not re.fullmatch(r"[0-9]+:[0-9]+", ratio):
            yield requests.fault("aspect_ratio", "must be two whole numbers around a colon, such as 16:9")
    if "seed" in placed:
        yield from requests.seed_faults(placed["seed"], *(family.seeds or (None, None)))
    if family.most_negative is not None and "negative_prompt" in placed:
        yield from requests.text_faults("negative_prompt", placed["negative_prompt"], 0, family.most_negative)
    most = family.most_images if "num_images" in placed else None
    count = values.get("num_images", 1)
    if count < 1 or (most is not None and count > most):
        yield requests.fault("num_images", f"must be at least 1{f' and at most {most}' if most else ''}")


def _block_faults(family: Family, request: JobRequest) -> Iterator[requests.Fault]:
    """Validate the keys of `params` that have documented choices; the gateway judges the rest."""
    for key, choices in family.choices.items():
        if key in request.params and key not in family.places.values():
            yield from requests.choice_faults(f"params.{key}", request.params[key], choices)
    for key in family.required:
        if key not in request.params:
            yield requests.fault(f"params.{key}", f"{request.model} needs it")


def _job_id(data: Mapping[str, Any], *keys: str) -> str:
    found = parsing.first(data, keys)
    job_id = parsing.name(found) if isinstance(found, str) else None
    if job_id is None:
        raise parsing.Unreadable(f"it has no text {keys[0]}")
    return job_id


def _state(data: Mapping[str, Any]) -> State:
    """Parse the status; where it is missing or unknown, the event. An unknown word means running."""
    status, event = data.get("status"), data.get("event")
    if not isinstance(status, str | None) or not isinstance(event, str | None):
        raise parsing.Unreadable("its status or event is not a text")
    if status is None and event is None:
        raise parsing.Unreadable("it has neither status nor event")
    return parsing.state(status) or parsing.state(event) or State.RUNNING


def _unread(data: Mapping[str, Any], state: State, images: Sequence[ImageRef]) -> str | None:
    if state is not State.RUNNING:
        return parsing.unread_image(data) if state is State.SUCCEEDED and not images else None
    return parsing.unknown_status(data.get("status"), data.get("event"))


def _images(result: object) -> parsing.Listed:
    """Parse a result: a link, a list of links, or an object with one of them.

    `gridUrl` shows all images of a job in one; it is used only where there is nothing else.
    """
    if not isinstance(result, dict):
        return parsing.images(result)
    return parsing.first_images(parsing.images(value, result) for value in _places(result))


def _places(result: dict[str, Any]) -> Iterator[Any]:
    yield from (result.get(key) for key in ("images", "image", "image_urls", "urls"))
    yield result if any(key in result for key in parsing.IMAGE_KEYS) else None
    yield result.get("gridUrl")
