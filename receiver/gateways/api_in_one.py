"""Adapter for API in One: https://apiin.one/docs and https://apiin.one/model/imagen-4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
from pydantic import Field

from receiver.errors import MalformedCallback
from receiver.gateways import parsing, refusals, requests, task_shapes
from receiver.gateways.base import Completion, Gateway, GatewaySettings, Submission
from receiver.settings_types import Origin
from storage.models import Job, JobRequest

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

ABOUT_THE_REQUEST = frozenset({401, 402, 403, 404, 408, 425, 429, 455, 503})
"""Codes that are never about the task: our key, the rate limit, or the gateway's health."""

IMAGEN_RATIOS = ("1:1", "4:3", "3:4", "16:9", "9:16")

_TAKEN = {
    "model": "give it as the field model",
    "prompt": "give it as the field prompt",
    "callback_url": "is set by Darkroom",
    **requests.ADVICE,
}


class ApiInOneSettings(GatewaySettings):
    """API in One."""

    base_url: Origin = Field("https://apiin.one", description="Where its API is, without a path.")

    def adapter(self) -> ApiInOne:
        """Return the adapter."""
        return ApiInOne(self.key, self.base_url)


class ApiInOne(Gateway):
    """The adapter for API in One, which has no idempotency key, no signature and no list of tasks."""

    name = "api-in-one"
    models = tuple(PRICES)

    def __init__(self, api_key: str, base_url: str = "https://apiin.one") -> None:
        self._api_key = requests.usable_key(api_key, f"{SETTINGS}__API_KEY")
        self._base_url = base_url.rstrip("/")
        self._info = refusals.GatewayInfo("API in One", SETTINGS, (self._api_key,))

    def __repr__(self) -> str:
        return f"ApiInOne(base_url={self._base_url!r})"

    def faults(self, request: JobRequest) -> list[dict[str, str]]:
        """Validate by https://apiin.one/model/imagen-4; see `Gateway.faults`."""
        values = requests.given(request)
        found = [*requests.text_faults("prompt", request.prompt, 3, 5000)]
        if "aspect_ratio" in values and request.model.startswith("imagen4"):
            found += requests.choice_faults("aspect_ratio", values["aspect_ratio"], IMAGEN_RATIOS)
        if values.get("num_images", 1) < 1:
            found.append(requests.fault("num_images", "must be at least 1"))
        if "seed" in values:
            found += requests.seed_faults(values["seed"])
        return [*found, *requests.params_faults(request.params, _TAKEN)]

    def estimate(self, request: JobRequest) -> float | None:
        """Return the published price for all images together; None for a model without one."""
        price = PRICES.get(request.model)
        return None if price is None else float(price * requests.given(request).get("num_images", 1))

    def submit_request(self, job: Job, callback_url: str | None) -> httpx.Request:
        """Build the submit request; `params` are merged with the other fields."""
        request = job.request
        values = requests.number_for_seed(requests.given(request))
        body: dict[str, Any] = {**request.params, "model": request.model, "prompt": request.prompt, **values}
        if callback_url is not None:
            body["callback_url"] = callback_url
        return requests.request("POST", f"{self._base_url}/api/v1/images/generations", self._headers(), body)

    def read_submission(self, response: httpx.Response) -> Submission:
        """Parse the response to a submission; see `Gateway.read_submission`.

        Success is 200 with a code of 200 in the body; any other code in it is a refusal. Some models are
        answered at once, with the images and perhaps without a task.
        """
        with refusals.parsed(self._info, response) as data:
            if (code := task_shapes.code(data)) is not None:
                raise refusals.refusal(self._info, response, code=code)
            task_id = task_shapes.task_id(data)
            result = parsing.at_once(lambda: task_shapes.read(data, self._info.secrets))
            if task_id is None and result is None:
                raise parsing.Unreadable("it has no task_id")
            return Submission(task_id, refusals.request_id(response), result)

    def read_callback(self, body: bytes) -> Completion:
        """Parse a callback in any of `task_shapes`. Raises MalformedCallback for another shape."""
        try:
            return task_shapes.read(parsing.decode(body), self._info.secrets)
        except parsing.Unreadable as error:
            raise MalformedCallback(f"The callback is not one of API in One's: {error}.") from error

    def poll_request(self, gateway_job_id: str) -> httpx.Request:
        """Build the request for a task's state."""
        url = f"{self._base_url}/api/v1/tasks/{requests.path_part(gateway_job_id)}"
        return requests.request("GET", url, self._headers())

    def read_poll(self, response: httpx.Response) -> Completion:
        """Parse the response to a poll; see `Gateway.read_poll`.

        An error code in the body is about the task if the response names one, and else about the request.
        """
        with refusals.parsed(self._info, response, polling=True) as data:
            code = task_shapes.code(data)
            if code is not None and (code in ABOUT_THE_REQUEST or task_shapes.task_id(data) is None):
                raise refusals.refusal(self._info, response, polling=True, code=code)
            return task_shapes.read(data, self._info.secrets)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._api_key}"}
