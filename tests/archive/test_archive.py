"""How a job lies in a real bucket, and what happens when something else lies there already."""

import hashlib
import io
import json
from dataclasses import replace
from typing import Any, BinaryIO

import pytest
from PIL import Image

from storage.archive.archive import Archive, NewImage, WrittenRecord
from storage.archive.keys import Keys
from storage.archive.object_store import ObjectStore, StoredObject
from storage.archive.record import record_document
from storage.archive.store_facts import StoreFacts
from storage.errors import Conflict, Corrupt, NotFound
from storage.media.inspect import ImageFacts
from storage.models import Delivery, FoundBy, Job, JobError, JobRequest, JobResult, Output, Status, Verdict
from tests.support.services import S3Access

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
        downloaded_at=NOON,
    )


FACTS = StoreFacts()


def document(*outputs: Output, closed_at: int = NOON + 2) -> dict[str, object]:
    closing = (Status.ARCHIVED, closed_at)
    return record_document(JOB, outputs, [], closing=closing, missing=None, seed_supported=False, store=FACTS)


@pytest.fixture(
    params=[
        pytest.param(True, id="by the store's checksum"),
        pytest.param(False, id="by reading back", marks=pytest.mark.exhaustive),
    ]
)
def archive(store: ObjectStore, request: pytest.FixtureRequest) -> Archive:
    store.facts = StoreFacts(returns_sha256=request.param)
    return Archive(store, Keys(prefix="team/"))


@pytest.mark.parametrize("odd", [2**70, 1e-7, "\ud83d", "\u753b\U0001f5bc"])
def test_a_record_holds_whatever_a_gateway_said(archive: Archive, odd: object) -> None:
    said = {**document(), "reply": {"odd": odd, "none": []}}
    written = archive.write_record(JOB, said)
    assert written.number == 1
    assert archive.read_record(JOB)["reply"] == {"odd": odd, "none": []}


def test_an_image_lies_where_its_output_says(archive: Archive, store: ObjectStore) -> None:
    output = archive.store_image(JOB, image(), now=NOON + 1)
    stored = store.head(output.key)
    assert output.key == "team/images/2026/11/22/0192-id/0.png"
    assert store.read(output.key, max_bytes=100) == b"the bytes"
    assert stored.sha256 == output.sha256 == image().sha256
    assert stored.content_type == "image/png"
    assert stored.metadata == {
        "darkroom-job-id": "0192-id", "darkroom-output-index": "0", "darkroom-sha256": output.sha256,
        "darkroom-gateway-job-id": "theirs",
    }  # fmt: skip
    assert (output.id, output.width, output.height, output.stored_at) == ("0192-id.0", 3, 2, NOON + 1)


def test_other_bytes_under_the_key_are_told_and_stay(archive: Archive, store: ObjectStore) -> None:
    first = archive.store_image(JOB, image(), now=NOON)
    before = store.head(first.key)
    assert archive.store_image(JOB, image(), now=NOON) == first, "the same image again is no error"
    with pytest.raises(Conflict, match="another image"):
        archive.store_image(JOB, image(b"other bytes"), now=NOON)
    assert store.head(first.key) == before


def picture(colour: str, form: str = "PNG", size: tuple[int, int] = (5, 4)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, form)
    return file.getvalue()


RED, BLUE = picture("red"), picture("blue", size=(3, 2))


def kept(output: Output, data: bytes) -> bool:
    """Whether an output says of itself what these bytes are."""
    return (output.sha256, output.bytes) == (hashlib.sha256(data).hexdigest(), len(data))


def found(archive: Archive, job: Job = JOB, index: int = 0) -> Output | None:
    return archive.find_image(job, index, seed="7", now=NOON + 9)


def test_other_bytes_that_an_earlier_try_stored_are_kept(archive: Archive, store: ObjectStore) -> None:
    first = archive.store_image(JOB, image(RED), now=NOON)
    before = store.head(first.key)
    again = archive.store_image(JOB, image(BLUE), now=NOON + 5)
    assert kept(again, RED)
    assert (again.key, again.media_type, again.width, again.height) == (first.key, "image/png", 5, 4)
    assert (again.stored_at, again.downloaded_at, again.declared_type) == (NOON + 5, before.modified_at, None)
    assert store.head(first.key) == before
    assert archive.write_record(JOB, document(first)) == archive.write_record(JOB, document(again))


@pytest.mark.parametrize(
    "template", ["{job_id}/{index}.{ext}", "{ext}/{sha256}-{job_id}-{index}", "{job_id}{index}"]
)
def test_an_image_of_a_dead_link_is_found(store: ObjectStore, template: str) -> None:
    archive = Archive(store, Keys(template=template))
    assert found(archive) is None
    jpeg = replace(image(picture("red", "JPEG")), facts=ImageFacts("image/jpeg", "jpg", 5, 4))
    first = archive.store_image(JOB, jpeg, now=NOON)
    again = found(archive)
    assert again is not None
    assert (again.key, again.sha256, again.bytes) == (first.key, first.sha256, first.bytes)
    assert (again.media_type, again.width, again.height, again.seed) == ("image/jpeg", 5, 4, "7")
    assert found(archive, index=1) is None
    assert found(archive, replace(JOB, id="0192-other")) is None


@pytest.mark.parametrize(
    ("wrong", "body"),
    [
        ({"darkroom-job-id": "0192-other"}, RED),
        ({"darkroom-output-index": "1"}, RED),
        ({"darkroom-gateway-job-id": "another"}, RED),
        ({"darkroom-sha256": hashlib.sha256(BLUE).hexdigest()}, RED),
        ({"darkroom-sha256": None}, RED),
        ({"darkroom-job-id": None}, RED),
        ({}, b"no image"),
        ({}, picture("red", "JPEG")),  # which this job would never have stored under a key for PNG
    ],
    ids=["job", "index", "gateway's job", "digest", "no digest", "no job", "no image", "another format"],
)
def test_what_is_not_proven_is_a_conflict(
    archive: Archive, store: ObjectStore, wrong: dict[str, str | None], body: bytes
) -> None:
    sha256 = hashlib.sha256(body).hexdigest()
    own = {
        "darkroom-job-id": JOB.id, "darkroom-output-index": "0", "darkroom-sha256": sha256,
        "darkroom-gateway-job-id": "theirs",
    }  # fmt: skip
    said = {name: value for name, value in (own | wrong).items() if value is not None}
    key = "team/images/2026/11/22/0192-id/0.png"
    store.put_new(
        key, io.BytesIO(body), size=len(body), sha256=sha256, content_type="image/png", metadata=said
    )
    with pytest.raises(Conflict, match="another image"):
        archive.store_image(JOB, image(BLUE), now=NOON)
    assert found(archive) is None
    assert store.read(key, max_bytes=10_000) == body


@pytest.mark.parametrize(("noted", "asked"), [(None, "theirs"), ("käse/\n" * 100, "käse/\n" * 100)])
def test_an_object_without_or_with_an_odd_id_is_kept(archive: Archive, noted: str | None, asked: str) -> None:
    archive.store_image(replace(JOB, gateway_job_id=noted), image(RED), now=NOON)
    assert kept(archive.store_image(replace(JOB, gateway_job_id=asked), image(BLUE), now=NOON), RED)


@pytest.mark.parametrize(
    "template", ["{job_id}/{index}.{ext}", "{job_id}{sha256}{index}", "{job_id}{ext}{index}"]
)
def test_submissions_do_not_share_images(store: ObjectStore, template: str) -> None:
    archive = Archive(store, Keys(template=template))
    unnamed = replace(JOB, gateway_job_id=None)  # so that nothing but the key tells the two apart
    first = archive.store_image(unnamed, image(RED), now=NOON)
    later = replace(unnamed, submission=2)
    assert found(archive, later) is None
    second = archive.store_image(later, image(BLUE), now=NOON)
    assert kept(second, BLUE)
    again = found(archive, unnamed), found(archive, later)
    assert [output and output.key for output in again] == [first.key, second.key]


def test_a_record_is_written_once_and_read_back(archive: Archive) -> None:
    with pytest.raises(NotFound):
        archive.read_record(JOB)
    output, other = (archive.store_image(JOB, image(index=index), now=NOON) for index in (0, 1))
    written = archive.write_record(JOB, document(output))
    assert written == WrittenRecord(archive.record_key(JOB), 1)
    assert written.key == "team/records/2026/11/22/0192-id.json"
    first = archive.read_record(JOB)
    assert first == json.loads(json.dumps(document(output))) | {"supersedes": None}
    archive.write_record(JOB, document(output, closed_at=NOON + 99_000))
    assert archive.read_record(JOB) == first, "other times do not make another record"
    with pytest.raises(Conflict):
        archive.write_record(JOB, document(other))
    assert archive.write_record(JOB, document(output, other)).number == 2, "the first was of a dead worker"


def test_a_retry_writes_a_record_of_its_own(archive: Archive) -> None:
    first, second = (archive.store_image(JOB, image(index=index), now=NOON) for index in (0, 1))
    partial = archive.write_record(JOB, document(first))
    reopened = replace(JOB, records=partial.number)
    whole = archive.write_record(reopened, document(first, second))
    assert whole == WrittenRecord("team/records/2026/11/22/0192-id.2.json", 2)
    assert archive.write_record(reopened, document(first, second)) == whole, "again is the same as once"
    latest = archive.read_record(replace(JOB, records=2))
    assert latest["supersedes"] == partial.key
    assert [output["index"] for output in latest["outputs"]] == [0, 1]
    assert len(archive.read_record(reopened)["outputs"]) == 1, "the first one is as it was"


@pytest.mark.parametrize("body", [b"no json", b"[]", b'{"schema": "something/else"}', b"\xff"])
def test_what_is_no_record_is_not_taken_for_one(archive: Archive, store: ObjectStore, body: bytes) -> None:
    sha256 = hashlib.sha256(body).hexdigest()
    key = archive.record_key(JOB)
    store.put_new(key, io.BytesIO(body), size=len(body), sha256=sha256, content_type="x/y", metadata={})
    with pytest.raises(Corrupt):
        archive.read_record(JOB)
    with pytest.raises(Corrupt):
        archive.write_record(JOB, document())


class Careless(ObjectStore):
    """A store that damages what it is given, and says nothing of it."""

    def put_new(self, key: str, file: BinaryIO, **facts: Any) -> StoredObject:
        """Store other bytes of the same length."""
        damaged = bytes(byte ^ 1 for byte in file.read())
        facts["sha256"] = hashlib.sha256(damaged).hexdigest()
        return super().put_new(key, io.BytesIO(damaged), **facts)


@pytest.mark.parametrize("trust", [True, False])
def test_damage_is_found_before_it_counts(s3_access: S3Access, trust: bool) -> None:
    careless = s3_access.open(Careless)
    careless.check(create=True)
    careless.facts = StoreFacts(returns_sha256=trust)
    archive = Archive(careless, Keys())
    with pytest.raises(Corrupt):
        archive.store_image(JOB, image(), now=NOON)
    with pytest.raises(Corrupt):
        archive.write_record(JOB, document())


def test_the_record_holds_what_is_known_or_null() -> None:
    delivery = Delivery("d1", JOB.id, JOB.gateway, NOON, {}, b"{}", "ab", Verdict.VALID, NOON + 1, "ready")
    missing = JobError("image_expired", "gone", "image")
    later = replace(JOB, moves=(*JOB.moves, (Status.FAILED, NOON + 5), (Status.READY, NOON + 9)))
    told, polled = (
        record_document(
            job,
            [],
            [delivery],
            closing=(Status.PARTIAL, NOON),
            missing=missing,
            seed_supported=None,
            store=FACTS,
        )
        for job in (JOB, later)
    )
    assert told["job"]["moves"][-1] == {"status": "partial", "at": "2026-11-22T12:00:00.000Z"}
    assert told["seed"] == {"requested": "7", "returned": None, "echoed": None, "supported": None}
    assert told["result"]["missing"] == {"code": "image_expired", "message": "gone", "at_fault": "image"}
    assert told["evidence"]["confirmed_by"] == "callback"
    assert polled["evidence"]["confirmed_by"] == "poll", "it was asked for again after the callback"
    assert told["evidence"]["gateway_request_ids"] == ["req-1"]
    assert told["evidence"]["deliveries"][0]["signature"] == "valid"
