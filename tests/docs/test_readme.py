"""The README, held to the code: its tables are compared or generated, and its examples are run.

`python -m tests.docs.test_readme --write` brings the generated tables up to date.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer.main

from receiver import errors
from receiver.api.query_params import JobQuery, OutputQuery
from receiver.cli.config import settings_table
from receiver.cli.console import FAILED, MISUSED, UNREACHABLE
from receiver.cli.main import app
from receiver.demo.demo import IMAGES, PROMPTS
from receiver.errors import DarkroomError
from receiver.query.language import GUIDE
from receiver.schedule import Timing
from receiver.schemas.requests import SubmitBody
from receiver.telemetry.metric_list import METRICS
from tests.faults.table import Row
from tests.support.live import IMAGEN, Live
from tests.support.running import ROOT, command, environment

README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8") if README.exists() else ""
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROSE = FENCE.sub("", TEXT)
ADDRESS = "http://127.0.0.1:8321"
UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")

OF_JOBS: Mapping[str, tuple[str, str]] = {
    "no_answer": ("gateway", "no result came in 24 hours"),
    "submission_unconfirmed": ("gateway", "it never said whether it took the job; not sent again"),
    "generation_failed": ("gateway", "it says that the job failed; the message has its words"),
    "no_images": ("gateway", "it says that the job succeeded, but names no image"),
    "archive_conflict": ("archive", "other bytes are under the key of this image or record"),
    "archive_corrupt": ("archive", "what was read back is not what was stored"),
    "gateway_job_taken": ("gateway", "it answered with the id of another job of ours"),
    "storage_unavailable": ("operator", "the bucket cannot be used now; the job waits, as long as it takes"),
    "unknown_gateway": ("operator", "its gateway has no API key here any more; the job waits for one"),
}
"""Codes of failed and waiting jobs that are no error classes: who can mend it, and what it means."""


def part(name: str) -> str:
    """What stands between `<!-- name -->` and `<!-- -->`."""
    found = re.search(rf"<!-- {re.escape(name)} -->\n(.*?)<!-- -->", TEXT, re.DOTALL)
    assert found, f"README.md has no part {name!r}"
    return found[1]


def block(mark: str) -> str:
    """The code block under `<!-- mark -->`."""
    found = re.search(rf"<!-- {re.escape(mark)} -->\n+```\w+\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    assert found, f"README.md has no code block {mark!r}"
    return found[1]


def table(head: str, rows: Iterator[tuple[str, ...]]) -> str:
    names = [name.strip() for name in head.split("|")]
    lines = [names, ["---"] * len(names), *([escaped(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def escaped(cell: str) -> str:
    # Between backticks a `<` is shown as it is; elsewhere it would begin a tag.
    pieces = cell.replace("|", r"\|").split("`")
    return "`".join(piece if n % 2 else piece.replace("<", "&lt;") for n, piece in enumerate(pieces))


def code(text: str | None) -> str:
    return f"`{text}`" if text else ""


def settings_rows() -> Iterator[tuple[str, ...]]:
    for row in settings_table():
        yield code(row.variable), code(row.default), row.help


def body_rows() -> Iterator[tuple[str, ...]]:
    for name, field in SubmitBody.model_fields.items():
        yield code(name), "yes" if field.is_required() else "", field.description or ""


def meanings() -> dict[str, str]:
    """Each code with its words in the tree that `receiver/errors.py` draws at its top."""
    return dict(re.findall(r"── \w+ +([a-z_]+) +(\S.*)", errors.__doc__ or ""))


def leaves(root: type[DarkroomError]) -> Iterator[type[DarkroomError]]:
    if "code" in vars(root):
        yield root
    for kind in root.__subclasses__():
        yield from leaves(kind)


def answer_rows() -> Iterator[tuple[str, ...]]:
    for root in (errors.RequestError, errors.CallbackError, errors.Unready):
        for kind in leaves(root):
            yield code(kind.code), str(kind.status), meanings()[kind.code]
    yield code("method_not_allowed"), "405", "the route does not take this method"
    yield code("bad_request"), "4xx", "something else that the HTTP layer refused"
    yield code(DarkroomError.code), "500", "a fault of ours; the log has it under the `X-Request-Id`"


def job_error_rows() -> Iterator[tuple[str, ...]]:
    for name, (at_fault, meaning) in OF_JOBS.items():
        yield code(name), at_fault, meaning
    for root in (errors.GatewayError, errors.ImageError):
        for kind in leaves(root):
            yield code(kind.code), kind.at_fault, meanings()[kind.code]


def notification_error_rows() -> Iterator[tuple[str, ...]]:
    for kind in leaves(errors.NotificationError):
        yield code(kind.code), meanings()[kind.code]


def metric_rows() -> Iterator[tuple[str, ...]]:
    for metric in METRICS:
        yield (
            code(metric.name),
            metric.kind,
            ", ".join(label.name for label in metric.labels),
            metric.sentence,
        )


def language_rows() -> Iterator[tuple[str, ...]]:
    for example, meaning in GUIDE:
        yield code(example), meaning


GENERATED: Mapping[str, Callable[[], str]] = {
    "settings": lambda: table("variable | default | what it is for", settings_rows()),
    "body": lambda: table("field | needed | what it is", body_rows()),
    "language": lambda: table("such as | finds", language_rows()),
    "answers": lambda: table("code | status | meaning", answer_rows()),
    "job errors": lambda: table("code | at fault | meaning", job_error_rows()),
    "notification errors": lambda: table("code | meaning", notification_error_rows()),
    "metrics": lambda: table("metric | kind | labels | what it says", metric_rows()),
}


def write() -> None:
    """Put the generated tables into the README."""
    text = TEXT
    for name, made in GENERATED.items():
        part(name)
        begin, _, rest = text.partition(f"<!-- {name} -->\n")
        text = f"{begin}<!-- {name} -->\n\n{made()}\n<!-- -->{rest.partition('<!-- -->')[2]}"
    README.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("name", GENERATED)
def test_tables_are_what_the_code_says(name: str) -> None:
    assert part(name).strip() == GENERATED[name]().strip(), "run: python -m tests.docs.test_readme --write"


def test_job_errors_are_all_there() -> None:
    sources = [path.read_text() for path in (ROOT / "receiver").rglob("*.py")]
    made = {name for source in sources for name in re.findall(r'JobError\(\s*"(\w+)"', source)}
    chosen = {name for source in sources for name in re.findall(r'"(archive_\w+)"', source)}
    assert made | chosen == set(OF_JOBS)


def test_routes_are_those_of_the_service(live: Live) -> None:
    both = part("routes") + part("pages")
    told = set(re.findall(r"^\| `(\w+) (/\S*)`", both, re.MULTILINE))
    served = {
        (method, re.sub(r":\w+}", "}", getattr(route, "path", "")))
        for route in live.service.asgi(work=False).routes
        for method in getattr(route, "methods", None) or ()
        if method != "HEAD"
    }
    assert told == served


def test_query_parameters_are_those_of_the_api() -> None:
    told = next(line for line in TEXT.splitlines() if line.startswith("Lists of jobs take"))
    jobs, outputs, *_ = [set(re.findall(r"`(\w+)`", sentence)) for sentence in told.split(". ")]
    assert (jobs, jobs | outputs) == (set(JobQuery.model_fields), set(OutputQuery.model_fields))


def test_a_wrong_method_is_answered_as_the_table_says(live: Live) -> None:
    answer = live.http.delete("/v1/status")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")


def test_no_fault_loses_or_doubles_anything() -> None:
    lines = [line.strip("| ") for line in part("faults").strip().splitlines()]
    head, rows = lines[0], [re.split(r" *\| *", line) for line in lines[2:]]
    assert re.split(r" *\| *", head) == [field.name.replace("_", " ") for field in fields(Row)]
    assert len(rows) > 50
    for fault, *cells in rows:
        jobs, _, _, archived, failed, _, lost, doubled = (int(cell) for cell in cells)
        assert (lost, doubled, archived + failed) == (0, 0, jobs), fault


def test_callback_refusals_have_the_status_of_their_errors() -> None:
    told = {(int(status), name) for status, name in re.findall(r"(\d{3}) `(\w+)`", part("callbacks"))}
    edge = [errors.BodyTooLarge, errors.TooSlow, errors.TooManyRequests]
    kinds: list[type[DarkroomError]] = [*edge, *leaves(errors.CallbackError), errors.Unready]
    assert told == {(kind.status, kind.code) for kind in kinds}


def test_exit_codes_are_those_of_the_commands() -> None:
    told = {int(number) for number in re.findall(r"^\| (\d+) \|", part("exits"), re.MULTILINE)}
    assert told == {0, FAILED, MISUSED, UNREACHABLE, 130}


def mentioned() -> Iterator[list[str]]:
    """Every `darkroom ...` in the README, as words."""
    shell = [body for language, body in FENCE.findall(TEXT) if language in {"bash", "sh"}]
    for text in [*shell, *re.findall(r"`([^`\n]+)`", PROSE)]:
        for line in re.findall(r"(?:^|[/ ])darkroom ([a-z][^\n]*)", text, re.MULTILINE):
            yield shlex.split(line)


def test_commands_and_their_options_exist() -> None:
    commands = getattr(typer.main.get_command(app), "commands")  # noqa: B009 - typer does not say which it is
    lines = list(mentioned())
    assert {words[0] for words in lines} <= set(commands)
    assert len(lines) > 10
    for name, *words in lines:
        command = commands[name]
        while words and words[0] in (below := getattr(command, "commands", {})):
            command = below[words.pop(0)]
        known = {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
        given = {word for word in words if word.startswith("--")}
        assert given <= known, f"darkroom {name}"


def test_no_option_is_in_capitals() -> None:
    # Typer before 0.28 takes an option's name from a metavar that is the same word, unless it is written out.
    commands = getattr(typer.main.get_command(app), "commands")  # noqa: B009 - typer does not say which it is
    options = {option for one in commands.values() for param in one.params for option in param.opts}
    assert {option for option in options if option.startswith("--") and option != option.lower()} == set()


def test_files_that_it_names_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", PROSE) if "://" not in link]
    named = re.findall(r"`((?:receiver|storage|tests|deploy)/[\w./]*)`", PROSE)
    assert links
    assert [path for path in (*links, *named) if not (ROOT / path).exists()] == []


def test_no_figure_stands_without_how_it_was_measured() -> None:
    # Limits are written out (`30 seconds`); a short unit marks what somebody measured.
    for paragraph in re.split(r"\n\s*\n", PROSE):
        if re.search(r"\d ?(?:s|ms|kB|MB|GB|MiB|GiB)\b", paragraph) and not paragraph.startswith("|"):
            assert re.search(r"measured with `.+`, on a .*\d cores, 20\d\d-\d\d-\d\d", paragraph), paragraph


def test_both_commands_are_there() -> None:
    first = "python3.11 -m venv .venv && .venv/bin/pip install '.[demo]' && .venv/bin/darkroom demo"
    second = "python3.11 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/pytest"
    assert f"```sh\n{first}\n```" in TEXT
    assert part("tests").strip() == f"```sh\n{second}\n```"


def test_the_demo_ends_as_shown() -> None:
    assert f"{len(PROMPTS)} jobs accepted" in TEXT
    assert f"Verified {IMAGES} images" in TEXT
    shown = re.findall(r"^(.+)…  (?:apiframe|api-in-one)", TEXT, re.MULTILINE)
    assert shown
    assert all(any(asked["prompt"].startswith(prompt) for asked in PROMPTS) for prompt in shown)


@pytest.mark.parametrize("mark", ["settings that load", "settings of notifications"])
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


def within(shown: Any, real: Any) -> bool:
    """Whether everything that is shown has its place in the real thing, whatever the values are."""
    if isinstance(shown, dict) and isinstance(real, dict):
        return all(name in real and within(value, real[name]) for name, value in shown.items())
    if isinstance(shown, list) and isinstance(real, list):
        return all(real and within(value, real[0]) for value in shown)
    return shown is None or real is None or type(shown) is type(real)


def test_curl_submits_waits_and_takes_the_image(live: Live, tmp_path: Path) -> None:
    need("curl", "--version")
    (job,) = documents(bash(live, tmp_path, block("run: curl")))
    assert within(json.loads(block("shape: job")), job)
    (job,) = documents(bash(live, tmp_path, UUID.sub(job["id"], block("run: curl-wait"))))
    assert job["status"] == "archived"
    assert (tmp_path / "car.jpg").read_bytes().startswith(b"\xff\xd8\xff")


def test_curl_follows_a_job(live: Live, tmp_path: Path) -> None:
    need("curl", "--version")
    job = live.make(IMAGEN)
    printed = bash(live, tmp_path, block("run: follow"), JOB=job["id"])
    shown = re.findall(r"^id: \d+-\d+\nevent: (\w+)\ndata: (.+)\n\n", printed, re.MULTILINE)
    assert [json.loads(data).get("status") for _, data in shown][-2:] == [None, "archived"]
    told = re.findall(r"^event: (\w+)\ndata: (.+)$", block("shape: events"), re.MULTILINE)
    assert {kind for kind, _ in told} == {kind for kind, _ in shown} == {"job", "output"}
    real = {kind: json.loads(data).keys() for kind, data in shown}
    assert all(json.loads(data).keys() == real[kind] for kind, data in told)


def test_python_submits_waits_and_takes_the_image(live: Live, tmp_path: Path) -> None:
    assert python(live, tmp_path, block("run: python")) == "archived None\n"
    (image,) = tmp_path.glob("*.jpg")
    assert image.read_bytes().startswith(b"\xff\xd8\xff")


def test_javascript_submits_and_waits(live: Live, tmp_path: Path) -> None:
    if int(need("node", "--version").strip("v\n").partition(".")[0]) < 18:
        pytest.skip("this node has no fetch, so its example was not run")
    (tmp_path / "example.mjs").write_text(block("run: javascript").replace(ADDRESS, live.url))
    links = run(live, tmp_path, "node", "example.mjs").split()
    images = [live.http.get(link, follow_redirects=True) for link in links]
    assert [image.headers["content-type"] for image in images] == ["image/png"] * 2


def test_the_shell_submits_one_and_many(live: Live, tmp_path: Path) -> None:
    printed = bash(live, tmp_path, block("run: submit"))
    assert printed.count(" archived ") == 3
    assert len(list((tmp_path / "pictures").iterdir())) == 1


def test_the_schedule_of_notifications_is_as_shown() -> None:
    units = {"seconds": 1, "minutes": 60, "hours": 3600}
    told = re.findall(r"^\| \d+ \| (\S+) (\w+) \|", part("schedule"), re.MULTILINE)
    assert told[0] == ("at", "once")
    assert (0, *(int(number) * units[unit] for number, unit in told[1:])) == Timing().notify


def test_notifications_are_looked_at(live: Live, tmp_path: Path) -> None:
    bash(live, tmp_path, block("run: notifications"))


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
    assert within(json.loads(block("shape: output")), menu)


def test_commands_find_images(live: Live, tmp_path: Path, menu: dict[str, Any]) -> None:
    printed = bash(live, tmp_path, UUID.sub(menu["job_id"], block("run: find")))
    assert menu["sha256"] in printed
    assert (tmp_path / "pictures" / f"{menu['id']}.png").exists()


def test_links_give_a_part_a_named_file_and_a_thumbnail(
    live: Live, tmp_path: Path, menu: dict[str, Any]
) -> None:
    need("curl", "--version")
    bash(live, tmp_path, UUID.sub(menu["job_id"], block("run: links")))
    (image,) = tmp_path.glob("a-photorealistic-bowl-of-ramen-*-0.png")
    assert image.read_bytes()[:100] == (tmp_path / "part.bin").read_bytes()
    assert (tmp_path / "small.webp").read_bytes()[8:12] == b"WEBP"


def test_failed_jobs_are_found_for_a_retry(live: Live, tmp_path: Path) -> None:
    job = live.make(IMAGEN, fault={"fault": "expired_link", "forever": True})
    assert live.job(job["id"]).status == "failed"
    bash(live, tmp_path, block("run: retry"))
    assert live.job(job["id"]).status == "failed", "only looked at"


def test_what_it_costs_is_shown_by_model(live: Live, menu: dict[str, Any], tmp_path: Path) -> None:
    shown = bash(live, tmp_path, block("run: usage"))
    assert menu["model"] in shown
    assert "total" in shown


def test_the_client_finds_images(live: Live, tmp_path: Path, menu: dict[str, Any]) -> None:
    assert menu["sha256"][:12] in python(live, tmp_path, block("run: client"))
    assert (tmp_path / "pictures" / f"{menu['id']}.png").exists()


def test_the_record_is_as_shown(live: Live, menu: dict[str, Any]) -> None:
    record = live.service.memory.archive.read_record(live.job(menu["job_id"]))
    assert within(json.loads(block("shape: record")), record)


def test_an_image_can_be_checked_by_hand(live: Live, tmp_path: Path, menu: dict[str, Any]) -> None:
    need("aws", "--version")
    s3 = live.service.settings.s3
    assert s3.endpoint
    assert s3.access_key
    assert s3.secret_key
    text = re.sub(r"s3://my-images/\S+", f"s3://{s3.bucket}/{menu['key']}", block("run: by-hand"))
    keys = {"AWS_ACCESS_KEY_ID": s3.access_key, "AWS_SECRET_ACCESS_KEY": s3.secret_key}
    variables = {name: key.get_secret_value() for name, key in keys.items()}
    printed = bash(
        live, tmp_path, text, AWS_ENDPOINT_URL=s3.endpoint, AWS_DEFAULT_REGION="us-east-1", **variables
    )
    assert printed.split()[0] == menu["sha256"]


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python -m tests.docs.test_readme --write")
    write()
