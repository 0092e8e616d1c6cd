"""fal.ai: https://fal.ai/docs/documentation/model-apis/inference/queue and `webhooks` there."""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING

from receiver.gateways import parsing, refusals
from receiver.gateways.adapter import Adapter
from receiver.gateways.base import Completion, Follow, State
from receiver.gateways.table import Accept, Auth, Call, Callback, Errors, Family, Read, Signing, Submit, Table
from storage.models import Job

if TYPE_CHECKING:
    import httpx

NAMESPACES = ("workflows", "comfy")
"""What may stand before the owner and app of a model."""

_SIZES = {
    "1:1": "square_hd",
    "4:3": "landscape_4_3",
    "3:4": "portrait_4_3",
    "16:9": "landscape_16_9",
    "9:16": "portrait_16_9",
}
_SIZED = {"aspect_ratio": "image_size:map", "seed": "seed", "num_images": "num_images"}
_RATIO = {"aspect_ratio": "aspect_ratio", "num_images": "num_images"}

TABLE = Table(
    name="fal",
    title="fal.ai",
    docs="https://fal.ai/docs/documentation/model-apis/inference/webhooks",
    base_url="https://queue.fal.run",
    auth=Auth("Authorization", "Key "),
    submit=Submit("/{model}", {"prompt": "{prompt}"}),
    callback=Callback(query="fal_webhook"),
    accept=Accept(id="request_id", result=False),
    # `gateway_request_id` beside it is another one after a retry inside of fal.
    read=(
        Read(
            id="request_id",
            images="payload.images || payload.image",
            seed="payload.seed",
            model="",
            error="payload.detail",  # A list of FastAPI's, which `Errors.words` reads.
        ),
    ),
    # A poll has the status alone, and the result is asked for after it.
    poll=Call("/{model}/requests/{id}/status"),
    read_poll=(Read(id="request_id", model="", error="error"),),
    cancel=Call("/{model}/requests/{id}/cancel", "PUT"),
    signing=Signing("fal", "keys", keys="https://rest.fal.ai/.well-known/jwks.json"),
    errors=Errors(words="payload.detail || detail || payload_error || error"),
    maps={"aspect_ratio": _SIZES},
    families=(
        Family(("fal-ai/flux/dev", "fal-ai/flux/schnell", "fal-ai/flux-pro/v1.1"), _SIZED, most_images=4),
        Family(("fal-ai/flux-pro/v1.1-ultra",), {**_RATIO, "seed": "seed"}, most_images=4),
        Family(
            ("fal-ai/imagen4/preview", "fal-ai/imagen4/preview/fast", "fal-ai/imagen4/preview/ultra"),
            _RATIO,
            most_images=4,
        ),
        Family(("fal-ai/nano-banana", "fal-ai/nano-banana-pro"), _RATIO, most_images=4),
    ),
    advice={"sync_mode": "leave it out: images would come inside of callbacks, which may be too long then"},
    # How long files live is a setting of the account, and apps may have them anywhere.
    sure={"models": "likely", "cancel": "likely"},
)


class Fal(Adapter):
    """fal.ai."""

    table = TABLE

    def read_poll(self, response: httpx.Response, job: Job) -> Completion | Follow:
        """Parse a status: a job that is completed may have failed, and if not has its result elsewhere."""
        with refusals.parsed(self._info, response, polling=True) as data:
            told = self._read(data, self._polls)
            if told.state is not State.SUCCEEDED:
                return told
            if data.get("error") or data.get("error_type"):
                why = data.get("error") or data.get("error_type")
                return replace(told, state=State.FAILED, error=parsing.prose(why, self.secrets), unread=None)
        result = self._call(Call("/{model}/requests/{id}"), job)
        return Follow(result, lambda response: self._result(response, job))

    def read_answer(self, body: bytes, job: Job) -> Completion:
        """Parse the body of a result; see `Gateway.read_answer`."""
        import httpx  # a process that only takes callbacks does without

        return self._result(httpx.Response(HTTPStatus.OK, content=body), job)

    def _result(self, response: httpx.Response, job: Job) -> Completion:
        """Parse a result, which is what callbacks have in `payload`; of a failed job it is HTTP 422."""
        failed = response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
        if failed and (data := refusals.decoded(response)):
            words = parsing.prose(self._code.words(data), self.secrets)
            return Completion(State.FAILED, job.gateway_job_id, error=words, reply=data)
        with refusals.parsed(self._info, response, polling=True) as data:
            as_called = {"request_id": job.gateway_job_id, "status": "OK", "payload": data}
            return replace(self._read(as_called, self._callbacks), reply=data)

    def _call(self, call: Call, job: Job) -> httpx.Request:
        """Build a request about a job, whose path has no more of the model than its owner and app."""
        parts = job.request.model.split("/")
        app = "/".join(parts[: 3 if parts[0] in NAMESPACES else 2])
        return super()._call(call, replace(job, request=replace(job.request, model=app)))
