"""Jobs in a browser: submitted, watched until they are archived, and put back to work."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.archive import FAILED, SUBMITTER
from tests.browser.conftest import Open
from tests.live import IMAGEN, Live

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
    page.get_by_role("link", name="Load this page again").or_(
        page.get_by_role("link", name="Jobs").first
    ).first.click()
    expect(page.get_by_text("archived").first).to_be_visible()


def test_what_is_wrong_is_told_beside_its_field_and_nothing_is_lost(open_page: Open) -> None:
    # With a script the form does not even let a seed be given where the model has none.
    page, watch = open_page("/submit", SUBMITTER, java_script_enabled=False)
    watch.allow("status of 422")
    page.get_by_label("Gateway").select_option("apiframe")
    page.get_by_label("Prompt", exact=True).fill("a quiet library")
    page.get_by_label("Model", exact=True).fill("imagen-4-fast")
    page.get_by_label("Seed").fill("7")
    page.get_by_role("button", name="Submit", exact=True).click()
    seed = page.get_by_label("Seed")
    expect(seed).to_have_attribute("aria-invalid", "true")
    expect(seed).to_have_accessible_description(re.compile("seed", re.IGNORECASE))
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a quiet library")


def test_a_failed_job_says_why_and_what_helps(open_page: Open) -> None:
    page, _ = open_page("/jobs", SUBMITTER)
    page.get_by_role("navigation", name="Status").get_by_role("link", name=re.compile("failed")).click()
    page.get_by_role("link", name=FAILED).click()
    expect(page.get_by_text("image_expired").first).to_be_visible()
    expect(page.get_by_role("button", name=re.compile("Retry"))).to_be_visible()


@pytest.mark.parametrize("scripts", [True, False], ids=["with a script", "without"])
def test_a_failed_job_is_put_back_to_work(open_page: Open, shown: Live, scripts: bool) -> None:
    # So many issues of its link are dead that the job is given up once, and had at the second go.
    job = shown.make(
        IMAGEN | {"prompt": "a boat that came late"}, fault={"fault": "expired_link", "times": 6}
    )
    assert job["status"] == "failed"
    page, _ = open_page(f"/jobs/{job['id']}", SUBMITTER, java_script_enabled=scripts)
    with page.expect_response(lambda response: response.url.endswith("/retry")):
        page.get_by_role("button", name=re.compile("Retry")).click()
    page.wait_for_url(f"/jobs/{job['id']}")
    if scripts:
        archived(page)
    assert shown.finish(job["id"])["status"] == "archived"
