"""A test notification: it goes the way of the others, once, and says what was answered or what to do."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from receiver.schemas.notification import TestMessage as Message
from tests.gallery.test_scopes import LADDER
from tests.support.galleries import SECRETS
from tests.support.live import Live, Start
from tests.support.notifications import SECRET, Application
from tests.support.pages import visiting
from tests.support.recorder import Answer
from tests.support.running import command, data

NOTIFY: dict[str, Any] = {"secrets": [SECRET], "allow_networks": ["127.0.0.0/8"], "timeout": 1}
NOWHERE = "http://127.0.0.1:9/hook?key=hidden-key"


@pytest.fixture(scope="module")
def notifying(start_shared: Start) -> Live:
    return start_shared(notify=NOTIFY, work=False)


def sent(live: Live, url: str | None = None) -> dict[str, Any]:
    answer = live.http.post("/v1/notifications/test", json={} if url is None else {"url": url})
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


def test_it_is_signed_and_shows_the_answer(notifying: Live) -> None:
    with Application(Answer(202, body=b"\x1b[31mthank you\n token=whsec_" + b"x" * 5000)) as app:
        result = sent(notifying, app.url)
        told = app.next()
    message = told.verified(SECRET)
    Message.model_validate(message)
    assert (message["type"], message["data"]["outputs"]) == ("test", [])
    assert (result["id"], result["at"]) == (told.id, message["timestamp"])
    assert (result["delivered"], result["status"], result["code"], result["fix"]) == (True, 202, None, None)
    assert "thank you" in result["answer"]
    assert len(result["answer"]) <= 200
    assert result["host"] == f"127.0.0.1:{app.port}"
    assert notifying.http.get("/v1/notifications").json()["notifications"] == [], "it is about no job"


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (
            Answer(401, body=b"bad signature"),
            "receiver_refused",
            ("answered 401", "darkroom notifications secret"),
        ),
        (Answer(410), "receiver_gone", ("answered 410", "Answer 2xx")),
        (Answer(302, headers={"location": "/x"}), "receiver_refused", ("never followed", "log")),
        (Answer(until=threading.Event()), "receiver_unavailable", ("longer than 1 seconds", "runs")),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(
    notifying: Live, answer: Answer, code: str, words: tuple[str, str]
) -> None:
    with Application(answer) as app:
        result = sent(notifying, app.url)
        if answer.until is not None:
            answer.until.set()
        assert app.told.qsize() == 1, "it is not retried"
    assert (result["delivered"], result["code"]) == (False, code)
    assert words[0] in result["message"]
    assert words[1] in result["fix"]


def test_the_rules_of_urls_hold(notifying: Live, live: Live) -> None:
    result = sent(live, "http://127.0.0.1:9/hook")
    assert (result["code"], result["status"]) == ("receiver_forbidden", None)
    assert "DARKROOM_NOTIFY__ALLOW_NETWORKS" in result["message"]
    assert sent(notifying, "https://10.0.0.1/")["code"] == "receiver_forbidden"
    assert sent(notifying, "no url")["code"] == "receiver_forbidden"
    assert sent(notifying, "https://nobody.invalid/")["code"] == "receiver_unavailable"
    assert "hidden-key" not in json.dumps(sent(notifying, NOWHERE))
    for body in ({}, {"url": ""}, {"url": 7}, {"surprise": 1}):
        refused = notifying.http.post("/v1/notifications/test", json=body)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    assert "DARKROOM_NOTIFY__URL" in notifying.http.post("/v1/notifications/test").json()["detail"]


def test_without_a_url_it_goes_to_that_of_the_settings(start: Start) -> None:
    tokens = [f"{scope}:{scope}:{SECRETS[scope]}" for scope in LADDER]
    with Application(*[Answer(200, body=b"hello")] * 2) as app:
        live = start(notify={**NOTIFY, "url": app.url}, api_tokens=tokens, work=False)
        writer = {"authorization": f"Bearer {SECRETS['submit']}"}
        for body, answer in ({}, "hello"), ({"url": f"{app.url}?other"}, ""):
            test = f"{live.url}/v1/notifications/test"
            result = httpx.post(test, json=body, headers=writer, trust_env=False).json()
            assert (result["delivered"], result["answer"]) == (True, answer)
            assert app.next().path.startswith("/hook")


def test_slow_ones_do_not_use_up_the_threads(notifying: Live) -> None:
    never = threading.Event()
    with Application(*[Answer(until=never)] * 2) as app, ThreadPoolExecutor(3) as pool:
        slow = [pool.submit(sent, notifying, app.url) for _ in range(2)]
        app.next(), app.next()
        refused = notifying.http.post("/v1/notifications/test", json={"url": app.url})
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
        never.set()
        assert all(one.result()["host"] for one in slow)


def test_the_command_says_it_and_exits(notifying: Live) -> None:
    here = notifying.url
    with Application(Answer(200, body=b"ok"), Answer(403)) as app:
        good = command("notifications", "test", app.url, DARKROOM_URL=here)
        bad = command("notifications", "test", app.url, DARKROOM_URL=here)
        as_json = command("notifications", "test", app.url, "--json", DARKROOM_URL=here)
    assert (good.returncode, "delivered" in good.stdout, "ok" in good.stdout) == (0, True, True)
    assert (bad.returncode, "receiver_refused" in bad.stdout) == (1, True)
    assert "Fix: See why in the log" in bad.stderr
    assert data(as_json)["delivered"]
    assert command("notifications", "test", DARKROOM_URL=here).returncode == 2


def test_the_page_has_a_button_for_it(start: Start) -> None:
    tokens = [f"{scope}:{scope}:{SECRETS[scope]}" for scope in LADDER]
    live = start(notify=NOTIFY, api_tokens=tokens, work=False)
    with visiting(live.url, SECRETS["read"]) as reader, visiting(live.url, SECRETS["submit"]) as writer:
        page = reader.get("/notifications")
        assert (page.status, page.all("form", id="test")) == (200, [])
        form = {"csrf": writer.get("/notifications").csrf}
        with Application(
            Answer(200, body=b"<b>hello</b>"), Answer(500), Answer(200, body=b"<b>you</b>")
        ) as app:
            good = writer.send("/notifications/test", form | {"url": app.url})
            assert app.next().verified(SECRET)["type"] == "test"
            bad = writer.send("/notifications/test", form | {"url": app.url})
            with visiting(live.url, SECRETS["admin"]) as admin:
                form_of_admin = {"csrf": admin.get("/notifications").csrf, "url": app.url}
                read = admin.send("/notifications/test", form_of_admin)
        assert (good.status, "Delivered: 127.0.0.1" in good.text) == (200, True)
        assert "hello" not in good.text, "it may be anything in the networks that are allowed"
        assert "<b>you</b>" in read.text, "escaped"
        assert "receiver_refused" in bad.tree.one("p", role="alert").text
        assert writer.send("/notifications/test", form).status == 422
        assert reader.send("/notifications/test", {"csrf": page.csrf, "url": NOWHERE}).status == 403
        assert writer.get("/notifications?state=x").status == 422
    assert httpx.post(f"{live.url}/v1/notifications/test", json={}).status_code == 401
