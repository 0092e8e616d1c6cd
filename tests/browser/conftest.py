"""One browser for all pages, and one service with an archive to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Browser, Page

from receiver.embedded import EmbeddedS3
from tests.browser.archive import TOKENS, filled, sandbox_with_pictures
from tests.browser.chromium import Watch, installed, launched, opened
from tests.live import Live, started

Open = Callable[..., tuple[Page, Watch]]


# Not for the whole run: while Playwright is in use, no other event loop can run in this thread.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    path = installed()
    if path is None:
        pytest.skip("Chromium is not installed, so no page was looked at in a browser")
    with launched(path) as running:
        yield running


@pytest.fixture(scope="package")
def shown(s3_server: EmbeddedS3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A service that asks for tokens, and has some 80 images."""
    folder: Path = tmp_path_factory.mktemp("shown")
    with (
        sandbox_with_pictures(128) as sandbox,
        started(s3_server, folder, sandbox=sandbox, api_tokens=list(TOKENS.values())) as live,
    ):
        filled(live)
        yield live


@pytest.fixture
def open_page(browser: Browser, shown: Live) -> Iterator[Open]:
    """Open a page in a context of its own. The test fails if any of its pages did what it may not."""
    with ExitStack() as stack:

        def begin(path: str, **options: Any) -> tuple[Page, Watch]:
            context, watch = stack.enter_context(opened(browser, shown.url, **options))
            page = context.new_page()
            page.goto(path)
            return page, watch

        yield begin


AXE = Axe()


def accessible(page: Page) -> None:
    """Raise unless axe-core finds nothing to say of a page: contrast, names, labels, landmarks, order."""
    results = AXE.run(page)
    assert results.violations_count == 0, results.generate_report()
