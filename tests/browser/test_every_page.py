"""Every page, as somebody with assistive technology, a small screen or a dark room meets it."""

from typing import Any

import pytest
from playwright.sync_api import ViewportSize

from tests.browser.archive import ADMIN
from tests.browser.conftest import Open, accessible, readable
from tests.support.live import Live

NARROW: ViewportSize = {"width": 360, "height": 780}
PAGES = (
    "/",
    "/outputs/{output}",
    "/jobs",
    "/jobs/{job}",
    "/jobs/{failed}",
    "/submit",
    "/status",
    "/notifications",
    "/usage",
    "/find",
)


@pytest.fixture(scope="module")
def places(shown: Live) -> dict[str, str]:
    """Ids for the pages that show one thing."""
    output: dict[str, Any] = shown.http.get("/v1/outputs", params={"q": "lighthouse"}).json()["outputs"][0]
    failed: dict[str, Any] = shown.http.get("/v1/jobs", params={"status": "failed"}).json()["jobs"][0]
    return {"output": output["id"], "job": output["job_id"], "failed": failed["id"]}


@pytest.mark.parametrize("path", PAGES)
def test_a_page_shuts_nobody_out(open_page: Open, places: dict[str, str], path: str) -> None:
    # Colours that are on their way to others have no contrast to speak of.
    page, _ = open_page(path.format(**places), ADMIN, reduced_motion="reduce")
    accessible(page)
    page.emulate_media(color_scheme="dark")
    readable(page)
    page.set_viewport_size(NARROW)
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
