"""Jobs whose image lies in the bucket already, stored by a try that ended before the ledger knew of it."""

import hashlib
import io
from typing import Any

from PIL import Image

from storage.archive.keys import Keys
from tests.support.live import FAST, IMAGEN, Live, Start

PARAMS: dict[str, Any] = {"output_format": "png"}
PNG: dict[str, Any] = IMAGEN | {"params": PARAMS}
SHA256 = "darkroom-sha256"


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (5, 4), "red").save(file, "PNG")
    return file.getvalue()


def plant(live: Live, job_id: str, data: bytes, **more: str) -> str:
    """Put an object where a job's image belongs, and return its key."""
    key = Keys().image(live.job(job_id), 0, extension="png", sha256="")
    sha256 = hashlib.sha256(data).hexdigest()
    metadata = {"darkroom-job-id": job_id, "darkroom-output-index": "0", **more}
    live.bucket.store.put_new(
        key, io.BytesIO(data), size=len(data), sha256=sha256, content_type="image/png", metadata=metadata
    )
    return key


def kept(live: Live, job: dict[str, Any], data: bytes) -> None:
    """See that a job is archived with these bytes, by its record and by the ledger."""
    assert (job["status"], job["error"]) == ("archived", None)
    (output,) = live.outputs(job["id"])
    assert output["sha256"] == hashlib.sha256(data).hexdigest()
    assert live.bucket.store.read(output["key"], max_bytes=10_000) == data
    (listed,) = live.bucket.archive.read_record(live.job(job["id"]))["outputs"]
    names = ("key", "sha256", "bytes", "media_type", "width", "height")
    assert {name: listed[name] for name in names} == {name: output[name] for name in names}


def test_a_job_goes_on_once_a_foreign_object_is_removed(start: Start) -> None:
    live = start(work=False)
    job_id = str(live.submit(PNG | {"params": PARAMS})["id"])
    key = plant(live, job_id, picture())
    worker = start(s3={"bucket": live.settings.s3.bucket})
    for _ in range(200):
        shown = worker.http.get(f"/v1/jobs/{job_id}", params={"wait": 0.1}).json()
        if shown["attempts"] > len(FAST.downloads):
            break
    assert (shown["status"], shown["error"]["code"]) == ("ready", "archive_conflict")
    assert live.bucket.store.read(key, max_bytes=10_000) != b"", "nothing is written over"
    live.bucket.store.delete(key)
    job = worker.finish(job_id)
    kept(worker, job, live.sandbox.image_bytes(job["gateway_job_id"]))


def test_a_retry_adopts_an_orphaned_image(start: Start) -> None:
    live, code = start(work=False), "image_expired"
    sandbox = {"sandbox": {"fault": "expired_link", "forever": True}}
    job_id = str(live.submit(PNG | {"params": PARAMS | sandbox})["id"])
    data = picture()
    key = plant(live, job_id, data)  # without a digest, so that nothing is proven
    worker = start(s3={"bucket": live.settings.s3.bucket})
    job = worker.finish(job_id)
    assert (job["status"], job["error"]["code"]) == ("failed", code)
    live.bucket.store.delete(key)
    plant(live, job_id, data, **{SHA256: hashlib.sha256(data).hexdigest()})
    assert worker.http.post(f"/v1/jobs/{job_id}/retry").is_success
    kept(worker, worker.finish(job_id), data)
