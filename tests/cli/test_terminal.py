"""What the commands do in a terminal: tables that follow, and the Tab key."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from receiver.gateways.registry import BY_NAME
from receiver.schemas.job import Job
from receiver.schemas.output import Output
from tests.cli.test_client import make
from tests.faults import harm
from tests.faults.proxy import Proxy
from tests.support.running import Running, begun, command, environment
from tests.support.terminals import in_terminal


@pytest.fixture(scope="module")
def output(running: Running) -> Output:
    return running.darkroom.output(make(running, "a kite in a terminal").outputs[0].id)


def watched(running: Running, tag: str, fault: dict[str, Any], prompt: str = "x") -> Job:
    asked: dict[str, Any] = {"gateway": "apiframe", "model": "imagen-4-fast", "params": {"sandbox": fault}}
    return running.darkroom.submit(prompt=prompt, tags={"watch": tag}, **asked)


def test_jobs_are_followed_in_a_terminal(running: Running, tmp_path: Path) -> None:
    job = make(running, "followed in a terminal", tags={"watch": "screen"})
    watch = ("jobs", "--watch", "--tag", "watch=screen")
    with in_terminal(*watch, folder=tmp_path, DARKROOM_URL=running.url) as terminal:
        assert terminal.read(until=job.id).count("archived") == 1
        second = make(running, "seen as it comes", tags={"watch": "screen"})
        terminal.read(until="archived", times=2)
        assert second.id in terminal.shown()
        assert terminal.interrupt() == 130
    assert terminal.shown().count(job.id) == 1, "one table, drawn again in its place"


def test_jobs_are_followed_until_they_are_done(running: Running) -> None:
    make(running, "was there before", tags={"watch": "pipe"})
    job = watched(running, "pipe", {"fault": "slow_image", "delay_s": 1}, "watched\nuntil done")
    done = running.darkroom_command("jobs", "--until-done", "--tag", "watch=pipe")
    assert done.returncode == 0, done.stderr
    lines = [line.split("  ") for line in done.stdout.splitlines()]
    assert [line[2] for line in lines if line[1] == job.id][-1] == "archived"
    assert len([line for line in lines if line[1] != job.id]) == 1, "what does not change is told once"
    assert lines[-1][-1] == "watched until done"
    assert all(len(line) == 4 for line in lines)


@pytest.mark.exhaustive
def test_waiting_shows_how_many_are_finished(running: Running, tmp_path: Path) -> None:
    slow = {"params": {"sandbox": {"fault": "slow_image", "delay_s": 6}}}
    rows = [slow, {}, {}]
    lines = [json.dumps({"prompt": f"in a terminal {n}"} | row) for n, row in enumerate(rows)]
    (tmp_path / "wait.jsonl").write_text("\n".join(lines))
    wanted = ("submit", "-f", "wait.jsonl", "--gateway", "apiframe", "--model", "imagen-4-fast", "--wait")
    with in_terminal(*wanted, folder=tmp_path, DARKROOM_URL=running.url) as terminal:
        assert "Finishing" in terminal.read(until="2/3"), "the first one is not finished yet"
        assert terminal.read().count("archived") == 3


def test_a_failed_job_is_told_by_the_exit_code(running: Running) -> None:
    job = watched(running, "failed", {"fault": "failed"})
    done = running.darkroom_command("jobs", "--until-done", "--tag", "watch=failed", "--json")
    assert done.returncode == 1
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["id"], last["status"]) == (job.id, "failed")
    nothing = running.darkroom_command("jobs", "--until-done", "--tag", "watch=nothing")
    assert (nothing.returncode, nothing.stderr) == (0, "No jobs match.\n")


@pytest.mark.parametrize(
    "harm_done", [harm.answer(404, b'{"code": "not_found", "detail": "Not Found"}'), harm.drop]
)
def test_a_service_without_events_is_polled(running: Running, harm_done: harm.Action) -> None:
    job = watched(running, "old", {"fault": "slow_image", "delay_s": 1})
    with Proxy(running.url) as proxy:
        proxy.arm(harm_done, path="/v1/events")
        done = command("jobs", "--until-done", "--tag", "watch=old", DARKROOM_URL=proxy.url)
    assert done.returncode == 0, done.stderr
    assert f"{job.id}  archived" in done.stdout


def test_a_service_that_goes_away_ends_it(running: Running) -> None:
    with Proxy(running.url) as proxy:
        proxy.arm(harm.drop, path="/v1/events")
        child = begun("jobs", "--watch", "--limit", "1", DARKROOM_URL=proxy.url)
        assert child.stdout is not None
        child.stdout.readline()
        proxy.down()
        _, told = child.communicate(timeout=60)
    assert (child.returncode, "Traceback" in told) == (3, False), told


def complete(words: str, shell: str = "bash", **variables: Any) -> list[str]:
    """What is offered at the end of a line."""
    args = ["darkroom", *words.split(" ")]
    told: dict[str, dict[str, Any]] = {
        "bash": {"COMP_WORDS": " ".join(args), "COMP_CWORD": str(len(args) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": " ".join(args)},
        "fish": {"_TYPER_COMPLETE_ARGS": " ".join(args), "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }
    done = command(_DARKROOM_COMPLETE=f"complete_{shell}", **told[shell], **variables)
    assert "Traceback" not in done.stderr, done.stderr
    return [line for line in done.stdout.splitlines() if line]


def test_the_tab_key_offers_what_the_service_knows(running: Running, output: Output) -> None:
    here = {"DARKROOM_URL": running.url}
    assert complete("jobs --gateway api-", **here) == ["api-in-one"]
    assert complete("export --format ba", **here) == ["bagit"]
    assert output.job_id in complete(f"show {output.job_id[:8]}", **here)
    assert complete(f"show {output.id[:-1]}", **here) == [output.id]
    assert any(output.job_id in line for line in complete(f"download {output.job_id[:8]}", "zsh", **here))
    in_fish = complete(f"show {output.job_id[:8]}", "fish", **here)
    assert any(line.startswith(f"{output.job_id}\t") for line in in_fish)


def test_the_tab_key_is_silent_where_nobody_answers() -> None:
    away = {"DARKROOM_URL": "http://127.0.0.1:9"}
    assert complete("show 01", **away) == []
    assert complete("jobs --gateway ", **away) == list(BY_NAME)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed, so its completion was not tried")
    # What follows keeps the shell from giving its place to Darkroom, which asks who its parent is.
    script = "$PYTHON -m receiver --install-completion; true"
    variables = environment(HOME=str(tmp_path), PYTHON=sys.executable)
    done = subprocess.run([shell, "-c", script], env=variables, capture_output=True, text=True, check=False)
    assert f"{shell} completion installed" in done.stdout, done.stdout + done.stderr


def test_bash_completes_a_line(tmp_path: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    (tmp_path / "darkroom").write_text(f'#!/bin/sh\nexec {sys.executable} -m receiver "$@"\n')
    (tmp_path / "darkroom").chmod(0o755)
    script = """
eval "$(darkroom --show-completion bash)"
COMP_WORDS=(darkroom jobs --status pa) COMP_CWORD=3
$(complete -p darkroom | sed 's/.*-F \\([^ ]*\\).*/\\1/') darkroom pa --status
echo "${COMPREPLY[@]}"
"""
    env = environment()
    env["PATH"] = f"{tmp_path}:{env['PATH']}"
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "partial", done.stdout + done.stderr
