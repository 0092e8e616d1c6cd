"""`darkroom gateways`: the list, the files that come along, and what a file would send and read."""

import json
from pathlib import Path

import pytest

from tests.support.running import in_process

JOB = {"gateway": "piapi", "model": "Qubico/flux1-dev", "prompt": "a red kite", "seed": "7", "num_images": 2}
CALLBACK = {
    "data": {
        "task_id": "t-1",
        "status": "completed",
        "output": {"image_urls": ["https://img.example/1.png"]},
        "config": {"webhook_config": {"secret": "told-to-nobody"}},
    }
}


@pytest.fixture
def piapi(tmp_path: Path) -> Path:
    """A folder with a file of its own."""
    shown = in_process("gateways", "show", "piapi", cwd=tmp_path)
    assert shown.returncode == 0
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "piapi.toml").write_text(shown.stdout)
    return folder


def test_the_list_has_built_in_and_declared_ones(piapi: Path) -> None:
    variables = {"DARKROOM_GATEWAYS_DIR": str(piapi), "PIAPI_API_KEY": "key-of-piapi"}
    done = in_process("gateways", "--json", cwd=piapi, **variables)
    listed = json.loads(done.stdout)
    by_name = {one["gateway"]: one for one in listed["gateways"]}
    assert by_name["piapi"] == {
        "gateway": "piapi",
        "title": "PiAPI",
        "on": True,
        "signature": "piapi",
        "links_live_s": None,
        "declared_in": str(piapi),
    }
    assert by_name["apiframe"]["declared_in"] is None
    assert "piapi" in listed["shipped"]
    table = in_process("gateways", cwd=piapi, **variables).stdout
    assert "PiAPI" in table
    assert "built in" in table
    assert "key-of-piapi" not in table + done.stdout


def test_check_shows_what_would_be_sent_and_read(piapi: Path) -> None:
    (piapi / "job.json").write_text(json.dumps(JOB))
    (piapi / "callback.json").write_text(json.dumps(CALLBACK))
    (piapi / "poll.json").write_text(json.dumps({"code": 200, **CALLBACK}))
    (piapi / "accepted.json").write_text(json.dumps({"code": 200, "data": {"task_id": "t-1"}}))
    parts = [
        word for name in ("submit", "accepted", "callback", "poll") for word in (f"--{name}", f"{name}.json")
    ]
    parts[1] = "job.json"
    done = in_process("gateways", "check", "piapi.toml", *parts, "--json", cwd=piapi)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    sent = shown["submit"]
    assert (sent["method"], sent["url"]) == ("POST", "https://api.piapi.ai/api/v1/task")
    assert sent["body"]["input"] == {"prompt": "a red kite", "seed": 7}
    assert [one["field"] for one in sent["refused"]] == ["num_images"]
    assert shown["accepted"]["gateway_job_id"] == "t-1"
    assert shown["callback"]["images"][0]["url"] == "https://img.example/1.png"
    assert shown["poll"]["state"] == "succeeded"
    assert "told-to-nobody" not in done.stdout
    text = in_process("gateways", "check", "piapi.toml", "--callback", "callback.json", cwd=piapi)
    assert "piapi.toml declares PiAPI as piapi." in text.stderr
    assert "https://img.example/1.png" in text.stdout


def test_what_cannot_be_used_is_said(piapi: Path) -> None:
    (piapi / "bad.toml").write_text((piapi / "piapi.toml").read_text().replace("[poll]", "[polling]"))
    bad = in_process("gateways", "check", "bad.toml", cwd=piapi)
    assert bad.returncode != 0
    assert "polling: is unknown" in bad.stderr
    gone = in_process("gateways", "check", "piapi.toml", "--callback", "none.json", cwd=piapi)
    assert gone.returncode == 2
    assert "none.json cannot be read" in gone.stderr
    (piapi / "callback.json").write_text("{}")
    unread = in_process("gateways", "check", "piapi.toml", "--callback", "callback.json", cwd=piapi)
    assert unread.returncode == 1
    assert "not one of PiAPI's" in unread.stderr
    unknown = in_process("gateways", "show", "nobody", cwd=piapi)
    assert unknown.returncode == 2
    assert "comfydeploy" in unknown.stderr
    start = in_process("config", cwd=piapi, DARKROOM_GATEWAYS_DIR=str(piapi))
    assert start.returncode == 2
    assert "bad.toml cannot be used" in start.stderr


def test_the_sandbox_stands_in_for_a_declared_gateway(piapi: Path) -> None:
    asked = in_process("sandbox", "--gateway", "nobody", cwd=piapi, DARKROOM_GATEWAYS_DIR=str(piapi))
    assert asked.returncode == 2
    assert "--gateway nobody: must be one of apiframe, " in asked.stderr
    assert ", piapi." in asked.stderr
    runcomfy = in_process("gateways", "show", "runcomfy", cwd=piapi).stdout
    (piapi / "runcomfy.toml").write_text(runcomfy)
    without = in_process("sandbox", "--gateway", "nobody", cwd=piapi, DARKROOM_GATEWAYS_DIR=str(piapi))
    assert "runcomfy.toml: the sandbox cannot stand in for it" in without.stderr
