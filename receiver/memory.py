"""What is remembered, opened: the ledger's database, the bucket, and what reads and writes them."""

from __future__ import annotations

from dataclasses import dataclass

from receiver.bucket import open_bucket
from receiver.errors import SettingsError
from receiver.makers import Makers
from receiver.settings import Settings
from storage.archive.archive import Archive
from storage.archive.keys import Keys
from storage.archive.object_store import ObjectStore
from storage.ledger.backlog import Backlog
from storage.ledger.circuits import Circuits
from storage.ledger.database import Database
from storage.ledger.events import Events
from storage.ledger.ledger import Ledger
from storage.ledger.notifications import Notifications
from storage.models import Clock
from storage.search.facets import Facets
from storage.search.search import Search
from storage.search.usage import Usage


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered, and where."""

    database: Database
    ledger: Ledger
    circuits: Circuits
    search: Search
    usage: Usage
    facets: Facets
    events: Events
    backlog: Backlog
    store: ObjectStore
    keys: Keys
    archive: Archive
    notifications: Notifications


def open_memory(settings: Settings, clock: Clock, makers: Makers) -> Memory:
    """Open both; raises SettingsError, Misconfigured or Unavailable, each saying what to change."""
    keys = _keys(settings)
    store, facts = open_bucket(settings.s3, makers.store)
    database = makers.database(settings.ledger_url)
    return Memory(
        database=database,
        ledger=makers.ledger(database, clock),
        circuits=Circuits(database, clock),
        search=Search(database),
        usage=Usage(database),
        facets=Facets(database),
        events=Events(database),
        backlog=Backlog(database, clock),
        store=store,
        keys=keys,
        archive=Archive(store, keys, trust_checksums=facts.checks_sha256 and facts.returns_sha256),
        notifications=Notifications(database, clock),
    )


def _keys(settings: Settings) -> Keys:
    try:
        return Keys(prefix=settings.s3.prefix, template=settings.key_template)
    except ValueError as error:
        # Each alone was checked when it was read.
        raise SettingsError(f"DARKROOM_S3__PREFIX with DARKROOM_KEY_TEMPLATE: {error}") from error
