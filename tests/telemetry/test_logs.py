"""The log of a process: every line can be read by a program, and none holds a secret."""

import io
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import structlog

from receiver.redaction import MASK, Redactor
from receiver.telemetry import logs
from receiver.telemetry.gathered import MOST, Gathered
from tests.support.running import environment

SECRET = "afk_very_secret"
TOKEN = "eyJ0b2tlbg.aB3.signature"
HIDDEN = (
    f"key {SECRET}\nurl https://me.example/callbacks/apiframe/{TOKEN}\nand https://cdn.example/1.png?sig=abc"
)

BEGIN = f"""
import atexit, gc, logging, sys, threading, warnings
import structlog
from receiver.telemetry import logs
from receiver.redaction import Redactor
logs.configure(sys.argv[1], "info", Redactor([{SECRET!r}]))
logs.catch_everything()
log = structlog.get_logger()
HIDDEN = {HIDDEN!r}
"""


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Logging is the process' own; give it back as it was."""
    root = logging.getLogger()
    handlers, level, config = root.handlers[:], root.level, structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**config)


def child(code: str, log_format: str = "json") -> tuple[int, str]:
    """Run a few lines in a process of its own; return its exit code and what it wrote to stderr."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + code, log_format],
        env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == ""
    assert_clean(done.stderr)
    return done.returncode, done.stderr


def events(written: str) -> list[dict[str, Any]]:
    """Each line as the object that it must be."""
    found = [json.loads(line) for line in written.splitlines()]
    assert all(isinstance(event, dict) and {"event", "level", "timestamp"} <= event.keys() for event in found)
    return found


def assert_clean(written: str) -> None:
    assert SECRET not in written
    assert TOKEN not in written
    assert TOKEN.partition(".")[0] not in written
    assert "sig=abc" not in written


def captured(log_format: str = "json") -> tuple[io.StringIO, Any]:
    """Logging into a text of our own; answers the text and a logger."""
    stream = io.StringIO()
    logs.configure(log_format, "info", Redactor([SECRET]), stream=stream)
    return stream, structlog.get_logger()


def test_our_own_events_lose_their_secrets() -> None:
    stream, log = captured()
    error = ValueError(HIDDEN)
    log.info(HIDDEN, why=HIDDEN, error=error, raw=HIDDEN.encode(), path=Path(SECRET), deep=[{"a": {error}}])
    log.info("named", authorization="Bearer unknown-to-us", nested={"api_key": "x"}, key="images/2026/0.png")
    logging.getLogger("httpx").info("GET https://h.example/hidden")
    assert_clean(stream.getvalue())
    first, second = events(stream.getvalue())
    assert "ValueError" in first["error"]
    assert second["authorization"] == second["nested"]["api_key"] == MASK
    assert second["key"] == "images/2026/0.png", "a key of an object is no secret"


def test_context_and_level_are_on_every_line() -> None:
    stream, log = captured()
    with structlog.contextvars.bound_contextvars(job="a-job", request="a-request"):
        log.info("ours")
        logging.getLogger("theirs").warning("a %s of theirs", "line")
    ours, theirs = events(stream.getvalue())
    assert (ours["event"], theirs["event"]) == ("ours", "a line of theirs")
    assert (theirs["logger"], theirs["level"]) == ("theirs", "warning")
    assert {(event["job"], event["request"]) for event in (ours, theirs)} == {("a-job", "a-request")}


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_loses_its_secrets(log_format: str) -> None:
    stream, log = captured(log_format)
    try:
        try:
            raise ValueError(HIDDEN)
        except ValueError as error:
            raise RuntimeError(f"outer, {SECRET}") from error
    except RuntimeError:
        log.exception("ours failed")
        logging.getLogger("uvicorn.error").exception("theirs failed: %s", HIDDEN)
    written = stream.getvalue()
    assert_clean(written)
    assert written.count("RuntimeError: outer, ") == 2
    assert written.count("The above exception was the direct cause") == 2
    if log_format == "json":
        ours, theirs = events(written)
        assert "Traceback" in ours["exception"]
        assert "Traceback" in theirs["exception"]


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (2**70, 2**70),
        (None, None),
        ("\u2028\x00", "\u2028\x00"),
        (Broken(), "<Broken>"),
    ],
    ids=["nan", "inf", "large", "none", "odd", "broken"],
)
def test_a_value_unknown_to_json_is_still_one_line(value: Any, shown: Any) -> None:
    stream, log = captured()
    log.info("odd", value=value)
    (line,) = stream.getvalue().strip("\n").split("\n")
    assert json.loads(line, parse_constant=pytest.fail)["value"] == shown


def test_no_text_begins_a_line_like_an_event() -> None:
    stream, log = captured("console")
    log.info("ours", why="x\n2026-11-24 [info     ] forged\r\x1b[2K", deep=["a\nb"])
    logging.getLogger("theirs").warning("theirs\n2026-11-24 [info     ] forged")
    assert len(stream.getvalue().splitlines()) == 2
    assert "\x1b" not in stream.getvalue()


def test_what_cannot_be_written_stops_nobody() -> None:
    with Path("/dev/full").open("w") as full:
        logs.configure("json", "info", Redactor(), stream=full)
        structlog.get_logger().info("lost")
        logging.getLogger("theirs").warning("lost")
        with pytest.raises(OSError, match="space"):
            full.flush()
        with pytest.raises(OSError, match="space"):
            full.close()


def test_unformattable_record_is_told_without_text() -> None:
    stream, _ = captured()
    logging.getLogger("theirs").warning("%d", HIDDEN)
    (event,) = events(stream.getvalue())
    assert (event["logger"], event["why"]) == ("theirs", "TypeError")
    assert_clean(stream.getvalue())


IN_A_THREAD = """
def fail():
    raise ValueError(HIDDEN)
thread = threading.Thread(target=fail, name="work-1")
thread.start()
thread.join()
"""
IN_A_CLEAN_UP = """
class Thing:
    def __del__(self):
        raise ValueError(HIDDEN)
thing = Thing()
del thing
"""
A_WARNING = 'warnings.simplefilter("always")\nwarnings.warn(HIDDEN, ResourceWarning)\n'


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (IN_A_THREAD, {"level": "critical", "thread": "work-1", "exception": "in fail"}),
        (IN_A_CLEAN_UP, {"where": "__del__"}),
        (A_WARNING, {"level": "warning", "logger": "py.warnings", "event": "ResourceWarning"}),
    ],
)
def test_what_nobody_handles_is_one_clean_event(code: str, told: dict[str, str]) -> None:
    returned, written = child(code + 'log.info("goes on")')
    assert returned == 0
    event, after = events(written)
    assert [name for name, text in told.items() if text not in event[name]] == []
    assert after["event"] == "goes on"


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_uncaught_ends_with_a_clean_traceback(log_format: str) -> None:
    returned, written = child("raise ValueError(HIDDEN)\n", log_format)
    assert returned == 1
    assert "Traceback" in written
    assert "ValueError" in written
    if log_format == "json":
        (event,) = events(written)
        assert event["level"] == "critical"


def test_ctrl_c_is_no_error() -> None:
    returned, written = child("raise KeyboardInterrupt\n")
    assert returned != 0
    assert "critical" not in written


MANY = """
from concurrent.futures import ThreadPoolExecutor
for number in range(1000):
    logs.write_soon("info", "request", number=number, path=HIDDEN)
    if number % 100 == 0:
        log.warning("between", number=number)
        logging.getLogger("theirs").warning("and theirs")
logs.write_soon("debug", "below the level")
"""


def test_gathered_lines_are_all_written_in_order_and_lose_their_secrets() -> None:
    code, written = child(MANY)
    found = events(written)
    assert code == 0
    assert [one["number"] for one in found if "number" in one] == sorted([*range(1000), *range(0, 1000, 100)])
    assert [one["event"] for one in found[:3]] == ["request", "between", "and theirs"]
    assert len(found) == 1020
    assert child(MANY, "console")[1].count("number=") == 1010


def test_gathered_lines_are_written_without_being_asked_for() -> None:
    stream, _ = captured()
    logs.write_soon("info", "request", path="/a")
    for _ in range(500):
        if stream.getvalue():
            break
        threading.Event().wait(0.01)
    (event,) = events(stream.getvalue())
    assert (event["event"], event["path"]) == ("request", "/a")


def test_more_lines_than_may_wait_are_written_by_who_brings_them() -> None:
    written: list[int] = []
    gathered = Gathered(lambda events: written.extend(one["n"] for one in events))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: gathered.put({"n": n}), range(3 * MOST)))
    gathered.close()
    assert sorted(written) == list(range(3 * MOST))
    gathered.put({"n": -1})
    assert written[-1] == -1, "nothing is lost that comes after the end"
