"""Range and conditional headers, by table: RFC 9110, sections 13 and 14."""

import pytest
from starlette.datastructures import Headers

from receiver.errors import UnsatisfiableRange
from receiver.http.ranges import is_not_modified, requested_range

ETAG = '"abc"'


def asked(*ranges: str, **more: str) -> Headers:
    raw = [(b"range", value.encode()) for value in ranges]
    raw += [(name.replace("_", "-").encode(), value.encode()) for name, value in more.items()]
    return Headers(raw=raw)


@pytest.mark.parametrize(
    ("value", "first", "last"),
    [
        ("bytes=0-99", 0, 99),
        ("bytes=0-0", 0, 0),
        ("bytes=100-", 100, 999),
        ("bytes=-50", 950, 999),
        ("bytes=-5000", 0, 999),
        ("bytes=0-", 0, 999),
        ("bytes=999-999", 999, 999),
        ("bytes=990-5000", 990, 999),
        ("bytes=990-" + "9" * 100, 990, 999),
        ("Bytes= 1-2 ", 1, 2),
    ],
)
def test_one_range_is_served(value: str, first: int, last: int) -> None:
    part = requested_range(asked(value), length=1000, etag=ETAG)
    assert part is not None
    assert (part.first, part.last, part.length) == (first, last, last - first + 1)
    assert (part.range, part.content_range) == (f"bytes={first}-{last}", f"bytes {first}-{last}/1000")


@pytest.mark.parametrize(
    "value",
    [
        "bytes=0-1,5-6", "bytes=-1,-2", "bytes=5-2", "bytes=", "bytes=-", "bytes", "bytes=a-b", "0-5",
        "seconds=0-5", "bytes=0--5", "bytes=+1-5", "bytes=1.0-5", "bytes=0-5 6", "bytes=\u0661-5",
        "bytes=0x1-5", "bytes=" + "9" * 5000 + "-",
    ],
)  # fmt: skip
def test_several_or_odd_ranges_get_the_whole(value: str) -> None:
    assert (
        requested_range(Headers({"range": value.encode().decode("latin-1")}), length=1000, etag=ETAG) is None
    )


def test_two_range_headers_get_the_whole() -> None:
    assert requested_range(asked("bytes=0-1", "bytes=0-1"), length=1000, etag=ETAG) is None
    assert requested_range(asked(), length=1000, etag=ETAG) is None


@pytest.mark.parametrize("value", ["bytes=1000-", "bytes=1000-2000", "bytes=-0", "bytes=" + "9" * 100 + "-"])
def test_a_range_behind_the_end_is_told_the_length(value: str) -> None:
    with pytest.raises(UnsatisfiableRange) as caught:
        requested_range(asked(value), length=1000, etag=ETAG)
    assert caught.value.headers == {"content-range": "bytes */1000"}


@pytest.mark.parametrize(
    ("if_range", "partial"),
    [
        ('"abc"', True),
        ('"other"', False),
        ('W/"abc"', False),
        ("abc", False),
        ("Sat, 29 Oct 1994 19:43:31 GMT", False),
    ],
)
def test_a_range_of_something_else_gets_the_whole(if_range: str, partial: bool) -> None:
    part = requested_range(asked("bytes=0-9", if_range=if_range), length=1000, etag=ETAG)
    assert (part is not None) == partial


def test_if_range_spares_a_refusal() -> None:
    assert requested_range(asked("bytes=5000-", if_range='"other"'), length=1000, etag=ETAG) is None


@pytest.mark.parametrize(
    ("value", "known"),
    [
        ('"abc"', True),
        ('W/"abc"', True),
        ('"x", "abc"', True),
        ('"x,y",W/"abc" ,"z"', True),
        ("*", True),
        (" * ", True),
        ('"abcd"', False),
        ('"x", "y"', False),
        ("abc", False),
        ('"x, *"', False),
        ("", False),
        ('"ab', False),
    ],
)
def test_if_none_match(value: str, known: bool) -> None:
    assert is_not_modified(Headers({"if-none-match": value}), ETAG) == known
    assert is_not_modified(Headers({"if-none-match": value}), f"W/{ETAG}") == known


def test_if_none_match_may_stand_in_several_headers() -> None:
    both = Headers(raw=[(b"if-none-match", b'"x"'), (b"if-none-match", b'"abc"')])
    assert is_not_modified(both, ETAG)
    assert not is_not_modified(Headers(), ETAG)
