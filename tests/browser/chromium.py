"""The system's Chromium, driven by Playwright, and a watch over all that a page does there."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Request, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
    "--font-render-hinting=none",
]
LISTEN = """\
document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`against the policy: ${event.violatedDirective} ${event.blockedURI}`));
"""


def installed() -> str | None:
    """Where Chromium is, if it is here; DARKROOM_TEST_CHROMIUM names another one."""
    named = os.environ.get("DARKROOM_TEST_CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def launched(path: str) -> Iterator[Browser]:
    """Run Chromium without a screen until the end of the block."""
    # Nobody but root needs to be told that there is no sandbox for root.
    flags = [*FLAGS, "--no-sandbox"] if os.geteuid() == 0 else FLAGS
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        try:
            yield browser
        finally:
            browser.close()


class Watch:
    """What pages of one context did that no page of ours may do."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        """`url` is the service's own: a request to any other place is a fault."""
        self.faults: list[str] = []
        self._host = urlsplit(url).netloc
        self._allowed: list[str] = []
        context.add_init_script(LISTEN)
        context.on("console", self._console)
        context.on("weberror", lambda error: self._fault(f"script failed: {error.error}"))
        context.on("request", self._request)

    def allow(self, pattern: str) -> None:
        """Let faults pass in which this pattern is found."""
        self._allowed.append(pattern)

    def _fault(self, fault: str) -> None:
        if not any(re.search(pattern, fault) for pattern in self._allowed):
            self.faults.append(fault)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self._fault(f"console: {message.text} ({message.location.get('url', '')})")

    def _request(self, request: Request) -> None:
        asked = urlsplit(request.url)
        if asked.scheme not in {"data", "blob", "about"} and asked.netloc != self._host:
            self._fault(f"asked another host: {asked.netloc}")


@contextmanager
def opened(browser: Browser, url: str, **options: Any) -> Iterator[tuple[BrowserContext, Watch]]:
    """A context of its own, watched; raises at the end of the block if a page did what it may not."""
    context = browser.new_context(base_url=url, **{"viewport": {"width": 1280, "height": 900}} | options)
    context.set_default_timeout(10_000)
    watch = Watch(context, url)
    try:
        yield context, watch
    finally:
        try:
            context.close()
        except Error as error:
            watch.faults.append(f"the browser died: {error}")
    if watch.faults:
        raise AssertionError("\n".join(watch.faults))
