"""One browser for all pages, and one service with an archive to look at."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Browser, Page, StorageState

from receiver.demo.seaweedfs import EmbeddedS3
from tests.browser.archive import TOKENS, filled, sandbox_with_pictures
from tests.browser.chromium import Watch, installed, launched, opened
from tests.support.live import Live, started

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


class Sessions:
    """What a browser has kept after signing in, by token."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser = browser
        self._url = url
        self._kept: dict[str, StorageState] = {}

    def of(self, token: str) -> StorageState:
        """Sign in with a token, or remember how that ended."""
        if token not in self._kept:
            with opened(self._browser, self._url) as (context, _):
                page = context.new_page()
                page.goto("/sign-in")
                sign_in(page, token)
                page.wait_for_url("/")
                self._kept[token] = context.storage_state()
        return self._kept[token]


def sign_in(page: Page, token: str) -> None:
    """Fill in the form of the page `/sign-in`, and send it."""
    page.get_by_label("API token").fill(token)
    page.get_by_role("button", name="Sign in").click()


@pytest.fixture(scope="package")
def sessions(browser: Browser, shown: Live) -> Sessions:
    return Sessions(browser, shown.url)


@pytest.fixture
def open_page(browser: Browser, shown: Live, sessions: Sessions) -> Iterator[Open]:
    """Open a page in a context of its own. The test fails if any of its pages did what it may not."""
    with ExitStack() as stack:

        def begin(path: str, token: str = "", **options: Any) -> tuple[Page, Watch]:
            if token:
                options["storage_state"] = sessions.of(token)
            context, watch = stack.enter_context(opened(browser, shown.url, **options))
            page = context.new_page()
            page.goto(path)
            return page, watch

        yield begin


AXE = Axe()


CONTRAST = "color-contrast"


def accessible(page: Page, *, contrast: bool = True) -> None:
    """Raise unless axe-core finds nothing to say of a page: contrast, names, labels, landmarks, order.

    Without `contrast`, which takes long where there is much text, colours are not looked at.
    """
    rules = {CONTRAST: {"enabled": contrast}}
    results = AXE.run(page, options={"resultTypes": ["violations"], "rules": rules})
    assert results.violations_count == 0, results.generate_report()


def readable(page: Page, *within: str) -> None:
    """Raise unless text stands out from its ground, in these parts of a page (selectors), or in all of it."""
    results = AXE.run(page, context=list(within), options={"runOnly": [CONTRAST]})
    assert results.violations_count == 0, results.generate_report()
