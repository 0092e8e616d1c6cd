"""Parse task reports of resold gateways, by a table of shapes; for API in One.

It does not document its callback and little of its task route, so this parses the shapes of the gateways
that resemble it, each a row of the table: how the shape is recognised, and where its fields are. Nothing
counts as an image because it looks like a URL.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from receiver.gateways import parsing
from receiver.gateways.base import Completion, State
from storage.models import ImageRef

Task = Mapping[str, Any]

IDS = ("task_id", "taskId", "id", "generation_id", "job_id", "jobId", "request_id", "taskUUID")
STATUSES = ("status", "state", "task_status", "successFlag")
WRAPPERS = ("data", "payload", "task", "object")
MAX_WRAPPERS = 3
GOOD_CODES = frozenset({0, 200, 201, 202})

ERRORS = ("error.message", "error", "failMsg", "failure_reason", "task_status_msg", "reason", "errorMessage")
ENVELOPE_ERRORS = ("error.message", "error", "message", "msg")
SEEDS = ("seed", "output.seed", "result.seed")
_NAMES = ("image_urls", "images", "urls", "image_url", "image", "url", "b64_json")
FLAT_IMAGES = (
    "image_urls",
    "image_url",
    "imageUrl",
    "generated",
    "sample",
    "assets.image",
    "image",
    "b64_json",
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


@dataclass(frozen=True, slots=True)
class TaskShape:
    """One shape: how it is recognised, and where its status, images and seed are."""

    name: str
    recognise: Callable[[Task], bool]
    status: str
    images: tuple[str, ...]
    seeds: tuple[str, ...] = SEEDS
    numbers: Mapping[str, State] = field(default_factory=dict)
    """What numeric statuses mean here, where the shape has any; a number means nothing elsewhere."""
    silent: bool = False
    """Whether it may come without a status, so that images mean success."""


def _is_number(value: object) -> bool:
    return type(value) is int or (isinstance(value, str) and value.isascii() and value.isdigit())


def _is_evolink(task: Task) -> bool:
    return "results" in task or (
        isinstance(task.get("object"), str) and str(task["object"]).endswith(".task") and "status" in task
    )


def _is_statusless(task: Task) -> bool:
    return any(key in task for key in ("output", *FLAT_IMAGES)) or isinstance(task.get("data"), list)


# Most specific first: the first that recognises a task parses it.
SHAPES: tuple[TaskShape, ...] = (
    # Kie.ai; `resultJson` and `param` are JSON inside of a text. https://docs.kie.ai
    TaskShape(
        "kie",
        lambda task: "state" in task,
        "state",
        ("resultJson.resultUrls", "resultJson.result_urls", "resultUrls"),
        (*SEEDS, "param.input.seed", "param.seed"),
    ),
    # Kie.ai's older interfaces for single models.
    TaskShape(
        "kie-older",
        lambda task: "successFlag" in task or isinstance(task.get("info"), dict),
        "successFlag",
        ("info.result_urls", "info.resultUrls", "info.resultImageUrl", "response.resultImageUrl"),
        numbers={"1": State.SUCCEEDED, "2": State.FAILED, "3": State.FAILED},
        silent=True,
    ),
    # Kling's callback, which very many gateways pass on. https://apidoc.cometapi.com/callback-url-doc-866305
    TaskShape("kling", lambda task: "task_status" in task, "task_status", ("task_result.images",)),
    # https://docs.evolink.ai
    TaskShape("evolink", _is_evolink, "status", ("results", *OUTPUT_IMAGES)),
    # https://nanobnanapro.com: `"status": 1`, and the images in `response`.
    TaskShape(
        "nanobnanapro",
        lambda task: "response" in task and _is_number(task.get("status")),
        "status",
        ("response",),
        numbers={"1": State.SUCCEEDED},
    ),
    # `"status": "3"`, flat links. https://apidoc.cometapi.com/runway-best-practices-doc-928347
    TaskShape(
        "comet",
        lambda task: isinstance(task.get("status"), str) and _is_number(task["status"]),
        "status",
        FLAT_IMAGES,
        numbers={"3": State.SUCCEEDED},
    ),
    TaskShape(
        "flat",
        lambda task: "status" in task and any(key in task for key in FLAT_IMAGES),
        "status",
        (*FLAT_IMAGES, *OUTPUT_IMAGES),
    ),
    # Our best guess for API in One itself: the envelope of its submit response.
    TaskShape("envelope", lambda task: "status" in task, "status", (*OUTPUT_IMAGES, *FLAT_IMAGES)),
    # unifically and OpenAI (`data: [{"b64_json": ...}]`): the same without a status.
    TaskShape("statusless", _is_statusless, "status", (*OUTPUT_IMAGES, *FLAT_IMAGES), silent=True),
)


def code(data: Mapping[str, Any]) -> int | None:
    """Return the envelope's own `code` if it is an error, whatever the HTTP status; else None."""
    given = data.get("code")
    if not isinstance(given, str | int) or not _is_number(given) or len(str(given)) > 9:
        return None
    return None if int(given) in GOOD_CODES else int(given)


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


def read(data: dict[str, Any], secrets: tuple[str, ...]) -> Completion:
    """Parse a task. Raises Unreadable if it is in no shape of the table, or contradicts itself.

    An envelope with an error code is a failed task, unless the task's own status says otherwise.
    """
    task = unwrap(data)
    failed = code(data) is not None
    shape = next((row for row in SHAPES if row.recognise(task)), None)
    if shape is None and not failed:
        raise parsing.Unreadable("it is in none of the shapes that are known")
    state = State.FAILED if shape is None else _state(shape, task)
    if failed and shape is not None and state is not State.FAILED:
        if parsing.state(task.get(shape.status)) is not None:
            raise parsing.Unreadable("its code says that it failed, and its status does not")
        state = State.FAILED
    done = shape is not None and state is State.SUCCEEDED
    images, withheld = _images(task, shape.images) if shape and done else parsing.Listed()
    return Completion(
        state=state,
        gateway_job_id=task_id(data),
        images=images,
        withheld=withheld,
        model=parsing.label(task.get("model")),
        seed=parsing.seed(parsing.first(task, shape.seeds)) if shape and done else None,
        credits=parsing.amount(parsing.first(task, ("creditsConsumed", "consumed_credit"))),
        error=_error(data, task, secrets) if state is not State.RUNNING and not images else None,
        reply=data,
        unread=_unread(shape, task, state, images),
    )


def _unread(shape: TaskShape | None, task: Task, state: State, images: Sequence[ImageRef]) -> str | None:
    if state is not State.RUNNING:
        return parsing.unread_image(task) if state is State.SUCCEEDED and not images else None
    word = task.get(shape.status) if shape else None
    # Where numbers mean something, those that are not listed are steps on the way.
    return None if shape and shape.numbers and _is_number(word) else parsing.unknown_status(word)


def _state(shape: TaskShape, task: Task) -> State:
    """Parse the status; an unknown one means running."""
    word = task.get(shape.status)
    if not isinstance(word, str | int | None) or isinstance(word, bool):
        raise parsing.Unreadable("its status is not a word or a number")
    if shape.numbers and _is_number(word):
        return shape.numbers.get(str(word), State.RUNNING)
    if word is None and shape.silent:
        return State.SUCCEEDED if _images(task, shape.images).images else State.RUNNING
    return parsing.state(word) or State.RUNNING


def _images(task: Task, paths: tuple[str, ...]) -> parsing.Listed:
    """Return the images at the first path that has any."""
    return parsing.first_images(_images_at(task, path) for path in paths)


def _images_at(task: Task, path: str) -> parsing.Listed:
    value = parsing.dig(task, path, strict=True)
    if isinstance(value, dict) and not any(key in value for key in parsing.IMAGE_KEYS):
        return parsing.Listed()  # An object of other things: a longer path may lead into it.
    around, _, _ = path.rpartition(".")
    return parsing.images(value, parsing.dig(task, around) if around else task)


def _error(data: Task, task: Task, secrets: tuple[str, ...]) -> str | None:
    found = parsing.first(task, ERRORS)
    if not isinstance(found, str):
        found = parsing.first(data, ENVELOPE_ERRORS)
    if parsing.state(found) is State.SUCCEEDED:
        return None  # The envelope's own "success".
    return parsing.prose(found, secrets)
