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


def test_json_loses_secrets_at_every_depth() -> None:
    value = {
        "apiKey": "unknown", "webhook_secret": "s", "nested": [{"u": "https://h.example/i?s=1"}],
        "n": 12345678901234567890, "none": None, "api_key": "",
    }  # fmt: skip
    assert redactor.value(value) == {
        "apiKey": MASK, "webhook_secret": MASK, "nested": [{"u": f"https://h.example/i?{MASK}"}],
        "n": 12345678901234567890, "none": None, "api_key": "",
    }  # fmt: skip


def test_a_body_that_is_no_text_stays() -> None:
    assert [redactor.body(body) for body in (b"\xff\xfe\x00", b"")] == [b"\xff\xfe\x00", b""]
    assert "afk" not in repr(redactor)
