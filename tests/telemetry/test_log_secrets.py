"""What the log holds, and what it does not: a process of its own, because logging is set up once in each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import logging, sys
import structlog
from receiver.telemetry import logs
from receiver.redaction import Redactor

logs.configure(sys.argv[1], "info", Redactor(["afk_secret_key"]))
log = structlog.get_logger("darkroom.test")

def fail():
    raise ValueError("POST https://h.example/a.png?sig=hidden with afk_secret_key")

try:
    fail()
except ValueError as error:
    log.exception("it broke", why=error, nested={"apiKey": "hidden", "list": [b"afk_secret_key"]})
    logging.getLogger("uvicorn.error").exception("theirs %s", "afk_secret_key", exc_info=True)
log.warning("to https://h.example/callbacks/apiframe/hidden", token="hidden", key="images/2026/0.png")
logging.getLogger("httpx").info("GET https://h.example/hidden")
"""


def logged(log_format: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, log_format], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_secret_gets_into_the_log_by_a_message_a_field_or_a_traceback(log_format: str) -> None:
    told = logged(log_format)
    assert told.count("in fail") == 2, "both tracebacks are there"
    assert "hidden" not in told
    assert "afk_secret_key" not in told
    assert "images/2026/0.png" in told


def test_each_line_of_the_log_is_json() -> None:
    lines = [json.loads(line) for line in logged("json").splitlines()]
    assert [line["level"] for line in lines] == ["error", "error", "warning"]
    assert "POST https://h.example/a.png?[removed] with [removed]" in lines[0]["why"]
    assert lines[0]["nested"] == {"apiKey": "[removed]", "list": ["b'[removed]'"]}
    assert lines[2]["token"] == "[removed]"
    for line in lines:
        assert "afk_secret_key" not in json.dumps(line)
        assert "hidden" not in json.dumps(line)
