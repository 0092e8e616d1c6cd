"""`darkroom search` and `download`, as a user runs them."""

import hashlib
import json
import signal
from pathlib import Path

import pytest

from receiver.cli.query_args import ids_or_text, query_text
from receiver.cli.save_images import Names
from receiver.client.filenames import Template
from receiver.schemas.output import Output
from tests.faults import harm
from tests.faults.proxy import Proxy
from tests.faults.wire import Gone
from tests.support.running import Running, begun, command, data

SHA256 = hashlib.sha256(b"same").hexdigest()
PROMPT = "a lighthouse [b]at[/b] the grey sea"


@pytest.fixture(scope="module")
def made(running: Running) -> list[Output]:
    """Three images of two jobs with one prompt, newest first."""
    asked = {"gateway": "api-in-one", "model": "imagen4", "prompt": PROMPT, "tags": {"for": "find"}}
    jobs = [
        running.darkroom.submit(**asked, seed=7, num_images=2),  # type: ignore[arg-type]
        running.darkroom.submit(**asked, seed=8),  # type: ignore[arg-type]
    ]
    for job in jobs:
        assert running.darkroom.wait(job.id, timeout_s=60).status == "archived"
    return list(running.darkroom.search("tag:for=find"))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], None),
        (["kite"], "kite"),
        (["red sky"], "red sky"),
        (["kite", "red sky", "-blurry", "seed:7"], 'kite "red sky" -blurry seed:7'),
        (["kite", "-oil paint"], 'kite -"oil paint"'),
        (["kite", 'the "red sky"'], 'kite the "red sky"'),
        (["kite", "tag:place=New York"], 'kite tag:place="New York"'),
        (["kite", "-tag:place=New York"], 'kite -tag:place="New York"'),
        (["kite", "seed:7 model:x"], "kite seed:7 model:x"),
        (["kite", "at 16:9 please"], 'kite "at 16:9 please"'),
    ],
)
def test_words_become_the_query_that_was_meant(words: list[str], text: str | None) -> None:
    assert query_text(words) == text


def test_ids_are_told_from_words() -> None:
    job = "01a201ee-8cc4-7255-b42d-d6cf39ac8954"
    for ids in ([job, f"{job}.0"], [job[:8], f"{job[:8]}.0"], [job[:13], job[:20]]):
        assert ids_or_text(ids) == (ids, [])
    for words in (["kite"], ["deadbeef"], ["x.0"], ["seed:7"], [f'"{job}"'], [f"job:{job}"], ["2026-11-22"]):
        assert ids_or_text(words) == ([], words)


def test_search_takes_the_query_language(running: Running, made: list[Output]) -> None:
    newest, *both = [output.id for output in made]
    find = ("search", "--ids")
    every = running.darkroom_command(*find, "lighthouse", "GREY SEA", "tag:for=find")
    assert every.stdout.split() == [newest, *both]
    seven = running.darkroom_command(*find, "lighthouse", "seed:7", "tag:for=find", "-harbour")
    assert seven.stdout.split() == both
    assert running.darkroom_command(*find, "tag:for=find", "-grey").stdout == ""
    either = running.darkroom_command(*find, "lighthouse", "OR", "none", "tag:for=find", "model:IMAGEN4")
    assert (either.stdout.split(), either.stderr) == ([newest, *both], "")
    slip = running.darkroom_command("search", "--json", "promt:lighthouse")
    assert (slip.stdout.strip(), "Hint: promt:lighthouse was" in slip.stderr) == ("[]", True)
    slip = running.darkroom_command("jobs", "--gateway", "apifram")
    assert "Did you mean apiframe?" in slip.stderr
    wrong = running.darkroom_command("search", "seed:")
    assert (wrong.returncode, "seed takes" in wrong.stderr) == (2, True)


def test_a_picture_is_told_to_be_ours(running: Running, made: list[Output], tmp_path: Path) -> None:
    picture = running.darkroom.download(made[0], tmp_path)
    ours = running.darkroom_command("search", "--file", str(picture))
    assert (ours.returncode, made[0].id in ours.stdout) == (0, True)
    assert f"Found: {picture} is image {made[0].id}" in ours.stderr
    assert ours.stderr.count(PROMPT) == 1
    assert "seed 8" in ours.stderr
    picture.write_bytes(picture.read_bytes() + b"\0")
    other = running.darkroom_command("search", "--file", str(picture), "--json")
    assert (other.returncode, other.stdout) == (1, "")
    assert "Not in the archive" in other.stderr
    absent = running.darkroom_command("search", "--file", "nothing.png")
    assert (absent.returncode, "cannot be read" in absent.stderr) == (2, True)


def test_facets_count_what_is_found(running: Running, made: list[Output]) -> None:
    shown = running.darkroom_command("search", "tag:for=find", "--facets")
    assert shown.returncode == 0, shown.stderr
    for name in ("imagen4", "api-in-one", "for=find"):
        line = next(line for line in shown.stdout.splitlines() if line.startswith(name))
        assert line.split()[-1] == "3"
    counts = data(running.darkroom_command("search", "tag:for=find", "--facets", "--json"))
    assert (counts["counted"], counts["complete"]) == (3, True)


def test_words_are_marked_on_a_terminal(running: Running, made: list[Output]) -> None:
    forced = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "200"}
    shown = running.darkroom_command("search", "LIGHT", "tag:for=find", "-zebra", **forced).stdout
    assert shown.count("\x1b[1;30;43mlight\x1b[0m") == 3


def test_download_takes_a_query_and_a_template(running: Running, made: list[Output], tmp_path: Path) -> None:
    wanted = ("download", "tag:for=find", "-zebra", "--to", str(tmp_path), "--with-records", "--jobs", "2")
    name = ("--name", "{tag.for}/{prompt:12}-{seed}.{ext}")
    first = running.darkroom_command(*wanted, *name, "--json")
    assert first.returncode == 0, first.stderr
    found = {one["id"]: Path(one["file"]) for one in data(first)}
    assert list(found) == [output.id for output in made]
    names = [str(path.relative_to(tmp_path)) for path in found.values()]
    tails = ("8", "7", f"7-{made[2].id}")
    assert names == [f"find/a-lighthouse-{tail}.png" for tail in tails]
    for output in made:
        path = found[output.id]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == output.sha256
        record = json.loads(path.with_name(f"{path.name}.json").read_text())
        assert record["job"]["id"] == output.job_id
    again = running.darkroom_command(*wanted, *name, "--json")
    assert [one["fetched"] for one in data(again)] == [False] * 3
    assert "3 already saved" in again.stderr
    assert [one["file"] for one in data(again)] == [str(path) for path in found.values()]


def test_a_newer_output_takes_no_name_that_is_there(
    made: list[Output], running: Running, proxy: Proxy, tmp_path: Path
) -> None:
    assert made[0].id > made[2].id, "newest first"
    name = ("--to", str(tmp_path), "--name", "{prompt:12}.{ext}", "--json")
    first = data(command("download", made[2].id, *name, DARKROOM_URL=proxy.url))
    assert [one["file"] for one in first] == [str(tmp_path / "a-lighthouse.png")]
    for fetched in ([True, True, False], [False] * 3):
        proxy.calls.clear()
        done = data(command("download", "tag:for=find", *name, DARKROOM_URL=proxy.url))
        assert [one["fetched"] for one in done] == fetched
        assert done[2]["file"] == first[0]["file"]
        assert sum("/image" in call.request.path for call in proxy.calls) == fetched.count(True)
        assert len(list(tmp_path.iterdir())) == 3


def test_two_with_the_same_bytes_keep_their_names(made: list[Output], tmp_path: Path) -> None:
    newest, middle, oldest = (output.model_copy(update={"sha256": SHA256, "bytes": 4}) for output in made)
    template = Template("{prompt:12}.{ext}")
    names = Names(template).give([middle, oldest], tmp_path)
    for name in names:
        (tmp_path / name).write_bytes(b"same")
    assert Names(template).give([newest, middle, oldest], tmp_path)[1:] == names


def test_download_replaces_nobodys_file(running: Running, made: list[Output], tmp_path: Path) -> None:
    (tmp_path / "8.png").write_bytes(b"mine")
    done = running.darkroom_command("download", made[0].id, "--to", str(tmp_path), "--name", "{seed}.{ext}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "8.png").read_bytes() == b"mine"
    assert done.stdout.strip() == str(tmp_path / f"8-{made[0].id}.png")


def test_one_failure_stops_no_other(
    running: Running, made: list[Output], proxy: Proxy, tmp_path: Path
) -> None:
    proxy.arm(harm.answer(404, b'{"code": "not_found", "detail": "gone"}'), path=f"{made[1].id}/image")
    done = command("download", "tag:for=find", "--to", str(tmp_path), DARKROOM_URL=proxy.url)
    assert done.returncode == 1
    assert f"{made[1].id}: gone" in done.stderr
    assert "Downloaded 2 images" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {made[0].file_name, made[2].file_name}


def test_ctrl_c_is_answered_and_the_rest_comes_later(
    running: Running, made: list[Output], proxy: Proxy, tmp_path: Path
) -> None:
    stalled = proxy.arm(harm.stall, path=f"{made[2].id}/image")
    arguments = ("download", "tag:for=find", "--to", str(tmp_path), "--jobs", "1")
    child = begun(*arguments, DARKROOM_URL=proxy.url)
    stalled.wait()
    child.send_signal(signal.SIGINT)
    _, told = child.communicate(timeout=30)
    assert (child.returncode, "Traceback" in told) == (130, False), told
    assert "2 of 3 saved. Run the command again to continue" in told
    proxy.disarm()
    done = command(*arguments, DARKROOM_URL=proxy.url)
    assert "Downloaded 1 image" in done.stderr


def test_what_was_saved_before_an_outage_is_told(
    running: Running, made: list[Output], tmp_path: Path
) -> None:
    with Proxy(running.url) as proxy:

        def go_away(_call: harm.Call) -> None:
            proxy.down()
            raise Gone

        proxy.arm(go_away, path=f"{made[2].id}/image")
        wanted = ("download", "tag:for=find", "--to", str(tmp_path), "--jobs", "1")
        done = command(*wanted, DARKROOM_URL=proxy.url)
    assert done.returncode == 3
    assert "Downloaded 2 images" in done.stderr


def test_an_image_that_submit_cannot_save_is_told(proxy: Proxy, tmp_path: Path) -> None:
    proxy.arm(harm.answer(404, b'{"code": "not_found", "detail": "gone"}'), path=r"\.0/image")
    asked = ("a kite", "--gateway", "apiframe", "--model", "imagen-4-fast")
    done = command("submit", *asked, "--download", str(tmp_path), DARKROOM_URL=proxy.url)
    assert (done.returncode, "archived" in done.stdout) == (1, True)
    assert "Archived, but not saved here:" in done.stderr
    assert ".0: gone" in done.stderr
