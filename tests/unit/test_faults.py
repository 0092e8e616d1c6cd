"""What pydantic finds wrong, in plain sentences after the name of a field."""

import json
import re
from typing import Any

import pytest
from starlette.datastructures import QueryParams

from receiver.api.query_params import EventQuery, JobQuery, OutputQuery
from receiver.errors import InvalidRequest, SettingsError
from receiver.http.query import Query, read_query
from receiver.schemas.requests import SubmitBody, parse_body
from receiver.settings import load

JOB = {"gateway": "apiframe", "model": "imagen-4", "prompt": "a kite"}


def faults_of(body: Any) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as raised:
        parse_body(SubmitBody, body if isinstance(body, bytes) else json.dumps(body).encode())
    return {fault["field"]: fault["message"] for fault in raised.value.faults}


@pytest.mark.parametrize(
    ("body", "field", "sentence"),
    [
        (b"{", "body", "is not valid JSON, from line 1 column 1 on"),
        ([], "body", "must be a JSON object"),
        ({}, "prompt", "is required"),
        (JOB | {"zoom": 1}, "zoom", "is unknown"),
        (JOB | {"model": 1}, "model", "must be text"),
        (JOB | {"model": ""}, "model", "must not be empty"),
        (JOB | {"model": "x" * 129}, "model", "must have 128 characters at most"),
        (JOB | {"prompt": " "}, "prompt", "must not be blank"),
        (JOB | {"aspect_ratio": "\0"}, "aspect_ratio", "must not contain the character NUL"),
        (JOB | {"num_images": "3"}, "num_images", "must be a whole number"),
        (JOB | {"num_images": 0}, "num_images", "must be 1 or more"),
        (JOB | {"num_images": 65}, "num_images", "must be 64 at most"),
        (JOB | {"seed": [1]}, "seed", "must be text or a whole number"),
        (JOB | {"seed": "x" * 501}, "seed", "must have 500 characters at most"),
        (JOB | {"params": []}, "params", "must be a JSON object"),
        (JOB | {"tags": {str(n): "x" for n in range(33)}}, "tags", "must have 32 entries at most"),
        (
            JOB | {"tags": {"a/b": "x"}},
            "tags.a/b",
            "must be 1 to 64 letters, digits, dots, dashes, underscores, and spaces between them",
        ),
        (JOB | {"unsupported": "x"}, "unsupported", "must be 'refuse' or 'ignore'"),
    ],
)
def test_faults_are_plain_sentences(body: Any, field: str, sentence: str) -> None:
    assert faults_of(body)[field] == sentence


def test_faults_of_settings_are_plain_sentences() -> None:
    with pytest.raises(SettingsError, match="DARKROOM_PORT: must be a whole number"):
        load(port="x")


BAD_VALUES: list[Any] = [
    None,
    [],
    {},
    "",
    "x" * 30_000,
    "\0",
    1.5,
    -1,
    10**30,
    True,
    [[]],
    {"": ""},
    {"a/b": {}},
]


def test_no_fault_has_the_words_of_a_library() -> None:
    for field in (*SubmitBody.model_fields, "more"):
        for value in BAD_VALUES:
            # The unknown field makes a fault of every body.
            for sentence in faults_of(JOB | {"unknown": 1, field: value}).values():
                assert not re.search(r"Input|[Vv]alid\b|[\^$\\]|should|type=|Error", sentence), (
                    field,
                    sentence,
                )


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"prompt": ]', "is not valid JSON, from line 1 column 12 on"),
        (b"", "is not valid JSON, from line 1 column 0 on"),
        (b'{"prompt": "\xff"}', "is not valid JSON, from line 1 column 13 on"),
    ],
)
def test_where_json_is_invalid_is_told(body: bytes, told: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_body(SubmitBody, body)
    assert caught.value.faults[0]["message"] == told


@pytest.mark.parametrize("kind", [JobQuery, OutputQuery])
@pytest.mark.parametrize("cursor", ["", "2", "nonsense", "019a9f3e"])
def test_a_bad_cursor_says_what_to_do(kind: type[Query], cursor: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_query(kind, QueryParams({"cursor": cursor}))
    (fault,) = caught.value.faults
    assert (
        fault["message"]
        == "is not the next_cursor of an earlier page; leave it out to begin with the first page"
    )


@pytest.mark.parametrize(
    ("kind", "name", "value", "told"),
    [
        (OutputQuery, "sha256", "xyz", "4 to 64 hexadecimal digits"),
        (EventQuery, "job", "1", "must be the id of a job, or its first 8 characters or more, such as "),
        (EventQuery, "since", "yesterday", "must be the id of an event, such as 8731-"),
        (JobQuery, "tag.a/b", "x", "must be 1 to 64 letters"),
        (JobQuery, "tagged", "x", "unknown; use "),
    ],
)
def test_no_parameter_is_told_by_an_expression(kind: type[Query], name: str, value: str, told: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_query(kind, QueryParams({name: value}))
    (fault,) = caught.value.faults
    assert fault["field"] == name
    assert fault["message"].startswith(told) or told in fault["message"]
    assert "^" not in fault["message"]
