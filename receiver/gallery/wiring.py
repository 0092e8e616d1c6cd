"""The gallery's parts, connected. It is handed the parts of the service that `receiver.app` made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from receiver.gallery.assets import Assets
from receiver.gallery.find_by_file import FindByFile
from receiver.gallery.grid import Grid
from receiver.gallery.looking_after import looking_after
from receiver.gallery.output import Detail
from receiver.gallery.page import PageHandler
from receiver.gallery.pages import Gallery
from receiver.gallery.rendering import Rendering
from receiver.gallery.sign_in import SigningIn
from receiver.http.bucket_threads import BucketTurns
from receiver.settings import Settings

if TYPE_CHECKING:
    from receiver.api.health import Health
    from receiver.api.jobs import Api
    from receiver.memory import Memory


def gallery(settings: Settings, memory: Memory, api: Api, health: Health, bucket: BucketTurns) -> Gallery:
    """Connect the gallery's parts."""
    assets = Assets()
    frame = PageHandler(api.admission, api.admission.sessions, Rendering(assets), settings.public_url)
    search, clock = memory.search, api.clock
    return Gallery(
        frame,
        [
            assets,
            SigningIn(frame),
            Grid(frame, search, memory.facets, clock),
            Detail(frame, search, memory.ledger, memory.notifications, memory.archive, bucket, clock),
            FindByFile(frame, search, settings.download.max_bytes),
            *looking_after(frame, memory, api, health),
        ],
    )
