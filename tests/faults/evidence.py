"""What there is to see of a world when all is over, read once, from the outside where that is possible."""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from receiver.sandbox import JobReport
from tests.faults.world import Accepted, World
from tests.support.sandbox import credits_of

READERS = 4


@dataclass(frozen=True)
class Object:
    """An object as it came back from the bucket, without the world's prefix in its key."""

    key: str
    sha256: str
    metadata: Mapping[str, str]
    document: Mapping[str, Any] | None
    """What is in it, if it is JSON."""


@dataclass(frozen=True)
class Evidence:
    prefix: str
    """What all keys of this world begin with."""
    accepted: list[Accepted]
    status: Mapping[str, Any]
    shown_jobs: Mapping[str, Mapping[str, Any]]
    """By the API, by job id."""
    shown_outputs: list[Mapping[str, Any]]
    jobs: Mapping[str, Mapping[str, Any]]
    """By the ledger's file, by job id."""
    outputs: list[Mapping[str, Any]]
    deliveries: list[Mapping[str, Any]]
    integrity: list[str]
    """What SQLite itself finds: `ok`, or what is broken."""
    objects: Mapping[str, Object]
    """By key."""
    made: list[JobReport]
    """What the sandbox did."""
    true_digests: Mapping[tuple[str, int], str]
    """Hex SHA-256 of each image that the sandbox made, by its job id and the image's index."""
    spent: int
    """The credits that are gone."""

    @property
    def prompts(self) -> dict[str, Accepted]:
        return {job.prompt: job for job in self.accepted}


def gather(world: World) -> Evidence:
    made = world.sandbox.jobs()
    return Evidence(
        prefix=world.prefix,
        accepted=list(world.accepted),
        status=world.get("/v1/status"),
        shown_jobs={job["id"]: job for job in world.pages("/v1/jobs", "jobs")},
        shown_outputs=list(world.pages("/v1/outputs", "outputs")),
        jobs={row["id"]: row for row in world.rows("SELECT * FROM jobs")},
        outputs=list(world.rows("SELECT * FROM outputs")),
        deliveries=list(world.rows("SELECT * FROM deliveries")),
        integrity=world.integrity(),
        objects=_objects(world),
        made=made,
        true_digests={
            (job.id, index): hashlib.sha256(world.sandbox.image_bytes(job.id, index)).hexdigest()
            for job in made
            for index in range(len(job.images))
        },
        spent=sum(
            account.credits - credits_of(world.sandbox, account.key)
            for account in world.sandbox.config.accounts
        ),
    )


def _objects(world: World) -> dict[str, Object]:
    def read(key: str) -> Object:
        with world.store.stream(key) as stream:
            body = b"".join(stream.chunks)
        plain = key.removeprefix(world.prefix)
        document = json.loads(body) if plain.startswith("records/") else None
        return Object(plain, hashlib.sha256(body).hexdigest(), stream.object.metadata, document)

    keys = [stored.key for stored in world.store.list(world.prefix)]
    with ThreadPoolExecutor(READERS) as pool:
        return {found.key: found for found in pool.map(read, keys)}
