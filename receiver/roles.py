"""Which routes a process has."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """What a process of the whole service serves over HTTP, beside health and metrics.

    The one that takes callbacks only is put together apart, in `receiver.callback_app`: it lacks most parts.
    """

    ALL = "all"
    """Callbacks, the API and the gallery."""
    API = "api"
    """The API and the gallery."""
    WORK = "work"
    """Nothing: it works on jobs."""
