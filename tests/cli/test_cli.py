import hashlib
import re
import socket
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from receiver.cli.commands import app
from receiver.cli.console import FAILED, MISUSED, STOPPED, UNREACHABLE
from receiver.cli.help import topics
from tests.support.running import Running, command, data, environment

COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]
IMAGEN = ("--gateway", "apiframe", "--model", "imagen-4-fast")
RAMEN = ("--gateway", "api-in-one", "--model", "imagen4")


@dataclass(frozen=True)
class Made:
    """A job that was submitted by the command line, and its output."""

    job: dict[str, Any]
    output: dict[str, Any]


@pytest.fixture(scope="module")
def made(running: Running) -> Made:
    prompt = "a bowl of [bold]ramen[/bold] \x1b[31mhot\u202e"
    more = ("--seed", "7", "--tag", "for=cli", "--wait", "--json")
    done = running.darkroom_command("submit", prompt, *RAMEN, *more)
    assert done.returncode == 0, done.stderr
    job = data(done)
    return Made(job, data(running.darkroom_command("show", job["outputs"][0]["id"], "--json")))


def test_the_commands_are_the_documented_ones() -> None:
    making = "demo serve work sandbox config migrate-ledger submit models jobs cancel retry notifications"
    documented = f"{making} gateways show search download export usage status help version"
    assert sorted(documented.split()) == COMMANDS


def test_each_help_has_a_sentence_and_an_example() -> None:
    for name in COMMANDS:
        done = command(name, "--help", COLUMNS="80")
        assert done.returncode == 0
        assert f"darkroom {name}" in done.stdout.partition("Example")[2]
        assert "\x1b" not in done.stdout


def test_first_steps_are_told_without_arguments() -> None:
    shown = command(COLUMNS="80")
    assert shown.returncode == 0
    assert shown.stdout == command("--help", COLUMNS="80").stdout
    assert all(f"│ {name}" in shown.stdout for name in COMMANDS)
    assert "Run darkroom demo" in shown.stdout
    for code in (FAILED, MISUSED, UNREACHABLE, STOPPED):
        assert re.search(rf"\b{code} [a-z]", " ".join(shown.stdout.partition("Exit codes")[2].split()))
    assert command("--version").stdout == command("version").stdout == f"darkroom {version('darkroom')}\n"


def test_help_explains_topics() -> None:
    listed = command("help", COLUMNS="80").stdout
    assert command("help", "retry").stdout == command("retry", "--help").stdout
    for name in topics():
        assert name in listed
        done = command("help", name)
        assert (done.returncode, done.stdout != "") == (0, True)
    errors = command("help", "errors").stdout
    assert all(code in errors for code in ("image_expired", "needs_resubmit", "receiver_gone"))
    assert "DARKROOM_PORT = 8321" in command("help", "settings").stdout
    gateways = command("help", "gateways").stdout
    assert "DARKROOM_GATEWAYS_DIR" in gateways
    assert "darkroom gateways check" in gateways
    assert "--failed" in command("help", "notifications", "replay").stdout
    unknown = command("help", "nothing")
    assert (unknown.returncode, "Topics: " in unknown.stderr) == (2, True)


def test_help_needs_none_of_the_heavy_libraries() -> None:
    heavy = ["boto3", "sqlalchemy", "uvicorn", "PIL", "httpx", "starlette"]
    check = f"import sys, receiver.cli.commands; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", check], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_submit_waits_downloads_and_tells(running: Running, tmp_path: Path) -> None:
    done = running.darkroom_command("submit", "a kite", *IMAGEN, "--download", str(tmp_path / "new"))
    assert done.returncode == 0, done.stderr
    assert "archived" in done.stdout
    (file,) = (tmp_path / "new").iterdir()
    (output,) = running.darkroom.search(job=file.name.rpartition(".")[0].rpartition(".")[0])
    assert hashlib.sha256(file.read_bytes()).hexdigest() == output.sha256


def test_submit_passes_parameters_and_fails_as_the_job(running: Running) -> None:
    fault = "sandbox.fault=failed"
    done = running.darkroom_command("submit", "a kite", *IMAGEN, "--param", fault, "--wait")
    assert done.returncode == 1
    assert "failed" in done.stdout
    assert "generation_failed" in done.stdout


def test_submit_refuses_a_private_notify_url(running: Running, tmp_path: Path) -> None:
    done = running.darkroom_command("submit", "a kite", *IMAGEN, "--notify-url", "http://10.0.0.1/hook")
    assert (done.returncode, "notify_url" in done.stderr) == (2, True)
    prompts = tmp_path / "prompts.csv"
    prompts.write_text("prompt,notify_url\na kite,http://10.0.0.1/hook\n")
    done = running.darkroom_command("submit", "--file", str(prompts), *IMAGEN)
    assert "notify_url" in done.stderr
    assert "may or may not" not in done.stderr, "it was refused"


def test_submit_tells_when_the_time_is_up(running: Running) -> None:
    late = ("--param", 'sandbox={"fault": "slow_image", "delay_s": 5}')
    done = running.darkroom_command("submit", "slow", *IMAGEN, *late, "--wait", "--timeout", "0.2")
    assert done.returncode == 1
    assert "Time is up" in done.stderr


def test_a_file_of_prompts_is_submitted_row_by_row(running: Running, tmp_path: Path) -> None:
    file = tmp_path / "prompts.csv"
    file.write_text(
        "\ufeffprompt,model,aspect_ratio,params.image_size,tags.row,idempotency_key\n"
        '"a kite, red",,16:9,1K,first,row-1\n'
        '"two\nlines",imagen-4-fast,,,second,\n'
    )
    wanted = ("submit", "-f", str(file), *IMAGEN, "--tag", "all=yes", "--json")
    done = running.darkroom_command(*wanted, "--wait")
    assert done.returncode == 0, done.stderr
    first, second = data(done)
    assert first["request"]["tags"] == {"row": "first", "all": "yes"}
    assert first["request"]["aspect_ratio"] == "16:9"
    assert (second["request"]["prompt"], second["request"]["params"]) == ("two\nlines", {})
    again = data(running.darkroom_command(*wanted))
    assert [job["id"] for job in again] == [first["id"], second["id"]]


def test_standard_input_may_be_json_lines(running: Running) -> None:
    lines = '{"prompt": "one", "num_images": 1}\n\n{"prompt": "zwei", "tags": {"a": "b"}}\n'
    done = running.darkroom_command("submit", "-f", "-", *RAMEN, "--json", stdin=lines)
    assert [job["request"]["prompt"] for job in data(done)] == ["one", "zwei"]


def test_a_bad_row_is_named_before_anything_is_sent(running: Running, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "fine"}\n{"prompt": ""}\n{"prompt": "x", "num_images": "two"}\n')
    before = running.darkroom.status().accepted
    done = running.darkroom_command("submit", "--file", str(file), *IMAGEN)
    assert done.returncode == 2
    assert "line 2: prompt" in done.stderr
    assert "line 3: num_images" in done.stderr
    assert running.darkroom.status().accepted == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--num-images", "two"), "num_images: must be a whole number"),
        (("--num-images", "0"), "num_images: must be 1 or more"),
        (("--gateway", "apifram"), "gateway: is not configured here; use api-in-one or apiframe"),
        (("--model", "imagen-4-fsat"), "did you mean imagen-4-fast? Ignore what is unsupported"),
        (("--seed", "7"), "seed: imagen-4-fast on Apiframe has no such parameter; leave it out"),
        (("--timeout", "soon"), "'--timeout': must be a number of seconds, such as 600"),
        (("--timeout", "-1"), "'--timeout': must be a number of seconds, such as 600"),
    ],
)
def test_a_refused_field_is_named_with_what_to_do(
    running: Running, arguments: tuple[str, str], told: str
) -> None:
    done = running.darkroom_command("submit", "a red kite", *IMAGEN, *arguments)
    assert done.returncode == MISUSED
    assert told in re.sub(r"[\s│]+", " ", done.stderr)


def test_an_unsupported_parameter_may_be_left_out(running: Running) -> None:
    refused = running.darkroom_command("submit", "p", *IMAGEN, "--seed", "7")
    assert (refused.returncode, "seed: " in refused.stderr) == (2, True)
    taken = running.darkroom_command("submit", "p", *IMAGEN, "--seed", "7", "--ignore-unsupported", "--json")
    assert data(taken)["request"]["ignored"] == ["seed"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "Give a prompt"),
        (("p", "--file", "x.csv"), "Give a prompt"),
        (("p",), "--gateway is missing"),
        (("p", *IMAGEN, "--param", "novalue"), "name=value"),
        (("p", *IMAGEN, "--param", "a=1", "--param", "a.b=2"), "already has a value"),
        (("p", *IMAGEN, "--tag", "=x"), "name=value"),
        (("--file", "missing.csv"), "cannot be read"),
        (("--file", "prompts.txt"), "must end in .csv, .tsv or .jsonl"),
        (("--file", "x.csv", "--idempotency-key", "k"), "column idempotency_key"),
        (("p", *IMAGEN, "--again", "two"), "--again is for --file"),
    ],
)
def test_misuse_of_submit_is_told(arguments: tuple[str, ...], told: str, tmp_path: Path) -> None:
    done = command("submit", *arguments, cwd=tmp_path)
    assert (done.returncode, told in done.stderr, done.stdout) == (2, True, ""), done.stderr


def test_show_tells_request_result_and_proof(running: Running, made: Made) -> None:
    shown = running.darkroom_command("show", made.job["id"]).stdout
    for part in (made.output["sha256"], "signed URL", "n47", "for", "callback", "imagen4", "submitting"):
        assert part in shown
    shown = running.darkroom_command("show", made.output["id"]).stdout
    assert made.output["key"] in shown
    assert made.output["job"]["id"] == made.job["id"]


def test_fewer_images_than_requested_are_shown(running: Running) -> None:
    asked = {"gateway": "api-in-one", "model": "imagen4", "prompt": "a kite that is withheld"}
    fault = {"sandbox": {"fault": "withheld_image", "message": "blocked"}}
    job = running.darkroom.submit(**asked, num_images=3, params=fault)  # type: ignore[arg-type]
    assert running.darkroom.wait(job.id, timeout_s=60).status == "archived"
    shown = running.darkroom_command("show", job.id).stdout
    assert "2 of 3 returned (image 1: blocked)" in shown
    assert "2 of 3" in running.darkroom_command("jobs", "--text", "withheld is:short").stdout


def test_search_finds_by_what_made_it(running: Running, made: Made) -> None:
    wanted = ("search", "RAMEN", "--seed", "7", "--model", "imagen4", "--tag", "for=cli")
    assert made.output["id"] in running.darkroom_command(*wanted).stdout
    (found,) = data(running.darkroom_command(*wanted, "--sha256", made.output["sha256"], "--json"))
    assert found["key"] == made.output["key"]
    assert data(running.darkroom_command("search", "ramen", "--seed", "8", "--json")) == []


@pytest.mark.parametrize("arguments", [("jobs",), ("search",), ("jobs", "--json"), ("search", "--json")])
def test_a_prompt_cannot_reach_the_terminal(running: Running, made: Made, arguments: tuple[str, ...]) -> None:
    shown = running.darkroom_command(*arguments, "--tag", "for=cli").stdout
    assert made.job["id"] in shown
    assert "a bowl of [bold]ramen[/bold]" in shown
    assert "\\u001b[31mhot\\u202e" in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown


@pytest.mark.parametrize("width", ["50", "80", "120"])
def test_ids_are_never_cut(running: Running, made: Made, width: str) -> None:
    forced = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": width}
    shown = running.darkroom_command("search", "--tag", "for=cli", **forced).stdout
    assert made.output["id"] in shown
    assert "\x1b[1m" in shown
    shown = running.darkroom_command("show", made.output["id"], **forced).stdout
    assert made.output["id"] in shown
    assert made.job["gateway_job_id"] in shown


A_JOB = "019a1b2c-3d4e-7f00-8000-000000000000"


@pytest.mark.parametrize(
    "arguments",
    [(), ("--all", "--tag", "a=b"), (f"{A_JOB}.0", "--model", "m"), (A_JOB, "kite"), (f"{A_JOB}0",),
     ("kite", "--all"), ("kite", "--name", "../{id}")],
)  # fmt: skip
def test_download_asks_what_is_meant(arguments: tuple[str, ...]) -> None:
    assert command("download", *arguments).returncode == 2


def test_what_is_not_there_is_an_error_of_one_line(running: Running) -> None:
    done = running.darkroom_command("show", "nothing")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    nothing = running.darkroom_command("jobs", "--model", "none")
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (0, "", "No jobs match.\n")


@pytest.mark.parametrize("arguments", [("jobs",), ("submit", "p", *IMAGEN)])
def test_a_service_that_is_not_there_is_told(arguments: tuple[str, ...]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        done = command(*arguments, DARKROOM_URL=f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert (done.returncode, done.stdout) == (3, "")
    assert "darkroom serve" in done.stderr
    assert "DARKROOM_URL" in done.stderr
    assert "Errno" not in done.stderr


def test_a_token_is_never_shown(running: Running) -> None:
    ended = running.darkroom_command("jobs", "--token", "sekret-token\n")
    assert ended.returncode == 0, "a line end at its end is nobody's meaning"
    broken = running.darkroom_command("jobs", "--token", "sekret\ntoken")
    assert broken.returncode != 0
    assert "sekret" not in broken.stdout + broken.stderr
    assert "Traceback" not in broken.stderr


def test_an_unwritable_folder_is_told_before_paying(running: Running) -> None:
    before = len(running.sandbox.jobs())
    done = running.darkroom_command("submit", "a kite", *IMAGEN, "--download", "/proc/nope")
    assert done.returncode == 1
    assert "--download /proc/nope" in done.stderr
    assert len(running.sandbox.jobs()) == before
