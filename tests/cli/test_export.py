"""`darkroom export`: each format is read back by somebody else's library, and compared with the API."""

import csv
import hashlib
import io
import json
import signal
import subprocess
import sys
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

import bagit
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from receiver.export.spreadsheet import guarded, unguarded
from receiver.export.tables import GROUP, CsvRows, ParquetRows
from receiver.schemas.output import Output
from tests.faults import harm
from tests.faults.proxy import Proxy
from tests.support.running import Running, begun, command, environment
from tests.unit.test_client_filenames import OUTPUT

TAG = "tag:for=export"


@pytest.fixture(scope="module")
def made(running: Running) -> list[Output]:
    """Four images of three jobs, as the API lists them."""
    prompts = ['=HYPERLINK("http://x")', 'two\nlines, "quoted" 寿司', "a kite"]
    asked = {"gateway": "api-in-one", "model": "imagen4", "tags": {"for": "export", "note": "-1+1"}}
    jobs = [
        running.darkroom.submit(**asked, prompt=prompt, num_images=2 if number == 1 else 1, seed=number)  # type: ignore[arg-type]
        for number, prompt in enumerate(prompts)
    ]
    for job in jobs:
        assert running.darkroom.wait(job.id, timeout_s=60).status == "archived"
    return list(running.darkroom.search(TAG))


def test_json_lines_are_what_the_api_shows(running: Running, made: list[Output]) -> None:
    done = running.darkroom_command("export", TAG, "--format", "jsonl")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines == [output.model_dump(mode="json") for output in made]
    assert done.stderr == "Exported 4 images.\n"


def test_csv_is_harmless_and_whole(running: Running, made: list[Output], tmp_path: Path) -> None:
    file = tmp_path / "new" / "all.csv"
    done = running.darkroom_command("export", TAG, "--to", str(file), "--bom")
    assert done.returncode == 0, done.stderr
    raw = file.read_bytes()
    assert raw.startswith(b"\xef\xbb\xbfid,job_id,")
    rows = list(csv.DictReader(io.StringIO(raw.decode("utf-8-sig"), newline="")))
    assert len(rows) == len(made)
    for row, output in zip(rows, made, strict=True):
        for name, text in row.items():
            assert not text.startswith(tuple("=+-@"))
            api = getattr(output, name)
            if name == "tags":
                assert json.loads(text) == api
            else:
                assert text.removeprefix("'") == ("" if api is None else str(api))
    assert rows[-1]["prompt"].startswith("'=HYPERLINK")
    assert [path.name for path in file.parent.iterdir()] == ["all.csv"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        *((text, f"'{text}") for text in ("=1+1", "+1", "-1", "@SUM(A1)", "  =1", "\t=1", "\r=1", "\n=1")),
        ("＝1", "'＝1"),  # noqa: RUF001
        ("'=1", "''=1"),
        *((text, text) for text in ("a=1", "", " ", "寿司", "'quoted'", "12345678901234567890", "1/2")),
    ],
)
def test_no_spreadsheet_runs_a_value(text: str, shown: str) -> None:
    assert guarded(text) == shown
    assert unguarded(shown) == text
    file = io.StringIO(newline="")
    CsvRows(file).add(OUTPUT.model_copy(update={"prompt": text}))
    _, row = csv.reader(io.StringIO(file.getvalue(), newline=""))
    assert row[7] == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        *(
            (text, f"'{text}")
            for text in ("1234567890123456", "007", "1/2", "16:9", "1e5", "3-4", "true", "1,5")
        ),
        *((text, text) for text in ("42", "0", "123456789012345", "a 007", "1 kite")),
        *((f"'{text}", f"''{text}") for text in ("007", "=1")),
    ],
)
def test_a_spreadsheet_changes_no_text(text: str, shown: str) -> None:
    assert guarded(text, numbers=True) == shown
    assert unguarded(shown) == text


@given(text=st.text(alphabet="'=+-0123456789.,/eE a", max_size=20), numbers=st.booleans())
def test_a_guarded_text_is_read_back(text: str, numbers: bool) -> None:
    assert unguarded(guarded(text, numbers=numbers)) == text


@pytest.mark.parametrize("options", [(), ("--bom",), ("--format", "jsonl")], ids=["csv", "excel", "jsonl"])
def test_what_is_exported_is_submitted_again(
    running: Running, tmp_path: Path, options: tuple[str, ...]
) -> None:
    tags = {"export": f"again{len(options)}", "note": "=1+1", "long": "1" * 40}
    asked: dict[str, Any] = {"gateway": "api-in-one", "model": "imagen4"}
    seeds = ["7", "2147483647"]
    for seed in seeds:
        job = running.darkroom.submit(prompt='=a "kite"\nagain; and, again', seed=seed, tags=tags, **asked)
        assert running.darkroom.wait(job.id, timeout_s=60).status == "archived"
    file = tmp_path / ("again.jsonl" if "jsonl" in options else "again.csv")
    words = (f"tag:export={tags['export']}", "--to", str(file), *options)
    assert running.darkroom_command("export", *words).returncode == 0
    done = running.darkroom_command("submit", "--file", str(file), "--json")
    assert done.returncode == 0, done.stderr
    made = [job["request"] for job in json.loads(done.stdout)]
    assert sorted(one["seed"] for one in made) == sorted(seeds)
    for one in made:
        assert (one["prompt"], one["tags"]) == ('=a "kite"\nagain; and, again', tags)
        assert one["model"] == "imagen4"


def test_parquet_has_types(running: Running, made: list[Output], tmp_path: Path) -> None:
    file = tmp_path / "all.parquet"
    done = running.darkroom_command("export", TAG, "--to", str(file))
    assert done.returncode == 0, done.stderr
    table = parquet.read_table(file)
    types = {field.name: str(field.type) for field in table.schema}
    assert types["stored_at"] == "timestamp[ms, tz=UTC]"
    assert types["bytes"] == types["width"] == "int64"
    assert types["tags"].startswith("map<string, string")
    for row, output in zip(table.to_pylist(), made, strict=True):
        at = datetime.fromisoformat(output.stored_at)
        changed = {"stored_at": at, "tags": list(output.tags.items())}
        assert row == {name: getattr(output, name) for name in row} | changed


def test_parquet_is_written_in_groups(tmp_path: Path) -> None:
    rows = ParquetRows(tmp_path / "many.parquet")
    for number in range(GROUP + 1):
        rows.add(OUTPUT.model_copy(update={"index": number}))
    rows.close()
    read = parquet.ParquetFile(tmp_path / "many.parquet")
    assert [read.metadata.row_group(number).num_rows for number in range(2)] == [GROUP, 1]
    assert read.read(["index"])["index"].to_pylist() == list(range(GROUP + 1))


def test_parquet_says_what_to_install(tmp_path: Path) -> None:
    # A library that is found first and cannot be loaded, as if it were not there.
    (tmp_path / "pyarrow.py").write_text("raise ImportError")
    check = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from pathlib import Path\nfrom receiver.cli.export import _parquet\n_parquet(Path('x'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], env=environment(), capture_output=True, text=True, check=False
    )
    assert "pip install 'pyarrow>=22'" in done.stderr


def check_bundle(read: Any, made: list[Output], running: Running) -> None:
    """Images, records and the table of them, as the API has them."""
    rows = list(csv.DictReader(io.StringIO(read("manifest.csv").decode(), newline="")))
    assert [row["id"] for row in rows] == [output.id for output in made]
    for row, output in zip(rows, made, strict=True):
        assert hashlib.sha256(read(row["file"])).hexdigest() == output.sha256
        assert json.loads(read(row["record"])) == running.darkroom.record(output.id)


def test_a_zip_has_images_records_and_a_table(running: Running, made: list[Output], tmp_path: Path) -> None:
    file = tmp_path / "all.zip"
    done = running.darkroom_command("export", TAG, "--to", str(file), "--jobs", "2")
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == len(set(archive.namelist())) == 4 + 3 + 1
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        check_bundle(archive.read, made, running)
        (image,) = (entry for entry in archive.infolist() if made[0].id in entry.filename)
        *minute, second = datetime.fromisoformat(made[0].stored_at).timetuple()[:6]
        assert image.date_time == (*minute, second // 2 * 2), "the format counts in steps of two seconds"
    assert list(tmp_path.iterdir()) == [file], "nothing is left beside it"
    again = running.darkroom_command("export", TAG, "--to", str(file))
    assert (again.returncode, "--overwrite" in again.stderr) == (2, True)


def test_a_bag_is_one_and_goes_on_where_it_stopped(
    running: Running, made: list[Output], proxy: Proxy, tmp_path: Path
) -> None:
    bag = tmp_path / "all"
    stalled = proxy.arm(harm.stall, path=f"{made[3].id}/image")
    arguments = ("export", TAG, "--format", "bagit", "--to", str(bag), "--jobs", "1")
    child = begun(*arguments, DARKROOM_URL=proxy.url)
    stalled.wait()
    proxy.disarm()
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=30)
    assert not bag.exists()
    (part,) = tmp_path.iterdir()
    (part / "data" / "left over.png").write_bytes(b"of another query")
    proxy.calls.clear()
    done = command(*arguments, DARKROOM_URL=proxy.url)
    assert done.returncode == 0, done.stderr
    fetched = [call.request.path for call in proxy.calls if "/image" in call.request.path]
    assert fetched == [f"/v1/outputs/{made[3].id}/image?stream=1"], "the others are there already"
    read = bagit.Bag(str(bag))
    read.validate()
    assert read.info["External-Description"].endswith(f"found by q={TAG}")
    assert len(list(read.payload_files())) == 4 + 3 + 1
    check_bundle(lambda name: (bag / "data" / name).read_bytes(), made, running)
    assert list(tmp_path.iterdir()) == [bag]


def test_a_missing_image_is_told(running: Running, made: list[Output], proxy: Proxy, tmp_path: Path) -> None:
    proxy.arm(harm.answer(404, b'{"code": "not_found", "detail": "gone"}'), path=f"{made[1].id}/image")
    file = tmp_path / "all.zip"
    done = command("export", TAG, "--to", str(file), DARKROOM_URL=proxy.url)
    assert done.returncode == 1
    assert "1 could not be downloaded" in done.stderr
    assert f"{made[1].id}: gone" in done.stderr
    with zipfile.ZipFile(file) as archive:
        rows = list(csv.DictReader(io.StringIO(archive.read("manifest.csv").decode(), newline="")))
    assert [bool(row["file"]) for row in rows] == [True, False, True, True]


def test_a_failed_export_leaves_nothing(
    running: Running, made: list[Output], proxy: Proxy, tmp_path: Path
) -> None:
    refused = harm.answer(401, b'{"code": "unauthorized", "detail": "no such token"}')
    proxy.arm(refused, path=f"{made[2].id}/image")
    done = command("export", TAG, "--to", str(tmp_path / "all.zip"), DARKROOM_URL=proxy.url)
    assert (done.returncode, "no such token" in done.stderr) == (1, True)
    assert not list(tmp_path.iterdir())


def test_ctrl_c_waits_for_nothing(running: Running, made: list[Output], proxy: Proxy, tmp_path: Path) -> None:
    stalled = proxy.arm(harm.stall, path=f"{made[3].id}/image")
    child = begun("export", TAG, "--to", str(tmp_path / "all.zip"), DARKROOM_URL=proxy.url)
    stalled.wait()
    child.send_signal(signal.SIGINT)
    _, told = child.communicate(timeout=20)
    assert (child.returncode, told.strip()) == (130, "Stopped. Nothing was kept.")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [(), ("kite",), ("kite", "--all", "--format", "csv"), ("kite", "--format", "zip"),
     ("kite", "--to", "x.txt"), ("kite", "--to", "x.zip", "--bom"),
     ("kite", "--format", "bagit", "--to", ".")],
)  # fmt: skip
def test_misuse_of_export_is_told(arguments: tuple[str, ...]) -> None:
    done = command("export", *arguments)
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_a_bag_that_cannot_get_its_name_is_not_begun(tmp_path: Path, more: tuple[str, ...]) -> None:
    file = tmp_path / "mine"
    file.write_bytes(b"mine")
    done = command("export", "kite", "--format", "bagit", "--to", str(file), *more)
    assert (done.returncode, done.stdout) == (2, "")
    # And nothing of --overwrite, which would not do.
    assert "already exists." in done.stderr.replace("\n", " ")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"mine"]
