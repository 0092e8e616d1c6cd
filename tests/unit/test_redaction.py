from __future__ import annotations

import pytest

from receiver import redaction
from receiver.redaction import MASK, Redactor

redactor = Redactor(["afk_secret_key", "afk_secret_key_longer", "with space/+"])


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a red kite", "a red kite"),
        ("key afk_secret_key.", f"key {MASK}."),
        ("afk_secret_key_longer", MASK),
        ("q=with%20space%2F%2B", f"q={MASK}"),
        ("https://me.example/callbacks/apiframe/ab.cd-ef_", f"https://me.example/callbacks/apiframe/{MASK}"),
        ("https://cdn.example/1.png?X-Sig=abc&x=1 and", f"https://cdn.example/1.png?{MASK} and"),
        ("is that so? yes", "is that so? yes"),
    ],
)
def test_text_loses_its_secrets_only(text: str, kept: str) -> None:
    assert redactor.text(text) == kept


def test_the_worked_example_is_true() -> None:
    lines = [line.strip() for line in str(redaction.__doc__).splitlines()]
    rows = [line.split("   ", 1) for line in lines if "   " in line]
    assert len(rows) == 4
    for text, kept in rows:
        assert Redactor(["s3cr/t"]).text(text) == kept.strip()


def test_json_loses_them_at_every_depth_and_in_fields_named_for_them() -> None:
    value = {
        "apiKey": "unknown", "webhook_secret": "s", "nested": [{"u": "https://h.example/i?s=1"}],
        "n": 12345678901234567890, "none": None, "api_key": "",
    }  # fmt: skip
    assert redactor.value(value) == {
        "apiKey": MASK, "webhook_secret": MASK, "nested": [{"u": f"https://h.example/i?{MASK}"}],
        "n": 12345678901234567890, "none": None, "api_key": "",
    }  # fmt: skip


@pytest.mark.parametrize("body", [b'{"a": "b"}', b"\xff\xfe\x00", '{"p": "寿司 🍣"}'.encode(), b""])
def test_a_body_without_secrets_stays_byte_for_byte(body: bytes) -> None:
    assert redactor.body(body) == body


def test_a_body_loses_our_own_token_however_it_is_escaped() -> None:
    plain = b'{"webhookUrl": "https://me.example/callbacks/apiframe/tok.en-1"}'
    escaped = plain.replace(b"/", b"\\/")
    assert b"tok.en-1" not in redactor.body(plain)
    assert b"tok.en-1" not in redactor.body(escaped)


def test_a_hostile_text_is_read_in_one_go() -> None:
    hostile = "http:" * 400_000
    assert redactor.text(hostile) == hostile


def test_it_does_not_show_what_it_hides() -> None:
    assert "afk" not in repr(redactor)
