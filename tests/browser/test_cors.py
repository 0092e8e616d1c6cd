"""A page of another origin in a browser uses the API with a token, and never by the gallery's session."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.archive import SUBMITTER, TOKENS
from tests.browser.conftest import sign_in
from tests.support.live import IMAGEN, Live, Start
from tests.support.recorder import Answer, Recorder

ASK = """async ([url, method, token, body]) => {
  const headers = { "content-type": "application/json", "idempotency-key": "from-a-page" };
  if (token) headers.authorization = `Bearer ${token}`;
  try {
    const asked = { method, headers, body: body && JSON.stringify(body), credentials: "%s" };
    const answer = await fetch(url, asked);
    return [answer.status, answer.headers.get("location"), await answer.json()];
  } catch (error) { return [0, null, String(error)]; }
}"""


@pytest.fixture
def elsewhere(browser: Browser) -> Iterator[tuple[Page, str]]:
    """A page of another origin, and that origin."""
    html = Answer(200, {"content-type": "text/html"}, b"<!doctype html><title>Another page</title>")
    with Recorder(then=html) as other:
        context = browser.new_context()
        page = context.new_page()
        page.goto(other.url)
        yield page, other.url
        context.close()


def test_a_page_elsewhere_uses_the_api(
    elsewhere: tuple[Page, str], start: Start, tmp_path: Path, live: Live
) -> None:
    page, origin = elsewhere
    shared = start(tmp_path, api_tokens=list(TOKENS.values()), cors_origins=origin, work=False)
    ask = ASK % "omit"
    status, location, job = page.evaluate(ask, [f"{shared.url}/v1/jobs", "POST", SUBMITTER, IMAGEN])
    assert (status, location) == (202, f"/v1/jobs/{job['id']}")
    assert page.evaluate(ask, [shared.url + location, "GET", SUBMITTER, None])[0] == 200
    # Where this origin is not set, the browser lets the page know nothing.
    assert page.evaluate(ask, [f"{live.url}/v1/jobs", "POST", SUBMITTER, IMAGEN])[0] == 0
    # Nor may it use the session of somebody who is signed in there; of one site, cookies go along.
    other = page.context.new_page()
    other.goto(f"{shared.url}/sign-in")
    sign_in(other, SUBMITTER)
    other.wait_for_url(f"{shared.url}/")
    assert page.evaluate(ASK % "include", [f"{shared.url}/v1/jobs", "GET", None, None])[0] == 0
