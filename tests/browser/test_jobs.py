"""Jobs in a browser: submitted, watched until they are archived, and put back to work."""

import re
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Request, Response, expect

from tests.browser.archive import SUBMITTER
from tests.browser.conftest import Open
from tests.support.live import IMAGEN, Live

A_WHILE = 20_000


def submit(page: Page, prompt: str) -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_label("Gateway").select_option("api-in-one")
    page.get_by_label("Model", exact=True).fill("imagen4")
    page.get_by_label("Images").fill("2")
    page.get_by_label("Seed").fill("77")
    page.get_by_role("button", name="Submit", exact=True).click()


def archived(page: Page) -> None:
    """The page says by itself that the job is archived, and shows its pictures."""
    progress = page.get_by_role("region", name="Progress")
    expect(progress.locator("[aria-current=step]")).to_contain_text("archived", timeout=A_WHILE)
    picture = page.get_by_role("list", name="Pictures").get_by_role("img").first
    expect(picture).to_have_js_property("complete", value=True)


def test_a_job_is_submitted_and_watched_until_it_is_archived(open_page: Open) -> None:
    page, _ = open_page("/submit", SUBMITTER)
    submit(page, "a paper boat, painted by hand")
    page.wait_for_url(re.compile(r"/jobs/[0-9a-f-]{36}$"))
    loads: list[str] = []
    page.on("framenavigated", lambda frame: loads.append(frame.url))
    archived(page)
    expect(page.get_by_role("list", name="Pictures").get_by_role("link")).to_have_count(2)
    assert loads == [], "the page was loaded anew, and did not follow by itself"


def test_a_job_is_submitted_without_a_script(open_page: Open, shown: Live) -> None:
    page, _ = open_page("/submit", SUBMITTER, java_script_enabled=False)
    submit(page, "a paper boat, without a script")
    page.wait_for_url(re.compile(r"/jobs/[0-9a-f-]{36}$"))
    assert shown.finish(page.url.rpartition("/")[2])["status"] == "archived"
    page.get_by_role("link", name="Reload this page").or_(
        page.get_by_role("link", name="Jobs").first
    ).first.click()
    expect(page.get_by_text("archived").first).to_be_visible()


@pytest.mark.parametrize("scripts", [True, False], ids=["with a script", "without"])
def test_a_failed_job_is_put_back_to_work(open_page: Open, shown: Live, scripts: bool) -> None:
    # So many issues of its link are dead that the job is given up once, and had at the second go.
    job = shown.make(IMAGEN, prompt="a boat that came late", fault={"fault": "expired_link", "times": 6})
    assert job["status"] == "failed"
    page, _ = open_page(f"/jobs/{job['id']}", SUBMITTER, java_script_enabled=scripts)
    with page.expect_response(lambda response: response.url.endswith("/retry")):
        page.get_by_role("button", name=re.compile("Retry")).click()
    page.wait_for_url(f"/jobs/{job['id']}")
    if scripts:
        archived(page)
    assert shown.finish(job["id"])["status"] == "archived"


WIDE = """() => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync("table.jobs { min-width: 3000px; }");
  document.adoptedStyleSheets = [sheet];
  document.querySelector(".scroll").scrollLeft = 321;
}"""
HIDDEN = """(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""

RETRY = """() => {
  const make = (kind, what) => Object.assign(document.createElement(kind), what);
  const form = make("form", { method: "post", action: `${location.pathname}/retry` });
  const token = document.querySelector("meta[name=csrf-token]").content;
  form.append(make("input", { type: "hidden", name: "csrf", value: token }));
  document.body.append(form);
  form.submit();
}"""


def row(page: Page, job: dict[str, Any]) -> Locator:
    return page.locator(f"#row-{job['id']}")


def is_events(asked: Request | Response) -> bool:
    return "/v1/events" in asked.url


def test_who_is_in_the_list_stays_there_as_it_moves(open_page: Open, shown: Live) -> None:
    page, _ = open_page("/jobs", SUBMITTER)
    page.evaluate(WIDE)
    link = page.get_by_role("navigation", name="Status").get_by_role("link", name=re.compile("archived"))
    link.focus()
    first = shown.make(IMAGEN, prompt="the first that came meanwhile")
    expect(row(page, first)).to_be_visible(timeout=A_WHILE)
    expect(link).to_be_focused()
    assert page.locator(".scroll").evaluate("(table) => table.scrollLeft") == 321
    # Where it could not be found again, nothing is taken away until somebody has left it.
    link.evaluate("(link) => link.removeAttribute('id')")
    with page.expect_response(re.compile("/jobs$")):
        second = shown.make(IMAGEN, prompt="the second that came meanwhile")
    page.wait_for_timeout(300)
    expect(link).to_be_focused()
    expect(row(page, second)).to_have_count(0)
    page.get_by_role("searchbox", name="Words").focus()
    expect(row(page, second)).to_be_visible(timeout=A_WHILE)


def test_a_page_that_nobody_sees_holds_no_connection(open_page: Open, shown: Live) -> None:
    page, _ = open_page("/", SUBMITTER)
    with page.expect_response(is_events):
        page.goto("/jobs")
    with page.expect_event("requestfailed", is_events):
        page.evaluate(HIDDEN, True)
    job = shown.make(IMAGEN, prompt="made while nobody looked")
    expect(row(page, job)).to_have_count(0)
    with page.expect_response(is_events):
        page.evaluate(HIDDEN, False)
    expect(row(page, job)).to_be_visible(timeout=A_WHILE)


def test_the_page_of_a_refused_retry_follows_the_job(open_page: Open, shown: Live) -> None:
    slow = {"fault": "slow_answer", "delay_s": 3}
    job = shown.submit(IMAGEN, prompt="a boat that takes its time", fault=slow)
    page, watch = open_page(f"/jobs/{job['id']}", SUBMITTER)
    watch.allow("status of 409")
    page.evaluate(RETRY)
    expect(page.get_by_role("alert")).to_be_visible()
    expect(page).to_have_url(re.compile("/retry$"))
    archived(page)


def test_gateway_and_model_of_the_form_fit_each_other(open_page: Open) -> None:
    page, _ = open_page("/submit", SUBMITTER)
    gateway, model = page.locator("#gateway"), page.locator("#model")
    gateway.select_option("apiframe")
    model.fill("imagen-4-fast")
    model.blur()
    gateway.select_option("api-in-one")
    expect(model).to_have_value(re.compile("^imagen4|^ideogram|^gpt-image|^grok|^kling"))
    expect(page.locator("#price")).to_contain_text("credits")
    model.fill("qwen-image")
    model.blur()
    expect(gateway).to_have_value("apiframe")
    model.fill("brand-new-model")
    model.blur()
    gateway.select_option("api-in-one")
    expect(model).to_have_value("brand-new-model")


@pytest.mark.parametrize("width", [1280, 360], ids=["desktop", "phone"])
def test_a_model_of_another_gateway_is_mended_without_a_script(
    open_page: Open, shown: Live, width: int
) -> None:
    page, watch = open_page(
        "/submit", SUBMITTER, java_script_enabled=False, viewport={"width": width, "height": 800}
    )
    watch.allow("status of 422")
    page.locator("summary", has_text="Tags").click()
    page.get_by_label("Tags").fill("campaign=boats")
    page.get_by_label("Aspect ratio").fill("16:9")
    page.get_by_label("Gateway").select_option("api-in-one")
    model = page.get_by_label("Model", exact=True)
    model.fill("imagen-4-fast")
    page.get_by_label("Prompt", exact=True).fill("a paper boat of another gateway")
    page.get_by_role("button", name="Submit", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text("Nothing was sent: please correct 1 field: Model.")
    page.get_by_role("alert").get_by_role("link", name="Model").click()
    expect(model).to_be_in_viewport()
    expect(model).to_have_accessible_description(re.compile("or the model to imagen4-fast"))
    expect(page.get_by_label("Tags")).to_have_value("campaign=boats")
    expect(page.get_by_label("Aspect ratio")).to_have_value("16:9")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    model.fill("imagen4-fast")
    page.get_by_role("button", name="Submit", exact=True).click()
    page.wait_for_url(re.compile(r"/jobs/[0-9a-f-]{36}$"))
    job = shown.finish(page.url.rpartition("/")[2])
    assert (job["status"], job["request"]["tags"]) == ("archived", {"campaign": "boats"})
