"""Log events: JSON for programs or lines for people, with secrets taken out of every one of them."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from receiver.redaction import Redactor


class Tally:
    """Counts what may come too often for a line each, and logs one line a second that says how often.

    `add` is called where an event loop runs.
    """

    def __init__(self, log: Any, event: str, *, every_s: float = 1.0) -> None:
        self._log = log
        self._event = event
        self._every_s = every_s
        self._count = 0

    def add(self) -> None:
        """Count one."""
        self._count += 1
        if self._count == 1:
            asyncio.get_running_loop().call_later(self._every_s, self._say)

    def _say(self) -> None:
        self._log.warning(self._event, count=self._count)
        self._count = 0


def configure(log_format: str, level: str, redactor: Redactor) -> None:
    """Send events to standard error; `log_format` is json, console, or auto."""
    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )

    def redact(_logger: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        # After the traceback was made into text, because secrets like to hide there.
        return {name: redactor.value(value) for name, value in event.items()}

    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Theirs would name every gateway URL and, in the access log, every callback token.
    for name in ("httpx", "httpcore", "botocore", "boto3", "urllib3", "uvicorn.access", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
