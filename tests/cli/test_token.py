"""The token of the commands: by option, by variable, or from a file, as every other secret."""

from pathlib import Path

import pytest

from tests.support.live import Live, Start
from tests.support.running import command

TOKEN = "reader-reader-reader"


@pytest.fixture(scope="module")
def guarded(start_shared: Start) -> Live:
    return start_shared(api_tokens=[f"reader:read:{TOKEN}"], work=False)


def test_it_may_be_in_a_file(guarded: Live, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    there, here = str(file), guarded.url
    assert command("jobs", DARKROOM_URL=here, DARKROOM_TOKEN_FILE=there).returncode == 0
    assert command("jobs", DARKROOM_URL=here, DARKROOM_TOKEN=TOKEN, DARKROOM_TOKEN_FILE="").returncode == 0
    option = command("jobs", "--token", "wrong", DARKROOM_URL=here, DARKROOM_TOKEN_FILE=there)
    assert (option.returncode, "DARKROOM_TOKEN_FILE" in option.stderr) == (1, True)
    both = command("jobs", DARKROOM_URL=here, DARKROOM_TOKEN=TOKEN, DARKROOM_TOKEN_FILE=there)
    assert (both.returncode, "set one of the two" in both.stderr) == (2, True)


@pytest.mark.parametrize(
    ("content", "words"), [(None, "cannot be read"), (b"", "is empty"), (b"\xff", "UTF-8")]
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, words: str) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    done = command("jobs", DARKROOM_URL="http://127.0.0.1:9", DARKROOM_TOKEN_FILE=str(file))
    assert done.returncode == 2
    assert f"DARKROOM_TOKEN_FILE: {file}" in done.stderr
    assert words in done.stderr
