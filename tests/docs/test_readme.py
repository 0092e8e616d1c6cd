"""Run the examples of the README and of the help topics as a reader would."""

import json
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from receiver.cli.config import settings_table
from tests.support.live import IMAGEN, Live
from tests.support.running import ROOT, command, environment

README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8") if README.exists() else ""
TOPICS = ROOT / "receiver" / "api" / "docs" / "topics"
ADDRESS = "http://127.0.0.1:8321"
UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")


def block(mark: str, page: str = TEXT) -> str:
    found = re.search(rf"<!-- {re.escape(mark)} -->\n+```\w+\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert found, f"there is no code block {mark!r}"
    return found[1]


def example(topic: str, text: str) -> str:
    """The code block of a help topic that has this text in it."""
    page = (TOPICS / f"{topic}.md").read_text(encoding="utf-8")
    found = [
        body for body in re.findall(r"^```\w+\n(.*?)^```$", page, re.DOTALL | re.MULTILINE) if text in body
    ]
    assert len(found) == 1, f"{topic}.md has {len(found)} code blocks with {text!r}"
    return str(found[0])


def test_the_readme_is_short_and_its_examples_are_run() -> None:
    assert len(TEXT.splitlines()) <= 260
    ours = Path(__file__).read_text(encoding="utf-8")
    marks = re.findall(r"^<!-- ((?:run|settings|shape).*) -->$", TEXT, re.MULTILINE)
    assert marks
    assert [mark for mark in marks if mark not in re.findall(r"[\"'](\w[^\"']*)[\"']", ours)] == []
    unmarked = re.findall(r"^(?!<!-- ).*\n+```(bash|python|ini|javascript)$", TEXT, re.MULTILINE)
    assert unmarked == []


@pytest.mark.parametrize("mark", ["settings: aws", "settings: r2", "settings: minio"])
def test_the_example_settings_load(tmp_path: Path, mark: str) -> None:
    lines = block(mark)
    (tmp_path / ".env").write_text(f"{block('settings that load')}\n{lines}")
    done = command("config", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(re.findall(r"^\w+", lines, re.MULTILINE)) <= {row.variable for row in settings_table()}


RAMEN = "A photorealistic bowl of ramen with steam rising, side lighting, food photography"


@pytest.fixture(scope="module")
def menu(live: Live) -> dict[str, Any]:
    """The first image that the JavaScript example makes, as the API shows it."""
    asked = {"gateway": "api-in-one", "model": "imagen4", "prompt": RAMEN, "seed": 42, "num_images": 2}
    job = live.make({**asked, "negative_prompt": "blurry, cartoon, text", "tags": {"campaign": "menu"}})
    return live.outputs(job["id"])[0]


def run(live: Live, folder: Path, *words: str, **variables: str) -> str:
    """Run a program as a reader would, beside the live service; answers what it printed."""
    env = environment(DARKROOM_URL=live.url, PYTHON=sys.executable, NO_PROXY="*", **variables)
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def bash(live: Live, folder: Path, text: str, **variables: str) -> str:
    need("bash", "--version")
    text = text.replace(ADDRESS, live.url)
    ours = 'set -euo pipefail\ndarkroom() { "$PYTHON" -m receiver "$@"; }\n'
    return run(live, folder, "bash", "-c", ours + text, **variables)


def python(live: Live, folder: Path, text: str) -> str:
    return run(live, folder, sys.executable, "-W", "error", "-c", text.replace(ADDRESS, live.url))


def need(*words: str) -> str:
    """Skip the test, visibly, where a program is not there or does not run; answers what it printed."""
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed, so its example was not run")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"{words[0]} does not run here, so its example was not run")
    return done.stdout


def documents(text: str) -> list[Any]:
    """JSON documents that were printed one after the other."""
    found = []
    while text := text.lstrip():
        document, end = json.JSONDecoder().raw_decode(text)
        found.append(document)
        text = text[end:]
    return found


@pytest.mark.smoke
def test_curl_submits_waits_and_takes_the_image(live: Live, tmp_path: Path) -> None:
    need("curl", "--version")
    (job,) = documents(bash(live, tmp_path, block("run: curl")))
    (job,) = documents(bash(live, tmp_path, UUID.sub(job["id"], block("run: curl-wait"))))
    assert job["status"] == "archived"
    assert (tmp_path / "car.jpg").read_bytes().startswith(b"\xff\xd8\xff")


def test_curl_follows_a_job(live: Live, tmp_path: Path) -> None:
    need("curl", "--version")
    job = live.make(IMAGEN)
    printed = bash(live, tmp_path, example("events", "curl -N"), JOB=job["id"])
    shown = re.findall(r"^id: \d+-\d+\nevent: (\w+)\ndata: (.+)\n\n", printed, re.MULTILINE)
    assert [json.loads(data).get("status") for _, data in shown][-2:] == [None, "archived"]
    told = re.findall(r"^event: (\w+)\ndata: (.+)$", example("events", "event: output"), re.MULTILINE)
    assert {kind for kind, _ in told} == {kind for kind, _ in shown} == {"job", "output"}
    real = {kind: json.loads(data).keys() for kind, data in shown}
    assert all(json.loads(data).keys() == real[kind] for kind, data in told)


@pytest.mark.smoke
def test_python_submits_waits_and_takes_the_image(live: Live, tmp_path: Path) -> None:
    printed = python(live, tmp_path, block("run: python")).split()
    assert printed[:2] == ["archived", "None"]
    (image,) = (tmp_path / "pictures").iterdir()
    assert sha256(image.read_bytes()).hexdigest() == printed[2]


def test_the_shell_submits_one_and_many(live: Live, tmp_path: Path) -> None:
    printed = bash(live, tmp_path, block("run: submit"))
    assert printed.count(" archived ") == 3
    assert len(list((tmp_path / "pictures").iterdir())) == 1


def test_notifications_are_looked_at(live: Live, tmp_path: Path) -> None:
    bash(live, tmp_path, example("notifications", "darkroom notifications"))


def test_a_stranger_is_answered_as_shown(live: Live, tmp_path: Path) -> None:
    need("curl", "--version")
    answer = bash(live, tmp_path, block("run: stranger"))
    assert f"```json\n{answer}\n```" in TEXT


def test_curl_finds_images(live: Live, tmp_path: Path, menu: dict[str, Any]) -> None:
    need("curl", "--version")
    asked = re.sub(r"\b[0-9a-f]{64}\b", menu["sha256"], block("run: search"))
    pages = documents(bash(live, tmp_path, asked))
    assert len(pages) == 3
    assert all(menu["prompt"] in {found["prompt"] for found in page["outputs"]} for page in pages)


def test_commands_find_images(live: Live, tmp_path: Path, menu: dict[str, Any]) -> None:
    printed = bash(live, tmp_path, UUID.sub(menu["job_id"], block("run: find")))
    assert menu["sha256"] in printed
    assert (tmp_path / "pictures" / f"{menu['id']}.png").exists()


def test_links_give_a_part_a_file_and_a_thumbnail(live: Live, tmp_path: Path, menu: dict[str, Any]) -> None:
    need("curl", "--version")
    bash(live, tmp_path, UUID.sub(menu["job_id"], example("images", "curl -OJ")))
    (image,) = tmp_path.glob("a-photorealistic-bowl-of-ramen-*-0.png")
    assert image.read_bytes()[:100] == (tmp_path / "part.bin").read_bytes()
    assert (tmp_path / "small.webp").read_bytes()[8:12] == b"WEBP"


def test_failed_jobs_are_found_for_a_retry(live: Live, tmp_path: Path) -> None:
    job = live.make(IMAGEN, fault={"fault": "expired_link", "forever": True})
    assert live.job(job["id"]).status == "failed"
    bash(live, tmp_path, example("life", "darkroom retry"))
    assert live.job(job["id"]).status == "failed", "only looked at"


def test_what_it_costs_is_shown_by_model(live: Live, menu: dict[str, Any], tmp_path: Path) -> None:
    shown = bash(live, tmp_path, example("life", "darkroom usage"))
    assert menu["model"] in shown
    assert "total" in shown.lower()


def test_notifications_are_verified_as_shown(tmp_path: Path) -> None:
    verify: dict[str, Any] = {}
    exec(example("notifications", "from standardwebhooks"), verify)
    at, body = datetime.now(UTC), b'{"type": "job.archived", "data": {"outputs": [{"image": "/x"}]}}'
    headers = {"webhook-id": "m", "webhook-timestamp": str(int(at.timestamp()))}
    headers["webhook-signature"] = verify["Webhook"](verify["SECRET"]).sign("m", at, body.decode())
    assert verify["take"](headers, body) == "job.archived ['/x']"
    lines = example("notifications", "DARKROOM_NOTIFY__URL")
    (tmp_path / ".env").write_text(f"{block('settings that load')}\n{block('settings: aws')}\n{lines}")
    assert command("config", cwd=tmp_path).returncode == 0
