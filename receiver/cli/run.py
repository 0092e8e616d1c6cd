"""Run the service in the foreground: ports, signals, errors and logs of every command that runs it.

`darkroom serve` and `work` need nothing of Typer and Rich, and so do not load them; only an error does.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Literal, NoReturn
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from socket import socket

    from receiver.processes import Child, Children
    from receiver.service import Role, Service
    from receiver.settings import Settings


MOST_PROCESSES = 64
"""How many may serve one port."""
STOP_TOGETHER_S = 9.0
"""How long processes that serve one port may take to stop, before they are killed."""


def serve(
    *,
    host: str | None = None,
    port: int | None = None,
    work: bool = True,
    only: Literal["callbacks", "api"] | None = None,
    processes: int = 1,
) -> None:
    """Serve, and work on jobs, until a signal; exit with a message at errors that an operator can fix."""
    given = {"host": host, "port": port}
    with exit_on_error():
        from receiver.http.server import serve as run
        from receiver.service import Role
        from receiver.settings import load, require
        from receiver.telemetry.multiprocess import shared_counts

        role = Role.ALL if only is None else Role(only)
        settings = load(**{name: value for name, value in given.items() if value is not None})
        require(settings, only_callbacks=role is Role.CALLBACKS)
        if processes > 1 and only is None:
            fail("--processes is for --only callbacks or --only api: give that too.", misused=True)
        work = work and only is None
        with listening(settings) as listener, ExitStack() as stack:
            if processes > 1:
                stack.enter_context(shared_counts())
                _serve_together(settings, role, listener, processes)
                return
            apart = None
            if work and settings.worker.processes:
                stack.enter_context(shared_counts())
                apart = stack.enter_context(closing(_workers(settings, listener)))
            service = built(settings, role)
            _warn_of(settings, role)
            run(service, service.asgi(work=work, apart=apart), listener)


def work(*, port: int | None = None) -> None:
    """Work on jobs until a signal; with a port, serve health and metrics there."""
    with exit_on_error():
        from receiver.http.server import serve
        from receiver.service import Role
        from receiver.settings import ignored, load

        if port is None:
            work_until_stopped(load())
            return
        settings = load(port=port)
        with listening(settings) as listener:
            service = built(settings, Role.WORK)
            warn(ignored())
            serve(service, service.asgi(work=True), listener)


def work_until_stopped(settings: Settings, end: socket | None = None) -> None:
    """Work on jobs until a signal comes, or the process at the other end of a socket is gone."""
    from receiver.jobs.worker_processes import attach
    from receiver.service import Role
    from receiver.settings import ignored

    with exit_on_error():
        if end is not None:
            with suppress(OSError):  # a sandbox may forbid it
                os.nice(settings.worker.nice)
        service = built(settings, Role.WORK)
        if end is None:
            warn([*ignored(), *unused(settings)])
        stopped = stop_asked()
        service.on_failure(stopped.set)
        pipe = attach(end, service.wakeup, stopped.set) if end is not None else None
        service.start(work=True)
        if pipe is not None:
            pipe.say_ready()
        try:
            stopped.wait()
        finally:
            service.stop(work=True)
        service.raise_failure()


def _workers(settings: Settings, listener: socket) -> Children:
    """Load everything, and fork the worker processes, which need not load it again."""
    from receiver.preload import preload
    from receiver.processes import Children
    from receiver.service import Role

    preload(Role.ALL)
    return Children.fork("worker", settings.worker.processes, partial(work_until_stopped, settings), listener)


def _serve_together(settings: Settings, role: Role, listener: socket, processes: int) -> None:
    """Serve one port from several processes until a signal; exit as one does that refuses to start."""
    from receiver.http.server import BACKLOG
    from receiver.preload import preload
    from receiver.processes import Children, Supervisor

    # What comes while one is started again waits for it, or for another.
    listener.listen(BACKLOG)
    preload(role)
    children = Children.fork("serving", processes, partial(_serve_one, settings, role, listener))
    with closing(children):
        _configure_logs(settings)
        _warn_of(settings, role)
        if not settings.ledger_url.shared:
            warn(["--processes is for PostgreSQL: on SQLite processes wait for one lock, and one is faster."])
        stopped, codes = stop_asked(), [0]

        def refused(code: int) -> bool:
            if code > 0:
                codes.append(code)
                stopped.set()
            return code > 0

        supervisor = Supervisor(_listen_until_gone, refused)
        supervisor.start(children)
        stopped.wait()
        supervisor.stop(STOP_TOGETHER_S)
    if codes[-1]:
        raise SystemExit(codes[-1])


def _serve_one(settings: Settings, role: Role, listener: socket, end: socket) -> None:
    """Serve a port beside others, until a signal comes or the process that started this one is gone."""
    from receiver.http.server import serve as run
    from receiver.telemetry.multiprocess import remove_counts

    def stop_with_others() -> None:
        end.recv(1)
        remove_counts()
        signal.raise_signal(signal.SIGTERM)

    with exit_on_error():
        service = built(settings, role)
        threading.Thread(target=stop_with_others, name="others", daemon=True).start()
        run(service, service.asgi(), listener)


def _listen_until_gone(child: Child) -> None:
    with suppress(OSError):
        child.end.recv(1)


def _warn_of(settings: Settings, role: Role) -> None:
    from receiver.service import Role
    from receiver.settings import ignored

    warn([*ignored(), *unused(settings), *([] if role is Role.API else unreached(settings))])


def unreached(settings: Settings) -> list[str]:
    """Return a warning if the public URL is on loopback, but not where `darkroom serve` listens."""
    from receiver.http.auth import is_loopback

    public = urlsplit(settings.public_url or "")
    port = public.port or (443 if public.scheme == "https" else 80)
    served = (public.scheme, port) == ("http", settings.port)
    if served or settings.port == 0 or not is_loopback(public.hostname):
        return []
    return [
        f"DARKROOM_PUBLIC_URL is {settings.public_url}, but Darkroom itself listens on port {settings.port}, "
        "without TLS: unless something forwards them, no callbacks arrive."
    ]


def unused(settings: Settings) -> list[str]:
    """Return a warning for each variable of proxies and authorities that is set and not used."""
    from receiver.outbound.environment import unused_variables

    ours = settings.outbound
    return unused_variables(os.environ, proxy=bool(ours.proxy), ca_bundle=bool(ours.ca_bundle))


def warn(sentences: Iterable[str]) -> None:
    """Log what is doubtful in the settings."""
    import structlog

    for sentence in sentences:
        structlog.get_logger("darkroom.settings").warning("check the settings", why=sentence)


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Exit with a message instead of a traceback at errors that an operator can fix."""
    from receiver.errors import DarkroomError, SettingsError
    from storage.errors import StorageError

    try:
        yield
    except SettingsError as error:
        fail(
            f"{error}\nSettings are environment variables, or lines in .env; see `darkroom config`.",
            misused=True,
        )
    except (DarkroomError, StorageError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def fail(message: str, *, misused: bool = False) -> NoReturn:
    """Print an error as every command does, and exit."""
    import typer

    from receiver.cli import console

    try:
        console.fail(message, console.MISUSED if misused else console.FAILED)
    except typer.Exit as ended:
        raise SystemExit(ended.exit_code) from None


def stop_asked() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set."""
    asked = threading.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda _number, _frame: asked.set())
    return asked


@contextmanager
def listening(settings: Settings) -> Iterator[socket]:
    """Open the port for what is served within; exit with a message if it cannot be opened."""
    from receiver.http.server import listen

    host, port, fix = settings.host, settings.port, "set DARKROOM_PORT or give --port."
    try:
        listener = listen(host, port)
    except OSError as error:
        fail(port_message(host, port, error, fix))
    with listener:
        try:
            yield listener
        except OSError as error:
            # Of two that open it at the same moment, one finds out only as it begins to serve.
            if error.errno != errno.EADDRINUSE:
                raise
            fail(port_message(host, port, error, fix))


def port_message(host: str, port: int, error: OSError, fix: str) -> str:
    """Return why a port cannot be opened, and what to do."""
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is already in use by another program. Stop that program, or {fix}"
    return f"Cannot listen on {host}:{port}: {error.strerror or error}. Fix: {fix}"


def _configure_logs(settings: Settings) -> None:
    from receiver.keyring import every_secret
    from receiver.redaction import Redactor
    from receiver.telemetry import logs

    logs.configure(settings.log_format, settings.log_level, Redactor(every_secret(settings)))
    logs.catch_everything()


def built(settings: Settings, role: Role) -> Service:
    """Build the service of a role, with its logs configured."""
    from receiver.app import build
    from receiver.telemetry import logs

    _configure_logs(settings)
    service = build(settings, role=role)
    # What was loaded stays: the collector need not look at it again, nor copy the memory that it shares.
    gc.freeze()
    gc.enable()
    # To redact also the keys that were created or read from files.
    logs.configure(settings.log_format, settings.log_level, service.resources.redactor)
    return service
