"""`/docs` in a browser: it is read without a token, in light and dark, wide and narrow."""

from playwright.sync_api import ViewportSize

from tests.browser.conftest import Open, accessible, readable

NARROW: ViewportSize = {"width": 360, "height": 780}


def test_it_can_be_read_by_everybody(open_page: Open) -> None:
    page, _ = open_page("/docs", viewport={"width": 1440, "height": 900})
    page.locator("#fetch_image summary").first.click()
    accessible(page, contrast=False)
    for colours in ("light", "dark"):
        page.emulate_media(color_scheme=colours)
        readable(page, "nav", "#fetch_image", "#schema-SubmitBody")
    page.set_viewport_size(NARROW)
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]


def test_a_link_leads_to_an_operation_and_on_to_a_schema(open_page: Open) -> None:
    page, _ = open_page("/docs")
    page.get_by_role("navigation").get_by_role("link", name="POST /v1/jobs", exact=True).click()
    operation = page.get_by_role("article", name="Submit a job.")
    assert operation.get_by_role("heading", name="Submit a job.").is_visible()
    assert "#submit_job" in page.url
    operation.get_by_role("link", name="SubmitBody").click()
    assert page.get_by_role("article", name="SubmitBody object").is_visible()


def test_it_needs_no_script(open_page: Open) -> None:
    page, _ = open_page("/docs#list_outputs", java_script_enabled=False)
    errors = page.get_by_role("article", name="Search outputs").locator("details.errors")
    errors.locator("summary").click()
    assert errors.get_by_text("invalid_request").is_visible()
