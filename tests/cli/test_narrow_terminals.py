"""In a narrow terminal everything is wrapped, and whatever names something is there as a whole."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.live import IMAGEN, ULTRA, Live, Start
from tests.support.notifications import SECRET, Application
from tests.support.recorder import Answer
from tests.support.running import command
from tests.support.terminals import in_terminal

ORDER = "01a201ee-8cc4-7255-b42d-d6cf39ac8954"
CAMPAIGN = "autumn-2026-in-the-north-and-in-the-far-north-as-well"


@dataclass(frozen=True)
class House:
    live: Live
    made: str
    failed: str


@pytest.fixture(scope="module")
def house(start_shared: Start) -> House:
    live = start_shared(notify={"secrets": [SECRET], "allow_networks": ["127.0.0.0/8"]})
    with Application(Answer(410)) as app:
        tags = {"order": ORDER, "campaign": CAMPAIGN}
        made = live.make(ULTRA, prompt="a kite", num_images=2, tags=tags, notify_url=app.url)["id"]
        app.next()
    return House(live, made, live.make(IMAGEN, prompt="a kite", fault={"fault": "failed"})["id"])


def printed(house: House, width: int, *words: str) -> str:
    """What a command prints into a terminal that is so wide."""
    size = {"COLUMNS": str(width), "LINES": "60", "FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "dumb"}
    done = command(*words, cwd=None, stdin="", DARKROOM_URL=house.live.url, **size)
    text = done.stdout + done.stderr
    assert not [line for line in text.splitlines() if len(line) > width], text
    assert "…" not in text, text
    return text


@pytest.mark.parametrize("width", [40, 60, 80])
def test_no_id_is_cut(house: House, width: int) -> None:
    made, failed = house.made, house.failed
    images = [f"{made}.0", f"{made}.1"]
    digest = house.live.outputs(made)[1]["sha256"]
    for words, named in (
        (("jobs",), [made, failed]),
        (("search", "tag:order=" + ORDER), images),
        (("show", made), [made, *images, ORDER, CAMPAIGN, digest]),
        (("show", images[1]), [made, images[1], digest]),
        (("show", f"msg_{made}"), [made, f"msg_{made}_1"]),
        (("notifications",), [f"msg_{made}_1", "receiver_gone"]),
        (("notifications", "replay", "--failed", "--dry-run"), [f"msg_{made}_1"]),
        (("retry", "--status", "failed", "--dry-run"), [failed, "generation_failed"]),
        (("usage", "--by", "tag", "--tag", "order"), [ORDER]),
        (("search", "--facets"), [f"order={ORDER}", f"campaign={CAMPAIGN}", "imagen4-ultra"]),
        (("status",), ["api-in-one", "apiframe"]),
        (("models",), ["stable-diffusion-3.5-medium"]),
    ):
        text = printed(house, width, *words)
        joined = "".join(text.split())
        for name in named:
            assert name in joined, (words, name, text)
            in_json = words == ("show", made) and name in {ORDER, CAMPAIGN}
            assert name in text or in_json or len(name) > width, (words, name, text)


def test_it_is_so_on_a_real_screen(house: House, tmp_path: Path) -> None:
    with in_terminal("search", folder=tmp_path, columns=40, DARKROOM_URL=house.live.url) as terminal:
        lines = terminal.read().splitlines()
    assert [line for line in lines if house.made in line] == [f"{house.made}.0", f"{house.made}.1"]
    assert lines.count("PROMPT  a kite") == 2
