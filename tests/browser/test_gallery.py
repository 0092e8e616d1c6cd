"""The gallery: searched, narrowed, walked through with the mouse, the keyboard, and without a script."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import FilePayload, Locator, Page, expect

from tests.browser.archive import READER, RIGHT_TO_LEFT, SCRIPT, count
from tests.browser.conftest import Open
from tests.support.live import Live


def cards(page: Page) -> Locator:
    """The pictures of the grid."""
    return page.locator("#grid > li > a")


def ids(page: Page) -> list[str]:
    found: list[str] = cards(page).evaluate_all("(links) => links.map((link) => link.dataset.output)")
    return found


def test_a_search_shows_what_has_the_words(open_page: Open, shown: Live) -> None:
    page, _ = open_page("/", READER)
    expect(page.get_by_text(f"{count(shown)} pictures")).to_be_visible()
    page.keyboard.press("/")
    box = page.get_by_role("searchbox", name="Search the pictures")
    expect(box).to_be_focused()
    box.fill("lighthouse fog")
    box.press("Enter")
    expect(page).to_have_url(re.compile(r"/\?q=lighthouse\+fog"))
    expect(page.get_by_role("img", name="a lighthouse, in the fog")).to_have_count(cards(page).count())
    assert cards(page).count() > 0
    expect(box).to_have_value("lighthouse fog")


@pytest.mark.parametrize("scripts", [True, False], ids=["with a script", "without"])
def test_facets_narrow_the_search_and_let_it_go_again(open_page: Open, shown: Live, scripts: bool) -> None:
    page, _ = open_page("/", READER, java_script_enabled=scripts)
    side = page.get_by_role("complementary", name="Narrow the search")
    if not side.get_by_role("heading", name="Model").is_visible():
        side.get_by_text("Filters", exact=True).click()
    side.get_by_role("link", name=re.compile("imagen4-ultra")).click()
    expect(page.get_by_text(f"{count(shown, model='imagen4-ultra')} pictures")).to_be_visible()
    page.goto(page.url.replace("?q=", "?q=tag:campaign=autumn+"))
    used = page.get_by_role("list", name="Filters in use")
    expect(used.get_by_role("link")).to_have_count(2)
    used.get_by_role("link", name=re.compile("Remove model:imagen4-ultra")).click()
    expect(page.get_by_text(f"{count(shown, **{'tag.campaign': 'autumn'})} pictures")).to_be_visible()


def test_pages_follow_one_another_without_a_script(open_page: Open, shown: Live) -> None:
    page, _ = open_page("/", READER, java_script_enabled=False)
    seen = [*walked(page)]
    assert len(seen) == len(set(seen)) == count(shown)
    follow(page, page.get_by_role("link", name="Newest"))
    assert set(ids(page)) < set(seen)


def walked(page: Page) -> Iterator[str]:
    while True:
        yield from ids(page)
        older = page.get_by_role("link", name="Older")
        if not older.count():
            return
        follow(page, older)


def follow(page: Page, link: Locator) -> None:
    """Click on a link, and wait until the page that it leads to is loaded."""
    target = link.get_attribute("href") or ""
    link.click()
    page.wait_for_url(lambda url: url.endswith(target))


def test_more_pictures_come_as_one_scrolls(open_page: Open, shown: Live) -> None:
    page, _ = open_page("/", READER)
    every = count(shown)
    while cards(page).count() < every:
        page.get_by_role("contentinfo").or_(page.locator(".pager")).last.scroll_into_view_if_needed()
        page.mouse.wheel(0, 4000)
    expect(cards(page)).to_have_count(every)
    assert len(set(ids(page))) == every
    expect(page.get_by_role("link", name="Older")).to_have_count(0)


def test_the_keyboard_is_enough(open_page: Open) -> None:
    page, _ = open_page("/?q=ramen", READER)
    second = ids(page)[1]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/outputs/{second}**")
    older = page.locator("#older").get_attribute("href") or ""
    # Keys that select text or scroll a part of the page lead nowhere else.
    page.keyboard.press("Shift+ArrowRight")
    page.get_by_text("Show the record").click()
    page.get_by_label("The record", exact=True).focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(300)
    expect(page).to_have_url(re.compile(re.escape(second)))
    page.get_by_text("Show the record").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_url(lambda url: url.endswith(older))
    page.keyboard.press("Escape")
    page.wait_for_url(lambda url: url.endswith("/?q=ramen"))


def test_a_picture_is_shown_with_all_that_made_it(open_page: Open, shown: Live) -> None:
    page, _ = open_page("/?q=seed:1003", READER)
    cards(page).first.click()
    image = page.locator("#image")
    expect(image).to_have_js_property("complete", value=True)
    assert image.evaluate("(image) => image.naturalWidth") > 0
    output = page.url.rpartition("/outputs/")[2].partition("?")[0]
    told: dict[str, Any] = shown.http.get(f"/v1/outputs/{output}").json()
    for text in (told["prompt"], told["sha256"], told["key"], "1003"):
        expect(page.get_by_text(text, exact=True).first).to_be_visible()
    with page.expect_download() as got:
        page.get_by_role("link", name="Download").click()
    assert got.value.path().read_bytes() == shown.http.get(f"/v1/outputs/{output}/image?stream=1").content
    page.get_by_role("link", name=told["job_id"]).click()
    expect(page).to_have_url(re.compile(f"/jobs/{told['job_id']}"))


@pytest.mark.parametrize("scripts", [True, False], ids=["with a script", "without"])
def test_a_prompt_that_is_a_script_is_only_shown(open_page: Open, scripts: bool) -> None:
    page, _ = open_page("/?q=alert", READER, java_script_enabled=scripts)
    page.on("dialog", lambda dialog: pytest.fail(f"it ran: {dialog.message}"))
    expect(cards(page)).to_have_count(1)
    expect(page.get_by_role("img", name=SCRIPT)).to_be_visible()
    cards(page).click()
    expect(page.locator("#prompt")).to_have_text(SCRIPT)
    expect(page.get_by_role("img", name=SCRIPT)).to_be_visible()


def test_right_to_left_text_keeps_to_its_place(open_page: Open) -> None:
    page, _ = open_page("/?q=منارة", READER)
    cards(page).click()
    prompt = page.locator("#prompt")
    expect(prompt).to_have_text(RIGHT_TO_LEFT)
    turned = "(element) => getComputedStyle(element).direction"
    # What is ours stays as it was, whichever way the prompt runs.
    assert page.locator("body").evaluate(turned) == "ltr"
    assert prompt.evaluate("(p) => p.matches(':dir(rtl)') || getComputedStyle(p).unicodeBidi === 'plaintext'")


def test_light_and_dark_follow_the_system_until_somebody_says(open_page: Open) -> None:
    page, _ = open_page("/", READER, color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(ground)
    assert dark != light
    page.get_by_role("button", name="Change between light and dark").click()
    assert page.evaluate(ground) == dark
    page.goto("/jobs")
    assert page.evaluate(ground) == dark, "remembered"


@pytest.mark.parametrize("scripts", [True, False], ids=["with a script", "without"])
def test_a_file_is_known_by_its_bytes(open_page: Open, shown: Live, scripts: bool) -> None:
    (output,) = shown.http.get("/v1/outputs", params={"q": "alert", "limit": "1"}).json()["outputs"]
    image = shown.http.get(f"/v1/outputs/{output['id']}/image", params={"stream": "1"}).content
    page, _ = open_page("/find", READER, java_script_enabled=scripts)
    for content, answer in (
        (image, "Yes, this picture is in the archive."),
        (image + b"!", "No picture in the archive has these"),
    ):
        file: FilePayload = {"name": "kite.jpg", "mimeType": "image/jpeg", "buffer": content}
        page.get_by_label("Find this picture").set_input_files(file)
        if not scripts:
            page.get_by_role("button", name="Find", exact=True).click()
        expect(page.get_by_text(answer)).to_be_visible()
        expect(page.get_by_text("kite.jpg")).to_have_count(1 if content == image else 0)
