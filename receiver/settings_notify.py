"""The settings of notifications."""

from __future__ import annotations

from pydantic import Field

from receiver.settings_types import Group, Hosts, Networks, Secret, WebhookSecrets


class NotifySettings(Group):
    """How applications are told that a job of theirs is over."""

    url: Secret | None = Field(
        None, description="Where notifications go of jobs that name no `notify_url`; unset: nowhere."
    )
    secrets: WebhookSecrets = Field(
        default_factory=list,
        description="Sign notifications: `whsec_<base64>`, oldest first, and each of them signs. "
        "Unset: one is made and kept in the data folder; `darkroom notifications secret` shows it.",
    )
    allow_networks: Networks = Field(
        default_factory=list,
        description="Private networks that notifications may go to, also over plain http: `127.0.0.0/8` for "
        "an application on this machine.",
    )
    allow_hosts: Hosts = Field(
        default_factory=list,
        description="The only hosts, with those below them, that notifications may go to besides; "
        "unset: any public host.",
    )
    timeout: float = Field(15, gt=0, le=120, description="Seconds that a receiver has to answer.")
    concurrency: int = Field(
        8, ge=1, le=64, description="Notifications sent at the same time, to one host a quarter of them."
    )
