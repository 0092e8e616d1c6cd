"""Kie.ai: https://docs.kie.ai/market/common/get-task-detail and /common-api/webhook-verification."""

from receiver.gateways.adapter import Adapter
from receiver.gateways.table import Accept, Call, Callback, Errors, Family, Read, Signing, Submit, Table

_IMAGEN = {
    "aspect_ratio": "aspect_ratio",
    "negative_prompt": "negative_prompt",
    "num_images": "num_images:str",
}

TABLE = Table(
    name="kie",
    title="Kie.ai",
    docs="https://docs.kie.ai/market/common/get-task-detail",
    base_url="https://api.kie.ai",
    submit=Submit(
        "/api/v1/jobs/createTask", {"model": "{model}", "input": {"prompt": "{prompt}"}}, params="input"
    ),
    callback=Callback(body="callBackUrl"),
    accept=Accept(id="data.taskId", result=False),
    poll=Call("/api/v1/jobs/recordInfo?taskId={id}"),
    # A callback is what a poll tells. Its task is named in both spellings, and the older APIs of single
    # models have their links in `info`.
    read=(
        Read(
            unwrap="data",
            id="taskId || task_id",
            status="state",
            images="from_json(resultJson).resultUrls || info.result_urls || info.resultImageUrl",
            echoed="from_json(param).input.seed",
            error="failMsg",
            credits="creditsConsumed",
        ),
    ),
    # Over the task's id and the time, never over the body: the sender is proven, and the task is asked for.
    signing=Signing(
        "kie", about="Its webhook HMAC key, of its settings; callbacks are confirmed with it too."
    ),
    # HTTP 200 with a code; 501 is a generation that failed, 505 a model that is switched off.
    errors=Errors(words="msg || message", code="code", kinds={505: "refused"}),
    families=(
        Family(("google/imagen4-fast",), {**_IMAGEN, "seed": "seed:int"}, most_images=4, most_prompt=5000),
        Family(
            ("google/imagen4", "google/imagen4-ultra"),
            {**_IMAGEN, "seed": "seed:str"},
            most_images=4,
            most_prompt=5000,
        ),
        Family(("nano-banana-2", "nano-banana-pro"), {"aspect_ratio": "aspect_ratio"}),
    ),
    image_hosts=("aiquickdraw.com",),
    life_s=24 * 3600,
    sure={"life": "likely", "models": "likely"},
)


class Kie(Adapter):
    """Kie.ai."""

    table = TABLE
