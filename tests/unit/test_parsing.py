"""JSON that is parsed the quick way reads as it does the careful way, or is left to that."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from receiver.gateways import parsing

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(st.dictionaries(st.text(), VALUES), st.booleans())
@example({"seed": 2**64}, False)
@example({"seed": -(2**63) - 1}, False)
@example({"seed": 10**99, "at": [[[["\x00"]]]]}, True)
def test_either_way_reads_the_same(value: dict[str, object], ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    try:
        body = text.encode()
    except UnicodeEncodeError:
        return
    read = parsing.decode(body)
    assert repr(read) == repr(parsing.decode(b"\xef\xbb\xbf" + body)), "which is read the careful way"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"a": NaN}',
        b'{"a": 1e400}',
        b'{"a": 1,}',
        b'{"a": "\xff"}',
        b'{"a": "\n"}',
        b'{"a": ' + b"9" * 101 + b"}",
        b'{"a":' * 65 + b"1" + b"}" * 65,
        b'{"a": [' + b"1," * 100_001 + b"1]}",
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=range(11),
)
def test_what_cannot_be_read_is_said_to_be_unreadable(body: bytes) -> None:
    with pytest.raises(parsing.Unreadable):
        parsing.decode(body)


def test_a_seed_that_asks_for_any_is_no_echo() -> None:
    assert [parsing.echoed_seed(value) for value in (7, "7", 0, -1, "-1", None)] == [
        *("7", "7", "0", None, None, None),
    ]
