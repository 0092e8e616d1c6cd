"""API in One: https://apiin.one/docs and https://apiin.one/model/imagen-4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from receiver.errors import MalformedCallback
from receiver.gateways import parsing, refusals, requests
from receiver.gateways import task_shapes as dialects
from receiver.gateways.base import Completion, JobList, Submission, Supports
from storage.models import Job, JobRequest, Verdict

SETTINGS = "DARKROOM_GATEWAYS__API_IN_ONE"

PRICES: Mapping[str, int] = {
    "imagen4-fast": 4,
    "imagen4": 8,
    "imagen4-ultra": 12,
    "grok-imagine": 5,
    "kling-image-o1": 6,
    "ideogram-v3": 8,
    "gpt-image-1.5-official": 10,
}
"""Credits for each image, as published on https://apiin.one/model/imagen-4."""

ABOUT_THE_QUESTION = frozenset({401, 402, 403, 404, 408, 425, 429, 455, 503})
"""Codes that never speak of the task itself: our key, our pace, or the gateway's health."""

IMAGEN_RATIOS = ("1:1", "4:3", "3:4", "16:9", "9:16")

_TAKEN = {
    "model": "give it as the field model",
    "prompt": "give it as the field prompt",
    "callback_url": "is set by Darkroom",
    "seed": "give it as the field seed, so that the archive knows it",
    "negative_prompt": "give it as the field negative_prompt, so that the archive knows it",
    "num_images": "give it as the field num_images, so that the archive knows it",
    "aspect_ratio": "give it as the field aspect_ratio, so that the archive knows it",
}


class ApiInOne:
    """The adapter for API in One. It does not sign its callbacks, and takes a repeated submission twice."""

    name = "api-in-one"
    supports = Supports(idempotency=False)
    image_hosts: tuple[str, ...] = ()
    models = tuple(PRICES)

    def __init__(self, api_key: str, base_url: str = "https://apiin.one") -> None:
        self._api_key = requests.usable_key(api_key, f"{SETTINGS}__API_KEY")
        self._base_url = base_url.rstrip("/")
        self._speaker = refusals.GatewayInfo("API in One", SETTINGS, (self._api_key,))

    def __repr__(self) -> str:
        return f"ApiInOne(base_url={self._base_url!r})"

    def unsupported(self, request: JobRequest) -> Mapping[str, str]:  # noqa: ARG002 - the port's signature
        """Answer nothing: each parameter has a documented field, which the gateway may judge by model."""
        return {}

    def faults(self, request: JobRequest) -> list[dict[str, str]]:
        """List what API in One documents that it will refuse; see `Gateway.faults`."""
        values = requests.given(request)
        found = [*requests.text_faults("prompt", request.prompt, 3, 5000)]
        if "aspect_ratio" in values and request.model.startswith("imagen4"):
            found += requests.choice_faults("aspect_ratio", values["aspect_ratio"], IMAGEN_RATIOS)
        if values.get("num_images", 1) < 1:
            found.append(requests.fault("num_images", "must be at least 1"))
        if "seed" in values:
            found += requests.seed_faults(values["seed"])
        return [*found, *requests.params_faults(request.params, _TAKEN)]

    def submit(self, job: Job, callback_url: str | None) -> httpx.Request:
        """Build the submit request; `params` stand beside the other fields."""
        request = job.request
        values = requests.given(request)
        if "seed" in values:
            # A seed that is no number was refused by `faults`; the gateway refuses it as text, too.
            number = requests.whole_number(values["seed"])
            values["seed"] = values["seed"] if number is None else number
        body: dict[str, Any] = {**request.params, "model": request.model, "prompt": request.prompt, **values}
        if callback_url is not None:
            body["callback_url"] = callback_url
        return requests.request("POST", f"{self._base_url}/api/v1/images/generations", self._headers(), body)

    def accepted(self, response: httpx.Response) -> Submission:
        """Read the answer to `submit`; raises the GatewayError that fits any other answer.

        Success is 200 with a code of 200 in the body; any other code in it is a refusal.
        """
        if not response.is_success:
            raise refusals.refusal(self._speaker, response)
        try:
            answer = parsing.decode(response.content)
            if (code := dialects.code(answer)) is not None:
                raise refusals.refusal(self._speaker, response, code=code)
            task_id = dialects.task_id(answer)
        except parsing.Unreadable as error:
            raise refusals.garbled(self._speaker, response, error) from error
        if task_id is None:
            raise refusals.garbled(self._speaker, response, "it has no task_id")
        return Submission(task_id, refusals.request_id(response))

    def verify(self, headers: Mapping[str, str], body: bytes) -> Verdict:  # noqa: ARG002 - the port's signature
        """Answer that there is nothing to check: only the signed URL proves where a callback is from."""
        return Verdict.UNSUPPORTED

    def read_callback(self, body: bytes) -> Completion:
        """Read a callback; raises MalformedCallback if it is in no shape that is known."""
        try:
            return dialects.read(parsing.decode(body), self._speaker.secrets)
        except parsing.Unreadable as error:
            raise MalformedCallback(f"The callback is not one of API in One's: {error}.") from error

    def poll(self, gateway_job_id: str) -> httpx.Request:
        """Build the request that asks how a task is."""
        url = f"{self._base_url}/api/v1/tasks/{requests.path_part(gateway_job_id)}"
        return requests.request("GET", url, self._headers())

    def polled(self, response: httpx.Response) -> Completion:
        """Read the answer to `poll`; raises the GatewayError that fits any other answer.

        A code in the body that is not a success is about the task if the answer names one, and else about
        the question.
        """
        if not response.is_success:
            raise refusals.refusal(self._speaker, response, polling=True)
        try:
            answer = parsing.decode(response.content)
            code = dialects.code(answer)
            if code is not None and (code in ABOUT_THE_QUESTION or dialects.task_id(answer) is None):
                raise refusals.refusal(self._speaker, response, polling=True, code=code)
            return dialects.read(answer, self._speaker.secrets)
        except parsing.Unreadable as error:
            raise refusals.garbled(self._speaker, response, error) from error

    def listing(self, cursor: str | None) -> httpx.Request | None:  # noqa: ARG002 - the port's signature
        """Answer None: API in One has no list of tasks."""
        return None

    def listed(self, response: httpx.Response) -> JobList:
        """Answer an error: nobody asked for a list."""
        raise refusals.garbled(self._speaker, response, "nobody asked for a list")

    def estimate(self, request: JobRequest) -> float | None:
        """Answer the published price for all images together; None for a model without one."""
        price = PRICES.get(request.model)
        return None if price is None else float(price * requests.given(request).get("num_images", 1))

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._api_key}"}
