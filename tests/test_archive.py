"""How a job lies in a real bucket, and what happens when something else lies there already."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import BinaryIO

import pytest

from storage.archive import Archive, NewImage, Written, record_document
from storage.errors import Conflict, Corrupt, NotFound
from storage.keys import Keys
from storage.media import ImageFacts
from storage.objects import ObjectStore, StoredObject
from storage.records import Delivery, FoundBy, Job, JobError, JobRequest, JobResult, Output, Status, Verdict

NOON = 1_795_348_800_000
JOB = Job(
    id="0192-id",
    gateway="apiframe",
    status=Status.READY,
    request=JobRequest(model="imagen-4", prompt="a red kite", seed="7", tags={"a": "b"}),
    created_at=NOON,
    updated_at=NOON,
    next_attempt_at=NOON,
    gateway_job_id="theirs",
    gateway_request_id="req-1",
    result=JobResult(model="imagen-4", credits=4.0, reply={"jobId": "theirs"}),
    found_by=FoundBy.CALLBACK,
    moves=((Status.QUEUED, NOON), (Status.READY, NOON + 1)),
)


def image(data: bytes = b"the bytes", index: int = 0) -> NewImage:
    return NewImage(
        index=index,
        file=io.BytesIO(data),
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        facts=ImageFacts("image/png", "png", 3, 2),
        declared_type="image/png",
        seed=None,
        source_url="https://cdn.example/1.png",
        downloaded_at=NOON,
    )


def document(*outputs: Output, closed_at: int = NOON + 2) -> dict[str, object]:
    closing = (Status.ARCHIVED, closed_at)
    return record_document(JOB, outputs, [], closing=closing, missing=None, seed_supported=False)


@pytest.fixture(params=[True, False], ids=["by the store's checksum", "by reading back"])
def archive(store: ObjectStore, request: pytest.FixtureRequest) -> Archive:
    return Archive(store, Keys(prefix="team/"), trust_checksums=request.param)


def test_an_image_lies_where_its_output_says_with_what_it_is(archive: Archive, store: ObjectStore) -> None:
    output = archive.store_image(JOB, image(), now=NOON + 1)
    stored = store.head(output.key)
    assert output.key == "team/images/2026/11/22/0192-id/0.png"
    assert store.read(output.key, max_bytes=100) == b"the bytes"
    assert stored.sha256 == output.sha256 == image().sha256
    assert stored.content_type == "image/png"
    assert stored.metadata == {
        "darkroom-job-id": "0192-id", "darkroom-output-index": "0", "darkroom-sha256": output.sha256,
    }  # fmt: skip
    assert (output.id, output.width, output.height, output.stored_at) == ("0192-id.0", 3, 2, NOON + 1)


def test_the_same_image_again_is_no_error_and_no_change(archive: Archive, store: ObjectStore) -> None:
    first = archive.store_image(JOB, image(), now=NOON)
    before = store.head(first.key)
    assert archive.store_image(JOB, image(), now=NOON) == first
    assert store.head(first.key) == before


def test_other_bytes_under_the_key_are_told_and_stay(archive: Archive, store: ObjectStore) -> None:
    first = archive.store_image(JOB, image(), now=NOON)
    with pytest.raises(Conflict, match="another image"):
        archive.store_image(JOB, image(b"other bytes"), now=NOON)
    assert store.read(first.key, max_bytes=100) == b"the bytes"


def test_a_record_is_written_once_and_read_back(archive: Archive) -> None:
    output = archive.store_image(JOB, image(), now=NOON)
    written = archive.write_record(JOB, document(output))
    assert written == Written(archive.record_key(JOB), 1)
    assert written.key == "team/records/2026/11/22/0192-id.json"
    assert archive.read_record(JOB) == json.loads(json.dumps(document(output))) | {"supersedes": None}


def test_a_record_of_the_same_outputs_stands_whatever_its_times(archive: Archive) -> None:
    output = archive.store_image(JOB, image(), now=NOON)
    archive.write_record(JOB, document(output))
    first = archive.read_record(JOB)
    archive.write_record(JOB, document(output, closed_at=NOON + 99_000))
    assert archive.read_record(JOB) == first


def test_a_record_of_other_outputs_is_a_conflict(archive: Archive) -> None:
    output = archive.store_image(JOB, image(), now=NOON)
    other = archive.store_image(JOB, image(index=1), now=NOON)
    archive.write_record(JOB, document(output))
    with pytest.raises(Conflict):
        archive.write_record(JOB, document(other))


def test_what_a_retry_found_stands_in_a_record_of_its_own(archive: Archive) -> None:
    first, second = (archive.store_image(JOB, image(index=index), now=NOON) for index in (0, 1))
    partial = archive.write_record(JOB, document(first))
    reopened = replace(JOB, records=partial.number)
    whole = archive.write_record(reopened, document(first, second))
    assert whole == Written("team/records/2026/11/22/0192-id.2.json", 2)
    assert archive.write_record(reopened, document(first, second)) == whole, "again is the same as once"
    latest = archive.read_record(replace(JOB, records=2))
    assert latest["supersedes"] == partial.key
    assert [output["index"] for output in latest["outputs"]] == [0, 1]
    assert len(archive.read_record(reopened)["outputs"]) == 1, "the first one is as it was"


def test_a_partial_record_of_a_worker_that_was_cut_off_does_not_stand_in_the_way(archive: Archive) -> None:
    first, second = (archive.store_image(JOB, image(index=index), now=NOON) for index in (0, 1))
    archive.write_record(JOB, document(first))
    assert archive.write_record(JOB, document(first, second)).number == 2


@pytest.mark.parametrize("body", [b"no json", b"[]", b'{"schema": "something/else"}', b"\xff"])
def test_what_is_no_record_is_not_taken_for_one(archive: Archive, store: ObjectStore, body: bytes) -> None:
    sha256 = hashlib.sha256(body).hexdigest()
    key = archive.record_key(JOB)
    store.put_new(key, io.BytesIO(body), size=len(body), sha256=sha256, content_type="x/y", metadata={})
    with pytest.raises(Corrupt):
        archive.read_record(JOB)
    with pytest.raises(Corrupt):
        archive.write_record(JOB, document())


def test_a_missing_record_is_not_found(archive: Archive) -> None:
    with pytest.raises(NotFound):
        archive.read_record(JOB)


class Careless(ObjectStore):
    """A store that damages what it is given, and says nothing of it."""

    def put_new(
        self,
        key: str,
        file: BinaryIO,
        *,
        size: int,
        sha256: str,
        content_type: str,
        metadata: Mapping[str, str],
    ) -> StoredObject:
        """Store other bytes of the same length."""
        damaged = bytes(byte ^ 1 for byte in file.read())
        return super().put_new(
            key,
            io.BytesIO(damaged),
            size=size,
            sha256=hashlib.sha256(damaged).hexdigest(),
            content_type=content_type,
            metadata=metadata,
        )


@pytest.mark.parametrize("trust", [True, False])
def test_damage_is_found_before_anything_counts_as_archived(store: ObjectStore, trust: bool) -> None:
    careless = Careless(store._client, store._links, bucket=store._bucket, on_aws=False)
    archive = Archive(careless, Keys(), trust_checksums=trust)
    with pytest.raises(Corrupt):
        archive.store_image(JOB, image(), now=NOON)
    with pytest.raises(Corrupt):
        archive.write_record(JOB, document())


def test_a_result_that_was_asked_for_again_is_not_said_to_be_proven_by_a_callback() -> None:
    told = Delivery("d1", JOB.id, JOB.gateway, NOON, {}, b"{}", "ab", Verdict.VALID, NOON + 1, "ready")
    later = replace(JOB, moves=(*JOB.moves, (Status.FAILED, NOON + 5), (Status.READY, NOON + 9)))
    closing = (Status.ARCHIVED, NOON + 10)
    by = [
        record_document(job, [], [told], closing=closing, missing=None, seed_supported=None)["evidence"]
        for job in (JOB, later)
    ]
    assert [one["confirmed_by"] for one in by] == ["callback", "poll"]


def test_the_record_holds_what_is_known_and_null_where_nothing_is() -> None:
    delivery = Delivery(
        "d1", JOB.id, JOB.gateway, NOON, {}, b"{}", "ab", Verdict.VALID, applied_at=NOON + 1, effect="ready"
    )
    missing = JobError("image_expired", "gone", "image")
    told = record_document(
        JOB, [], [delivery], closing=(Status.PARTIAL, NOON), missing=missing, seed_supported=None
    )
    assert told["job"]["moves"][-1] == {"status": "partial", "at": "2026-11-22T12:00:00.000Z"}
    assert told["seed"] == {"requested": "7", "returned": None, "supported": None}
    assert told["result"]["missing"] == {"code": "image_expired", "message": "gone", "at_fault": "image"}
    assert told["evidence"]["confirmed_by"] == "callback"
    assert told["evidence"]["gateway_request_ids"] == ["req-1"]
    assert told["evidence"]["deliveries"][0]["signature"] == "valid"
