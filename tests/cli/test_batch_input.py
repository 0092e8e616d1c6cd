from typing import Any

import pytest

from receiver.cli.batch_input import read_any, read_json_lines, read_rows
from receiver.cli.console import plain
from receiver.cli.csv_rows import read_csv
from receiver.cli.pairs import BadInput, nested


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1: no columns"),
        ("prompt,promt\nx,y", "line 1: unknown column 'promt' (did you mean prompt?); use gateway, "),
        ("a red kite\na boat\n", "line 1: the first line must name the columns, such as prompt and seed"),
        ('prompt\na\n"b\nc\n', 'line 3: a quote (") is opened here and never closed'),
        ('prompt\n"a" b\n', "line 2: text follows a closing quote; within quotes, write a quote twice"),
        ("prompt,prompt\nx,y", "column prompt appears twice"),
        ("prompt\nx,y", "line 2: 2 cells, but only 1 column"),
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
        ('{"prompt": "x", "Modell": 1}', "line 1: unknown field 'Modell' (did you mean model?)"),
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


PLAIN = "prompt,seed,tags.Row\na kite,7,x\n"
WRITTEN: dict[str, bytes] = {
    "semicolons": b"prompt;seed;tags.Row\na kite;7;x\n",
    "tabs": b"prompt\tseed\ttags.Row\na kite\t7\tx\n",
    "bars": b"prompt|seed|tags.Row\na kite|7|x\n",
    "sep line": b"sep=;\r\nprompt;seed;tags.Row\r\na kite;7;x\r\n",
    "sep line of its own": b'"sep=^"\nprompt^seed^tags.Row\na kite^7^x\n',
    "saved again": b"sep=,,,\nprompt,seed,tags.Row\na kite,7,x\n",
    "utf-8 with a mark": b"\xef\xbb\xbf" + PLAIN.encode(),
    "utf-16": PLAIN.replace(",", "\t").encode("utf-16"),
    "utf-16 of the other order": b"\xfe\xff" + PLAIN.encode("utf-16-be"),
    "utf-16 without a mark": PLAIN.encode("utf-16-le"),
    "utf-32": PLAIN.encode("utf-32"),
    "old line ends": PLAIN.replace("\n", "\r").encode(),
    "names in any case": b" Prompt ,SEED,Tags.Row\na kite,7,x\n",
    "whole numbers as fractions": b"prompt,seed,tags.Row\na kite,7.0,x\n",
    "fractions with a comma": b'prompt;seed;tags.Row\na kite;"7,00";x\n',
    "empty last columns": b"prompt,seed,tags.Row,,,\na kite,7,x,,,\n,,,,,\n",
    "empty cells without a column": b"prompt,seed,tags.Row\na kite,7,x,,\n",
    "tags in one column": b'Prompt,Seed,Tags\na kite,7,"{""Row"": ""x""}"\n',
}


@pytest.mark.parametrize("how", WRITTEN)
def test_csv_is_read_as_programs_write_it(how: str) -> None:
    (row,) = read_rows("x.csv", WRITTEN[how])
    assert row.fields == {"prompt": "a kite", "seed": "7", "tags": {"Row": "x"}}
    assert row.line == (3 if "sep=" in WRITTEN[how].decode("latin-1") else 2)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("prompt\na kite; red | blue\n", {"prompt": "a kite; red | blue"}),
        ('prompt;Negative Prompt\n"a; b";c, d\n', {"prompt": "a; b", "negative_prompt": "c, d"}),
        ("prompt,Aspect-Ratio\np,16:9\n", {"prompt": "p", "aspect_ratio": "16:9"}),
        ("prompt,num_images\np,7.0\n", {"prompt": "p", "num_images": 7}),
        ("prompt,num_images\np,1.5\n", {"prompt": "p", "num_images": "1.5"}),
        ("prompt,seed\np,12345678901234567890\n", {"prompt": "p", "seed": "12345678901234567890"}),
        ("prompt,seed\np,007\n", {"prompt": "p", "seed": "007"}),
        ("prompt,params.Scale\np,7.0\n", {"prompt": "p", "params": {"Scale": 7.0}}),
        ('prompt,params\np,"{""a"": [1]}"\n', {"prompt": "p", "params": {"a": [1]}}),
        ("prompt\n'=not a formula\n", {"prompt": "'=not a formula"}),
    ],
)
def test_a_cell_is_what_it_says(text: str, fields: dict[str, Any]) -> None:
    (row,) = read_csv(text)
    assert row.fields == fields


def test_unknown_columns_are_left_out_if_asked() -> None:
    csv, lines = "prompt,colour,size,size\np,red,1,2\n", '{"prompt": "p", "colour": "red"}'
    for read, text in ((read_csv, csv), (read_json_lines, lines)):
        with pytest.raises(BadInput, match=r"'colour'.*--ignore-unknown"):
            read(text)
        (row,) = read(text, ignore_unknown=True)
        assert row.fields == {"prompt": "p"}


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"prompt\nfine\ncaf\xe9\n", "line 3: not UTF-8; save the file as UTF-8"),
        (b"\xff\xfep\x00r\x00o", "not UTF-16"),
        (b"prompt,\na,b\n", "line 2: has a cell in a column without a name"),
        (b"sep=;\nprompt;seed\na;b;c\n", "line 3: 3 cells, but only 2 columns"),
        (b"sep=;\nprompt;promt\na;b\n", "line 2: unknown column 'promt'"),
        (b"prompt,Prompt\na,b\n", "line 1: column prompt appears twice"),
        (b"prompt,tags\na,b\n", "line 2: tags: must be a JSON object"),
    ],
)
def test_what_is_no_table_is_told_with_its_line(raw: bytes, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        read_rows("x.csv", raw)


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
