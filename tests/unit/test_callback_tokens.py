import hashlib
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from itsdangerous import TimestampSigner, URLSafeTimedSerializer
from itsdangerous.encoding import base64_encode

from receiver.callbacks.tokens import CLOCK_SLACK_S, SALT, CallbackTokens
from receiver.errors import BadToken

JOB = "019aa000-0000-7000-8000-000000000001"
NOW_S = 1_795_000_000
DAY_S = 86_400
URL_SAFE = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."


def tokens(*keys: str, at: float = NOW_S, max_age_s: int = DAY_S) -> CallbackTokens:
    return CallbackTokens(keys or ("first key",), max_age_s=max_age_s, clock=lambda: int(at * 1000))


def reason(read: Callable[[], Any]) -> str:
    with pytest.raises(BadToken) as caught:
        read()
    return caught.value.reason


@given(
    st.from_regex(r"[a-z][a-z0-9-]{0,31}", fullmatch=True),
    st.text("abcdef0123456789-", min_size=1, max_size=64),
)
@example("a" * 32, "a" * 64)  # would be compressed
def test_a_token_gives_its_job_back(gateway: str, job_id: str) -> None:
    token = tokens().make(gateway, job_id)
    assert tokens().read(token, gateway) == (job_id, 1)
    assert reason(lambda: tokens().read(token, f"{gateway}-other")) == "foreign"
    assert len(token) < 300
    assert set(token) <= set(URL_SAFE)


@pytest.mark.parametrize("at", [0, -44, -43, -1])
def test_every_other_spelling_is_refused(at: int) -> None:
    # The last character has two bits that decoding drops.
    token = list(tokens().make("apiframe", JOB))
    for other in set(URL_SAFE) - {token[at]}:
        changed = "".join([*token[:at], other, *token[at:][1:]])
        assert reason(partial(tokens().read, changed, "apiframe")) == "forged"


@given(st.data())
def test_any_added_or_missing_character_is_refused(data: st.DataObject) -> None:
    token = tokens().make("apiframe", JOB)
    at = data.draw(st.integers(0, len(token) - 1))
    extra = data.draw(st.text(min_size=1, max_size=3))
    assert reason(lambda: tokens().read(token[:at] + token[at + 1 :], "apiframe")) == "forged"
    assert reason(lambda: tokens().read(token[:at] + extra + token[at:], "apiframe")) == "forged"


@given(st.one_of(st.text(), st.text(URL_SAFE), st.from_regex(r"[\w-]{0,200}\.[\w-]{0,40}\.[\w-]{0,60}")))
@example("x" * 5_000_000)
@example("a.b.c")
@example("..")
@example("\x00")
@example("\ud800")
@example("é.é.é")
@example("x.x." + "\n")
@example(f"x.{'_' * 200}.x")
def test_hostile_tokens_are_bad_tokens(token: str) -> None:
    assert reason(lambda: tokens().read(token, "apiframe")) == ("forged" if token else "missing")


def plain(key: str, salt: str) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(key, salt=salt, signer_kwargs={"digest_method": hashlib.sha256})


def test_a_token_is_an_ordinary_itsdangerous_token() -> None:
    assert plain("first key", SALT).loads(tokens().make("apiframe", JOB)) == ["apiframe", JOB]
    other = plain("first key", "darkroom.session.v1").dumps(["apiframe", JOB])
    assert reason(lambda: tokens().read(other, "apiframe")) == "forged", "it is for another purpose"
    assert "first key" not in repr(tokens())
    with pytest.raises(ValueError, match="299"):
        tokens().make("apiframe", "x" * 300)


@pytest.mark.parametrize(
    "payload", [[], ["apiframe"], ["apiframe", 7], ["apiframe", JOB, ""], {"apiframe": JOB}, "x", 7]
)
def test_a_signature_over_something_else_is_refused(payload: object) -> None:
    signed = plain("first key", SALT).dumps(payload)
    assert reason(lambda: tokens().read(signed, "apiframe")) == "forged"


def test_a_compressed_payload_is_not_decompressed() -> None:
    bomb = b"." + base64_encode(zlib.compress(b'["' + b"a" * 100_000 + b'",""]', 9))
    signer = TimestampSigner("first key", salt=SALT, digest_method=hashlib.sha256)
    signed = signer.sign(bomb).decode()
    assert len(signed) < 300
    assert reason(lambda: tokens().read(signed, "apiframe")) == "forged"


def test_keys_rotate() -> None:
    old = tokens("old").make("apiframe", JOB)
    both = tokens("old", "new")
    assert both.read(old, "apiframe") == (JOB, 1)
    new = both.make("apiframe", JOB)
    assert tokens("new").read(new, "apiframe") == (JOB, 1)
    assert reason(lambda: tokens("old").read(new, "apiframe")) == "forged"
    assert reason(lambda: tokens("new", "newer").read(old, "apiframe")) == "forged"


@pytest.mark.parametrize(
    ("age_s", "expected"),
    [
        (0, None),
        (DAY_S, None),
        (DAY_S + 0.999, None),
        (DAY_S + 1, "expired"),
        # The clock was set back, or another replica's is slow.
        (-1, None),
        (-CLOCK_SLACK_S, None),
        (-CLOCK_SLACK_S - 1, "expired"),
    ],
)
def test_a_token_has_its_time(age_s: float, expected: str | None) -> None:
    token = tokens().make("apiframe", JOB)
    later = tokens(at=NOW_S + age_s)
    if expected is None:
        assert later.read(token, "apiframe") == (JOB, 1)
    else:
        assert reason(lambda: later.read(token, "apiframe")) == expected


@pytest.mark.parametrize("keys", [(), ("",), ("good", ""), "a bare text"])
def test_keys_that_would_not_protect_are_refused(keys: Any) -> None:
    with pytest.raises(ValueError, match="secret_keys"):
        CallbackTokens(keys, max_age_s=1, clock=lambda: 0)
