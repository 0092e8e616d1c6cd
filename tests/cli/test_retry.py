"""`darkroom retry`, and how `jobs`, `show` and `counts` tell what went wrong and what was tried."""

import os
from pathlib import Path
from typing import Any

import pytest

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.sandbox import SandboxServer
from receiver.schemas.job import Attempted
from tests.support.live import IMAGEN, started
from tests.support.running import Running, command, data
from tests.support.terminals import in_terminal

GONE = {"fault": "expired_link", "forever": True, "status": 410}


def made(running: Running, tag: str, fault: Any = GONE, number: int = 1) -> list[str]:
    """Jobs that are over, by the command's own client; answers their ids."""
    ids = []
    asked: dict[str, Any] = {"gateway": "api-in-one", "model": "imagen4", "tags": {"retry": tag}}
    params = {"sandbox": fault} if fault else {}
    for index in range(number):
        ids.append(running.darkroom.submit(**asked, prompt=f"to be retried {index}", params=params).id)
    return [running.darkroom.wait(job_id, 40).id for job_id in ids]


def retried(running: Running, job_id: str) -> int:
    """How often somebody asked for a retry of a job."""
    timeline = running.darkroom.wait(job_id, 40).timeline
    return sum(one.times for one in timeline if isinstance(one, Attempted) and one.step == "retry")


def test_what_filters_find_is_shown_first(running: Running) -> None:
    ids = made(running, "preview", number=2)
    done = running.darkroom_command("retry", "--tag", "retry=preview", "--since", "1h", "--dry-run")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert all(job_id in done.stderr for job_id in ids)
    assert "2 jobs: 2 image_expired." in done.stderr
    assert "charged" not in done.stderr
    told = running.darkroom_command("retry", "--tag", "retry=preview", "--dry-run", "--resubmit").stderr
    assert "may be charged again" in told
    as_json = running.darkroom_command("retry", *ids, "--dry-run", "--json")
    assert [job["id"] for job in data(as_json)["jobs"]] == ids
    assert [retried(running, job_id) for job_id in ids] == [0, 0]


def test_what_filters_find_is_retried_if_told(running: Running) -> None:
    ids = made(running, "yes", number=2)
    wanted = ("retry", "--tag", "retry=yes", "--status", "failed", "--code", "image_expired")
    unasked = running.darkroom_command(*wanted)
    assert (unasked.returncode, unasked.stdout) == (2, "")
    assert "--yes" in unasked.stderr
    assert "--dry-run" in unasked.stderr
    assert [retried(running, job_id) for job_id in ids] == [0, 0], "nobody said yes"
    done = running.darkroom_command(*wanted, "--yes")
    assert done.returncode == 0, done.stderr
    assert "Retrying 2 jobs." in done.stderr
    assert [retried(running, job_id) for job_id in ids] == [1, 1]


@pytest.mark.exhaustive("n")
@pytest.mark.parametrize(
    ("answer", "times", "told"), [("n", 0, "Nothing was changed"), ("y", 1, "Retrying 1 job.")]
)
def test_at_a_terminal_one_is_asked(
    running: Running, tmp_path: Path, answer: str, times: int, told: str
) -> None:
    (job_id,) = made(running, f"asked-{answer}")
    words = ("retry", "--tag", f"retry=asked-{answer}")
    with in_terminal(*words, folder=tmp_path, DARKROOM_URL=running.url) as terminal:
        terminal.read(until="Retry this job?")
        os.write(terminal.fd, f"{answer}\n".encode())
        assert told in terminal.read()
        assert terminal.child.wait(20) == 0
    assert retried(running, job_id) == times


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "give ids, or filters"),
        (("x", "--status", "failed"), "give ids, or filters"),
        (("--dry-run",), "give ids, or filters"),
        (("--status", "archived"), "only failed, partial and cancelled jobs"),
        (("--status", "nonsense"), "only failed, partial and cancelled jobs"),
        (("--tag", "novalue"), "name=value"),
    ],
)
def test_misuse_is_told_before_anything_is_asked(arguments: tuple[str, ...], told: str) -> None:
    done = command("retry", *arguments, DARKROOM_URL="http://127.0.0.1:9")
    assert (done.returncode, told in done.stderr, done.stdout) == (2, True, ""), done.stderr


def test_that_there_is_nothing_to_retry_is_no_error(running: Running) -> None:
    done = running.darkroom_command("retry", "--tag", "retry=nothing", "--yes")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "No failed or partial jobs match.\n"
    as_json = running.darkroom_command("retry", "--tag", "retry=nothing", "--yes", "--json")
    assert data(as_json) == {"jobs": [], "refused": []}


def test_what_is_refused_is_told_and_the_rest_goes_on(running: Running) -> None:
    (gone,) = made(running, "mixed")
    (archived,) = made(running, "mixed", fault=None)
    (said_no,) = made(running, "mixed", fault="failed")
    done = running.darkroom_command("retry", archived, gone, said_no, "--json")
    assert done.returncode == 1
    told = data(done)
    assert [job["id"] for job in told["jobs"]] == [gone]
    assert told["jobs"][0]["status"] in {"running", "ready"}
    assert [(one["id"], one["code"]) for one in told["refused"]] == [
        (archived, "not_retryable"), (said_no, "needs_resubmit"),
    ]  # fmt: skip
    assert all(one["detail"] in done.stderr for one in told["refused"])
    assert "Retrying 1 job." in done.stderr
    assert "Not retried: 2 jobs." in done.stderr


def test_resubmit_sends_it_again(running: Running) -> None:
    (job_id,) = made(running, "again", fault="failed")
    before = running.darkroom.job(job_id).gateway_job_id
    done = running.darkroom_command("retry", job_id, "--resubmit")
    assert done.returncode == 0, done.stderr
    assert running.darkroom.wait(job_id, 40).gateway_job_id != before


def test_a_job_that_is_not_there_stops_all_of_it(running: Running) -> None:
    (job_id,) = made(running, "stopped")
    done = running.darkroom_command("retry", job_id, "00000000-0000-7000-8000-000000000000")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert retried(running, job_id) == 0


def test_jobs_are_found_by_what_went_wrong_and_when(running: Running) -> None:
    (gone,) = made(running, "found")
    made(running, "found", fault="failed")
    wanted = ("jobs", "--tag", "retry=found", "--code", "image_expired")
    assert gone in running.darkroom_command(*wanted, "--since", "1h").stdout
    assert [job["id"] for job in data(running.darkroom_command(*wanted, "--since", "1h", "--json"))] == [gone]
    assert data(running.darkroom_command(*wanted, "--until", "1h", "--json")) == []
    refused = running.darkroom_command(*wanted, "--since", "soon")
    assert (refused.returncode, "since" in refused.stderr) == (2, True)


def test_show_tells_every_try(running: Running) -> None:
    (job_id,) = made(running, "shown")
    running.darkroom_command("retry", job_id)
    running.darkroom.wait(job_id, 40)
    lines = running.darkroom_command("show", job_id).stdout.splitlines()
    for step, told in (
        ("send", "Submitted; api-in-one calls it "),
        ("ask", "Asked api-in-one: it succeeded."),
        ("download", "image_expired: "),
        ("retry", "Retried: "),
    ):
        assert any(f" {step} " in line and told in line for line in lines), (step, lines)
    assert any("download" in line and " times since 20" in line for line in lines), "repetitions are counted"


def test_status_names_a_paused_gateway(s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path: Path) -> None:
    with started(s3_server, tmp_path, sandbox=sandbox, apiframe={"api_key": "afk_inactive"}) as live:
        job_id = live.submit(IMAGEN)["id"]
        for _ in range(200):
            if live.parts.breaker.circuits.every():
                break
            live.http.get(f"/v1/jobs/{job_id}", params={"wait": 0.05})
        done = command("status", DARKROOM_URL=live.url)
        as_json = command("status", "--json", DARKROOM_URL=live.url)
    assert done.returncode == 0
    assert "(gateway_unauthorized): " in done.stderr
    assert "Every accepted job is accounted for" in done.stdout
    assert "Writes are create-only (If-None-Match)." in " ".join(done.stdout.split())
    assert data(as_json)["queued"] + data(as_json)["submitting"] == 1
