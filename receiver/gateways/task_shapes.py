"""The shapes in which API in One may report a task.

It documents none of its callback and little of its task answer, so this reads the shapes of the gateways
that resemble it, each a row in one table. A row says by what a shape is known and where its pieces sit;
nothing is taken for an image because it looks like a URL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
FLAT_IMAGES = ("image_urls", "image_url", "imageUrl", "generated", "sample", "assets.image", "image")
OUTPUT_IMAGES = (
    *("output.image_urls", "output.image_url", "output.images", "output", "outputs"),
    *("result.images", "result.image_urls", "result.image_url", "result.sample"),
    *("result", "images", "generated", "sample", "assets.image", "image", "data.image_url"),
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """One shape: how it is recognised, and where its status, images and seed are."""

    name: str
    recognise: Callable[[Task], bool]
    status: str
    images: tuple[str, ...]
    seeds: tuple[str, ...] = SEEDS
    numbers: Mapping[str, State] = field(default_factory=dict)
    """What numeric statuses mean here, where the shape has any; a number means nothing elsewhere."""
    silent: bool = False
    """Whether it may come without a status, so that its images say that it is done."""


def _is_number(value: object) -> bool:
    return type(value) is int or (isinstance(value, str) and value.isascii() and value.isdigit())


def _is_evolink(task: Task) -> bool:
    return "results" in task or (
        isinstance(task.get("object"), str) and str(task["object"]).endswith(".task") and "status" in task
    )


def _is_statusless(task: Task) -> bool:
    return any(key in task for key in ("output", *FLAT_IMAGES))


# Most telling first: the first that recognises a task reads it.
DIALECTS: tuple[Dialect, ...] = (
    # Kie.ai; `resultJson` and `param` are JSON inside of a text. https://docs.kie.ai
    Dialect(
        "kie",
        lambda task: "state" in task,
        "state",
        ("resultJson.resultUrls", "resultJson.result_urls", "resultUrls"),
        (*SEEDS, "param.input.seed", "param.seed"),
    ),
    # Kie.ai's older interfaces for single models.
    Dialect(
        "kie-older",
        lambda task: "successFlag" in task or isinstance(task.get("info"), dict),
        "successFlag",
        ("info.result_urls", "info.resultUrls", "info.resultImageUrl", "response.resultImageUrl"),
        numbers={"1": State.SUCCEEDED, "2": State.FAILED, "3": State.FAILED},
        silent=True,
    ),
    # Kling's callback, which very many gateways pass on. https://apidoc.cometapi.com/callback-url-doc-866305
    Dialect("kling", lambda task: "task_status" in task, "task_status", ("task_result.images",)),
    # https://docs.evolink.ai
    Dialect("evolink", _is_evolink, "status", ("results", *OUTPUT_IMAGES)),
    # nanobnanapro.com: `"status": 1`, and the images in `response`.
    Dialect(
        "nanobnanapro",
        lambda task: "response" in task and _is_number(task.get("status")),
        "status",
        ("response",),
        numbers={"1": State.SUCCEEDED},
    ),
    # CometAPI's Runway shape: `"status": "3"`, flat links.
    Dialect(
        "comet",
        lambda task: isinstance(task.get("status"), str) and _is_number(task["status"]),
        "status",
        FLAT_IMAGES,
        numbers={"3": State.SUCCEEDED},
    ),
    Dialect(
        "flat",
        lambda task: "status" in task and any(key in task for key in FLAT_IMAGES),
        "status",
        (*FLAT_IMAGES, *OUTPUT_IMAGES),
    ),
    # Our best guess for API in One itself: the envelope of its submit answer.
    Dialect("envelope", lambda task: "status" in task, "status", (*OUTPUT_IMAGES, *FLAT_IMAGES)),
    # unifically: the same without a status.
    Dialect("statusless", _is_statusless, "status", (*OUTPUT_IMAGES, *FLAT_IMAGES), silent=True),
)


def code(answer: Mapping[str, Any]) -> int | None:
    """Answer the envelope's own `code` if it says that something failed, whatever the HTTP status says."""
    given = answer.get("code")
    if not isinstance(given, str | int) or not _is_number(given) or len(str(given)) > 9:
        return None
    return None if int(given) in GOOD_CODES else int(given)


def unwrap(answer: Task) -> Task:
    """Answer the task inside of its envelopes: the innermost object that has a status or an id."""
    task = answer
    for _ in range(MAX_WRAPPERS):
        inner = (task[key] for key in WRAPPERS if isinstance(task.get(key), dict))
        found = next((t for t in inner if any(k in t for k in (*IDS, *STATUSES, *WRAPPERS))), None)
        if found is None:
            break
        task = found
    return task


def task_id(answer: Task) -> str | None:
    """Answer the task's id, or None if there is none; raises Unreadable for one that is no short text."""
    inside = parsing.name(parsing.first(unwrap(answer), IDS))
    # On the outside an `id` or `request_id` may well be the answer's own.
    return inside or parsing.name(parsing.first(answer, ("task_id", "taskId")))


def read(answer: dict[str, Any], secrets: tuple[str, ...]) -> Completion:
    """Read a task; raises Unreadable if it is in no shape of the table.

    An envelope whose code is not a success is a failed task, whatever else it says.
    """
    task = unwrap(answer)
    failed = code(answer) is not None
    dialect = next((row for row in DIALECTS if row.recognise(task)), None)
    if dialect is None and not failed:
        raise parsing.Unreadable("it is in none of the shapes that are known")
    state = State.FAILED if failed or dialect is None else _state(dialect, task)
    done = dialect is not None and state is State.SUCCEEDED
    return Completion(
        state=state,
        gateway_job_id=task_id(answer),
        images=_images(task, dialect.images) if dialect and done else (),
        model=parsing.label(task.get("model")),
        seed=parsing.seed(parsing.first(task, dialect.seeds)) if dialect and done else None,
        credits=parsing.amount(parsing.first(task, ("creditsConsumed", "consumed_credit"))),
        error=_error(answer, task, secrets) if state is State.FAILED else None,
        reply=answer,
    )


def _state(dialect: Dialect, task: Task) -> State:
    """Read the status; what is not known means that it is not done yet."""
    word = task.get(dialect.status)
    if not isinstance(word, str | int | None) or isinstance(word, bool):
        raise parsing.Unreadable("its status is not a word or a number")
    if dialect.numbers and _is_number(word):
        return dialect.numbers.get(str(word), State.RUNNING)
    if word is None and dialect.silent:
        return State.SUCCEEDED if _images(task, dialect.images) else State.RUNNING
    return parsing.state(word) or State.RUNNING


def _images(task: Task, paths: tuple[str, ...]) -> tuple[ImageRef, ...]:
    """Answer the images at the first path that has any."""
    for path in paths:
        value = parsing.dig(task, path, strict=True)
        if isinstance(value, dict) and not any(key in value for key in parsing.URL_KEYS):
            continue  # An object of other things: a longer path may lead into it.
        if found := parsing.images(value):
            return found
    return ()


def _error(answer: Task, task: Task, secrets: tuple[str, ...]) -> str | None:
    found = parsing.first(task, ERRORS)
    if not isinstance(found, str):
        found = parsing.first(answer, ENVELOPE_ERRORS)
    if parsing.state(found) is State.SUCCEEDED:
        return None  # The envelope's own "success".
    return parsing.prose(found, secrets)
