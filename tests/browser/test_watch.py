"""The watch over pages sees what it is for."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.browser.chromium import opened
from tests.support.live import Live

FAULTS: dict[str, tuple[Any, str]] = {
    "console: broken": ("console", "console.error('broken')"),
    "script failed": ("weberror", "setTimeout(() => { throw new Error('broken') })"),
    "against the policy: img-src": (
        "console",
        "document.body.append(Object.assign(new Image(), {src: '/x'}))",
    ),
    "asked another host": ("requestfailed", "location.assign('http://127.0.0.1:9/')"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen(browser: Browser, shown: Live, fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        misbehave(browser, shown.url, fault)


def misbehave(browser: Browser, url: str, fault: str) -> None:
    event, script = FAULTS[fault]
    with opened(browser, url) as (context, watch):
        page = context.new_page()
        page.goto("/docs")
        assert watch.faults == [], "nothing is wrong with the page itself"
        # Chromium itself says something of some faults too, and may do so first.
        with context.expect_event(event, lambda _: any(fault in seen for seen in watch.faults)):
            page.evaluate(script)
