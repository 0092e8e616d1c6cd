from __future__ import annotations

import pytest

from receiver.access import Access
from receiver.errors import Forbidden, Unauthorized

TOKENS = ["reader:read:0123456789abcdef", "app:submit:fedcba9876543210", "boss:admin:a-token:with:colons-"]


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
    caller = Access(TOKENS).check(f"Bearer {token}", scope=scope, client="203.0.113.9", host="x.example")
    assert caller.name == name


@pytest.mark.parametrize("scope", ["submit", "admin"])
def test_a_token_reaches_no_farther(scope: str) -> None:
    with pytest.raises(Forbidden):
        Access(TOKENS).check("Bearer 0123456789abcdef", scope=scope, client="127.0.0.1", host="localhost")


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
        Access(TOKENS).check(header, scope="read", client="127.0.0.1", host="localhost")


@pytest.mark.parametrize(
    ("client", "host"),
    [("127.0.0.1", "127.0.0.1:8321"), ("::1", "[::1]:8321"), ("127.0.0.1", "localhost:80")],
)
def test_without_tokens_loopback_may_do_everything(client: str, host: str) -> None:
    assert Access([]).check(None, scope="admin", client=client, host=host).scope == "admin"


@pytest.mark.parametrize(
    ("client", "host"),
    [
        ("192.168.1.5", "localhost"),
        (None, "localhost"),
        ("127.0.0.1", None),
        # A tunnel, or a web page whose name was pointed here: the connection is local, the name is not.
        ("127.0.0.1", "tunnel.example"),
        ("127.0.0.1", "localhost.evil.example"),
        ("127.0.0.1", "127.0.0.1.evil.example"),
    ],
)
def test_without_tokens_nobody_else_may_do_anything(client: str | None, host: str | None) -> None:
    with pytest.raises(Unauthorized):
        Access([]).check(None, scope="read", client=client, host=host)


def test_tokens_are_not_kept_as_they_are() -> None:
    access = Access(TOKENS)
    assert "0123456789abcdef" not in repr(vars(access))
