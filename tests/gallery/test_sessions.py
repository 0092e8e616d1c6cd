"""Who sees the gallery: sessions, what ends them, and that no other site can use them."""

from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from receiver.errors import Forbidden, Unauthorized
from receiver.gallery.forms import refuse_other_sites, safe_next
from receiver.http.auth import Access
from receiver.http.sessions import IDLE_S, MOST_S, RENEW_S, Sessions, came_over_https
from receiver.schedule import system_clock
from tests.support.galleries import COOKIE, SECRETS, TOKENS, Hung
from tests.support.ledgers import Clock
from tests.support.live import IMAGEN, Live, Movable, Start
from tests.support.pages import page

OLD, NEW = "an-old-secret-key-", "a-new-secret-key-"


def browser(live: Live, **cookies: str) -> httpx.Client:
    return httpx.Client(base_url=live.url, trust_env=False, cookies=cookies)


def test_a_stranger_is_led_to_sign_in_and_back(hung: Hung) -> None:
    with browser(hung.live) as client:
        answer = client.get("/?q=%E5%AF%BF%E5%8F%B8+seed%3A42")
        assert answer.status_code == 303
        asked = page(client.get(answer.headers["location"]))
        (field,) = asked.all("input", name="next")
        assert "Sign in to go on." in asked.text
        answer = client.post("/sign-in", data={"token": SECRETS["read"], "next": field["value"]})
        assert (answer.status_code, answer.headers["location"]) == (303, "/?q=%E5%AF%BF%E5%8F%B8+seed%3A42")
        assert page(client.get(answer.headers["location"])).one("q")["value"] == "寿司 seed:42"


def test_the_cookie_is_out_of_reach_of_scripts(hung: Hung) -> None:
    with browser(hung.live) as client:
        for headers, secure in (
            ({}, False),
            ({"origin": hung.live.url}, False),
            ({"origin": "https://127.0.0.1"}, True),
            ({"x-forwarded-proto": "https"}, True),
        ):
            answer = client.post("/sign-in", data={"token": SECRETS["read"]}, headers=headers)
            parts = {part.strip().lower() for part in answer.headers["set-cookie"].split(";")[1:]}
            assert {"httponly", "samesite=lax", "path=/", f"max-age={IDLE_S}"} <= parts
            assert ("secure" in parts) == secure, headers
            assert SECRETS["read"] not in answer.headers["set-cookie"]


@pytest.mark.parametrize(
    ("public", "host", "secure"),
    [
        ("https://darkroom.example", "darkroom.example", True),
        ("https://darkroom.example", "10.0.0.5:8321", False),
        ("http://darkroom.example", "darkroom.example", False),
        (None, "darkroom.example", False),
    ],
)
def test_a_public_https_address_secures_the_cookie(public: str | None, host: str, *, secure: bool) -> None:
    scope = {"type": "http", "scheme": "http", "path": "/", "query_string": b"", "server": ("127.0.0.1", 80)}
    request = Request({**scope, "headers": [(b"host", host.encode())]})
    assert came_over_https(request, public) == secure


@pytest.mark.parametrize(
    "token", ["", "nobody-nobody-nobody", "read-token:read:reader-reader-reader", "\x00é"]
)
def test_a_wrong_token_begins_no_session(hung: Hung, token: str) -> None:
    with browser(hung.live) as client:
        answer = client.post("/sign-in", data={"token": token, "next": "/jobs"})
        asked = page(answer, 401)
        assert "set-cookie" not in answer.headers
        assert "unknown here" in asked.text
        assert asked.all("input", name="next")[0]["value"] == "/jobs"
        assert "value" not in asked.one("token") or not asked.one("token")["value"]


def test_guesses_are_limited_and_the_token_still_works(start: Start) -> None:
    live = start(api_tokens=TOKENS, limits={"bad_tokens": 3}, work=False)
    with browser(live) as client:
        for _ in range(3):
            assert client.post("/sign-in", data={"token": "guess"}).status_code == 401
        answer = client.post("/sign-in", data={"token": "guess"})
        page(answer, 429)
        assert int(answer.headers["retry-after"]) >= 1
        assert client.post("/sign-in", data={"token": SECRETS["read"]}).status_code == 303


@pytest.mark.parametrize("age_s", [0, 16 * 60], ids=["new", "to be renewed"])
def test_signing_out_ends_the_session_in_this_browser(start: Start, age_s: int) -> None:
    clock = Movable(system_clock)
    live = start(api_tokens=TOKENS, work=False, clock=clock)
    with browser(live) as client:
        client.post("/sign-in", data={"token": SECRETS["read"]})
        csrf = page(client.get("/")).csrf
        clock.forward(age_s)
        answer = client.post("/sign-out", data={"csrf": csrf})
        assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?why=out")
        (line,) = answer.headers.get_list("set-cookie")
        assert "max-age=0" in line.lower()
        assert COOKIE not in client.cookies
        assert "You are signed out." in page(client.get(answer.headers["location"])).text
        assert client.get("/").status_code == 303


def test_who_has_signed_out_sees_no_kept_picture(hung: Hung) -> None:
    with hung.visitor("read") as client:
        csrf = page(client.get("/")).csrf
        for path in ("image?stream=1", "thumbnail"):
            at = f"/v1/outputs/{hung.kite['outputs'][0]['id']}/{path}"
            answer = client.get(at)
            assert answer.headers["cache-control"] == "private, no-cache"
            known = {"if-none-match": answer.headers["etag"]}
            assert client.get(at, headers=known).status_code == 304
        client.post("/sign-out", data={"csrf": csrf})
        assert client.get(at, headers=known).status_code == 401


@pytest.mark.parametrize("wrong", [None, "", "nonsense", "é\x00", "A" * 43])
def test_a_form_without_its_token_changes_nothing(hung: Hung, wrong: str | None) -> None:
    with hung.visitor("read") as client:
        answer = client.post("/sign-out", data={"x": "y"} if wrong is None else {"csrf": wrong})
        assert "another session" in page(answer, 403).text
        assert client.get("/").status_code == 200
        with hung.visitor("read") as other:
            theirs = page(other.get("/")).csrf
        page(client.post("/sign-out", data={"csrf": theirs}), 403)


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": "https://evil.example"},
        {"origin": "null"}, {"origin": "http://["},
    ],
)  # fmt: skip
def test_no_other_site_can_send_a_form(hung: Hung, headers: dict[str, str]) -> None:
    with hung.visitor("read") as client:
        csrf = page(client.get("/")).csrf
        page(client.post("/sign-out", data={"csrf": csrf}, headers=headers), 403)
        page(client.post("/sign-in", data={"token": SECRETS["read"]}, headers=headers), 403)


@pytest.mark.parametrize("origin", ["null", "http://[", "https://evil.example", "x"])
@pytest.mark.parametrize("public", [None, "https://darkroom.example"])
def test_an_origin_without_a_host_is_not_ours(origin: str, public: str | None) -> None:
    scope = {"type": "http", "scheme": "http", "path": "/", "query_string": b"", "server": ("127.0.0.1", 80)}
    headers = [(b"host", b"127.0.0.1:8321"), (b"origin", origin.encode())]
    with pytest.raises(Forbidden):
        refuse_other_sites(Request({**scope, "headers": headers}), public)
    headers[1] = (b"origin", b"http://127.0.0.1:8321")
    refuse_other_sites(Request({**scope, "headers": headers}), public)


@pytest.mark.parametrize(
    ("headers", "public", "told"),
    [
        # Over plain http a browser says no more than the origin.
        (
            {"origin": "http://nas.local:8080"},
            None,
            r"from nas\.local, and here it came to 127\.0\.0\.1\.",
        ),
        (
            {"origin": "https://photos.example"},
            "https://darkroom.example",
            r"from photos\.example.* 127\.0\.0\.1 and darkroom\.example.* DARKROOM_PUBLIC_URL",
        ),
        ({"origin": "https://evil.example", "sec-fetch-site": "cross-site"}, None, r"from evil\.example"),
        ({"origin": "null"}, None, "Referrer-Policy: no-referrer"),
        ({"origin": "http://127.0.0.1:1", "sec-fetch-site": "same-site"}, None, "send it again\\.$"),
        ({"sec-fetch-site": "cross-site"}, None, "send it again\\.$"),
        ({"origin": f"http://{'x' * 300}"}, None, f" {'x' * 100}, "),
    ],
)
def test_which_hosts_differed_is_told(headers: dict[str, str], public: str | None, told: str) -> None:
    scope = {"type": "http", "scheme": "http", "path": "/", "query_string": b"", "server": ("127.0.0.1", 80)}
    sent = [(name.encode(), value.encode()) for name, value in {"host": "127.0.0.1:8321", **headers}.items()]
    with pytest.raises(Forbidden, match=told):
        refuse_other_sites(Request({**scope, "headers": sent}), public)


def test_headers_that_are_no_urls_are_nobodys(hung: Hung, live: Live) -> None:
    for headers in ({"origin": "http://["}, {"host": "["}):
        page(live.http.get("/jobs", headers=headers), 401)
    page(live.http.post("/sign-out", data={"csrf": "x"}, headers={"origin": "http://["}), 403)
    assert live.http.get("/v1/jobs", headers={"origin": "http://["}).status_code == 401
    with browser(hung.live) as client:
        for answer in (
            client.post("/sign-out", data={"csrf": "x"}, headers={"referer": "http://["}),
            client.get("/jobs", headers={"host": "["}),
        ):
            assert answer.status_code == 303
            assert parse_qs(urlsplit(answer.headers["location"]).query)["next"][0] in {"/", "/jobs"}


def test_the_api_takes_the_cookie_and_its_form_token(hung: Hung) -> None:
    image = f"/v1/outputs/{hung.kite['outputs'][0]['id']}"
    with hung.visitor("submit") as client, hung.visitor("submit") as other:
        for path in ("/v1/outputs", image, f"{image}/image?stream=1", f"{image}/thumbnail", "/v1/status"):
            assert client.get(path).status_code == 200, path
        assert client.head(f"{image}/image?stream=1").status_code == 200
        csrf, theirs = page(client.get("/")).csrf, page(other.get("/")).csrf
        for wrong in ({}, {"x-csrf-token": "x"}, {"x-csrf-token": theirs}):
            answer = client.post("/v1/jobs", json=IMAGEN, headers=wrong)
            assert (answer.status_code, answer.json()["code"]) == (403, "stale_form")
        assert client.post("/v1/jobs", json=IMAGEN, headers={"x-csrf-token": csrf}).status_code == 202
        # A bearer token counts for itself, whatever cookie comes along.
        stranger = {"authorization": "Bearer nobody-nobody-nobody"}
        assert client.get("/v1/outputs", headers=stranger).status_code == 401
        bearer = {"authorization": f"Bearer {SECRETS['submit']}"}
        assert client.post("/v1/jobs", json=IMAGEN, headers=bearer).status_code == 202
    with hung.visitor("read") as client:
        csrf = page(client.get("/")).csrf
        answer = client.post("/v1/jobs", json=IMAGEN, headers={"x-csrf-token": csrf})
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    "forge",
    [
        lambda cookie: cookie[:-3],
        lambda cookie: cookie[:20] + ("A" if cookie[20] != "A" else "B") + cookie[21:],
        lambda _: "",
        lambda _: "nonsense",
        lambda cookie: cookie * 9,
        lambda cookie: "." + cookie,
    ],
)
def test_a_forged_cookie_is_no_session(hung: Hung, forge: Callable[[str], str]) -> None:
    with hung.visitor("admin") as client:
        forged = forge(client.cookies[COOKIE])
    with browser(hung.live, **{COOKIE: forged}) as client:
        answer = client.get("/")
        assert (answer.status_code, urlsplit(answer.headers["location"]).path) == (303, "/sign-in")
        assert client.get("/v1/outputs").status_code == 401
        answer = client.post(
            "/sign-out", data={"csrf": "x"}, headers={"referer": f"{hung.live.url}/jobs?x=1"}
        )
        assert parse_qs(urlsplit(answer.headers["location"]).query)["next"] == ["/jobs?x=1"]


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    return Sessions(Access(TOKENS), [NEW], clock)


def kept(sessions: Sessions, token: str = SECRETS["read"]) -> str:
    """The cookie of a session that begins now."""
    answer = Response()
    sessions.keep(sessions.begin(token, secure=False), answer)
    return answer.headers["set-cookie"].partition(";")[0].partition("=")[2]


def test_a_session_ends_after_its_time_without_use(clock: Clock, sessions: Sessions) -> None:
    cookie = kept(sessions)
    clock.now += IDLE_S * 1000
    assert sessions.read(cookie).caller.name == "read-token"
    clock.now += 1000
    with pytest.raises(Unauthorized):
        sessions.read(cookie)


def test_a_session_in_use_ends_after_a_week(clock: Clock, sessions: Sessions) -> None:
    ends, cookie = clock.now + MOST_S * 1000, kept(sessions)
    while clock.now + IDLE_S * 1000 <= ends:
        clock.now += IDLE_S * 1000
        answer = Response()
        sessions.renew(sessions.read(cookie), answer)
        cookie = answer.headers["set-cookie"].partition(";")[0].partition("=")[2]
    clock.now = ends + 1000
    with pytest.raises(Unauthorized):
        sessions.read(cookie)


def test_a_cookie_is_renewed_only_once_it_is_old(clock: Clock, sessions: Sessions) -> None:
    session = sessions.begin(SECRETS["read"], secure=True)
    clock.now += (RENEW_S - 1) * 1000
    answer = Response()
    sessions.renew(session, answer)
    assert "set-cookie" not in answer.headers
    clock.now += 1000
    sessions.renew(session, answer)
    assert "secure" in answer.headers["set-cookie"].lower()


def test_a_clock_set_back_by_an_hour_ends_no_session(clock: Clock, sessions: Sessions) -> None:
    cookie = kept(sessions)
    clock.now -= 3600 * 1000
    assert sessions.read(cookie).caller.scope == "read"
    clock.now -= 1000
    with pytest.raises(Unauthorized):
        sessions.read(cookie)


def test_sessions_follow_the_tokens_in_the_settings(clock: Clock) -> None:
    cookie = kept(Sessions(Access(TOKENS), [NEW], clock))
    without = Sessions(Access(TOKENS[1:]), [NEW], clock)
    with pytest.raises(Unauthorized):
        without.read(cookie)
    raised = Sessions(Access([f"boss:admin:{SECRETS['read']}"]), [NEW], clock)
    assert raised.read(cookie).caller.scope == "admin"


def test_keys_are_changed_as_those_of_callbacks_are(clock: Clock) -> None:
    access = Access(TOKENS)
    before, both, after = (Sessions(access, keys, clock) for keys in ([OLD], [OLD, NEW], [NEW]))
    cookie, session = kept(before), before.begin(SECRETS["read"], secure=False)
    assert both.read(cookie).caller.scope == "read"
    assert both.proves(session, before.form_token(session))
    assert after.read(kept(both)).caller.scope == "read"
    with pytest.raises(Unauthorized):
        after.read(cookie)
    assert not after.proves(session, before.form_token(session))


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example", "//evil.example", "///evil.example", "/\\evil.example", "\\\\evil.example",
        "/\t/evil.example", "\n//evil.example", "javascript:alert(1)", "evil.example", "/v1/jobs",
        "/sign-out", "/sign-in?next=/", "", None, "/%0d%0aSet-Cookie:x=1\r\n", "/é", "/" + "a" * 3000,
        "/#//evil.example",
    ],
)  # fmt: skip
def test_signing_in_leads_nowhere_else(hung: Hung, elsewhere: str | None) -> None:
    assert safe_next(elsewhere) == "/"
    with browser(hung.live) as client:
        data = {"token": SECRETS["read"]} | ({} if elsewhere is None else {"next": elsewhere})
        assert client.post("/sign-in", data=data).headers["location"] == "/"


@pytest.mark.parametrize(
    "here", ["/", "/?q=a+b&cursor=x", "/outputs/01.0?q=%22a%22", "/jobs", "/submit?from=1"]
)
def test_signing_in_leads_back_to_pages_of_the_gallery(here: str) -> None:
    assert safe_next(here) == here


def test_without_tokens_it_is_open_on_loopback_only(live: Live) -> None:
    found = page(live.http.get("/"))
    assert not found.all("form", action="/sign-out")
    assert live.http.get("/sign-in").headers["location"] == "/"
    far = page(live.http.get("/", headers={"x-forwarded-for": "203.0.113.9"}), 401)
    assert "DARKROOM_API_TOKENS" in far.text
    page(live.http.get("/", headers={"host": "evil.example"}), 401)
    page(live.http.get("/", headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}), 401)
    # A link on another page, which somebody followed.
    followed = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    page(live.http.get("/", headers=followed))
    framed = {**followed, "sec-fetch-dest": "iframe"}
    page(live.http.get("/", headers=framed), 401)


def test_without_tokens_forms_have_a_token(live: Live) -> None:
    csrf = page(live.http.get("/")).csrf
    page(live.http.post("/sign-out", data={"csrf": "x"}), 403)
    page(live.http.post("/sign-out", data={"csrf": csrf}, headers={"sec-fetch-site": "cross-site"}), 403)
    assert live.http.post("/sign-out", data={"csrf": csrf}).status_code == 303


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{}", "application/json", 422),
        (b"csrf=%FF", "application/x-www-form-urlencoded", 422),
        (b"a=1&" * 300, "application/x-www-form-urlencoded", 422),
        (b"a" * 1_100_000, "application/x-www-form-urlencoded", 413),
    ],
)
def test_what_is_no_form_is_not_read(hung: Hung, content: bytes, kind: str, status: int) -> None:
    with browser(hung.live) as client:
        page(client.post("/sign-in", content=content, headers={"content-type": kind}), status)
