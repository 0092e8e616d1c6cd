"""The pages of jobs: what they show, why a job failed, and that only those who may put one back to work."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import uuid_utils

from receiver import errors
from receiver.demo.seaweedfs import EmbeddedS3
from receiver.gallery.advice import BY_CODE, BY_FAULT, advice
from receiver.sandbox import SandboxServer
from storage.models import Attempt, JobError, JobRequest, JobResult, Status
from tests.docs.generate import OF_JOBS, leaves
from tests.support.ledgers import add_job
from tests.support.live import IMAGEN, ULTRA, Live, started
from tests.support.pages import Visitor, visiting
from tests.support.running import command
from tests.support.sandbox import mend

READER, SUBMITTER = "reader-reader-reader", "submit-submit-submit"
TOKENS = [f"reader:read:{READER}", f"writer:submit:{SUBMITTER}"]
PAGES = ("/jobs", "/submit", "/status", "/usage", "/usage?by=model", "/usage?by=tag", "/usage?by=tag&tag=x")
REST = "submitting 0 running 0 ready 0 archived 0 partial 0 failed 0 cancelled 0"
NOBODY = "00000000-0000-7000-8000-000000000000"
HOSTILE = "<script>alert(1)</script></bdi>\u202egnol & \"quoted\" 'x' שלום"
MARKUP = "<b>content</b> policy <script>alert(2)</script>"


@dataclass(frozen=True)
class House:
    """A service with tokens, and a visitor for each scope."""

    live: Live
    reader: Visitor
    writer: Visitor

    def job(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.live.http.get(f"/v1/jobs/{job_id}").json()
        return found


@contextmanager
def visited(s3: EmbeddedS3, sandbox: SandboxServer, folder: Path, *, work: bool) -> Iterator[House]:
    with (
        started(s3, folder, sandbox=sandbox, work=work, api_tokens=TOKENS) as live,
        visiting(live.url, READER) as reader,
        visiting(live.url, SUBMITTER) as writer,
    ):
        live.http.headers["authorization"] = f"Bearer {SUBMITTER}"
        yield House(live, reader, writer)


def add(live: Live, prompt: str, **more: Any) -> str:
    """Put a job into the ledger as it is, past what a gateway would say of it."""
    job_id = str(uuid_utils.uuid7())
    request = JobRequest(model=more.pop("model", "imagen-4"), prompt=prompt, **more)
    add_job(live.service.resources.ledger, job_id, "apiframe", request)
    return job_id


def tabs(house: House, wanted: str) -> str:
    """The words over the list, with their counts, once these are in it: they may be half a second old."""
    deadline = monotonic() + 5
    while True:
        text = house.reader.get("/jobs").tree.one("nav", class_="tabs").text
        if wanted in text or monotonic() > deadline:
            return text


@pytest.fixture(scope="module")
def still(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """A service in which nothing moves."""
    with visited(s3_server, sandbox, tmp_path_factory.mktemp("still"), work=False) as house:
        yield house


@pytest.fixture(scope="module")
def house(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """A service at work."""
    with visited(s3_server, sandbox, tmp_path_factory.mktemp("house"), work=True) as house:
        yield house


@pytest.fixture(scope="module")
def failed(house: House) -> dict[str, Any]:
    job = house.live.make(IMAGEN, prompt=HOSTILE, fault={"fault": "failed", "message": MARKUP})
    assert job["error"]["code"] == "generation_failed"
    return job


@pytest.fixture(scope="module")
def gone(house: House) -> dict[str, Any]:
    job = house.live.make(ULTRA, fault={"fault": "expired_link", "forever": True, "status": 410})
    assert job["error"]["code"] == "image_expired"
    return job


@pytest.mark.parametrize("path", PAGES)
def test_a_page_without_data_says_so_and_what_to_do(still: House, path: str) -> None:
    if still.live.service.resources.ledger.job_counts():
        pytest.skip("this test is first, or by itself")
    page = still.writer.get(path)
    assert page.status == 200
    text = page.tree.one("main").text
    told = {
        "/jobs": "No jobs yet",
        "/submit": "Make a picture",
        "/status": "Every accepted job is accounted for: 0 jobs",
        "/usage?by=tag": "Which tag?",
    }
    assert told.get(path, "Nothing was spent") in text
    assert still.reader.get(path).status == (403 if path == "/submit" else 200)


def test_the_list_is_paged_and_filtered(still: House) -> None:
    for number in range(55):
        add(still.live, f"a kite number {number}", tags={"n": str(number)})
    add(still.live, "lighthouse", model="imagen-4-ultra")
    first = still.reader.get("/jobs")
    rows = first.tree.one("table").one("tbody").all("tr")
    assert len(rows) == 50
    assert "lighthouse" in rows[0].text
    older = first.tree.one("a", rel="next").attributes["href"]
    second = still.reader.get(older)
    assert len(second.tree.one("table").one("tbody").all("tr")) >= 6
    assert not second.tree.all("a", rel="next")
    assert [one.text for one in second.tree.one("nav", class_="pager").all("a")] == ["Newest"]
    assert tabs(still, "queued 56") == f"all 56 queued 56 {REST}"

    found = still.reader.get("/jobs?q=lighthouse+model:imagen-4-ultra&gateway=apiframe&status=queued")
    assert len(found.tree.one("table").one("tbody").all("tr")) == 1
    assert found.tree.one("input", id_="jobs-q").attributes["value"] == "lighthouse model:imagen-4-ultra"
    assert "No jobs here" in still.reader.get("/jobs?status=archived").tree.one("main").text
    wrong = still.reader.get("/jobs?q=width:wide")
    assert wrong.status == 422
    assert "width" in wrong.tree.one("p", role="alert").text
    assert still.reader.get("/jobs?status=lost").status == 422
    assert still.reader.get(f"/jobs?cursor={NOBODY}").status == 404


@pytest.mark.parametrize("prompt", [HOSTILE, "x" * 20_000, "漢" * 20_000, "\n\n", "🪁" * 500])
def test_whatever_a_prompt_holds_is_text(still: House, prompt: str) -> None:
    job_id = add(still.live, prompt, tags={"t": HOSTILE}, seed=HOSTILE)
    one = still.reader.get(f"/jobs/{job_id}")
    assert one.status == 200
    assert one.tree.one("p", id_="prompt").raw == prompt
    listed = still.reader.get("/jobs")
    assert len(listed.html) < 300_000
    assert len(listed.tree.one("tr", id_=f"row-{job_id}").one("th").one("a").text) <= 161
    again = still.writer.get(f"/submit?from={job_id}")
    assert again.fields("submit")["prompt"] == prompt


def test_a_failure_is_told_with_what_helps(house: House, failed: dict[str, Any]) -> None:
    page = house.reader.get(f"/jobs/{failed['id']}")
    told = page.tree.one("div", class_="failure").text
    assert "generation_failed" in told
    assert MARKUP in told
    assert "Fix: at the gateway" in told
    assert "Only a new submission can help" in told
    row = house.reader.get("/jobs?status=failed").tree.one("tr", id_=f"row-{failed['id']}")
    assert "content policy" in row.text.replace("<b>", "").replace("</b>", "")
    way = page.tree.one("ol", class_="steps").all("li")
    steps = [(step.attributes["class"], step.all("span")[0].text) for step in way]
    done = [("step-done", status) for status in ("queued", "submitting", "running")]
    assert steps == [*done, ("step-ahead", "ready"), ("step-now", "failed")]


def test_only_what_can_help_is_offered(house: House, failed: dict[str, Any], gone: dict[str, Any]) -> None:
    said_no = house.writer.get(f"/jobs/{failed['id']}").tree
    assert not said_no.all("button", id_=f"retry-{failed['id']}")
    assert said_no.one("a", id_=f"resubmit-{failed['id']}").text == "Submit again (may be charged)…"
    dead_link = house.writer.get(f"/jobs/{gone['id']}").tree
    assert dead_link.one("button", id_=f"retry-{gone['id']}").text == "Retry this job, at no cost"
    assert len(dead_link.all("a", id_=f"resubmit-{gone['id']}")) == 1


def test_a_reader_has_no_way_to_change_anything(house: House, gone: dict[str, Any]) -> None:
    for path in ("/jobs", f"/jobs/{gone['id']}", "/status", "/usage"):
        page = house.reader.get(path)
        posts = [form.attributes["action"] for form in page.tree.all("form", method="post")]
        assert posts == ["/sign-out"], path
        links = [one.attributes["href"] for one in page.tree.all("a")]
        assert not [link for link in links if link.startswith("/submit") or link.endswith("/resubmit")]
    csrf = {"csrf": house.reader.get("/status").csrf}
    assert house.reader.get("/submit").status == 403
    assert house.reader.get(f"/jobs/{gone['id']}/resubmit").status == 403
    assert house.reader.send("/submit", {**csrf, "gateway": "apiframe"}).status == 403
    assert house.reader.send(f"/jobs/{gone['id']}/retry", csrf).status == 403
    assert house.job(gone["id"]) == gone


def test_a_form_of_another_session_changes_nothing(house: House, gone: dict[str, Any]) -> None:
    for fields in (
        {"resubmit": "yes"},
        {"csrf": ""},
        {"csrf": "forged"},
        {"csrf": house.reader.get("/status").csrf},
    ):
        answer = house.writer.send(f"/jobs/{gone['id']}/retry", fields)
        assert answer.status == 403, fields
        assert "another session" in answer.tree.one("main").text
    csrf = {"csrf": house.writer.get("/status").csrf}
    elsewhere = house.writer.http.post(
        f"/jobs/{gone['id']}/retry", data=csrf, headers={"sec-fetch-site": "cross-site"}
    )
    assert elsewhere.status_code == 403
    assert house.job(gone["id"]) == gone


def test_a_retry_completes_what_was_missing_for_free(house: House) -> None:
    job = house.live.make(ULTRA, num_images=3, fault="partial_images")
    assert job["status"] == "partial"
    mend(house.live.sandbox, job["gateway_job_id"])
    made = len(house.live.sandbox.jobs())
    page = house.writer.get(f"/jobs/{job['id']}")
    assert len(page.tree.one("ul", class_="grid").all("img")) == 2
    (form,) = (one for one in page.tree.all("form") if "/retry" in one.attributes.get("action", ""))
    fields = {one.attributes["name"]: one.attributes["value"] for one in form.all("input")}
    answer = house.writer.send(form.attributes["action"], fields)
    assert (answer.status, answer.answer.headers["location"]) == (303, f"/jobs/{job['id']}")
    assert house.live.finish(job["id"])["status"] == "archived"
    assert len(house.live.sandbox.jobs()) == made
    after = house.writer.get(f"/jobs/{job['id']}").tree
    assert len(after.one("ul", class_="grid").all("img")) == 3
    thumbnail = after.one("ul", class_="grid").all("img")[0].attributes["src"]
    assert house.writer.http.get(thumbnail).headers["content-type"].startswith("image/")


def test_fewer_images_than_requested_are_told(house: House) -> None:
    job = house.live.make(ULTRA, num_images=3, fault={"fault": "withheld_image", "message": MARKUP})
    told = f"2 of 3 returned (image 1: {MARKUP})"
    page = house.reader.get(f"/jobs/{job['id']}").tree
    assert page.one("p", class_="notice").text == f"Fewer images than requested: {told}."
    (row,) = house.reader.get("/jobs?q=is:short").tree.one("table").all("abbr", class_="muted")
    assert (row.text, row.attributes["title"]) == ("fewer images", told)
    thumbnails = [one.attributes["src"] for one in house.reader.get("/?q=is:short").tree.all("img")]
    assert [n for n in range(3) if f"/v1/outputs/{job['id']}.{n}/thumbnail" in thumbnails] == [0, 2]


def test_credits_are_spent_again_only_after_a_question(house: House) -> None:
    job = house.live.make(IMAGEN, fault="failed")
    csrf = {"csrf": house.writer.get("/status").csrf}
    refused = house.writer.send(f"/jobs/{job['id']}/retry", csrf)
    assert refused.status == 409
    assert "may be charged" in refused.tree.one("p", role="alert").text
    assert house.job(job["id"]) == job
    question = house.writer.get(f"/jobs/{job['id']}/resubmit")
    assert "which may be charged again" in question.tree.one("main").text
    assert house.job(job["id"]) == job, "to be asked changes nothing"
    answer = house.writer.send(f"/jobs/{job['id']}/retry", question.fields("resubmit"))
    assert answer.status == 303
    assert house.job(job["id"])["submission"] == 2


def test_what_earlier_submissions_cost_is_told(still: House) -> None:
    ledger, job_id = still.live.service.resources.ledger, add(still.live, "costly")
    attempt, error = Attempt.once("retry", "asked", "", 1), JobError("generation_failed", "No.", "gateway")
    results = (JobResult(credits=5.5), JobResult(credits=7, credits_estimated=True), JobResult(credits=2))
    for result in results:
        (job,) = [one for one in ledger.claim("test", 500) if one.id == job_id]
        job = ledger.move(job, Status.SUBMITTING, "test", keep_lease=True)
        job = ledger.move(job, Status.RUNNING, "test", keep_lease=True)
        failed = ledger.move(job, Status.FAILED, "test", error=error, result=result)
        if result.credits != 2:
            ledger.reopen(failed, Status.QUEUED, attempt)
        ledger.release("test")
    assert still.job(job_id)["result"]["credits_before"] == 12.5
    facts = still.writer.get(f"/jobs/{job_id}").tree.one("main").text
    assert "Credits of earlier submissions~12.5" in " ".join(facts.split())
    question = " ".join(still.writer.get(f"/jobs/{job_id}/resubmit").tree.one("main").text.split())
    assert "Earlier submissions of it cost ~12.5 credits, and the last one 2." in question
    shown = command("show", job_id, DARKROOM_URL=still.live.url, DARKROOM_TOKEN=READER).stdout
    assert "12.5 credits for earlier submissions" in shown


def test_what_cannot_be_retried_is_said_on_its_page(house: House) -> None:
    job = house.live.make(IMAGEN)
    csrf = {"csrf": house.writer.get("/status").csrf}
    answer = house.writer.send(f"/jobs/{job['id']}/retry", csrf)
    assert answer.status == 409
    assert "The job is archived" in answer.tree.one("p", role="alert").text
    assert house.writer.get(f"/jobs/{job['id']}/resubmit").status == 409


@pytest.mark.parametrize("job_id", [NOBODY, "x", "%00", "..%2f..", "<script>", NOBODY + ".0"])
def test_a_job_that_is_not_there_is_a_page_too(house: House, job_id: str) -> None:
    csrf = {"csrf": house.writer.get("/status").csrf}
    assert house.reader.get(f"/jobs/{job_id}").status == 404
    assert house.writer.get(f"/jobs/{job_id}/resubmit").status == 404
    assert house.writer.send(f"/jobs/{job_id}/retry", csrf).status == 404


def test_an_unfinished_job_is_followed_or_loaded_again(still: House) -> None:
    job_id = add(still.live, "waiting")
    refused = still.writer.send(f"/jobs/{job_id}/retry", {"csrf": still.writer.get("/status").csrf})
    assert refused.status == 409
    for page in (still.reader.get(f"/jobs/{job_id}"), refused):
        live = page.tree.one("section", data_live=job_id)
        assert live.attributes["data-unfinished"] == "yes"
        refresh = page.tree.one("noscript").one("meta", http_equiv="refresh").attributes["content"]
        assert refresh.startswith("5; url=")
        link = page.tree.one("p", class_="reload").one("a").attributes["href"]
        for at in (live.attributes["data-at"], refresh.partition("url=")[2], link):
            assert still.writer.get(at).status == 200, at


def test_there_is_advice_for_every_error_of_jobs() -> None:
    codes = {kind.code for root in (errors.GatewayError, errors.ImageError) for kind in leaves(root)}
    assert codes | set(OF_JOBS) == set(BY_CODE)
    assert set(BY_FAULT) == {"request", "gateway", "image", "archive", "operator"}
    assert advice(JobError("new_code", "", "gateway")) == BY_FAULT["gateway"]
    assert advice(JobError("new_code", "", "nobody")) == BY_FAULT["operator"]
