"""The submit form: what it takes, what it says of what it does not, and that it makes one job."""

import json
from typing import Any

import pytest

from tests.support.live import IMAGEN, ULTRA, Live, Start
from tests.support.pages import Page, Visitor, visiting

FULL: dict[str, Any] = {
    "gateway": "api-in-one",
    "model": "imagen4-ultra",
    "prompt": '\n a "bowl" of ramen </textarea><script>alert(1)</script>\n寿司 שלום \u202eback ',
    "negative_prompt": "blurry,\ncartoon",
    "aspect_ratio": "16:9",
    "num_images": 2,
    "seed": "42",
    "params": {"quality": "high", "名": ["<b>", {"x": 1.5}]},
    "tags": {"campaign": "spring = summer", "client": "<i>"},
}


@pytest.fixture
def visitor(live: Live) -> Any:
    with visiting(live.url) as visitor:
        yield visitor


def filled(visitor: Visitor, **fields: str) -> dict[str, str]:
    """What a new form sends once these fields are filled in."""
    usual = {"gateway": "apiframe", "model": "imagen-4-fast", "prompt": "a red kite"}
    return {**visitor.get("/submit").fields("submit"), **usual, **fields}


def job_of(live: Live, page: Page) -> dict[str, Any]:
    assert page.status == 303, page.tree.one("main").text
    at = page.answer.headers["location"]
    assert at.startswith("/jobs/")
    return live.finish(at.removeprefix("/jobs/"))


def faults(page: Page) -> dict[str, str]:
    """What is said beside each field."""
    told = {one.attributes["id"]: one for one in page.tree.all("p", class_="help") if "id" in one.attributes}
    return {
        name.removesuffix("-help"): one.all("strong", class_="fault")[0].text
        for name, one in told.items()
        if one.all("strong", class_="fault")
    }


def test_a_job_goes_from_the_form_to_the_archive(live: Live, visitor: Visitor) -> None:
    fields = filled(visitor, tags="campaign=may\n\nclient = x=y \n", params='{"image_size": "1K"}')
    job = job_of(live, visitor.send("/submit", fields))
    assert job["status"] == "archived"
    assert job["request"]["tags"] == {"campaign": "may", "client": "x=y"}
    assert job["request"]["params"] == {"image_size": "1K"}
    page = visitor.get(f"/jobs/{job['id']}")
    (picture,) = page.tree.one("ul", class_="grid").all("img")
    assert picture.attributes["alt"] == "a red kite"
    assert visitor.http.get(picture.attributes["src"]).status_code == 200
    assert page.tree.one("section", data_live=job["id"]).attributes["data-unfinished"] == "no"


def test_a_form_makes_one_job_however_often_it_is_sent(live: Live, visitor: Visitor) -> None:
    fields = filled(visitor, prompt="sent twice")
    made = live.service.resources.ledger.job_counts()["apiframe"].accepted
    first, second = visitor.send("/submit", fields), visitor.send("/submit", fields)
    assert first.answer.headers["location"] == second.answer.headers["location"]
    changed = visitor.send("/submit", {**fields, "prompt": "sent twice, and changed"})
    assert changed.status == 409
    assert "This form was sent before" in changed.tree.one("p", role="alert").text
    again = changed.fields("submit")
    assert (again["prompt"], again["key"] == fields["key"]) == ("sent twice, and changed", False)
    assert live.service.resources.ledger.job_counts()["apiframe"].accepted == made + 1
    assert job_of(live, visitor.send("/submit", again))["request"]["prompt"] == "sent twice, and changed"


def test_anothers_key_is_not_taken_from_a_form(live: Live, visitor: Visitor) -> None:
    headers = {"idempotency-key": "theirs"}
    theirs = live.http.post("/v1/jobs", json={**IMAGEN, "prompt": "a red kite"}, headers=headers).json()["id"]
    job = job_of(live, visitor.send("/submit", filled(visitor, key="theirs")))
    assert job["id"] != theirs


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"prompt": ""}, "prompt", "must not be empty"),
        ({"prompt": " \n "}, "prompt", "must not be blank"),
        ({"prompt": "漢" * 20_000}, "prompt", "must have 1 to 2000 characters, not 20000"),
        ({"prompt": "x" * 20_001}, "prompt", "20000 characters at most"),
        ({"model": ""}, "model", "must not be empty"),
        ({"model": " imagen4-fast "}, "model", "or the model to imagen-4-fast"),
        ({"model": "imagen-4-fsat"}, "model", "did you mean imagen-4-fast?"),
        ({"gateway": "api-in-one"}, "model", "set the gateway to apiframe, or the model to imagen4-fast"),
        ({"gateway": "nowhere<b>"}, "gateway", "not configured here"),
        ({"num_images": "two"}, "num_images", "must be a whole number"),
        ({"num_images": "65"}, "num_images", "64 at most"),
        ({"seed": "7"}, "seed", "imagen-4-fast on Apiframe has no such parameter"),
        ({"negative_prompt": "x"}, "negative_prompt", "has no such parameter"),
        ({"aspect_ratio": "1:7"}, "aspect_ratio", "must be one of 1:1"),
        ({"params": "{"}, "params", "is no JSON"),
        ({"params": "[1]"}, "params", "must be a JSON object"),
        ({"params": '{"a": NaN}'}, "params", "NaN is no number"),
        ({"params": "[" * 100_000}, "params", "is nested too deep"),
        ({"prompt": "🪁" * 20_000, "negative_prompt": ""}, "prompt", "not 20000"),
        ({"params": '{"webhookUrl": "https://x.example"}'}, "params", "webhookUrl: is set by Darkroom"),
        ({"tags": "a=b\n<script>"}, "tags", "line 2 must be name=value"),
        ({"tags": "a=b\na=c"}, "tags", "line 2 has the name a a second time"),
        ({"tags": "a/b=c"}, "tags", "a/b"),
        ({"tags": "a="}, "tags", "must not be empty"),
        ({"notify_url": "http://169.254.169.254/"}, "notify_url", "https"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field(
    live: Live, visitor: Visitor, fields: dict[str, str], field: str, message: str
) -> None:
    before = live.http.get("/v1/status").json()["accepted"]
    sent = filled(visitor, **fields)
    page = visitor.send("/submit", sent)
    assert page.status == 422
    assert message in faults(page)[field]
    assert "please correct 1 field" in page.tree.one("p", role="alert").text
    kinds = ("input", "textarea", "select")
    wrong = [one for tag in kinds for one in page.tree.all(tag, aria_invalid="true")]
    assert [one.attributes["name"] for one in wrong] == [field]
    assert page.fields("submit") == sent
    assert live.http.get("/v1/status").json()["accepted"] == before


def test_what_is_wrong_with_all_is_said_over_the_form(visitor: Visitor) -> None:
    deep = '{"a": ' + "[" * 500 + "]" * 500 + "}"
    page = visitor.send("/submit", filled(visitor, params=deep))
    assert page.status == 422
    assert "nested too deep" in page.tree.one("p", role="alert").text
    assert page.fields("submit")["params"] == deep


def test_several_faults_are_all_said_at_once(visitor: Visitor) -> None:
    page = visitor.send("/submit", filled(visitor, prompt="", num_images="x", tags="x", params="x"))
    assert set(faults(page)) == {"prompt", "num_images", "tags", "params"}


def test_what_the_script_kept_is_shown_and_not_sent(live: Live, visitor: Visitor) -> None:
    """The script takes out what the model does not have; when something else is wrong, it is still there."""
    fields = filled(visitor, kept_seed="77")
    assert job_of(live, visitor.send("/submit", fields))["request"]["seed"] is None
    page = visitor.send("/submit", filled(visitor, kept_seed="77", tags="x"))
    assert page.fields("submit")["seed"] == "77"


def test_what_a_model_does_not_have_may_be_left_out(live: Live, visitor: Visitor) -> None:
    job = job_of(live, visitor.send("/submit", filled(visitor, seed="7", unsupported="ignore")))
    assert (job["status"], job["request"]["ignored"]) == ("archived", ["seed"])
    again = visitor.get(f"/submit?from={job['id']}")
    assert again.fields("submit")["unsupported"] == "ignore"


def test_make_again_fills_in_all_and_says_what_it_cost(live: Live, visitor: Visitor) -> None:
    job = live.make(FULL)
    for origin in (job["id"], job["outputs"][0]["id"]):
        page = visitor.get(f"/submit?from={origin}")
        assert "which cost ~24 credits by the gateway's price list" in page.tree.one("main").text
        again = job_of(live, visitor.send("/submit", page.fields("submit")))
        assert again["id"] != job["id"]
        assert again["request"] == job["request"]


def test_a_reported_seed_is_offered_and_named_so(live: Live, visitor: Visitor) -> None:
    job = live.make({"gateway": "apiframe", "model": "flux-2-pro", "prompt": "a red kite"})
    reported = job["result"]["seed"]
    page = visitor.get(f"/submit?from={job['id']}")
    assert page.fields("submit")["seed"] == (reported or "")
    assert ("is the one that the gateway reported" in page.tree.one("main").text) == (reported is not None)


def test_a_notification_address_is_not_shown_again(start: Start) -> None:
    idle = start(work=False)  # or it would look that host up
    job = idle.submit(IMAGEN, notify_url="https://app.example/told?key=secret-of-theirs")
    with visiting(idle.url) as visitor:
        page = visitor.get(f"/submit?from={job['id']}")
        assert "secret-of-theirs" not in page.html + visitor.get(f"/jobs/{job['id']}").html
    assert "Its notification address is not filled in." in page.tree.one("main").text


@pytest.mark.parametrize("origin", ["x", "x.0", "00000000-0000-7000-8000-000000000000", "%00", "<b>.1"])
def test_nothing_can_be_made_from_what_is_not_there(visitor: Visitor, origin: str) -> None:
    assert visitor.get("/submit", **{"from": origin}).status == 404


def test_the_last_gateway_and_model_are_offered_first(live: Live, visitor: Visitor) -> None:
    live.make(ULTRA)
    page = visitor.get("/submit")
    fields = page.fields("submit")
    assert (fields["gateway"], fields["model"]) == ("api-in-one", "imagen4-ultra")
    told = json.loads(page.tree.one("form", id_="submit").attributes["data-known"])
    assert told["api-in-one"]["models"][0] == "imagen4-ultra"
    assert "imagen4-ultra" not in told["apiframe"]["models"], "where it does not belong"
    assert told["apiframe"]["lacks"]["imagen-4-fast"] == ["negative_prompt", "num_images", "seed"]
    assert (told["api-in-one"]["prices"]["imagen4-ultra"], told["apiframe"]["prices"]) == (12, {})
