"""Processes that only work, beside the one that serves, and what both sides say to each other.

Python runs one thread of a process at a time: while images are archived, a callback has to wait for each of
the threads that archive, and not for another process. They share the ledger and the settings; through a
socket they ring for each other, and its end is the news that the other side is gone. What the workers count
lies in files that the serving process adds to its own metrics
(https://prometheus.github.io/client_python/multiprocess/).
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic

import structlog
from prometheus_client import Metric as Family
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from receiver.telemetry.metrics import added
from storage.ledger.wakeup import Topic, WakeupChannel

log = structlog.get_logger("darkroom.workers")

COUNTS = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which prometheus_client learns where to count; it must be there when that is imported."""

AGAIN_S = 1.0
AGAIN_MOST_S = 60.0
"""How soon a worker that ended by itself is started again: twice as long each time, until one has lasted."""


class WakePipe:
    """One end of a socket to the other process. Rings that are not read in time are lost: they are alike."""

    def __init__(
        self, end: socket.socket, bell: WakeupChannel, ready: Callable[[], None] | None = None
    ) -> None:
        """`ready` is called when the other side says that it works."""
        self._end = end
        self._bell = bell
        self._ready = ready

    def ring(self, ring: Topic) -> None:
        """Ring over there; never waits."""
        self._send(_SENT[ring])

    def say_ready(self) -> None:
        """Tell the other side that this one works."""
        self._send(_READY)

    def listen(self) -> None:
        """Hear the other side until it is gone."""
        with suppress(OSError):
            while heard := self._end.recv(4096):
                if _READY in heard and self._ready is not None:
                    self._ready()
                for ring, sent in _SENT.items():
                    if sent in heard:
                        self._bell.dispatch(ring)

    def _send(self, sent: bytes) -> None:
        with suppress(OSError):
            self._end.send(sent, socket.MSG_DONTWAIT)


class WorkerProcesses:
    """So many processes that run `darkroom work` until they are told to stop. `start` them once."""

    def __init__(self, number: int, bell: WakeupChannel, variables: Mapping[str, str]) -> None:
        """`variables` are those of their settings that this process was given in another way."""
        self._number = number
        self._bell = bell
        self._variables = dict(variables)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._children: dict[subprocess.Popen[bytes], WakePipe] = {}
        self._ready: set[int] = set()
        self._threads: list[threading.Thread] = []
        self._counts = _Counts()

    @property
    def running(self) -> int:
        """How many of them work now."""
        return len(self._ready)

    def start(self) -> None:
        """Start them, and start each again that ends by itself."""
        self._counts.begin()
        self._bell.forward(self._ring)
        for number in range(self._number):
            name = f"worker-{number}"
            self._threads.append(threading.Thread(target=self._keep, name=name, daemon=True))
            self._threads[-1].start()

    def leave(self) -> None:
        """Tell them to stop; returns at once."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        with self._lock:
            for child in self._children:
                child.terminate()

    def stop(self, timeout_s: float) -> None:
        """Wait until they have stopped, and kill what has not by then."""
        self.leave()
        deadline = monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - monotonic()))
        with self._lock:
            for child in self._children:
                child.kill()
        for thread in self._threads:
            thread.join()
        self._counts.end()

    def counted(self) -> list[Family]:
        """What they have counted, those that are gone included."""
        return [] if self._stopping.is_set() else self._counts.read()

    def _ring(self, ring: Topic) -> None:
        with self._lock:
            lines = list(self._children.values())
        for line in lines:
            line.ring(ring)

    def _keep(self) -> None:
        pause = 0.0
        while not self._stopping.wait(pause):
            began = monotonic()
            why = self._ended()
            lasted = monotonic() - began > AGAIN_MOST_S
            pause = AGAIN_S if lasted else min(max(AGAIN_S, 2 * pause), AGAIN_MOST_S)
            # Ctrl-C reaches both processes, and which of them is faster is not known.
            if not self._stopping.wait(AGAIN_S):
                log.error("a worker process ended and is started again", why=why, again_s=pause)

    def _ended(self) -> str:
        """Run one until it ends; answers why it did."""
        try:
            return f"exit code {self._run()}"
        except OSError as error:
            return f"it could not be started: {error.strerror}"

    def _run(self) -> int:
        environment = os.environ | self._variables | self._counts.variables()
        with _spawned(environment) as (child, end):
            line = WakePipe(end, self._bell, lambda: self._ready.add(child.pid))
            with self._lock:
                self._children[child] = line
                if self._stopping.is_set():
                    child.terminate()
            try:
                line.listen()
                return child.wait()
            finally:
                self._ready.discard(child.pid)
                with self._lock:
                    del self._children[child]
                child.kill()
                child.wait()
                self._counts.keep(child.pid)


def attach(descriptor: int, bell: WakeupChannel, gone: Callable[[], None]) -> WakePipe:
    """Ring and listen as the worker of a process that serves; `gone` is called once that is no more."""
    _reserve(os.environ.get(COUNTS))
    line = WakePipe(socket.socket(fileno=descriptor), bell)
    bell.forward(line.ring)

    def listen() -> None:
        line.listen()
        # Whoever made the folder can no longer remove it.
        if folder := os.environ.get(COUNTS):
            shutil.rmtree(folder, ignore_errors=True)
        gone()

    threading.Thread(target=listen, name="beside", daemon=True).start()
    return line


class _Counts:
    """The files in which the workers count, and what those that are gone had counted."""

    def __init__(self) -> None:
        self._folder: str | None = None
        self._gone: list[Family] = []
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Make the folder for the files; without one, work goes on and is not counted."""
        try:
            self._folder = tempfile.mkdtemp(prefix="darkroom-workers-")
        except OSError as error:
            log.error("what the workers do will not be in the metrics", why=error.strerror)

    def variables(self) -> dict[str, str]:
        """What the next worker is to be told."""
        if self._folder is None:
            return {}
        # Whoever tidies the place up may have taken it away.
        Path(self._folder).mkdir(exist_ok=True)
        return {COUNTS: self._folder}

    def read(self) -> list[Family]:
        with self._lock:
            return added([*self._gone, *self._of("*")])

    def keep(self, pid: int) -> None:
        """Remember what a worker that is gone had counted, and remove its files."""
        if self._folder is None:
            return
        mark_process_dead(pid, self._folder)  # type: ignore[no-untyped-call]
        with self._lock:
            self._gone = added([*self._gone, *self._of(f"*_{pid}")])
            for file in Path(self._folder).glob(f"*_{pid}.db"):
                file.unlink(missing_ok=True)

    def end(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _of(self, names: str) -> list[Family]:
        if self._folder is None:
            return []
        for again in (True, False):
            files = [str(file) for file in Path(self._folder).glob(f"{names}.db")]
            try:
                return list(MultiProcessCollector.merge(files))  # type: ignore[no-untyped-call]
            except (OSError, ValueError, struct.error):
                # A worker was just making the file.
                if not again:
                    log.exception("what the workers counted could not be read")
        return []


_SENT = {Topic.WORK: b"w", Topic.EVENTS: b"e"}
_READY = b"r"


def _reserve(folder: str | None) -> None:
    """Have the disk keep room for what this process counts: to find none later would end it at once."""
    if folder is None:
        return
    for file in Path(folder).glob(f"*_{os.getpid()}.db"):
        with file.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)


@contextmanager
def _spawned(environment: Mapping[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            # -P, so that what lies in the current folder is not run; where Darkroom itself is, is told.
            command = [sys.executable, "-P", "-m", "receiver", "work", "--beside", str(theirs.fileno())]
            places = [str(Path(__file__).parents[2]), environment.get("PYTHONPATH", "")]
            path = os.pathsep.join(place for place in places if place)
            child = subprocess.Popen(  # noqa: S603 - nothing in it comes from outside
                command, env={**environment, "PYTHONPATH": path}, pass_fds=[theirs.fileno()]
            )
        yield child, ours
