"""What pydantic finds wrong, in plain sentences after the name of a field."""

import json
from typing import Any

import pytest

from receiver.errors import InvalidRequest, SettingsError
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
        (b"{", "body", "is not valid JSON: EOF while parsing an object at line 1 column 1"),
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
        (JOB | {"params": []}, "params", "must be a JSON object"),
        (JOB | {"tags": {str(n): "x" for n in range(33)}}, "tags", "must have 32 entries at most"),
        (
            JOB | {"tags": {"a b": "x"}},
            "tags.a b.[key]",
            "must be 1 to 64 letters, digits, dots, dashes or underscores",
        ),
        (JOB | {"unsupported": "x"}, "unsupported", "must be 'refuse' or 'ignore'"),
    ],
)
def test_faults_are_plain_sentences(body: Any, field: str, sentence: str) -> None:
    assert faults_of(body)[field] == sentence


def test_faults_of_settings_are_plain_sentences() -> None:
    with pytest.raises(SettingsError, match="DARKROOM_PORT: must be a whole number"):
        load(port="x")
