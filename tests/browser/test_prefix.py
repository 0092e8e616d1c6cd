"""The gallery below a path, in a browser: signed in to, looked through, a job submitted and followed."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.archive import SUBMITTER, TOKENS
from tests.browser.chromium import opened
from tests.browser.conftest import sign_in
from tests.browser.test_jobs import archived, submit
from tests.support.live import ULTRA, Start
from tests.support.processes import free_port
from tests.support.proxies import below

BELOW = "/photos"


@pytest.mark.parametrize(("name", "strips"), [("nginx", True), ("caddy", False)])
def test_the_gallery_is_walked_below_a_path(
    browser: Browser, start: Start, tmp_path: Path, name: str, strips: bool
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = {"callbacks": False, "public_url": url + BELOW, "api_tokens": list(TOKENS.values())}
    live = start(tmp_path / "data", **settings)
    live.http.headers["authorization"] = f"Bearer {SUBMITTER}"
    with (
        below(name, tmp_path, port, urlsplit(live.url).port or 0, BELOW, strips=strips),
        opened(browser, url) as (context, _),
    ):
        live.make(ULTRA, num_images=2)
        asked: list[str] = []
        context.on("request", lambda request: asked.append(urlsplit(request.url).path))
        page = context.new_page()
        page.goto(f"{BELOW}/jobs")
        sign_in(page, SUBMITTER)
        page.wait_for_url(f"{BELOW}/jobs")
        (cookie,) = context.cookies()
        assert cookie["path"] == BELOW
        navigation = page.get_by_role("navigation", name="Main")
        navigation.get_by_role("link", name="Gallery").click()
        page.wait_for_url(f"{BELOW}/")
        page.get_by_role("img", name=re.compile("ramen")).first.click()
        page.wait_for_url(re.compile(rf"{BELOW}/outputs/"))
        picture = page.get_by_role("main").get_by_role("img").first
        expect(picture).to_have_js_property("complete", value=True)
        assert picture.evaluate("image => image.naturalWidth") > 0
        navigation.get_by_role("link", name="Submit").click()
        submit(page, "a paper boat below a path")
        page.wait_for_url(re.compile(rf"{BELOW}/jobs/[0-9a-f-]{{36}}$"))
        archived(page)
        navigation.get_by_role("link", name="Usage").click()
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url(f"{BELOW}/sign-in?why=out")
        assert context.cookies() == []
        assert [path for path in asked if not path.startswith(f"{BELOW}/")] == []
        assert f"{BELOW}/v1/events" in asked
