"""The query language: what each text asks for, what is refused, and how facets come and go."""

# ruff: noqa: RUF001 - full-width characters are what is tried

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from receiver.api.query_params import JobQuery, OutputQuery
from receiver.errors import InvalidRequest
from receiver.http.query import read_query
from receiver.query.hints import name_hints, word_hints
from receiver.query.language import GUIDE, KEYS, MAX_CHARS, MAX_WORDS, read_query_text, with_key
from receiver.query.tokenizer import plain_or_quoted, quoted, split
from storage.models import Status
from storage.search.filters import SearchFilter

NOW = 1_795_000_000_000
DAY = 86_400_000
NOVEMBER_22 = 1_795_305_600_000


def read(text: str) -> SearchFilter:
    return read_query_text(text, NOW)


def wanted(*words: str, **rest: Any) -> SearchFilter:
    return SearchFilter(words=words, **rest)


WORDS = {
    "": wanted(),
    "red kite": wanted("red", "kite"),
    "red red kite": wanted("red", "kite"),
    '"red kite"': wanted("red kite"),
    '"red kite': wanted("red kite"),
    '"red kite  ': wanted("red kite"),
    '"': wanted(),
    '"""': wanted('"'),
    '"say ""cheese"" now"': wanted('say "cheese" now'),
    'a 12" disc': wanted("a", '12"', "disc"),
    '"red"kite': wanted("red", "kite"),
    "“red kite” grey": wanted("red kite", "grey"),
    "„red kite“ grey": wanted("red kite", "grey"),
    "“red kite": wanted("red kite"),
    "“the \"red\" kite”": wanted('the "red" kite'),
    "＂red kite＂": wanted("red kite"),
    "「寿司」": wanted("「寿司」"),
    "'red kite'": wanted("'red", "kite'"),
    "寿司　ラーメン": wanted("寿司", "ラーメン"),
    "👩🏽‍🚀 🇯🇵": wanted("👩🏽‍🚀", "🇯🇵"),
    "-cartoon": wanted(without=("cartoon",)),
    '-"oil painting" kite': wanted("kite", without=("oil painting",)),
    "－cartoon": wanted(without=("cartoon",)),
    "kite - grey": wanted("kite", "-", "grey"),
    "--ar 16:9 --v 6": wanted("--ar", "16:9", "--v", "6"),
    '-"--ar"': wanted(without=("--ar",)),
    "semi-realistic": wanted("semi-realistic"),
    "-16:9": wanted(without=("16:9",)),
    "kite OR grey AND (NOT red) NEAR* ^x": wanted("(NOT", "red)", "NEAR", "^x", either=(("kite", "grey"),)),
    'a OR "b c" OR d* e OR f': wanted(either=(("a", "b c", "d"), ("e", "f"))),
    "a OR a": wanted("a"),
    "red AND kite AND": wanted("red", "kite", "AND"),
    "OR a OR": wanted("OR", "a"),
    "a OR OR b": wanted("b", either=(("a", "OR"),)),
    "a OR -b": wanted("a", "OR", without=("b",)),
    "model:a OR kite": wanted("OR", "kite", model="a"),
    'a "OR" b or c': wanted("a", "OR", "b", "or", "c"),
    'kite* -cartoon* "red*" **bold** a*b é*': wanted(
        "kite", "red*", "**bold**", "a*b", "é", without=("cartoon",)
    ),
    "https://example.com/a?b=c note: style:: :seed seeds:5": wanted(
        "https://example.com/a?b=c", "note:", "style::", ":seed", "seeds:5"
    ),
    "颜色：红 种子:5": wanted("颜色：红", "种子:5"),
    '"seed:5"': wanted("seed:5"),
    '-"seed:5"': wanted(without=("seed:5",)),
    "100% a_b c\\d *": wanted("100%", "a_b", "c\\d", "*"),
    "a\x01b c\x1fd": wanted("a\x01b", "c", "d"),
    "x" * MAX_CHARS: wanted("x" * MAX_CHARS),
    " ".join(map(str, range(MAX_WORDS))): wanted(*map(str, range(MAX_WORDS))),
}  # fmt: skip
KEYED = {
    "model:imagen-4": wanted(model="imagen-4"),
    "MODEL:Imagen-4": wanted(model="Imagen-4"),
    "kite model:imagen-4 red": wanted("kite", "red", model="imagen-4"),
    'model:"my model"': wanted(model="my model"),
    "model:“my model”": wanted(model="my model"),
    "model：imagen-4": wanted(model="imagen-4"),
    "ｓｅｅｄ：42　寿司": wanted("寿司", seed="42"),
    "model:a:b": wanted(model="a:b"),
    "gateway:APIframe -gateway:API-in-One": wanted(gateway="apiframe", excluded=(("gateway", "api-in-one"),)),
    'model:a"b"': wanted(model='a"b"'),
    "seed:00042": wanted(seed="00042"),
    "seed:-1": wanted(seed="-1"),
    "tag:campaign=spring": wanted(tags={"campaign": "spring"}),
    'tag:campaign="spring sale"': wanted(tags={"campaign": "spring sale"}),
    'tag:"campaign=spring sale"': wanted(tags={"campaign": "spring sale"}),
    "tag：campaign＝春": wanted(tags={"campaign": "春"}),
    "tag:a=b tag:c=d=e": wanted(tags={"a": "b", "c": "d=e"}),
    "status:Failed": wanted(status=Status.FAILED),
    "is:Short": wanted(mark="short"),
    "-is:short": wanted(excluded=(("is", "short"),)),
    "type:png": wanted(media_type="image/png"),
    "type:JPG": wanted(media_type="image/jpeg"),
    "type:image/webp": wanted(media_type="image/webp"),
    "size:1024x768": wanted(between={"width": (1024, 1024), "height": (768, 768)}),
    "size:1024×768": wanted(between={"width": (1024, 1024), "height": (768, 768)}),
    "width:1024": wanted(between={"width": (1024, 1024)}),
    "width:=1024": wanted(between={"width": (1024, 1024)}),
    "width:>=1024": wanted(between={"width": (1024, None)}),
    "width:≥1024": wanted(between={"width": (1024, None)}),
    "width：＞＝１０２４": wanted(between={"width": (1024, None)}),
    "width:>1024": wanted(between={"width": (1025, None)}),
    "height:<=1024": wanted(between={"height": (None, 1024)}),
    "height:512..1024": wanted(between={"height": (512, 1024)}),
    'width:">= 512"': wanted(between={"width": (512, None)}),
    "width:>=512 height:<512": wanted(between={"width": (512, None), "height": (None, 511)}),
    "bytes:1000": wanted(between={"bytes": (1000, 1000)}),
    "bytes:>1.5MB": wanted(between={"bytes": (1_500_001, None)}),
    "bytes:<64KiB": wanted(between={"bytes": (None, 65_535)}),
    "bytes:<=1.3kib": wanted(between={"bytes": (None, 1331)}),
    "bytes:>=1.3KiB": wanted(between={"bytes": (1332, None)}),
    "bytes:1MB..2GB": wanted(between={"bytes": (1_000_000, 2_000_000_000)}),
    "since:7d": wanted(since=NOW - 7 * DAY),
    "until:12h": wanted(until=NOW - DAY // 2),
    "since:2026-11-22 until:2026-11-23": wanted(since=NOVEMBER_22, until=NOVEMBER_22 + DAY),
    "since:2026-11-22T01:00:00+01:00": wanted(since=NOVEMBER_22),
    'since:"2026-11-22 00:00"': wanted(since=NOVEMBER_22),
    "on:2026-11-22": wanted(since=NOVEMBER_22, until=NOVEMBER_22 + DAY),
    "sha256:10AB": wanted(sha256="10ab"),
    "sha:1017830d": wanted(sha256="1017830d"),
    "job:x": wanted(job="x"),
    "code:no_answer": wanted(code="no_answer"),
    "-model:a -model:b -seed:5": wanted(excluded=(("model", "a"), ("model", "b"), ("seed", "5"))),
    '-tag:campaign="spring sale"': wanted(excluded=(("tag", "campaign=spring sale"),)),
    "-status:failed -type:jpg": wanted(excluded=(("status", "failed"), ("type", "image/jpeg"))),
    "-gateway:apiframe model:a": wanted(model="a", excluded=(("gateway", "apiframe"),)),
    "model:a -model:b": wanted(model="a", excluded=(("model", "b"),)),
}


@pytest.mark.parametrize("text", [*WORDS, *KEYED])
def test_each_text_asks_for_what_it_says(text: str) -> None:
    assert read(text) == (WORDS | KEYED)[text]


REFUSED = {
    "seed:": "seed takes a seed, such as 42, and was given nothing; to search for the words themselves, put",
    'model:""': "model takes",
    "model: imagen": "model takes",
    "tag:spring": "tag takes name=value, not 'spring'",
    "tag:a b=c": "tag takes",
    "tag:a=": "tag takes",
    "tag:bad/name=b": "tag takes",
    "status:done": "status takes queued, submitting, running, ready, archived, partial, failed, "
    "cancelled, not 'done'",
    "status:archivd": "not 'archivd'; did you mean archived",
    "type:pgn": "not 'pgn'; did you mean png",
    "a OR " + " OR ".join(map(str, range(MAX_WORDS))): "may have 32 words at most",
    "is:long": "is takes short, not 'long'",
    "is: it": "is takes short, and was given nothing",
    "type:pdf": "type takes png, jpg, webp, avif, bmp, heic, tif, jxl, gif, svg, jpeg, tiff, not 'pdf'",
    "size:1024": "size takes width x height, such as 1024x768, not '1024'",
    "width:abc": "width takes 1024, >=1024, <1024 or 512..1024, not 'abc'",
    "width:1024px": "width takes",
    "width:-5": "width takes",
    "width:1024..512": "width takes",
    "width:1.5": "width takes",
    "width:٣": "width takes",
    "height:9999999999999999": "height takes",
    "\ufdfa" * 120: "too long",
    "bytes:1XB": "bytes takes",
    "bytes:0foo": "bytes takes",
    "bytes:999999999999GB": "bytes takes",
    "since:yesterday": "since takes 7d, 12h, 2026-11-22 or 2026-11-22T10:00:00Z, not 'yesterday'",
    "on:7d": "on takes a day, such as 2026-11-22, not '7d'",
    "on:2026-02-30": "on takes",
    "sha256:abc": "sha256 takes 4 to 64 hexadecimal digits, not 'abc'",
    "sha:xyzw": "sha takes",
    "model:a model:b": "model:a and model:b mean the same; give one",
    "model:a model:a": "mean the same",
    "sha:1234 sha256:5678": "mean the same",
    "tag:a=b tag:a=c": "mean the same",
    "size:1x1 width:>5": "size:1x1 and width:>5 mean the same",
    "on:2026-11-22 since:7d": "mean the same",
    "-since:7d": "since cannot be excluded, as seed, model, gateway, tag, status, is, type can",
    "-status:done": "status takes",
    "x" * (MAX_CHARS + 1): "may have 1000 characters at most",
    " ".join(map(str, range(MAX_WORDS + 1))): "may have 32 words at most",
    "word " * (MAX_WORDS + 1): "may have 32 words at most",
    " -".join(map(str, range(MAX_WORDS + 1))): "may have 32 words at most",
}  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_what_cannot_be_meant_is_refused_with_what_can(text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(text)
    (fault,) = refused.value.faults
    assert fault["field"] == "q"
    assert REFUSED[text] in fault["message"]
    assert len(fault["message"]) < 400


@pytest.mark.parametrize("text", [text for text, _ in GUIDE])
def test_each_example_of_the_guide_asks_for_something(text: str) -> None:
    assert read(text) != SearchFilter()


def test_the_guide_leaves_no_key_out() -> None:
    shown = {item.key for text, _ in GUIDE for item in split(text, KEYS)}
    assert set(KEYS) - shown == {"sha"}


HINTED = {
    "prompt:kite": "Did you mean kite?",
    "-promt:kite": "Did you mean kite?",
    "prompt: a red kite": "Did you mean the words alone?",
    "kite date:2026-11-22": "Did you mean on:2026-11-22?",
    "created:7d": "Did you mean since:7d?",
    "modle：imagen-4": "Did you mean model:imagen-4?",
    "Gatway:apiframe": "Did you mean gateway:apiframe?",
    "id:01a201ee": "Did you mean job:01a201ee?",
    "format:png": "Did you mean type:png?",
    "width>=1024": "Did you mean width:>=1024?",
    "gateway=apiframe": "Did you mean gateway:apiframe?",
    "tag.campaign:spring": "Did you mean tag:campaign=spring?",
    "kite NOT cartoon": "write -word",
    "model:a OR model-b": "OR joins words only",
    "kite OR -grey": "OR joins words only",
}


@pytest.mark.parametrize("text", HINTED)
def test_a_slip_gets_a_hint_with_the_nearest(text: str) -> None:
    (hint,) = word_hints(text)
    assert HINTED[text] in hint


@pytest.mark.parametrize(
    "text",
    [
        *(text for text in WORDS if text not in ("a OR -b", "model:a OR kite") and "seeds:5" not in text),
        *(text for text, _ in GUIDE),
        "with: care to: you from: me, weight:heavy (masterpiece:1.2) <lora:detail:0.8> text:",
        "e:mc2 f(x)=y 10:30 C:\\art http://x at:dawn style:anime",
        "OR",
        "NOT",
        "this OR that, NOT",
    ],
)
def test_what_prompts_are_made_of_gets_no_hint(text: str) -> None:
    assert word_hints(text) == []


@given(st.text(max_size=60))
def test_hints_are_few_and_short_for_any_text(text: str) -> None:
    hints = word_hints(text * 20)
    assert len(hints) <= 5
    assert all(len(hint) < 250 for hint in hints)


def test_an_unknown_name_gets_a_hint_with_the_nearest() -> None:
    gateways, models = ["api-in-one", "apiframe"], ["imagen-4", "my-model"]

    def hints(text: str) -> list[str]:
        return list(name_hints(read(text), gateways, models))

    assert hints("gateway:apifram") == ["No job has the gateway apifram. Did you mean apiframe?"]
    assert hints("-gateway:zzz") == ["No job has the gateway zzz. Did you mean api-in-one or apiframe?"]
    assert hints("model:IMAGEN4") == ["The model imagen4 is not known here. Did you mean imagen-4?"]
    assert hints("gateway:Apiframe model:Imagen-4") == hints("model:zzz") == hints("kite") == []


# --- facets -----------------------------------------------------------------------------------------------

EDITS = [
    ("", "model", "imagen-4", "model:imagen-4"),
    ("red kite", "model", "imagen-4", "red kite model:imagen-4"),
    ("red model:old kite", "model", "my model", 'red kite model:"my model"'),
    ('"red kite', "model", "imagen-4", '"red kite" model:imagen-4'),
    ("“red kite  ", "seed", "5", "“red kite” seed:5"),
    ("tag:a=b tag:c=d", "tag", "a=new value", 'tag:c=d tag:a="new value"'),
    ("since:7d until:1d kite", "on", "2026-11-22", "kite on:2026-11-22"),
    ("on:2026-11-22", "since", "7d", "since:7d"),
    ("width:>5 height:5 bytes:5", "size", "1x1", "bytes:5 size:1x1"),
    ("sha:1234", "sha256", "5678", "sha256:5678"),
    ("-model:a -model:b", "model", "a", "-model:b model:a"),
    ("width:abc model:", "model", "a", "width:abc model:a"),
    ("model：old　寿司", "model", "a", "寿司 model:a"),
    ('model:"a', "model", 'say "hi"', 'model:"say ""hi"""'),
]


@pytest.mark.parametrize(("text", "key", "value", "expected"), EDITS)
def test_a_facet_replaces_what_it_contradicts(text: str, key: str, value: str, expected: str) -> None:
    assert with_key(text, key, value) == expected


ODD_CHARS = st.sampled_from("ab :=-\" \t“”„＂：＝－　＞9'%寿👩‍é")
ODD = st.text(ODD_CHARS | st.characters(codec="utf-8"), max_size=30)
VALUE = ODD.filter(bool)
PIECES = st.one_of(
    ODD,
    ODD.map(quoted),
    st.sampled_from(["-", '"', "“", "model:", "-seed:", "tag:x=", "width:>=5", "on:2026-01-01", "type:png"]),
)
QUERIES = st.lists(PIECES, max_size=6).map(" ".join)
FACETS = st.one_of(
    st.tuples(st.sampled_from(["seed", "model", "gateway", "code", "job"]), VALUE),
    st.tuples(st.just("tag"), st.tuples(st.sampled_from(["x", "y.z", "0"]), VALUE).map("=".join)),
    st.tuples(st.just("width"), st.sampled_from(["5", ">=5", "1..5"])),
    st.tuples(st.just("on"), st.dates().map(str)),
)


def without_key(text: str, key: str, tag: str | None = None) -> str:
    """Return a query text without a key; of tags, only without that name, if one is given."""
    kept = [
        item.source
        for item in split(text, KEYS)
        if item.minus
        or item.key is None
        or KEYS[item.key].asks.isdisjoint(KEYS[key].asks)
        or (tag is not None and re.split("[=＝]", item.text)[0] != tag)
    ]
    return " ".join(kept)


def sound(text: str) -> SearchFilter | None:
    try:
        return read(text)
    except InvalidRequest:
        return None


@given(ODD)
def test_a_quoted_text_is_that_very_text(text: str) -> None:
    expected = (text,) if text else ()
    assert read(quoted(text)).words == expected
    assert read(f"-{quoted(text)}").without == expected
    assert read(f"a {quoted(text)} b").words == tuple(dict.fromkeys(("a", *expected, "b")))


@given(QUERIES, FACETS)
@example('"', ("model", "a"))
@example("-", ("model", "a"))
@example('"a"" ', ("model", '"'))
def test_a_facet_that_is_added_is_all_that_changes(text: str, facet: tuple[str, str]) -> None:
    key, value = facet
    name = value.partition("=")[0] if key == "tag" else None
    bare = without_key(text, key, name)
    added = with_key(text, key, value)
    before = sound(bare)
    assume(before is not None and len(added) <= MAX_CHARS)
    assert before is not None
    alone = read(f"{key}:{value}" if key in {"on", "width"} else f"{key}:{quoted(value)}")
    after = read(added)
    assert (after.words, after.without) == (before.words, before.without)
    assert {**before.tags, **alone.tags} == after.tags
    assert {**before.between, **alone.between} == after.between
    for field in ("seed", "model", "gateway", "code", "job", "since", "until"):
        expected = getattr(before, field) if getattr(alone, field) is None else getattr(alone, field)
        assert getattr(after, field) == expected
    assert set(after.excluded) == set(before.excluded) - {(key, value)}
    assert read(without_key(added, key, name)) == replace(before, excluded=after.excluded)
    assert with_key(added, key, value) == added


@given(QUERIES)
def test_any_text_is_read_or_refused(text: str) -> None:
    assert sound(text) is None or sound(text) == sound(" ".join(item.source for item in split(text, KEYS)))


@given(VALUE)
def test_a_value_is_quoted_only_where_it_must_be(value: str) -> None:
    written = plain_or_quoted(value)
    assert read(f"model:{written}").model == value
    assert written == value or sound(f"model:{value}") != wanted(model=value)


# --- the parameter q --------------------------------------------------------------------------------------


def asked(kind: type[JobQuery | OutputQuery], query: str) -> SearchFilter:
    return read_query(kind, QueryParams(query)).wanted(NOW)


def test_q_and_the_parameters_beside_it_must_all_hold() -> None:
    found = asked(
        OutputQuery, "q=kite+tag:a=b+width:5+-model:x&seed=5&tag.c=d&status=failed&since=7d&sha256=ABCD"
    )
    assert found == wanted(
        "kite", seed="5", tags={"a": "b", "c": "d"}, status=Status.FAILED, since=NOW - 7 * DAY, sha256="ABCD",
        between={"width": (5, 5)}, excluded=(("model", "x"),),
    )  # fmt: skip
    assert asked(JobQuery, "q=seed:5+type:png&gateway=apiframe") == wanted(
        seed="5", media_type="image/png", gateway="apiframe"
    )
    assert asked(JobQuery, "gateway=apiframe") == wanted(gateway="apiframe")


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("q=seed:5&seed=5", ["seed"]),
        ("q=model:a+status:failed&model=b&status=failed", ["model", "status"]),
        ("q=tag:a=b&tag.a=c&tag.d=e", ["tag.a"]),
        ("q=on:2026-11-22&until=7d", ["until"]),
        ("q=sha:1234&sha256=1234", ["sha256"]),
        ("q=job:x&job=x", ["job"]),
        ("q=code:x&code=x", ["code"]),
    ],
)
def test_nothing_may_be_asked_for_in_q_and_beside_it(query: str, named: list[str]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        asked(OutputQuery, query)
    assert sorted(fault["field"] for fault in refused.value.faults) == sorted(named)
    assert all("q as well" in fault["message"] for fault in refused.value.faults)


def test_all_that_is_wrong_is_told() -> None:
    with pytest.raises(InvalidRequest) as refused:
        asked(JobQuery, "q=width:abc+type:pdf&limit=x")
    faults = {fault["field"]: fault["message"] for fault in refused.value.faults}
    assert set(faults) == {"q", "limit"}
    assert "width takes" in faults["q"]
    assert "type takes" in faults["q"]
