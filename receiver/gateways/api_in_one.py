"""API in One: https://apiin.one/docs and https://apiin.one/model/imagen-4.

It has no idempotency key, no signature and no list of tasks, and documents neither its callback nor much of
its task route. So what is read are the shapes of the gateways that resemble it: see `api_in_one_shapes.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from receiver.gateways.adapter import Adapter
from receiver.gateways.api_in_one_shapes import SHAPES, task_id
from receiver.gateways.reading import Reader
from receiver.gateways.table import Accept, Call, Callback, Errors, Family, Submit, Table

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

_PLACES = {name: name for name in ("aspect_ratio", "negative_prompt", "num_images", "seed")}
_IMAGEN_RATIOS = ("1:1", "4:3", "3:4", "16:9", "9:16")

TABLE = Table(
    name="api-in-one",
    title="API in One",
    docs="https://apiin.one/docs",
    base_url="https://apiin.one",
    submit=Submit("/api/v1/images/generations", {"model": "{model}", "prompt": "{prompt}"}),
    callback=Callback(body="callback_url"),
    # Some models are answered at once, with the images and perhaps without a task.
    accept=Accept(id="task_id"),
    read=tuple(SHAPES.values()),
    poll=Call("/api/v1/tasks/{id}"),
    # Success is 200 with a code of 200 in the body; any other code in it is a refusal.
    errors=Errors(code="code"),
    families=(
        Family(
            ("imagen4-fast", "imagen4", "imagen4-ultra"),
            _PLACES,
            choices={"aspect_ratio": _IMAGEN_RATIOS},
            least_prompt=3,
            most_prompt=5000,
        ),
    ),
    others=Family((), _PLACES, least_prompt=3, most_prompt=5000),
    prices=PRICES,
    sure={"callback": "guessed", "poll": "likely", "signature": "guessed", "life": "guessed"},
)


class ApiInOne(Adapter):
    """API in One."""

    table = TABLE
    nameless = True

    def accepted_id(self, data: dict[str, Any]) -> str | None:
        """Return the task's id, which may be in an envelope."""
        return task_id(data)

    def job_id(self, data: dict[str, Any], readers: Sequence[Reader]) -> str | None:  # noqa: ARG002
        """Return the id of the task, whatever shape it is in."""
        return task_id(data)
