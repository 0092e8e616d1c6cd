"""The shapes of tasks that API in One may send: those of the gateways that it resembles, each a `Read`.

Nothing counts as an image because it looks like a URL.
"""

from collections.abc import Mapping
from typing import Any

from receiver.gateways import parsing
from receiver.gateways.base import State
from receiver.gateways.table import Read

Task = Mapping[str, Any]

IDS = ("task_id", "taskId", "id", "generation_id", "job_id", "jobId", "request_id", "taskUUID")
STATUSES = ("status", "state", "task_status", "successFlag")
WRAPPERS = ("data", "payload", "task", "object")
MAX_WRAPPERS = 3

ERRORS = ("error.message", "error", "failMsg", "failure_reason", "task_status_msg", "reason", "errorMessage")
_NAMES = ("image_urls", "images", "urls", "image_url", "image", "url", "b64_json")
FLAT_IMAGES = (
    *("image_urls", "image_url", "imageUrl", "generated", "sample", "assets.image", "image", "b64_json"),
)
OUTPUT_IMAGES = (
    *(f"output.{name}" for name in _NAMES),
    *("output", "outputs"),
    *(f"result.{name}" for name in (*_NAMES, "sample")),
    *("result", "images", "generated", "generated_images", "sample", "assets.image", "image"),
    *("upscaled_urls", "attachments"),
    *(f"data.{name}" for name in (*_NAMES, "cdnImages", "cdnImage")),
    "data",
)
"""The places of images, the one first that has most where several show the same."""


def unwrap(data: Task) -> Task:
    """Return the task inside of its envelopes: the innermost object that has a status or an id."""
    task = data
    for _ in range(MAX_WRAPPERS):
        inner = (task[key] for key in WRAPPERS if isinstance(task.get(key), dict))
        found = next((t for t in inner if any(k in t for k in (*IDS, *STATUSES, *WRAPPERS))), None)
        if found is None:
            break
        task = found
    return task


def task_id(data: Task) -> str | None:
    """Return the task's id, or None if there is none. Raises Unreadable if it is no short text."""
    inside = parsing.name(parsing.first(unwrap(data), IDS))
    # In the envelope, `id` and `request_id` may be the response's own.
    return inside or parsing.name(parsing.first(data, ("task_id", "taskId")))


def _is_number(value: object) -> bool:
    return type(value) is int or (isinstance(value, str) and value.isascii() and value.isdigit())


def _is_evolink(task: Task) -> bool:
    return "results" in task or (
        isinstance(task.get("object"), str) and str(task["object"]).endswith(".task") and "status" in task
    )


def _is_comet(task: Task) -> bool:
    return isinstance(task.get("status"), str) and _is_number(task["status"])


def _is_flat(task: Task) -> bool:
    return "status" in task and any(key in task for key in FLAT_IMAGES)


def _is_statusless(task: Task) -> bool:
    return any(key in task for key in ("output", *FLAT_IMAGES)) or isinstance(task.get("data"), list)


def _shape(images: tuple[str, ...], status: str = "status", **more: Any) -> Read:
    return Read(
        unwrap=unwrap,
        id=" || ".join(IDS),
        outer_id="task_id || taskId",
        status=status,
        images=" || ".join(images),
        seed="seed || output.seed || result.seed",
        error=" || ".join(ERRORS),
        credits="creditsConsumed || consumed_credit",
        **more,
    )


# Most specific first: the first that recognises a task reads it.
SHAPES: Mapping[str, Read] = {
    # Kie.ai; `resultJson` and `param` are JSON inside of a text. https://docs.kie.ai
    "kie": _shape(
        ("from_json(resultJson).resultUrls", "from_json(resultJson).result_urls", "resultUrls"),
        "state",
        when=lambda task: "state" in task,
        echoed="from_json(param).input.seed || from_json(param).seed",
    ),
    # Kie.ai's older interfaces for single models.
    "kie-older": _shape(
        ("info.result_urls", "info.resultUrls", "info.resultImageUrl", "response.resultImageUrl"),
        "successFlag",
        when=lambda task: "successFlag" in task or isinstance(task.get("info"), dict),
        states={"1": State.SUCCEEDED, "2": State.FAILED, "3": State.FAILED},
        silent="images",
    ),
    # Kling's callback, which very many gateways pass on. https://apidoc.cometapi.com/callback-url-doc-866305
    "kling": _shape(("task_result.images",), "task_status", when=lambda task: "task_status" in task),
    # https://docs.evolink.ai
    "evolink": _shape(("results", *OUTPUT_IMAGES), when=_is_evolink),
    # https://nanobnanapro.com: `"status": 1`, and the images in `response`.
    "nanobnanapro": _shape(
        ("response",),
        when=lambda task: "response" in task and _is_number(task.get("status")),
        states={"1": State.SUCCEEDED},
    ),
    # `"status": "3"`, flat links. https://apidoc.cometapi.com/runway-best-practices-doc-928347
    "comet": _shape(FLAT_IMAGES, when=_is_comet, states={"3": State.SUCCEEDED}),
    "flat": _shape((*FLAT_IMAGES, *OUTPUT_IMAGES), when=_is_flat),
    # Our best guess for API in One itself: the envelope of its submit response.
    "envelope": _shape((*OUTPUT_IMAGES, *FLAT_IMAGES), when=lambda task: "status" in task),
    # unifically and OpenAI (`data: [{"b64_json": ...}]`): the same without a status.
    "statusless": _shape((*OUTPUT_IMAGES, *FLAT_IMAGES), when=_is_statusless, silent="images"),
}
