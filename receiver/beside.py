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
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic

import structlog
from prometheus_client import Metric as Family
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from storage.bell import Bell, Ring

log = structlog.get_logger("darkroom.workers")

COUNTS = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which prometheus_client learns where to count; it must be there when that is imported."""

AGAIN_S = 1.0
AGAIN_MOST_S = 60.0
"""How soon a worker that ended by itself is started again: twice as long each time, until one has lasted."""


class Line:
    """One end of a socket to the other process. Rings that are not read in time are lost: they are alike."""

    def __init__(self, end: socket.socket, bell: Bell) -> None:
        self._end = end
        self._bell = bell

    def ring(self, ring: Ring) -> None:
        """Ring over there; never waits."""
        with suppress(OSError):
            self._end.send(_SENT[ring], socket.MSG_DONTWAIT)

    def listen(self) -> None:
        """Hear the other side until it is gone."""
        with suppress(OSError):
            while heard := self._end.recv(4096):
                for ring, sent in _SENT.items():
                    if sent in heard:
                        self._bell.heard(ring)


class Workers:
    """So many processes that run `darkroom work` until they are told to stop. `start` them once."""

    def __init__(self, number: int, bell: Bell) -> None:
        self.running = 0
        """How many there are now, those included that are about to be started again."""
        self._number = number
        self._bell = bell
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._children: dict[subprocess.Popen[bytes], Line] = {}
        self._threads: list[threading.Thread] = []
        self._counts: tempfile.TemporaryDirectory[str] | None = None

    def start(self) -> None:
        """Start them, and start each again that ends by itself."""
        self._counts = tempfile.TemporaryDirectory(prefix="darkroom-workers-")
        self._bell.tie(self._ring)
        self.running = self._number
        for number in range(self._number):
            name = f"worker-{number}"
            self._threads.append(threading.Thread(target=self._keep, name=name, daemon=True))
            self._threads[-1].start()

    def leave(self) -> None:
        """Tell them to stop; returns at once."""
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
        if self._counts is not None:
            self._counts.cleanup()

    def counted(self) -> Iterable[Family]:
        """What they have counted, those that are gone included."""
        if self._counts is None or self._stopping.is_set():
            return []
        files = MultiProcessCollector(None, path=self._counts.name)  # type: ignore[no-untyped-call]
        return list(files.collect())  # type: ignore[no-untyped-call]

    def _ring(self, ring: Ring) -> None:
        with self._lock:
            lines = list(self._children.values())
        for line in lines:
            line.ring(ring)

    def _keep(self) -> None:
        pause = 0.0
        while not self._stopping.wait(pause):
            began = monotonic()
            code = self._run()
            lasted = monotonic() - began > AGAIN_MOST_S
            pause = AGAIN_S if lasted else min(max(AGAIN_S, 2 * pause), AGAIN_MOST_S)
            # Ctrl-C reaches both processes, and which of them is faster is not known.
            if not self._stopping.wait(AGAIN_S):
                log.error("a worker process ended and is started again", code=code, again_s=pause)
        self.running -= 1

    def _run(self) -> int:
        """Run one until it ends; answers its exit code."""
        assert self._counts is not None
        with _spawned(self._counts.name) as (child, end):
            line = Line(end, self._bell)
            with self._lock:
                self._children[child] = line
                if self._stopping.is_set():
                    child.terminate()
            try:
                line.listen()
                return child.wait()
            finally:
                with self._lock:
                    del self._children[child]
                mark_process_dead(child.pid, self._counts.name)  # type: ignore[no-untyped-call]


def attach(descriptor: int, bell: Bell, gone: Callable[[], None]) -> None:
    """Ring and listen as the worker of a process that serves; `gone` is called once that is no more."""
    line = Line(socket.socket(fileno=descriptor), bell)
    bell.tie(line.ring)

    def listen() -> None:
        line.listen()
        # Whoever made the folder can no longer remove it.
        shutil.rmtree(os.environ[COUNTS], ignore_errors=True)
        gone()

    threading.Thread(target=listen, name="beside", daemon=True).start()


_SENT = {Ring.WORK: b"w", Ring.EVENTS: b"e"}


@contextmanager
def _spawned(counts: str) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            # -P: what lies in the current folder is not ours to run.
            command = [sys.executable, "-P", "-m", "receiver", "work", "--beside", str(theirs.fileno())]
            child = subprocess.Popen(  # noqa: S603 - nothing in it comes from outside
                command, env=os.environ | {COUNTS: counts}, pass_fds=[theirs.fileno()]
            )
        yield child, ours
