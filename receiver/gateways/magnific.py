"""Magnific, which was Freepik's API: https://docs.freepik.com/webhooks. Both hosts and headers work.

A model is the path of its route below `/v1/ai`: `mystic`, `text-to-image/flux-dev`.
"""

from typing import Literal

from pydantic import Field

from receiver.gateways.adapter import Adapter
from receiver.gateways.settings import GatewaySettings
from receiver.gateways.table import Accept, Auth, Call, Callback, Errors, Family, Read, Signing, Submit, Table

_WORDS = """
    square_1_1 classic_4_3 traditional_3_4 widescreen_16_9 social_story_9_16 smartphone_horizontal_20_9
    smartphone_vertical_9_20 standard_3_2 portrait_2_3 horizontal_2_1 vertical_1_2 social_5_4 social_post_4_5
"""
_RATIOS = {":".join(word.rsplit("_", 2)[1:]): word for word in _WORDS.split()}
"""By https://docs.freepik.com/api-reference/mystic/post-mystic; some models know fewer of them."""

TABLE = Table(
    name="magnific",
    title="Magnific",
    docs="https://docs.freepik.com/webhooks",
    base_url="https://api.magnific.com",
    auth=Auth("x-magnific-api-key"),
    submit=Submit("/v1/ai/{model}", {"prompt": "{prompt}"}),
    callback=Callback(body="webhook_url"),
    accept=Accept(id="data.task_id", result=False),
    poll=Call("/v1/ai/{model}/{id}"),
    # Polls have the task in `data`, callbacks have it plain. Style transfer says `task_status`.
    read=(
        Read(unwrap="data", id="task_id", status="status || task_status", images="generated", error="error"),
    ),
    # Keyed by the secret's text, or by what its base64 stands for: its documents and its users differ.
    signing=Signing("freepik", about="The webhook secret of its dashboard; without it each is confirmed."),
    errors=Errors(words="message || error.message || error || detail"),
    maps={"aspect_ratio": _RATIOS},
    families=(
        Family(("mystic",), {"aspect_ratio": "aspect_ratio:map"}),
        Family(("text-to-image/flux-dev",), {"aspect_ratio": "aspect_ratio:map", "seed": "seed"}),
        Family(("text-to-image/seedream-v4-5",), {"aspect_ratio": "aspect_ratio:map"}, most_prompt=4096),
    ),
    # At each change: `CREATED`, `IN_PROGRESS` and the end.
    terminal_only=False,
    sure={"poll": "likely", "signature": "guessed", "life": "guessed", "models": "likely"},
)


class Magnific(Adapter):
    """Magnific."""

    table = TABLE

    class Settings(GatewaySettings):
        """Of Magnific alone."""

        key_header: Literal["x-magnific-api-key", "x-freepik-api-key"] = Field(
            "x-magnific-api-key", description="The header that holds the API key."
        )

    settings: Settings

    def _headers(self) -> dict[str, str]:
        return {self.settings.key_header: self._api_key}
