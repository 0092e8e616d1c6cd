"""Run something in several processes: fork them, restart them with backoff, and stop them.

The first ones are forked from a process that has loaded everything, before it has threads, connections or
clients, and share its memory for as long as nobody writes there. One that takes the place of another is a new
process, which loads everything by itself: what has threads may not fork.

Each has a socket to the process that started it, whose end tells that the other side is gone.
"""

import atexit
import gc
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from time import monotonic
from typing import Self

import structlog

from receiver.telemetry.multiprocess import count_as

log = structlog.get_logger("darkroom.processes")

RESTART_S = 1.0
RESTART_MOST_S = 60.0
"""Backoff before one that ended by itself is started again: doubled each time, until one has lasted."""

Run = Callable[[socket.socket], None]
"""What a process calls with its end of the socket; it ends when this returns. It can be pickled."""

_FORK = multiprocessing.get_context("fork").Process
_SPAWN = multiprocessing.get_context("spawn").Process
_GO = b"g"
"""What a process waits for: a start that fails is told once, by the process that started it."""


@dataclass(frozen=True, eq=False)
class Child:
    """A process, and our end of the socket to it."""

    process: BaseProcess
    end: socket.socket

    def go(self) -> None:
        """Have it begin."""
        self.end.send(_GO)


@dataclass(frozen=True)
class Children:
    """Those that were forked at the start, and how to start another in the place of one that ended."""

    name: str
    """What they are called, each with a number."""
    run: Run
    first: list[Child] = field(default_factory=list)

    @classmethod
    def fork(cls, name: str, number: int, run: Run, *foreign: socket.socket) -> Self:
        """Fork them without sockets that are not theirs; before there is a thread.

        They wait until a `Supervisor` starts them.
        """
        made = cls(name, run)
        # The collector would write to every page that is shared, were it to look at what was loaded.
        gc.freeze()
        for n in range(number):
            made.first.append(made.start(n, _FORK, [*foreign, *(other.end for other in made.first)]))
        return made

    def start(
        self, number: int, kind: Callable[..., BaseProcess] = _SPAWN, foreign: Sequence[socket.socket] = ()
    ) -> Child:
        """Start one, which waits until it is told to go; raise OSError if that is not possible."""
        ours, theirs = socket.socketpair()
        if kind is _FORK:
            foreign = [ours, *foreign]
        name = f"{self.name}-{number}"
        process = kind(target=_child, args=(name, self.run, theirs, foreign), name=name, daemon=True)
        with theirs:
            try:
                process.start()
            except BaseException:
                ours.close()
                raise
        return Child(process, ours)

    def close(self) -> None:
        """End those that still wait: nobody will start them."""
        for child in self.first:
            child.end.close()


class Supervisor:
    """Starts children, restarts each that ends by itself, and stops them. `start` it once."""

    def __init__(self, attend: Callable[[Child], None], refused: Callable[[int], bool] = lambda _code: False):
        """`attend` is called with each child, in a thread; it returns once the other end of its socket is
        gone.

        `refused` is called with the exit code of one that ended by itself; if it returns True no other is
        started in its place.
        """
        self._attend = attend
        self._refused = refused
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._running: set[BaseProcess] = set()
        self._threads: list[threading.Thread] = []

    def start(self, children: Children) -> None:
        """Have them begin."""
        # A new one must not import what lies in the current folder before it has this process's own path.
        os.environ["PYTHONSAFEPATH"] = "1"
        for number, first in enumerate(children.first):
            one = (children, number, first)
            thread = threading.Thread(target=self._supervise, args=one, name=first.process.name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def leave(self) -> None:
        """Send them SIGTERM; returns at once."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        with self._lock:
            for process in self._running:
                process.terminate()

    def stop(self, timeout_s: float) -> None:
        """Wait until they have stopped, and kill what has not by then."""
        self.leave()
        deadline = monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - monotonic()))
        with self._lock:
            for process in self._running:
                process.kill()
        for thread in self._threads:
            thread.join()

    def _supervise(self, children: Children, number: int, child: Child | None) -> None:
        pause = 0.0
        while not self._stopping.wait(pause):
            began = monotonic()
            try:
                code = self._run(child or children.start(number))
                why = f"exit code {code}"
                if code is not None and not self._stopping.is_set() and self._refused(code):
                    return
            except OSError as error:
                why = f"it could not be started: {error.strerror}"
            child = None
            lasted = monotonic() - began > RESTART_MOST_S
            pause = RESTART_S if lasted else min(max(RESTART_S, 2 * pause), RESTART_MOST_S)
            # Ctrl-C reaches all processes, and which of them is faster is not known.
            if not self._stopping.wait(RESTART_S):
                log.error(f"a {children.name} process ended and is started again", why=why, again_s=pause)

    def _run(self, child: Child) -> int | None:
        """Have one run until it ends, and return its exit code."""
        process = child.process
        with child.end:
            with self._lock:
                self._running.add(process)
                if self._stopping.is_set():
                    process.terminate()
            try:
                child.go()
                self._attend(child)
                process.join()
            finally:
                with self._lock:
                    self._running.discard(process)
                process.kill()
                process.join()
        return process.exitcode


def _child(name: str, run: Run, end: socket.socket, foreign: Sequence[socket.socket]) -> None:
    atexit._clear()  # what the process that forked this one does at its end is not for this one to do
    for one in foreign:
        one.close()
    # Ctrl-C reaches all processes, and the one that started this one says when it stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        if end.recv(1) == _GO:
            count_as(name)
            run(end)
    finally:
        atexit._run_exitfuncs()
