"""A secret does not get through in any spelling, and nothing else is lost."""

import json
import re
import string
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from receiver import redaction
from receiver.callbacks.tokens import CallbackTokens
from receiver.redaction import MASK, Redactor

JOB = "019aa000-0000-7000-8000-000000000001"
TOKENS = CallbackTokens(["a key of sixteen or more"], max_age_s=60, clock=lambda: 1_795_000_000_000)
TOKEN = TOKENS.make("apiframe", JOB)
URL = f"https://archive.example/callbacks/apiframe/{TOKEN}"

SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "in a URL": lambda text: quote(text, safe=""),
    "in a URL, small": lambda text: re.sub(
        "%..", lambda found: found[0].lower(), quote(text, safe="", encoding="ascii", errors="ignore")
    ),
    "in a URL in a URL": lambda text: quote(quote(text, safe=""), safe=""),
    "wholly in percents": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "in JSON": lambda text: json.dumps(text)[1:-1],
    "in JSON with slashes": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "in JSON in JSON": lambda text: json.dumps(json.dumps(text))[3:-3],
    "in JSON with slashes twice": lambda text: json.dumps(json.dumps(text)[1:-1].replace("/", "\\/"))[1:-1],
    "wholly in escapes": lambda text: "".join(f"\\u{ord(sign):04x}" for sign in text),
    "wholly in escapes, large": lambda text: "".join(f"\\u{ord(sign):04X}" for sign in text),
}
IN_JSON = {name: spell for name, spell in SPELLINGS.items() if "JSON" in name or "escapes" in name}

SECRET = st.text(st.sampled_from(string.printable[:94] + "/+=&\\\"'%"), min_size=8, max_size=40).filter(
    # One that reads otherwise once it was decoded is another text then.
    lambda text: (
        text not in MASK and unquote(text) == text and not re.search(r"\\[\"\\/bfnrtu]|\\$|^\\", text)
    )
)
FEWER = settings(max_examples=30, deadline=None)
AROUND = st.text(string.ascii_letters + " .,:-", max_size=12)


def readings(text: str) -> Iterator[str]:
    """What somebody who wanted the secret would read a text as."""
    for _ in range(3):
        yield text
        yield unquote(text)
        yield unquote(unquote(text))
        with suppress(ValueError):
            text = json.loads(f'"{text}"')


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in value if isinstance(value, list) else []:
        yield from texts(inner)
    for name, inner in value.items() if isinstance(value, dict) else []:
        yield name
        yield from texts(inner)


def trees(leaf: str) -> st.SearchStrategy[Any]:
    """JSON values with `leaf` somewhere, as a value or as a name."""
    holders = st.just(leaf) | st.just({leaf: 1})
    return st.recursive(
        holders,
        lambda inner: (
            st.lists(inner | st.integers() | AROUND, min_size=1, max_size=3).filter(
                lambda found: leaf in json.dumps(found)
            )
            | st.dictionaries(AROUND, inner, min_size=1, max_size=3)
        ),
        max_leaves=4,
    )


@pytest.mark.parametrize("spelling", SPELLINGS)
@FEWER
@given(data=st.data(), secret=SECRET, before=AROUND, after=AROUND)
def test_no_spelling_of_a_secret_passes_a_value(
    spelling: str, data: st.DataObject, secret: str, before: str, after: str
) -> None:
    spelled = SPELLINGS[spelling](secret)
    tree = json.loads(
        json.dumps(data.draw(trees("MARK"))).replace("MARK", json.dumps(before + spelled + after)[1:-1])
    )
    kept = Redactor([secret]).value(tree)
    assert [text for text in texts(kept) if any(secret in reading for reading in readings(text))] == []
    assert MASK in json.dumps(kept)


@FEWER
@given(data=st.data(), secret=SECRET)
def test_a_secret_of_mixed_spellings_is_found(data: st.DataObject, secret: str) -> None:
    assume("\\" not in secret)  # it would escape what follows
    ways = [SPELLINGS[name] for name in ("as it is", "wholly in percents", "wholly in escapes", "in JSON")]
    ways.append(lambda sign: sign if sign.isalnum() or sign == "_" else f"\\{sign}")
    spelled = "".join(data.draw(st.sampled_from(ways))(sign) for sign in secret)
    assert Redactor([secret]).text(f"a {spelled} b") == f"a {MASK} b"


@pytest.mark.parametrize("spelling", IN_JSON)
@FEWER
@given(data=st.data(), secret=SECRET)
def test_no_spelling_of_a_secret_passes_a_body(spelling: str, data: st.DataObject, secret: str) -> None:
    tree = json.dumps(data.draw(trees("MARK")))
    assume(secret not in tree)
    kept = json.loads(Redactor([secret]).body(tree.replace("MARK", IN_JSON[spelling](secret)).encode()))
    assert [text for text in texts(kept) if any(secret in reading for reading in readings(text))] == []
    # Once decoded, what is left is what was there but for the secret.
    assert json.dumps(kept).replace("\\\\", "") == tree.replace("MARK", MASK)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("path", ["/callbacks/apiframe/", "/Callbacks/APIFRAME/", "/elsewhere?to=", "/"])
def test_no_spelling_of_our_own_token_gets_through(spelling: str, path: str) -> None:
    redactor = Redactor()
    url = SPELLINGS[spelling](f"https://archive.example{path}{TOKEN}")
    signature = TOKEN.rpartition(".")[2]
    for told in (
        redactor.text(f"no answer at {url}"),
        *texts(redactor.value({"webhook": {"url": url, url: [url]}})),
        redactor.body(json.dumps({"webhook": url}).encode()).decode(),
    ):
        assert not any(signature in reading or TOKEN in reading for reading in readings(told))


def test_a_token_cut_or_changed_is_masked_in_place() -> None:
    for token in (TOKEN[:30], TOKEN.upper(), TOKEN.replace(".", "%2E"), "x"):
        assert Redactor().text(f"see /callbacks/apiframe/{token}.") == f"see /callbacks/apiframe/{MASK}"
        assert Redactor().text(f"%2Fcallbacks%2Fapiframe%2F{token}%2F") == (
            f"%2Fcallbacks%2Fapiframe%2F{MASK}%2F"
        )


def test_somebody_elses_token_in_a_link_is_left_alone() -> None:
    other = "https://cdn.example/i/WyJpbWciLDEyMzQ1Njc4XQ.aGVsbG8.c2lnbmF0dXJlLW9mLXNvbWVib2R5/1.png"
    assert Redactor().body(other.encode()) == other.encode()
    assert Redactor().text(other) == other


def test_the_worked_example_is_true() -> None:
    lines = [line.strip() for line in str(redaction.__doc__).splitlines()]
    rows = [line.split("   ", 1) for line in lines if "   " in line]
    assert len(rows) == 4
    for text, kept in rows:
        assert Redactor(["s3cr/t"]).text(text) == kept.strip()


LEONARDO = {
    "type": "image_generation.complete",
    "data": {"object": {"id": "x", "images": [{"url": "https://cdn.example/1.png?X-Amz-Signature=abc"}],
                        "apiKey": {"webhookCallbackUrl": URL, "webhookCallbackApiKey": "theirs-12345"}}},
}  # fmt: skip
MODELSLAB = {"status": "success", "key": "Zk3v9qLm2x7Rt5Yb1N", "meta": {"key": "images/1.png", "prompt": "a"}}
OTHERS = {
    "webhook_secret": "unknown-1", "Authorization": "Bearer unknown-2", "x-api-key": "unknown-3",
    "headers": [{"authorization": ["unknown-4"], "cookie": "unknown-5"}], "token": "unknown-6",
    "clientSecret": "unknown-7", "access_token": "unknown-8", "password": "unknown-9",
    "said": 'it sent {"apiKey": "unknown-10", "secret":"unknown-11"} and Bearer unknown-12-more-of-it',
    "n": {"token": 0, "secret": False, "api_key": None, "apiKey": "", "completion_tokens": 17},
}  # fmt: skip


def test_echoed_keys_are_masked_in_a_value() -> None:
    redactor = Redactor()
    kept = redactor.value(LEONARDO)["data"]["object"]
    assert kept == {"id": "x", "images": [{"url": f"https://cdn.example/1.png?{MASK}"}], "apiKey": MASK}
    assert redactor.value(MODELSLAB) == {**MODELSLAB, "key": MASK}
    kept = redactor.value(OTHERS)
    assert "unknown" not in json.dumps(kept)
    assert kept["n"] == OTHERS["n"]


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n", " :\t")])
def test_echoed_keys_are_masked_in_a_body(separators: tuple[str, str]) -> None:
    redactor = Redactor()
    kept = json.loads(redactor.body(json.dumps(LEONARDO, separators=separators).encode()))["data"]["object"]
    assert kept["images"] == [{"url": "https://cdn.example/1.png?X-Amz-Signature=abc"}]
    assert kept["apiKey"]["webhookCallbackApiKey"] == MASK
    assert TOKEN not in json.dumps(kept)
    raw = json.dumps(MODELSLAB, separators=separators).encode()
    assert json.loads(redactor.body(raw)) == {**MODELSLAB, "key": MASK}
    kept = json.loads(redactor.body(json.dumps(OTHERS, separators=separators).encode()))
    assert "unknown" not in json.dumps(kept)
    assert kept["n"] == OTHERS["n"]


@pytest.mark.parametrize(
    "text",
    [
        "see https%3A%2F%2Fcdn.example%2F1.png%3FX-Amz-Signature%3Dhidden",
        "see https://cdn.example/1.png%3fX-Amz-Signature=hidden",
        "see HTTPS://cdn.example/1.png?X-Amz-Signature=hidden",
        '{"url": "https:\\/\\/cdn.example\\/1.png?X-Amz-Signature=hidden"}',
        '{"url": "https://cdn.example/1.png\\u003fX-Amz-Signature=hidden"}',
        "cdn.example/1.png?a=b&X-Amz-Signature=hidden&X-Amz-Credential=hidden-too",
        "GET /1.png?api_key=hidden HTTP/1.1",
        "key=hidden&token=hidden",
    ],
)
def test_a_presigned_link_gets_through_in_no_spelling(text: str) -> None:
    assert "hidden" not in Redactor().text(text)


@pytest.mark.parametrize(
    "text",
    [
        "The standard bearer carrying 24 flags, a bearer of unbelievably-long-words",
        "a secret garden; its password is spelled out, the key to it: a token of love",
        "Whats the key? 100% sure \\o/ C:\\new\\users 50%2 %zz \\u12",
        "a kitchen, 3:2, https://example.com/a#b, WyJ a.b.c Wyoming.1234.abcdefghijklmnopqrstuvwxyz",
        "https://cdn.example/callbacks.png and callbacks/1",
        "寿司 🍣 naïve",
        "is that so? yes",
    ],
)
def test_a_prompt_stays_as_it_was_written(text: str) -> None:
    redactor = Redactor(["afk_secret_key"])
    assert redactor.text(text) == text
    raw = json.dumps({"prompt": text, "a": text}).encode()
    assert redactor.body(raw) == raw


@given(st.text())
@example("\\u0061" * 3 + "\\")
def test_a_body_without_secrets_is_never_changed(text: str) -> None:
    raw = json.dumps(text).encode()
    assert Redactor(["afk_secret_key"]).body(raw) == raw or re.search("callbacks|key|bearer", text, re.I)


PIECES = (
    *("key", "Api-Key", "token", "id_token", "secret", "sig", "signature", "Bearer", "cookie", "callbacks"),
    *('"', ":", "=", " ", "/", "?", "&", "https:", "HTTP:", "Wy", "WyJ", ".", "{", "ToKen"),
    *(
        "\u017fecret",
        "\u0130d",
        "\u212aey",
        "é",
        "s3cr/t-of-ours",
        "S3CR/T-OF-OURS",
        "0123456789abcdefghij",
        "apiframe",
    ),
)


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_a_cheap_look_overlooks_nothing(text: str) -> None:
    redactor = Redactor(["s3cr/t-of-ours"])
    closely = "% " + text  # of which some has more than one spelling
    if redactor.secrets(text) == text:
        assert redactor.secrets(closely) == closely
    if redactor.text(text) == text:
        assert redactor.text(closely) == closely


def test_what_is_not_json_becomes_text_without_secrets() -> None:
    redactor = Redactor(["afk_secret_key"])
    assert "afk" not in repr(redactor)
    assert [redactor.body(body) for body in (b"\xff\xfe\x00", b"")] == [b"\xff\xfe\x00", b""]
    assert redactor.value(ValueError("no afk_secret_key")) == f"no {MASK}"
    assert redactor.value({"raw": b"\xff afk_secret_key"}) == {"raw": f"\ufffd {MASK}"}
    assert redactor.value({("a", "afk_secret_key")}) == [["a", MASK]]


@pytest.mark.parametrize("secret", ["", "short", "\\\\\\\\\\\\\\\\", "%5C%5C%5C%5C"])
def test_what_is_too_short_for_a_secret_hides_nothing(secret: str) -> None:
    assert Redactor([secret]).text("a\\b short \\") == "a\\b short \\"


def test_of_two_secrets_the_longer_goes_whole() -> None:
    kept = Redactor(["afk_key_1", "afk_key_1/and-more"]).text("afk_key_1%2Fand-more afk_key_1")
    assert kept == f"{MASK} {MASK}"


def test_a_secret_outside_ascii_is_found() -> None:
    redactor = Redactor(["пароль-é"])
    for spelled in ("пароль-é", quote("пароль-é"), json.dumps("пароль-é")[1:-1]):
        assert redactor.text(f"a {spelled} b") == f"a {MASK} b"


HOSTILE = {
    "backslashes": "\\" * 2_000_000,
    "escaped letters": "\\u0061" * 300_000,
    "percents": "%25" * 600_000,
    "percents of percents": "%" + "25" * 1_000_000,
    "beginnings of tokens": "WyJ" * 600_000,
    "beginnings of tokens apart": "WyJ." * 500_000,
    "callbacks": "/callbacks/a/" * 150_000,
    "callbacks without end": "/callbacks/" + "a" * 2_000_000,
    "links": "https:" * 300_000,
    "links apart": "https: " * 300_000,
    "names": 'apikey":"' * 200_000,
    "open names": '"secret":"' + "a" * 2_000_000,
    "bearers": "bearer " * 300_000,
    "a long bearer": "bearer " + "a" * 2_000_000,
    "keys": '"key":"' * 250_000,
    "parameters": "secret=" * 250_000,
    "beginnings of a secret": "afk_secret_ke" * 150_000,
    "the secret": "afk_secret_key%" * 100_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_takes_no_longer_than_its_length(text: str) -> None:
    redactor = Redactor(["afk_secret_key", "x/y+z=&%" * 4])
    began = time.process_time()
    redactor.text(text)
    redactor.body(text.encode())
    assert time.process_time() - began < 5
