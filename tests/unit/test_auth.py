import pytest

from receiver.errors import Forbidden, SettingsError, Unauthorized
from receiver.http.auth import Access, Caller

TOKENS = ["reader:read:0123456789abcdef", "app:submit:fedcba9876543210", "boss:admin:a-token:with:colons-"]


def check(access: Access, headers: dict[str, str], *, scope: str, client: str | None) -> Caller:
    """Admit a request as far as its token reaches, as every route of the API does."""
    caller = access.who(headers, client=client)
    caller.must_reach(scope)
    return caller


@pytest.mark.parametrize(
    ("token", "scope", "name"),
    [
        ("0123456789abcdef", "read", "reader"),
        ("fedcba9876543210", "read", "app"),
        ("fedcba9876543210", "submit", "app"),
        ("a-token:with:colons-", "admin", "boss"),
    ],
)
def test_a_token_reaches_as_far_as_its_scope(token: str, scope: str, name: str) -> None:
    headers = {"authorization": f"Bearer {token}", "host": "x.example"}
    assert check(Access(TOKENS), headers, scope=scope, client="203.0.113.9").name == name


@pytest.mark.parametrize("scope", ["submit", "admin"])
def test_a_token_reaches_no_farther(scope: str) -> None:
    with pytest.raises(Forbidden):
        check(Access(TOKENS), {"authorization": "Bearer 0123456789abcdef"}, scope=scope, client="127.0.0.1")


@pytest.mark.parametrize(
    "header",
    [
        None, "", "Bearer", "Bearer ", "Bearer 0123456789abcde", "Bearer 0123456789abcdef0",
        "Basic 0123456789abcdef", "0123456789abcdef", "Bearer reader:read:0123456789abcdef",
        "Bearer \xff\udc80",
    ],
)  # fmt: skip
def test_anything_but_a_known_token_is_refused(header: str | None) -> None:
    with pytest.raises(Unauthorized):
        check(Access(TOKENS), {"authorization": header} if header else {}, scope="read", client="127.0.0.1")


@pytest.mark.parametrize(
    ("client", "host"),
    [("127.0.0.1", "127.0.0.1:8321"), ("::1", "[::1]:8321"), ("127.0.0.1", "localhost:80")],
)
def test_without_tokens_loopback_may_do_everything(client: str, host: str) -> None:
    assert check(Access([]), {"host": host}, scope="admin", client=client).scope == "admin"


@pytest.mark.parametrize(
    ("client", "headers"),
    [
        ("192.168.1.5", {}),
        (None, {}),
        # A proxy, a tunnel, or a page in a browser: the connection is local, the request is not.
        ("127.0.0.1", {"host": ""}),
        ("127.0.0.1", {"host": "tunnel.example"}),
        ("127.0.0.1", {"host": "localhost.evil.example"}),
        ("127.0.0.1", {"host": "127.0.0.1.evil.example"}),
        ("127.0.0.1", {"x-forwarded-for": "203.0.113.9"}),
        ("127.0.0.1", {"x-forwarded-proto": "https"}),
        ("127.0.0.1", {"forwarded": "for=203.0.113.9"}),
        ("127.0.0.1", {"origin": "https://evil.example"}),
        ("127.0.0.1", {"origin": "null"}),
        ("127.0.0.1", {"origin": "http://["}),
        ("127.0.0.1", {"sec-fetch-site": "cross-site"}),
        ("127.0.0.1", {"sec-fetch-site": "same-site"}),
    ],
)
def test_without_tokens_others_may_do_nothing(client: str | None, headers: dict[str, str]) -> None:
    with pytest.raises(Unauthorized):
        check(Access([]), {"host": "localhost:8321"} | headers, scope="read", client=client)


@pytest.mark.parametrize("headers", [{"origin": "http://localhost:8321"}, {"sec-fetch-site": "same-origin"}])
def test_a_page_of_our_own_may_ask(headers: dict[str, str]) -> None:
    caller = check(Access([]), {"host": "localhost:8321"} | headers, scope="read", client="127.0.0.1")
    assert caller.name == "loopback"


@pytest.mark.parametrize(
    ("host", "public_url", "named"),
    [
        ("0.0.0.0", None, "DARKROOM_HOST"),
        ("127.0.0.1", "https://darkroom.example.com", "DARKROOM_PUBLIC_URL"),
    ],
)
def test_an_open_api_is_not_exposed(host: str, public_url: str | None, named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        Access([]).refuse_exposure(host, public_url)
    Access(TOKENS).refuse_exposure(host, public_url)
    Access([]).refuse_exposure("127.0.0.1", "http://127.0.0.1:8321")
    assert "0123456789abcdef" not in repr(vars(Access(TOKENS))), "tokens are not kept as they are"


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (["app:read:0123456789abcdef", "app:admin:fedcba9876543210"], "name app is used twice"),
        (["one:read:0123456789abcdef", "two:admin:0123456789abcdef"], "token of one is used twice"),
        (["app:read"], "token of app is too short"),
        (["a-token-alone-without-a-name"], "name:scope:token"),
        ([""], "name:scope:token"),
        ([":read:0123456789abcdef"], "name:scope:token"),
        (["app:write:0123456789abcdef"], "scope read, submit or admin"),
        (["app:read:0123456789abcde"], "token of app is too short"),
        (["app:read:"], "token of app is too short"),
        (["app:read:0123456789 abcdef"], "a header cannot carry"),
        (["app:read:0123456789abcdéf"], "a header cannot carry"),
    ],
)
def test_tokens_that_cannot_be_used_are_refused(tokens: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        Access(tokens)
    assert "0123456789" not in str(caught.value)
