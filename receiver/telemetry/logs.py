"""Configure structlog: JSON for programs or lines for people, with secrets redacted in every event.

After `configure` and `catch_everything`, all of standard error goes through here: our own events, the log
records of libraries, warnings, and tracebacks of uncaught exceptions.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

import orjson
import structlog

from receiver.redaction import Redactor
from receiver.telemetry.gathered import Event, Gathered


@dataclass
class Tally:
    """Counts events that may be too many for a line each, and logs one line a second with their number.

    `add` is called where an event loop runs.
    """

    log: Any
    event: str
    every_s: float = 1.0
    count: int = 0

    def add(self) -> None:
        """Count one."""
        self.count += 1
        if self.count == 1:
            asyncio.get_running_loop().call_later(self.every_s, self._say)

    def _say(self) -> None:
        self.log.warning(self.event, count=self.count)
        self.count = 0


log = structlog.get_logger("darkroom.logs")

MANY_LINES = frozenset({"exception", "stack"})
"""The fields that may have several lines for people."""


def write_soon(level: str, event: str, **fields: Any) -> None:
    """Log an event of which there are many, such as one for each request: a thread writes them together.

    Nothing is lost but in a crash, and the order is that of all events. Fields are plain JSON; each text is
    redacted.
    """
    lines = structlog.get_config()["logger_factory"]
    if not isinstance(lines, _Lines):
        getattr(log, level)(event, **fields)
    elif logging.getLevelName(level.upper()) >= lines.least:
        fields["event"], fields["level"], fields["timestamp"] = event, level, datetime.now(UTC)
        lines.gathered.put(fields)


def configure(log_format: str, level: str, redactor: Redactor, *, stream: TextIO | None = None) -> None:
    """Send events to a stream, by default standard error; `log_format` is json, console, or auto.

    May be called again, when more secrets are known.
    """
    before = structlog.get_config()["logger_factory"]
    if isinstance(before, _Lines):
        before.gathered.close()
    stream = stream or sys.stderr
    as_json = log_format == "json" or (log_format == "auto" and not stream.isatty())

    def clean(_logger: object, _name: str, event: Event) -> Event:
        # After the traceback was made into text, because secrets like to hide there.
        kept: Event = redactor.value(_plain(event))
        return kept if as_json else {name: _one_line(name, value) for name, value in kept.items()}

    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    last: list[Any] = [clean, _renderer(stream, as_json=as_json)]
    gathered = Gathered(_writer(stream, redactor, None if as_json else last[1]))
    least = logging.getLevelName(level.upper())
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=_Lines(stream, gathered, least),
        cache_logger_on_first_use=False,
    )
    handler = _Handler(stream, gathered)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Theirs would name every gateway URL and, in the access log, every callback token.
    for name in ("httpx", "httpcore", "botocore", "boto3", "urllib3", "uvicorn.access", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def catch_everything() -> None:
    """Log uncaught exceptions of any thread, and Python's warnings, instead of printing them unredacted.

    It replaces hooks of the interpreter, so it is for a process of our own.
    """
    logging.captureWarnings(capture=True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable


class _Writer(structlog.WriteLogger):
    """Writes our events. A full disk or a closed pipe costs lines of the log, and no job."""

    def __init__(self, stream: TextIO, before: Gathered) -> None:
        super().__init__(stream)
        self._before = before

    def msg(self, message: str) -> None:
        self._before.flush()
        with suppress(OSError, ValueError):
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


@dataclass
class _Lines:
    """Makes the writers of our events, for structlog; and has what is written together."""

    stream: TextIO
    gathered: Gathered
    least: int
    """The lowest level that is written."""

    def __call__(self, *_args: Any) -> _Writer:
        return _Writer(self.stream, self.gathered)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes the records of libraries; one that cannot be formatted is reported, not printed."""

    def __init__(self, stream: TextIO, before: Gathered) -> None:
        super().__init__(stream)
        self._before = before

    def emit(self, record: logging.LogRecord) -> None:
        self._before.flush()
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's own name
        _, error, _ = sys.exc_info()
        # Not its text: what could not be formatted was not redacted either.
        log.error("a log record was dropped", logger=record.name, why=type(error).__name__)


def _renderer(stream: TextIO, *, as_json: bool) -> Any:
    if as_json:
        return structlog.processors.JSONRenderer(ensure_ascii=False)
    return structlog.dev.ConsoleRenderer(
        colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
    )


def _writer(
    stream: TextIO, redactor: Redactor, render: Callable[..., str] | None
) -> Callable[[Sequence[Event]], None]:
    """Return what writes events that have plain texts and numbers alone: by `render`, or as JSON."""

    def line(event: Event) -> bytes:
        told = {
            name: redactor.text(value) if isinstance(value, str) else value for name, value in event.items()
        }
        if render is None:
            return orjson.dumps(told, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE)
        told["timestamp"] = f"{event['timestamp'].replace(tzinfo=None).isoformat()}Z"
        plain = {name: _one_line(name, value) for name, value in told.items()}
        return f"{render(None, '', plain)}\n".encode()

    def write(events: Sequence[Event]) -> None:
        with suppress(OSError, ValueError):
            stream.write(b"".join(map(line, events)).decode())
            stream.flush()

    return write


def _plain(value: Any) -> Any:
    """Return a value as JSON; anything else as text, so that the redaction sees what will be written."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, int | float):
        return value
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - a line of the log is not worth a job
        return f"<{type(value).__name__}>"


def _one_line(name: str, value: Any) -> Any:
    """Escape line breaks, so that a text from outside cannot forge an event."""
    if name in MANY_LINES or not isinstance(value, str):
        return value
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in value)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    log.critical("uncaught", exc_info=(kind, error, trace))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if issubclass(args.exc_type, SystemExit):
        return
    name = args.thread.name if args.thread else None
    error = args.exc_value or args.exc_type()
    log.critical("uncaught in thread", thread=name, exc_info=(args.exc_type, error, args.exc_traceback))


def _unraisable(args: sys.UnraisableHookArgs) -> None:
    error = args.exc_value or args.exc_type()
    log.error("uncaught in clean-up", where=args.object, exc_info=(args.exc_type, error, args.exc_traceback))
