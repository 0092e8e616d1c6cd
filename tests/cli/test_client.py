import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

from receiver.client import ApiError, Damaged, Darkroom, Event, Unreachable
from receiver.demo.seaweedfs import EmbeddedS3
from receiver.sandbox import SandboxServer
from receiver.schemas.job import Job, Moved
from receiver.schemas.output import Output
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
    return running.darkroom.output(job.outputs[0])


def test_a_submitted_job_tells_all_that_the_api_tells(running: Running) -> None:
    job = make(running, "a red kite over the sea", aspect_ratio="16:9", params={"image_size": "1K"})
    assert (job.request.aspect_ratio, job.request.params) == ("16:9", {"image_size": "1K"})
    assert job.finished
    moved = [event.status for event in job.timeline if isinstance(event, Moved)]
    assert (moved[0], moved[-1]) == ("queued", "archived")


def test_the_same_idempotency_key_gives_the_same_job(running: Running) -> None:
    asked = {"gateway": "apiframe", "model": "imagen-4-fast", "prompt": "twice", "idempotency_key": "k-1"}
    first = running.darkroom.submit(**asked)  # type: ignore[arg-type]
    assert running.darkroom.submit(**asked).id == first.id  # type: ignore[arg-type]


def test_wait_answers_the_job_as_it_is_when_the_time_is_up(running: Running) -> None:
    late = {"sandbox": {"fault": "slow_image", "delay_s": 5}}
    job = running.darkroom.submit(gateway="apiframe", model="imagen-4-fast", prompt="slow", params=late)
    assert not running.darkroom.wait(job.id, timeout_s=0.2).finished


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


def test_what_a_search_finds_is_counted(running: Running, output: Output) -> None:
    counts = running.darkroom.facets("red kite tag:for=client")
    assert (counts.counted, counts.complete) == (1, True)
    found = [(one.value, one.outputs) for one in (*counts.gateway, *counts.tag)]
    assert found == [("apiframe", 1), ("for=client", 1)]
    assert running.darkroom.facets(sha256="0" * 64).counted == 0


def test_events_tell_of_a_job_from_where_one_left_off(running: Running) -> None:
    job = make(running, "a kite that is followed")
    events = running.darkroom.events("0", job=job.id)
    found: list[Event] = []
    while "archived" not in [event.data.get("status") for event in found]:
        found.append(next(events))
    moves = [event.data["status"] for event in found if event.kind == "job"]
    assert (moves[0], moves[-1]) == ("queued", "archived")
    assert [event.data["output_id"] for event in found if event.kind == "output"] == [f"{job.id}.0"]
    assert next(running.darkroom.events(found[-2].id, job=job.id)) == found[-1]


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


def test_nobody_there_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with Darkroom(url) as darkroom, pytest.raises(Unreachable, match=url):
            darkroom.status()


@pytest.mark.parametrize("url", ["nonsense", "http://[", "ftp://127.0.0.1", ""])
def test_an_address_that_is_none_is_unreachable(url: str) -> None:
    with pytest.raises(Unreachable), Darkroom(url) as darkroom:
        darkroom.status()


class _Stranger(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        bodies = {"/v1/status": b"[]", "/v1/jobs/html": b"<html>", "/v1/jobs/other": b'{"id": 1}'}
        body = bodies.get(self.path)
        self.send_response(200 if body else 500)
        self.end_headers()
        self.wfile.write(body or b"oh no")

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def stranger() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Stranger) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_another_service_is_not_taken_for_darkroom(stranger: str) -> None:
    with Darkroom(stranger) as darkroom:
        for ask in (darkroom.status, lambda: darkroom.job("html"), lambda: darkroom.job("other")):
            with pytest.raises(Unreachable, match="not Darkroom"):
                ask()
        with pytest.raises(Unreachable, match="500"):
            darkroom.job("broken")


def test_a_client_that_was_passed_in_stays_open(running: Running) -> None:
    with httpx.Client(trust_env=False) as client:
        with Darkroom(running.url, client=client) as darkroom:
            darkroom.status()
        assert not client.is_closed
