"""RunPod serverless: https://docs.runpod.io/serverless/endpoints/send-requests.

A model is the id of an endpoint, whose worker is https://github.com/runpod-workers/worker-comfyui or one that
answers like it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from receiver.gateways.adapter import Adapter
from receiver.gateways.base import State
from receiver.gateways.table import Accept, Call, Callback, Errors, Read, Submit, Table


def _report(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report with the images of its worker, and a place with the reason for each that is missing.

    `data` is an image itself in base64, or its link in a bucket. Before version 5 one was `message`.
    """
    output = report.get("output")
    if not isinstance(output, dict):
        return dict(report)
    images, errors, old = output.get("images"), output.get("errors"), output.get("message")
    found = images if isinstance(images, list) else [{"data": old}] if isinstance(old, str) else []
    lacking = errors if isinstance(errors, list) else []
    places = [{"b64_json": one["data"]} if isinstance(one, dict) and "data" in one else one for one in found]
    return {**report, "images": [*places, *({"error": one} for one in lacking)]}


TABLE = Table(
    name="runpod",
    title="RunPod",
    docs="https://docs.runpod.io/serverless/endpoints/send-requests",
    base_url="https://api.runpod.ai",
    # A workflow has its own prompt; the one beside it is for workers that take a plain one.
    submit=Submit("/v2/{model}/run", {"input": {"prompt": "{prompt}"}}, params="input"),
    callback=Callback(body="webhook"),
    accept=Accept(id="id", result=False),
    read=(Read(unwrap=_report, images="images", model="", error="from_json(error).error_message || error"),),
    poll=Call("/v2/{model}/status/{id}"),
    cancel=Call("/v2/{model}/cancel/{id}", "POST"),
    states={"TIMED_OUT": State.FAILED},
    errors=Errors(words="error || message || detail"),
    # A job is forgotten half an hour after its end, and an image with it unless it is in a bucket.
    life_s=1800,
    sure={"images": "likely"},
)


class RunPod(Adapter):
    """RunPod serverless."""

    table = TABLE
