"""`darkroom serve`, `work` and `config`: what runs, and with which settings."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.text import Text

from receiver.cli.connection import Json
from receiver.cli.console import FAILED, MISUSED, cell, fail, out, print_json, say

if TYPE_CHECKING:
    from socket import socket

    from receiver.callback_app import CallbackService
    from receiver.service import Service
    from receiver.settings import Settings


class Only(StrEnum):
    """The parts of which a process may be one."""

    CALLBACKS = "callbacks"
    API = "api"


Built = TypeVar("Built", "Service", "CallbackService")

Port = Annotated[
    int | None,
    typer.Option(
        "--port",
        min=0,
        max=65535,
        metavar="PORT",
        help="Instead of DARKROOM_PORT; 0 takes a free one.",
        show_default=False,
    ),
]


def serve(
    *,
    host: Annotated[
        str | None,
        typer.Option("--host", metavar="HOST", help="Instead of DARKROOM_HOST.", show_default=False),
    ] = None,
    port: Port = None,
    work: Annotated[
        bool, typer.Option("--work/--no-work", help="Work on jobs too, or leave that to `darkroom work`.")
    ] = True,
    only: Annotated[
        Only | None,
        typer.Option(
            "--only",
            metavar="ROLE",
            help="Serve one part, and do no work: `callbacks`, which may face the internet and needs no "
            "bucket, or `api`, with the gallery.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Take callbacks and API requests in, and work on jobs, until SIGTERM or Ctrl-C."""
    given = {"host": host, "port": port}
    with exit_on_error():
        from receiver.http.server import serve as serve_until_told
        from receiver.roles import Role
        from receiver.settings import require

        settings = _settings(**{name: value for name, value in given.items() if value is not None})
        require(settings, only_callbacks=only is Only.CALLBACKS)
        with _listener(settings) as listener:
            if only is Only.CALLBACKS:
                taking = _callbacks(settings)
                serve_until_told(taking, taking.asgi(), listener)
                return
            service = _service(settings)
            role = Role.ALL if only is None else Role.API
            app = service.asgi(work=work and only is None, role=role, beside=True)
            serve_until_told(service, app, listener)


def work(
    *,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            min=0,
            max=65535,
            metavar="PORT",
            help="Answer /healthz, /readyz and /metrics there (0: a free one). Without it nothing listens.",
            show_default=False,
        ),
    ] = None,
    beside: Annotated[
        int | None, typer.Option(hidden=True, help="The socket to the `serve` that this ends with.")
    ] = None,
) -> None:
    """Only work on jobs, beside `darkroom serve --no-work`, until SIGTERM or Ctrl-C."""
    with exit_on_error():
        if port is not None:
            from receiver.http.server import serve as serve_until_told
            from receiver.roles import Role

            settings = _settings(port=port)
            with _listener(settings) as listener:
                service = _service(settings)
                serve_until_told(service, service.asgi(work=True, role=Role.WORK), listener)
            return
        from receiver.jobs.worker_processes import attach

        service = _service(_settings())
        stopped = stop_asked()
        serving = attach(beside, service.bell, stopped.set) if beside is not None else None
        service.start(work=True)
        if serving is not None:
            serving.say_ready()
        try:
            stopped.wait()
        finally:
            service.stop(work=True)


def config(*, as_json: Json = False) -> None:
    """Show every setting: its variable, its value, its default and what it is for."""
    from dataclasses import asdict

    from receiver.cli.config import settings_table

    with exit_on_error():
        settings = _settings()
        rows = settings_table(settings)
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    for row in rows:
        line = Text.assemble((row.variable, "bold" if row.changed else ""), " = ", cell(row.value))
        if row.changed:
            line.append(f"  (default: {row.default or '-'})", "dim")
        out().print(line, soft_wrap=True)
        out().print(Text(f"    {row.help}", "dim"))
    _say_what_is_missing(settings)


@contextmanager
def exit_on_error() -> Iterator[None]:
    """End with a message and an exit code at what an operator can mend; no traceback."""
    from receiver.errors import DarkroomError, SettingsError
    from storage.errors import StorageError

    try:
        yield
    except SettingsError as error:
        fail(
            f"{error}\nSettings are environment variables, or lines in .env; see `darkroom config`.", MISUSED
        )
    except (DarkroomError, StorageError) as error:
        fail(str(error), FAILED)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def stop_asked() -> threading.Event:
    """An event that SIGTERM and SIGINT set, from now on."""
    asked = threading.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda _number, _frame: asked.set())
    return asked


def _settings(**overrides: Any) -> Settings:
    from receiver.settings import load

    return load(**overrides)


def _listener(settings: Settings) -> socket:
    from receiver.http.server import listen

    try:
        return listen(settings.host, settings.port)
    except OSError as error:
        fail(
            f"DARKROOM_HOST and DARKROOM_PORT: {settings.host}:{settings.port} cannot be listened on: "
            f"{error.strerror or error}."
        )


def _service(settings: Settings) -> Service:
    from receiver.app import build

    _log_before(settings)
    return _logging(build(settings))


def _callbacks(settings: Settings) -> CallbackService:
    from receiver.callback_app import build_callbacks

    _log_before(settings)
    return _logging(build_callbacks(settings))


def _log_before(settings: Settings) -> None:
    from receiver.keyring import every_secret
    from receiver.redaction import Redactor
    from receiver.telemetry import logs

    logs.configure(settings.log_format, settings.log_level, Redactor(every_secret(settings)))
    logs.catch_everything()


def _logging(service: Built) -> Built:
    """Log with the keys that were made or kept, which are known now too."""
    from receiver.telemetry import logs

    logs.configure(service.settings.log_format, service.settings.log_level, service.redactor)
    return service


def _say_what_is_missing(settings: Settings) -> None:
    from receiver.errors import SettingsError
    from receiver.settings import require

    try:
        require(settings)
    except SettingsError as error:
        say(f"\n{error}", "yellow")
