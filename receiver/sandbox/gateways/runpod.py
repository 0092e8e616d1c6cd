"""Stand in for RunPod serverless: https://docs.runpod.io/serverless/endpoints/send-requests.

Its worker is https://github.com/runpod-workers/worker-comfyui.
"""

import uuid
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from receiver.sandbox.core.callbacks import Body
from receiver.sandbox.core.config import Account
from receiver.sandbox.core.jobs import SandboxJob, State
from receiver.sandbox.core.lifecycle import Sandbox
from receiver.sandbox.core.stand_in import Received, StandIn, Uri, problems

FAULTS = {"output_errors": "the last image is missing, and `output.errors` tells of it"}
WORDS: Mapping[State, str] = {"QUEUED": "IN_QUEUE", "PROCESSING": "IN_PROGRESS"}


class Run(BaseModel):
    """A request; the input is the worker's own."""

    model_config = ConfigDict(strict=True)

    input: dict[str, Any]
    webhook: Uri | None = None
    policy: dict[str, Any] = {}
    s3Config: dict[str, Any] | None = None  # noqa: N815 - its name there


class RunPod(StandIn):
    """RunPod. Gives the images themselves unless a job names a bucket, and keeps jobs for half an hour."""

    name = "runpod"
    key_prefix = "rpa"
    below = "/v2/"
    own_faults = FAULTS
    unknown_job = "job not found"
    model = "sandbox-comfyui"
    life_s = 1800
    retry_delays_s = (10, 10)

    def routes(self) -> list[Route]:
        """Return the routes of an endpoint."""
        return [
            self.route("/v2/{endpoint}/run", self.submit, "POST"),
            self.route("/v2/{endpoint}/status/{id}", self.poll),
            self.route("/v2/{endpoint}/cancel/{id}", self.cancel, "POST"),
        ]

    def params(self) -> dict[str, Any]:
        """Return a workflow of two nodes."""
        text = "A lighthouse on a cliff at dusk"
        nodes = {
            "6": {"class_type": "CLIPTextEncode", "inputs": {"text": text}},
            "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "out"}},
        }
        return {"workflow": nodes}

    def error(self, status: int, message: str) -> Body:  # noqa: ARG002
        """Build the body of an error response."""
        return {"error": message}

    async def read(self, received: Received) -> SandboxJob | Response:
        """Validate `POST /v2/{endpoint}/run`."""
        if details := problems(Run, received.body):
            return self.invalid(details)
        parsed, model = Run.model_validate(received.body), received.request.path_params["endpoint"]
        prompt, count = _prompt(parsed.input), int(parsed.input.get("num_images") or 1)
        return received.job(
            id=f"{uuid.uuid4()}-u1",
            model=model,
            prompt=prompt,
            cost=4 * count,
            input=parsed.input,
            specs=received.specs(
                prompt, model, received.shaped("1:1"), seed=parsed.input.get("seed"), count=count
            ),
            callback_url=parsed.webhook,
            events={"completed", "failed", "cancelled"},
            options={"bucket": parsed.s3Config},
        )

    def inlines(self, job: SandboxJob) -> bool:
        """Return whether it gives the images themselves: where the job names no bucket."""
        return job.options["bucket"] is None

    def accepted(self, job: SandboxJob) -> Response:
        """Build the response to a submission."""
        return JSONResponse({"id": job.id, "status": "IN_QUEUE"})

    def find(self, job_id: str, sandbox: Sandbox, account: Account) -> SandboxJob | Response:
        """Return a job; half an hour after its end there is none."""
        job = super().find(job_id, sandbox, account)
        gone = isinstance(job, SandboxJob) and sandbox.expired(job)
        return self.refuse(404, self.unknown_job) if gone else job

    async def cancel(self, request: Request, sandbox: Sandbox, account: Account) -> Response:
        """`POST /v2/{endpoint}/cancel/{id}`."""
        job = self.find(request.path_params["id"], sandbox, account)
        if isinstance(job, Response):
            return job
        sandbox.cancel(job)
        return JSONResponse({"id": job.id, "status": WORDS.get(job.status, job.status)})

    def report(self, job: SandboxJob, state: State, links: list[Any]) -> Body:
        """Build what polls and callbacks tell."""
        body: Body = {"id": job.id, "status": WORDS.get(state, state), "delayTime": 31}
        if state == "COMPLETED":
            images = [_image(n, link) for n, link in enumerate(links)]
            output: Body = {"images": images}
            if "output_errors" in job.faults:
                output = {"images": images[:-1], "errors": [job.faults.message]}
            return {**body, "executionTime": 500, "output": output}
        return body | ({"error": job.error, "executionTime": 500} if state == "FAILED" else {})


def _image(number: int, link: str) -> Body:
    kind, data = ("base64", link.partition(",")[2]) if link.startswith("data:") else ("s3_url", link)
    return {"filename": f"out_{number + 1:05}_.png", "type": kind, "data": data}


def _prompt(asked: dict[str, Any]) -> str:
    """Return the first text of a workflow, or the plain prompt of a simpler worker."""
    nodes = asked.get("workflow")
    inputs = [node.get("inputs", {}) for node in nodes.values()] if isinstance(nodes, dict) else [asked]
    texts = (one.get("text", one.get("prompt")) for one in inputs)
    return next((text for text in texts if isinstance(text, str)), "a workflow")
