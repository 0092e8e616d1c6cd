import hashlib
from pathlib import Path

import httpx
import pytest

from receiver.client import ApiError, Damaged, Darkroom, Unreachable
from receiver.demo.seaweedfs import EmbeddedS3
from receiver.sandbox import SandboxServer
from receiver.schemas.job import Job
from receiver.schemas.output import Output
from tests.support.raw_server import Serve, reply
from tests.support.running import Running, start


def make(running: Running, prompt: str, **more: object) -> Job:
    asked = {"gateway": "apiframe", "model": "imagen-4-fast", "prompt": prompt, **more}
    job = running.darkroom.submit(**asked)  # type: ignore[arg-type]
    job = running.darkroom.wait(job.id, timeout_s=60)
    assert job.status == "archived", job.error
    return job


@pytest.fixture(scope="module")
def output(running: Running) -> Output:
    job = make(running, "a red kite, for the client's tests", tags={"for": "client"})
    return running.darkroom.output(job.outputs[0].id)


def test_a_refused_field_is_named(running: Running) -> None:
    with pytest.raises(ApiError) as caught:
        running.darkroom.submit(gateway="apiframe", model="imagen-4-fast", prompt="p", seed=7)
    assert (caught.value.code, caught.value.status) == ("unsupported_parameter", 422)
    assert [fault["field"] for fault in caught.value.faults] == ["seed"]


def test_what_is_not_there_is_not_found(running: Running) -> None:
    for ask in (running.darkroom.job, running.darkroom.output):
        with pytest.raises(ApiError) as caught:
            ask("../nothing?x=1")
        assert caught.value.code == "not_found"


def test_lists_follow_their_pages(running: Running) -> None:
    ids = [make(running, f"page {number}", tags={"pages": "yes"}).id for number in range(3)]
    tagged = {"tag.pages": "yes"}
    with Darkroom(running.url, page_size=2) as darkroom:
        assert [job.id for job in darkroom.jobs(limit=None, **tagged)] == ids[::-1]
        assert [one.job_id for one in darkroom.search(limit=None, **tagged)] == ids[::-1]
        assert [job.id for job in darkroom.jobs(limit=1, **tagged)] == ids[-1:]


def test_an_output_is_fetched_in_every_form(running: Running, output: Output) -> None:
    with running.darkroom.image(output.id) as pieces:
        assert hashlib.sha256(b"".join(pieces)).hexdigest() == output.sha256
    linked = httpx.get(running.darkroom.link(output.id), trust_env=False)
    assert hashlib.sha256(linked.content).hexdigest() == output.sha256
    assert running.darkroom.thumbnail(output.id)[8:12] == b"WEBP"
    with pytest.raises(ApiError) as caught:
        running.darkroom.thumbnail(f"{output.job_id}.7")
    assert caught.value.code == "not_found"
    record = running.darkroom.record(output.id)
    assert (record["schema"], record["outputs"][0]["sha256"]) == ("darkroom/record/1", output.sha256)


def test_bytes_with_another_digest_are_not_kept(running: Running, output: Output, tmp_path: Path) -> None:
    with pytest.raises(Damaged, match=output.sha256):
        running.darkroom.download(output.model_copy(update={"sha256": "0" * 64}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_name_never_leads_out_of_the_folder(output: Output) -> None:
    hostile = output.model_copy(update={"id": "../../etc/passwd", "key": "x./../y"})
    assert "/" not in hostile.file_name


def test_a_token_is_sent(s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path: Path) -> None:
    with start(tmp_path, s3_server, sandbox, tokens=("tests:submit:a-long-enough-token",)) as guarded:
        counts = guarded.darkroom.status()
        assert (counts.balanced, counts.accepted) == (True, 0)
        with Darkroom(guarded.url) as stranger, pytest.raises(ApiError) as caught:
            stranger.status()
        assert caught.value.code == "unauthorized"


@pytest.mark.parametrize("url", ["nonsense", "http://[", "ftp://127.0.0.1", ""])
def test_an_address_that_is_none_is_unreachable(url: str) -> None:
    with pytest.raises(Unreachable), Darkroom(url) as darkroom:
        darkroom.status()


def test_a_client_that_was_passed_in_stays_open(running: Running) -> None:
    with httpx.Client(trust_env=False) as client:
        with Darkroom(running.url, client=client) as darkroom:
            darkroom.status()
        assert not client.is_closed


def test_another_service_is_not_taken_for_darkroom(serve: Serve) -> None:
    bodies = {"/v1/status": b"[]", "/v1/jobs/html": b"<html>", "/v1/jobs/other": b'{"id": 1}'}
    broken = reply(b"oh no", "500 Internal Server Error", Connection="close")
    answers = {path: reply(body, Connection="close") for path, body in bodies.items()}
    with Darkroom(serve({**answers, "/v1/jobs/broken": broken}).url) as darkroom:
        for ask in (darkroom.status, lambda: darkroom.job("html"), lambda: darkroom.job("other")):
            with pytest.raises(Unreachable, match="not Darkroom"):
                ask()
        with pytest.raises(Unreachable, match="500"):
            darkroom.job("broken")


def test_a_batch_has_a_result_for_each_job(running: Running) -> None:
    fine = {"gateway": "apiframe", "model": "imagen-4-fast", "prompt": "p", "seed": None}
    judged = running.darkroom.submit_batch([fine, fine | {"seed": 7}], dry_run=True)
    assert [(one.created, one.job, one.problem is None) for one in judged] == [
        (False, None, True),
        (False, None, False),
    ]
    taken, refused = running.darkroom.submit_batch([fine, fine | {"seed": 7}])
    assert taken.job is not None
    assert running.darkroom.wait(taken.job.id, timeout_s=60).status == "archived"
    assert refused.problem is not None
    assert [fault.field for fault in refused.problem.faults] == ["seed"]
    with pytest.raises(ApiError, match="100"):
        running.darkroom.submit_batch([fine] * 101)
