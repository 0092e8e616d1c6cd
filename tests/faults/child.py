"""The service under test, as processes: `python -m tests.faults.child SOCKET`.

It imports everything once, then waits on a Unix socket; each connection asks for one service, which runs
in a fresh fork until it is killed or asked to stop. So a restart costs no import. The connection stays open
as long as that service lives: its end is the news of its death, which nobody has to ask for.

A request is one line of JSON with the fields of `Wanted`; the answer is the process id, in one line.
"""

import ctypes
import gc
import importlib
import json
import os
import random
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from receiver.app import build
from receiver.http.server import listen, serve
from receiver.redaction import Redactor
from receiver.schedule import Timing
from receiver.settings import load
from receiver.telemetry import logs
from storage.archive.object_store import ObjectStore
from storage.ledger.wakeup import readable_of
from tests.faults.clock import adjustable
from tests.faults.points import POINTS, Kill, factories


@dataclass(frozen=True)
class Wanted:
    """One service: what differs from `darkroom serve`, which only tests may have."""

    variables: Mapping[str, str]
    """Its whole environment."""
    log: str
    """The file that its output goes to, at the end."""
    clock: str
    """The file with its clock's offset."""
    timing: Mapping[str, Any] = field(default_factory=dict)
    lease_ms: int = 1000
    kill: Mapping[str, Any] | None = None
    work: bool = True


def main() -> None:
    """Serve forks until standard input ends, as it does when whoever started us is gone."""
    _warm()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the dead here
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sys.argv[1])
        listener.listen(64)
        print("ready", flush=True)
        while True:
            ready = readable_of([listener, sys.stdin])
            if sys.stdin in ready:
                return
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _child(connection)
            connection.close()


def _warm() -> None:
    """Have libraries import what they import on first use."""
    for name in ("alembic.command", "uvloop", "uvicorn.lifespan.on", "uvicorn.protocols.http.httptools_impl"):
        importlib.import_module(name)
    ObjectStore.connect(
        bucket="none", endpoint="http://127.0.0.1:9", region="us-east-1", access_key="none", secret_key="none"
    )
    gc.collect()
    gc.freeze()  # so that no fork's collector touches, and thereby copies, what is shared with us


def _child(connection: socket.socket) -> None:
    code = 1
    try:
        _die_with_parent()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        random.seed()  # or all forks would have the same chance
        with connection.makefile("r") as lines:
            wanted = Wanted(**json.loads(lines.readline()))
        _redirect(wanted)
        connection.sendall(f"{os.getpid()}\n".encode())
        run(wanted)
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it is, this fork must not go on as its parent
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


def run(wanted: Wanted) -> None:
    """Build and serve as `darkroom serve` does, with the parts that only tests have."""
    POINTS.arm(Kill(**wanted.kill) if wanted.kill else None)
    logs.configure("json", "info", Redactor())
    settings = load()
    with listen(settings.host, settings.port) as listener:
        service = build(
            settings,
            clock=adjustable(Path(wanted.clock)),
            timing=Timing(**{name: _tuple(value) for name, value in wanted.timing.items()}),
            factories=factories(wanted.lease_ms),
        )
        logs.configure("json", "info", service.resources.redactor)
        serve(service, service.asgi(work=wanted.work), listener)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _redirect(wanted: Wanted) -> None:
    os.environ.clear()
    os.environ.update(wanted.variables)
    log = os.open(wanted.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for ours, theirs in ((null, 0), (log, 1), (log, 2)):
        os.dup2(ours, theirs)
    os.chdir(Path(wanted.log).parent)  # where no `.env` lies


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    main()
