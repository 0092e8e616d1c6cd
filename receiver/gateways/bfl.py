"""Black Forest Labs: https://docs.bfl.ai and https://api.bfl.ai/openapi.json.

How it signs callbacks, and what is in one, is told only by https://github.com/black-forest-labs/skills.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from receiver.gateways import refusals
from receiver.gateways.adapter import Adapter
from receiver.gateways.base import Completion, Follow, State
from receiver.gateways.requests import sizes
from receiver.gateways.table import Accept, Auth, Call, Callback, Errors, Family, Read, Signing, Submit, Table
from storage.models import Job

if TYPE_CHECKING:
    import httpx

NOT_FOUND = "Task not found"
"""The status of a job that it does not know, which may be one that it has only just accepted."""

_FORMATS = {"output_format": ("jpeg", "png")}
_SIZE = {"aspect_ratio": "width:map.width height:map.height", "seed": "seed"}
_RATIO = {"aspect_ratio": "aspect_ratio", "seed": "seed"}

FAMILIES = (
    Family(
        (
            *("flux-2-max", "flux-2-pro", "flux-2-pro-preview", "flux-2-flex"),
            *("flux-2-klein-9b", "flux-2-klein-9b-preview", "flux-2-klein-4b"),
        ),
        _SIZE,
        # Multiples of 16, of about one megapixel: it is priced by them.
        maps={
            "aspect_ratio": sizes(
                "1:1=1024x1024 16:9=1280x720 4:3=1152x864 3:2=1248x832 5:4=1120x896 21:9=1456x624"
            )
        },
        choices=_FORMATS,
    ),
    Family(
        ("flux-pro-1.1", "flux-dev"),
        _SIZE,
        # Multiples of 32 from 256 to 1440.
        maps={
            "aspect_ratio": sizes(
                "1:1=1024x1024 16:9=1024x576 4:3=1152x864 3:2=1248x832 5:4=1120x896 21:9=1344x576"
            )
        },
        choices=_FORMATS,
    ),
    Family(
        ("flux-kontext-pro", "flux-kontext-max", "flux-pro-1.1-ultra"),
        _RATIO,
        choices=_FORMATS,
        ratio_pattern=True,
    ),
)

TABLE = Table(
    name="bfl",
    title="Black Forest Labs",
    docs="https://docs.bfl.ai",
    base_url="https://api.bfl.ai",
    auth=Auth("x-key"),
    submit=Submit("/v1/{model}", {"prompt": "{prompt}", "webhook_secret": "{callback_secret}"}),
    callback=Callback(body="webhook_url"),
    # Without a webhook the response has a `polling_url`, which may be on the host of a region; with one it
    # has none.
    accept=Accept(id="id", poll_url="polling_url"),
    poll=Call("/v1/get_result?id={id}"),
    poll_hosts=("bfl.ai",),
    read=(Read(images="result.sample", seed="result.seed", error="message || details.error || error"),),
    states={
        "Request Moderated": State.FAILED,
        "Content Moderated": State.FAILED,
        "Moderated": State.FAILED,
        NOT_FOUND: State.FAILED,
    },
    signing=Signing("bfl", "derived"),
    errors=Errors(words="detail || message || error"),
    families=FAMILIES,
    # No document names the hosts of its images, and ten minutes are too few to find out a wrong guess.
    life_s=600,
    sure={"callback": "likely", "signature": "likely"},
)


class BlackForestLabs(Adapter):
    """Black Forest Labs."""

    table = TABLE

    def read_poll(self, response: httpx.Response, job: Job) -> Completion | Follow:
        """Parse the response to a poll: that it does not know the job is a status there."""
        found = super().read_poll(response, job)
        reply = found.reply if isinstance(found, Completion) else None
        if reply and reply.get("status") == NOT_FOUND:
            raise refusals.refusal(self._info, response, polling=True, code=HTTPStatus.NOT_FOUND)
        return found
