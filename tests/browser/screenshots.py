"""The pictures of the pages that the README shows: `python -m tests.browser.screenshots`.

They show the demo's own prompts, and two jobs more: one that failed, and one with a tag.
"""

import io
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, Page

from receiver.demo.demo import PROMPTS, Demo, running_demo
from tests.browser.chromium import installed, launched, opened
from tests.support.running import ROOT

FOLDER = ROOT / "deploy" / "screenshots"
SIZE = (1280, 800)
MOST_BYTES = 120_000
FAILED = {
    "gateway": "apiframe",
    "model": "imagen-4-fast",
    "prompt": "a paper boat on a grey harbour",
    "params": {"sandbox": "failed"},
}
TAGGED = {
    "gateway": "api-in-one",
    "model": "imagen4",
    "prompt": "a sailing boat at sea, seen from the shore",
    "num_images": 4,
    "seed": 11,
    "tags": {"campaign": "coast"},
}
ASKED = (*PROMPTS[:2], FAILED, *PROMPTS[2:], TAGGED)
"""What is submitted, in the order in which it is to be seen: the newest comes first on a page."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture: what it is called, and of which page it is."""

    name: str
    path: str
    colours: Literal["light", "dark"] = "light"


def pictures(output_id: str) -> Iterator[Picture]:
    """Every picture, given an output to show."""
    yield Picture("gallery", "/")
    yield Picture("gallery-dark", "/", "dark")
    yield Picture("output", f"/outputs/{output_id}")
    yield Picture("jobs", "/jobs")
    yield Picture("usage", "/usage?by=model")
    yield Picture("submit", f"/submit?from={output_id}")
    yield Picture("docs", "/docs#submit_job")


def made(demo: Demo) -> str:
    """Make everything that is shown; answers the id of the output that has a page to itself."""
    darkroom = demo.darkroom
    for asked in reversed(ASKED):
        job = darkroom.wait(darkroom.submit(**asked).id, timeout_s=120)
        assert job.finished, job
    return next(darkroom.search("model:imagen4-ultra")).id


def take(browser: Browser, url: str, picture: Picture, folder: Path) -> Path:
    """Take one picture; raises AssertionError if the page did what it may not, or the file is too large."""
    width, height = SIZE
    options = {"viewport": {"width": width, "height": height}, "color_scheme": picture.colours}
    with opened(browser, url, reduced_motion="reduce", **options) as (context, _):
        page = context.new_page()
        answer = page.goto(picture.path)
        assert answer is not None
        assert answer.status == 200, f"{picture.path} answered {answer.status}"
        _until_drawn(page)
        image = Image.open(io.BytesIO(page.screenshot(animations="disabled", caret="hide")))
    path = folder / f"{picture.name}.webp"
    image.convert("RGB").save(path, "WEBP", quality=82, method=6)
    length = path.stat().st_size
    assert length < MOST_BYTES, f"{path.name} has {length} bytes; {MOST_BYTES} are allowed"
    return path


def _until_drawn(page: Page) -> None:
    # Images further down are fetched as one scrolls, so only those that can be seen are waited for.
    page.wait_for_function(
        """() => [...document.images].every((image) =>
             image.getBoundingClientRect().top > innerHeight || (image.complete && image.naturalWidth > 0))"""
    )


def main() -> None:
    """Take every picture anew."""
    path = installed()
    if path is None:
        sys.exit("Chromium is not installed: apt-get install chromium fonts-noto-cjk fonts-noto-color-emoji")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, running_demo(Path(folder)) as demo:
        shown = made(demo)
        with launched(path) as browser:
            for picture in pictures(shown):
                file = take(browser, demo.url, picture, FOLDER)
                print(f"{file.relative_to(ROOT)}  {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
