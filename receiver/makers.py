"""How the parts that may die, stall or be refused are made; tests pass their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx

from receiver.sending import Sender
from receiver.thumbnailer import Thumbnailer
from storage.database import Database
from storage.ledger import Ledger
from storage.objects import ObjectStore
from storage.records import Clock


@dataclass(frozen=True, slots=True)
class Makers:
    """What `receiver.app.build` calls to make what remembers and what sends; by default the usual parts."""

    database: Callable[[str], Database] = Database.open
    ledger: Callable[[Database, Clock], Ledger] = Ledger
    store: Callable[..., ObjectStore] = ObjectStore.connect
    sender: Callable[[httpx.Client, Mapping[str, int]], Sender] = Sender
    thumbnailer: Callable[[], Thumbnailer] = Thumbnailer


USUAL = Makers()
