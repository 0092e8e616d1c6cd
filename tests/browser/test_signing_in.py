"""Sign in with a token, and out again; what is asked for before is shown after."""

import re

from playwright.sync_api import expect

from tests.browser.archive import READER, SUBMITTER
from tests.browser.conftest import Open, accessible, sign_in

WRONG = "Failed to load resource: the server responded with a status of 401"


def test_who_comes_without_a_session_signs_in_and_sees_what_was_asked_for(open_page: Open) -> None:
    page, _ = open_page("/?q=kite")
    expect(page).to_have_title("Sign in · Darkroom")
    accessible(page)
    sign_in(page, READER)
    page.wait_for_url("/?q=kite")
    expect(page.get_by_text("rita")).to_be_visible()
    expect(page.get_by_role("navigation", name="Main").get_by_role("link", name="Submit")).to_have_count(0)


def test_a_wrong_token_is_told_beside_its_field(open_page: Open) -> None:
    page, watch = open_page("/sign-in")
    watch.allow(WRONG)
    sign_in(page, "no-such-token")
    field = page.get_by_label("API token")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_accessible_description(re.compile("This token is unknown here"))
    accessible(page)
    assert page.context.cookies() == []


def test_signing_out_ends_the_session(open_page: Open) -> None:
    page, _ = open_page("/sign-in")
    sign_in(page, SUBMITTER)
    page.wait_for_url("/")
    (cookie,) = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Lax")
    assert SUBMITTER not in cookie["value"]
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_text("You are signed out.")).to_be_visible()
    assert page.context.cookies() == []
    page.goto("/")
    expect(page).to_have_title("Sign in · Darkroom")
