"""How the parts that may die, stall or be refused are made; tests pass their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx

from receiver.gateways.client import GatewayClient
from receiver.thumbnails.pool import Thumbnailer
from storage.archive.object_store import ObjectStore
from storage.ledger.database import Database
from storage.ledger.ledger import Ledger
from storage.models import Clock


@dataclass(frozen=True, slots=True)
class Makers:
    """What `receiver.app.build` calls to make what remembers and what sends; by default the usual parts."""

    database: Callable[[str], Database] = Database.open
    ledger: Callable[[Database, Clock], Ledger] = Ledger
    store: Callable[..., ObjectStore] = ObjectStore.connect
    sender: Callable[[httpx.Client, Mapping[str, int]], GatewayClient] = GatewayClient
    thumbnailer: Callable[[], Thumbnailer] = Thumbnailer


USUAL = Makers()
