"""Cancelling: a job that was not sent ends for certain and costs nothing; any other is refused."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uuid_utils

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.sandbox import SandboxServer
from storage.errors import LeaseLost
from storage.ledger.deliveries import DeliveryResult
from storage.models import Attempt, Job, JobRequest, Status
from tests.support.ledgers import add_job, offer
from tests.support.live import IMAGEN, Live, started
from tests.support.pages import visiting
from tests.support.running import command, data

SECRET = "submit-submit-submit"


@pytest.fixture(scope="module")
def still(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    """A service in which nothing moves by itself."""
    folder = tmp_path_factory.mktemp("still")
    tokens = [f"me:submit:{SECRET}"]
    with started(s3_server, folder, sandbox=sandbox, work=False, api_tokens=tokens) as live:
        live.http.headers["authorization"] = f"Bearer {SECRET}"
        yield live


def queued(live: Live, gateway: str = "apiframe", **more: Any) -> str:
    job_id = str(uuid_utils.uuid7())
    add_job(live.service.resources.ledger, job_id, gateway, JobRequest("imagen-4", "a red kite"), **more)
    return job_id


def leased(live: Live, job_id: str) -> Job:
    ledger = live.service.resources.ledger
    ledger.release("w")
    return next(job for job in ledger.claim("w", 1000) if job.id == job_id)


def cancel(live: Live, job_id: str) -> tuple[int, dict[str, Any]]:
    answer = live.http.post(f"/v1/jobs/{job_id}/cancel")
    return answer.status_code, answer.json()


def test_a_queued_job_ends_cancelled_and_costs_nothing(still: Live) -> None:
    job_id = queued(still, notify_url="https://app.example/hook")
    before = still.http.get("/v1/status").json()
    for _ in range(2):
        status, job = cancel(still, job_id)
        assert (status, job["status"], job["error"], job["next_attempt_at"]) == (200, "cancelled", None, None)
    assert job["result"]["credits"] == 0
    after = still.http.get("/v1/status").json()
    assert (after["cancelled"], after["queued"]) == (before["cancelled"] + 1, before["queued"] - 1)
    assert (after["balanced"], after["accepted"]) == (True, before["accepted"])
    found = still.http.get("/v1/jobs", params={"q": "status:cancelled"}).json()["jobs"]
    assert job_id in {one["id"] for one in found}
    (told,) = still.http.get("/v1/notifications", params={"job": job_id}).json()["notifications"]
    assert told["type"] == "job.cancelled"
    moved = 'darkroom_moves_total{gateway="apiframe",status="cancelled"} '
    assert moved in still.http.get("/metrics").text
    assert still.http.get(f"/v1/jobs/{job_id}", params={"wait": 5}).json()["status"] == "cancelled"


def test_a_cancelled_job_is_no_job_of_unknown_cost(still: Live) -> None:
    cancel(still, queued(still, "api-in-one"))
    groups = {one["value"]: one for one in still.http.get("/v1/usage").json()["groups"]}
    assert groups["api-in-one"]["jobs_without_credits"] == groups["api-in-one"]["jobs"] - 1
    assert groups["api-in-one"]["credits"] == 0


def test_a_callback_after_it_changes_nothing(still: Live) -> None:
    job_id, ledger = queued(still), still.service.resources.ledger
    cancel(still, job_id)
    assert ledger.add_deliveries([offer(job_id, theirs=f"theirs-{job_id}")]) == [DeliveryResult.ACCEPTED]
    assert [one.effect for one in ledger.deliveries(job_id)] == ["late"]
    assert ledger.job(job_id).status is Status.CANCELLED


def test_only_a_new_submission_goes_on_with_it(still: Live) -> None:
    job_id = queued(still)
    cancel(still, job_id)
    refused = still.http.post(f"/v1/jobs/{job_id}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "needs_resubmit")
    again = still.http.post(f"/v1/jobs/{job_id}/retry", json={"resubmit": True}).json()
    assert (again["status"], again["submission"]) == ("queued", 2)
    assert cancel(still, job_id)[1]["status"] == "cancelled"


def test_a_leased_job_is_not_sent_after_it(still: Live) -> None:
    ledger, job_id = still.service.resources.ledger, queued(still)
    job = leased(still, job_id)
    assert cancel(still, job_id)[0] == 200
    with pytest.raises(LeaseLost):
        ledger.move(job, Status.SUBMITTING, "w", keep_lease=True)
    still.http.post(f"/v1/jobs/{job_id}/retry", json={"resubmit": True})
    again = leased(still, job_id)
    with pytest.raises(LeaseLost):
        ledger.move(job, Status.SUBMITTING, "w", keep_lease=True)
    assert ledger.move(again, Status.SUBMITTING, "w").submission == 2


def _moved(live: Live, job_id: str, *way: Status, **last: Any) -> None:
    ledger, job = live.service.resources.ledger, leased(live, job_id)
    for to in way[:-1]:
        job = ledger.move(job, to, "w", keep_lease=True)
    ledger.move(job, way[-1], "w", **last)


def _refused(code: str, gateway: str = "apiframe") -> Callable[[Live], str]:
    def refused(live: Live) -> str:
        job_id = queued(live, gateway)
        tried = [Attempt.once("send", code, "No.", 1)]
        _moved(live, job_id, Status.SUBMITTING, Status.QUEUED, attempts=tried)
        return job_id

    return refused


def _called_back(live: Live) -> str:
    job_id = queued(live)
    live.service.resources.ledger.add_deliveries([offer(job_id, theirs=f"theirs-{job_id}")])
    return job_id


def _came_to(*way: Status) -> Callable[[Live], str]:
    def came(live: Live) -> str:
        job_id = queued(live)
        _moved(live, job_id, *way)
        return job_id

    return came


@pytest.mark.parametrize(
    ("begin", "said"),
    [
        (_came_to(Status.SUBMITTING), "being sent"),
        (_came_to(Status.SUBMITTING, Status.RUNNING), "no way to cancel"),
        (_came_to(Status.SUBMITTING, Status.RUNNING, Status.READY), "no way to cancel"),
        (_came_to(Status.FAILED), "failed already"),
        (_refused("outcome_unknown"), "may have accepted"),
        (_refused("gateway_unavailable"), "may have accepted"),
        (_refused("outcome_unknown", "api-in-one"), "may have accepted"),
        (_called_back, "may have accepted"),
    ],
)
def test_what_a_gateway_may_have_is_refused(still: Live, begin: Callable[[Live], str], said: str) -> None:
    job_id = begin(still)
    before = still.job(job_id)
    status, told = cancel(still, job_id)
    assert (status, told["code"]) == (409, "not_cancellable")
    assert said in told["detail"]
    assert still.job(job_id) == before


@pytest.mark.parametrize(
    "begin",
    [_refused("rate_limited"), _refused("out_of_credits"), _refused("gateway_unavailable", "api-in-one")],
)
def test_what_certainly_was_not_accepted_is_cancelled(still: Live, begin: Callable[[Live], str]) -> None:
    status, job = cancel(still, begin(still))
    assert (status, job["status"]) == (200, "cancelled")


def test_a_finished_job_of_a_real_gateway_is_refused(live: Live) -> None:
    job = live.make(IMAGEN)
    status, told = cancel(live, job["id"])
    assert (status, told["detail"]) == (409, "The job is archived already.")
    assert live.http.get(f"/v1/jobs/{job['id']}").json() == job


def test_the_page_of_a_queued_job_has_a_button(still: Live) -> None:
    job_id = queued(still)
    with visiting(still.url, SECRET) as visitor:
        page = visitor.get(f"/jobs/{job_id}")
        assert page.tree.one("button", id_=f"cancel-{job_id}").text == "Cancel this job"
        assert visitor.send(f"/jobs/{job_id}/cancel", {"csrf": page.csrf}).status == 303
        after = visitor.get(f"/jobs/{job_id}")
        assert "Cancelled before it was sent" in after.tree.one("main").text
        assert after.tree.all("button", id_=f"cancel-{job_id}") == []
        assert len(after.tree.all("a", id_=f"resubmit-{job_id}")) == 1
        running = _came_to(Status.SUBMITTING, Status.RUNNING)(still)
        refused = visitor.send(f"/jobs/{running}/cancel", {"csrf": page.csrf})
        assert refused.status == 409
        assert "no way to cancel" in refused.tree.one("p", role="alert").text


def test_the_command_cancels_ids_and_what_filters_find(still: Live, tmp_path: Path) -> None:
    def run(*words: str) -> Any:
        return command("cancel", *words, DARKROOM_URL=still.url, DARKROOM_TOKEN=SECRET)

    mine, sent = queued(still), _came_to(Status.SUBMITTING)(still)
    done = run(mine, sent, "--json")
    assert (done.returncode, [one["id"] for one in data(done)["jobs"]]) == (1, [mine])
    assert "Not cancelled: 1 job." in done.stderr
    mine = queued(still)
    looked = run("--since", "1h", "--dry-run")
    assert (looked.returncode, mine in looked.stderr, still.job(mine).status) == (0, True, "queued")
    assert run("--since", "1h").returncode == 2, "nobody said yes"
    assert run("--since", "1h", "--yes").returncode == 1, "some may be at the gateway"
    assert still.job(mine).status is Status.CANCELLED
    for misuse in ((), ("--status", "running"), (mine, "--since", "1h")):
        assert run(*misuse).returncode == 2
