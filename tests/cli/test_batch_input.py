from typing import Any

import pytest

from receiver.cli.batch_input import BadInput, nested, read_any, read_csv, read_json_lines
from receiver.cli.console import plain


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1: no columns"),
        ("prompt,promt\nx,y", "unknown column 'promt'"),
        ("prompt,prompt\nx,y", "column prompt appears twice"),
        ("prompt\nx,y", "line 2: 2 cells, but only 1 columns"),
        ('prompt,seed\n"two\nlines",1\nx,y,z', "line 4: 3 cells"),
        ('prompt\n"open', "line 2"),
        ("prompt,params.a,params.a.b\nx,1,2", "line 2: params.a.b: a already has a value"),
    ],
)
def test_faults_of_csv_are_told_with_their_line(text: str, told: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_csv(text)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "line 1: not JSON"),
        ('{"prompt": "x"}\n[1]', "line 2: not a JSON object"),
        ('{"prompt": "x", "size": 1}', "line 1: unknown field 'size'"),
        ('{"prompt": NaN}', "line 1: not JSON: NaN"),
        ("[" * 200_000, "line 1: "),
    ],
)
def test_faults_of_json_lines_are_told_with_their_line(text: str, told: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_json_lines(text)
    assert told in str(caught.value)


def test_a_csv_row_becomes_fields() -> None:
    (row,) = read_any("prompt,seed,num_images,params.a.b,params.c,tags.d.e\np,007,2,[1],text,5\n\n , ,,,,\n")
    nested_ = {"params": {"a": {"b": [1]}, "c": "text"}, "tags": {"d.e": "5"}}
    assert (row.line, row.fields) == (2, {"prompt": "p", "seed": "007", "num_images": 2, **nested_})


def test_a_line_separator_in_a_prompt_ends_no_line() -> None:
    assert len(read_json_lines('{"prompt": "a\u2028b"}\n{"prompt": "c"}')) == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("x", "x"), ('"1"', "1"), ("true", True), ("", "")],
)
def test_a_parameter_may_be_json_or_text(text: str, value: Any) -> None:
    assert nested([f"a.b={text}"], "--param") == {"a": {"b": value}}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\r\nlines\tand a tab", "two lines and a tab"),
        ("\x1b[2J\x07\x9b31m", "\\u001b[2J\\u0007\\u009b31m"),
        ("日本語 👩\u200d🚀", "日本語 👩\u200d🚀"),
        ("\udcff\u2066", "\\udcff\\u2066"),
    ],
)
def test_text_from_outside_is_made_plain(text: str, shown: str) -> None:
    assert plain(text) == shown
