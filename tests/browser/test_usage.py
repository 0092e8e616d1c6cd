"""Usage and counts in a browser."""

from playwright.sync_api import expect

from tests.browser.archive import READER
from tests.browser.conftest import Open
from tests.support.live import Live


def test_usage_is_added_up_as_asked(open_page: Open, shown: Live) -> None:
    page, _ = open_page("/usage", READER)
    page.get_by_label("By", exact=True).select_option("model")
    page.get_by_role("button", name="Show").click()
    table = page.get_by_role("table", name="Credits, jobs and pictures by model")
    told = shown.http.get("/v1/usage", params={"by": "model"}).json()
    assert len(told["groups"]) > 2
    for group in told["groups"]:
        row = table.get_by_role("row").filter(
            has=page.get_by_role("rowheader", name=group["value"], exact=True)
        )
        expect(row).to_contain_text(str(group["jobs"]))
    expect(page.get_by_role("img", name="Credits by model")).to_be_visible()


def test_usage_needs_no_script(open_page: Open) -> None:
    page, _ = open_page("/usage", READER, java_script_enabled=False)
    page.get_by_label("By", exact=True).select_option("day")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("img", name="Credits by day")).to_be_visible()


def test_status_says_that_every_job_is_accounted_for(open_page: Open) -> None:
    page, _ = open_page("/status", READER)
    expect(page.get_by_text("Every accepted job is accounted for")).to_be_visible()
    page.get_by_role("table").get_by_role("row", name="apiframe").get_by_role("link").first.click()
    expect(page).to_have_title("Jobs · Darkroom")
