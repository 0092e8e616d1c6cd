"""Apiframe, version 2 of its API: https://docs-v2.apiframe.ai/docs/images and /docs/webhooks."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from receiver.gateways.adapter import Adapter
from receiver.gateways.apiframe_models import FAMILIES
from receiver.gateways.settings import GatewaySettings
from receiver.gateways.table import Accept, Auth, Call, Callback, Listing, Read, Signing, Submit, Table

EVENTS = ("completed", "failed")
"""The requested callbacks: all but `progress`."""

READ = Read(
    id="jobId",
    status="status || event",
    # `gridUrl` shows all images of a job in one; it is used only where there is nothing else.
    images="result.images || result.image || result.image_urls || result.urls || result || result.gridUrl",
    seed="result.seed",
    credits="creditCost",
    expired="expired",
)

TABLE = Table(
    name="apiframe",
    title="Apiframe",
    docs="https://docs-v2.apiframe.ai/docs/webhooks",
    base_url="https://api.apiframe.ai",
    auth=Auth("X-API-Key"),
    idempotency="Idempotency-Key",
    submit=Submit("/v2/images/generate", {"model": "{model}", "prompt": "{prompt}"}),
    callback=Callback(body="webhookUrl", also={"webhookEvents": list(EVENTS)}),
    accept=Accept(id="jobId"),
    read=(READ,),
    read_poll=(replace(READ, id="id || jobId"),),
    # https://docs-v2.apiframe.ai/docs/jobs/get
    poll=Call("/v2/jobs/{id}"),
    # By the limit of https://docs-v2.apiframe.ai/docs/jobs/list
    listing=Listing("/v2/jobs?limit=100", "cursor", jobs="jobs", next="nextCursor", more="hasMore"),
    # HMAC-SHA256 over the raw body. No timestamp is signed, so a replay cannot be detected; and deliveries
    # without a signature have been reported.
    signing=Signing("apiframe-v2", "api-key"),
    families=FAMILIES,
    advice={
        "model": "give it as the field model",
        "prompt": "give it as the field prompt",
        "webhookUrl": "is set by Darkroom",
        "webhook_url": "is set by Darkroom",
        "webhookEvents": "is set by Darkroom",
    },
    # Its own domain, because it moves its images among the hosts there. Only links from an answer that is
    # signed, or was asked for, are followed.
    image_hosts=("apiframe.ai",),
    life_s=24 * 3600,
    sure={"callback": "confirmed", "signature": "confirmed", "life": "likely"},
)


class Apiframe(Adapter):
    """Apiframe.

    https://apiframe.ai has `webhook_url`, where the schema has `webhookUrl` and forbids other keys.
    """

    table = TABLE

    class Settings(GatewaySettings):
        """Of Apiframe alone."""

        callback_field: Literal["webhookUrl", "webhook_url"] = Field(
            "webhookUrl", description="The field of the submit request that holds the callback URL."
        )

    settings: Settings

    def callback_fields(self) -> tuple[str, Mapping[str, Any]] | None:
        """Return the field of the callback URL, which is a setting, and the events that are asked for."""
        return self.settings.callback_field, {"webhookEvents": list(EVENTS)}
