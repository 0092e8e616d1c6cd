"""Supervise worker processes: start, restart with backoff, wake, and stop them.

Python runs one thread of a process at a time: while images are archived, a callback would wait for the
threads that archive, but not for another process. They share the ledger and the settings; through a socket
they wake each other, and its end tells that the other side is gone.

The first ones are forked from a process that has loaded everything, before it has threads, connections or
clients, and share its memory for as long as nobody writes there. One that takes the place of another is a new
process, which loads everything by itself: what has threads may not fork.
"""

import atexit
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from time import monotonic
from typing import Self

import structlog

from receiver.telemetry.multiprocess import count_as, remove_counts
from storage.ledger.wakeup import Topic, WakeupChannel

log = structlog.get_logger("darkroom.workers")

RESTART_S = 1.0
RESTART_MOST_S = 60.0
"""Backoff before a worker that ended by itself is started again: doubled each time, until one has lasted."""

RunWorker = Callable[[socket.socket], None]
"""What a worker process calls with its end of the socket. It can be pickled, and returns at the end of it."""

_FORK = multiprocessing.get_context("fork").Process
_SPAWN = multiprocessing.get_context("spawn").Process
_SENT = {Topic.WORK: b"w", Topic.EVENTS: b"e"}
_READY = b"r"
_GO = b"g"
"""What a worker waits for: a start that fails is told once, by the process that serves."""


class WakePipe:
    """One end of a socket to the other process. Topics that are not read in time are lost: they are alike."""

    def __init__(
        self, end: socket.socket, wakeup: WakeupChannel, ready: Callable[[], None] | None = None
    ) -> None:
        """`ready` is called when the other side says that it works."""
        self._end = end
        self._wakeup = wakeup
        self._ready = ready

    def notify(self, topic: Topic) -> None:
        """Notify the other side; never blocks."""
        self._send(_SENT[topic])

    def say_go(self) -> None:
        """Have the other side begin."""
        self._send(_GO)

    def say_ready(self) -> None:
        """Notify the other side that this one works."""
        self._send(_READY)

    def listen(self) -> None:
        """Dispatch what the other side sends until it is gone."""
        with suppress(OSError):
            while received := self._end.recv(4096):
                if _READY in received and self._ready is not None:
                    self._ready()
                for topic, sent in _SENT.items():
                    if sent in received:
                        self._wakeup.dispatch(topic)

    def _send(self, sent: bytes) -> None:
        with suppress(OSError):
            self._end.send(sent, socket.MSG_DONTWAIT)


@dataclass(frozen=True)
class Worker:
    """A process that works, and our end of the socket to it."""

    process: BaseProcess
    end: socket.socket


@dataclass(frozen=True)
class Workers:
    """Those that were forked at the start, and what to run in the place of one that ended."""

    run: RunWorker
    first: Sequence[Worker]

    @classmethod
    def fork(cls, number: int, run: RunWorker, *foreign: socket.socket) -> Self:
        """Fork them without sockets that are not theirs; before there is a thread.

        They wait for `WorkerProcesses.start`.
        """
        first: list[Worker] = []
        for n in range(number):
            ends = (other.end for other in first)
            first.append(_start(_FORK, _name(n), run, [*foreign, *ends]))
        return cls(run, first)

    def close(self) -> None:
        """End those that still wait: nobody will start them."""
        for worker in self.first:
            worker.end.close()


class WorkerProcesses:
    """So many processes that work on jobs until they are stopped. `start` them once."""

    def __init__(self, number: int, wakeup: WakeupChannel) -> None:
        self._number = number
        self._wakeup = wakeup
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._children: dict[BaseProcess, WakePipe] = {}
        self._ready: set[BaseProcess] = set()
        self._threads: list[threading.Thread] = []

    @property
    def running(self) -> int:
        """How many of them work now."""
        return len(self._ready)

    def start(self, workers: Workers) -> None:
        """Start them, and restart each that ends by itself."""
        # A child must not import what lies in the current folder before it has this process's own path.
        os.environ["PYTHONSAFEPATH"] = "1"
        self._wakeup.forward(self._notify)
        for number in range(self._number):
            one = (_name(number), workers.run, workers.first[number])
            thread = threading.Thread(target=self._supervise, args=one, name=one[0], daemon=True)
            self._threads.append(thread)
            thread.start()

    def leave(self) -> None:
        """Send them SIGTERM; returns at once."""
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

    def _notify(self, topic: Topic) -> None:
        with self._lock:
            pipes = list(self._children.values())
        for pipe in pipes:
            pipe.notify(topic)

    def _supervise(self, name: str, run: RunWorker, worker: Worker | None) -> None:
        pause = 0.0
        while not self._stopping.wait(pause):
            began = monotonic()
            try:
                worker = worker or _start(_SPAWN, name, run)
                why = f"exit code {self._run(worker)}"
            except OSError as error:
                why = f"it could not be started: {error.strerror}"
            worker = None
            lasted = monotonic() - began > RESTART_MOST_S
            pause = RESTART_S if lasted else min(max(RESTART_S, 2 * pause), RESTART_MOST_S)
            # Ctrl-C reaches both processes, and which of them is faster is not known.
            if not self._stopping.wait(RESTART_S):
                log.error("a worker process ended and is started again", why=why, again_s=pause)

    def _run(self, worker: Worker) -> int | None:
        """Have one work until it ends, and return its exit code."""
        child = worker.process
        with worker.end as end:
            pipe = WakePipe(end, self._wakeup, partial(self._ready.add, child))
            with self._lock:
                self._children[child] = pipe
                if self._stopping.is_set():
                    child.terminate()
            try:
                pipe.say_go()
                pipe.listen()
                child.join()
            finally:
                self._ready.discard(child)
                with self._lock:
                    del self._children[child]
                child.kill()
                child.join()
        return child.exitcode


def attach(end: socket.socket, wakeup: WakeupChannel, gone: Callable[[], None]) -> WakePipe:
    """Connect a worker to the process that serves; `gone` is called once that is no more."""
    pipe = WakePipe(end, wakeup)
    wakeup.forward(pipe.notify)

    def listen() -> None:
        pipe.listen()
        remove_counts()  # the process that made them may have been killed
        gone()

    threading.Thread(target=listen, name="wake-pipe", daemon=True).start()
    return pipe


def _name(number: int) -> str:
    return f"worker-{number}"


def _start(
    kind: Callable[..., BaseProcess], name: str, run: RunWorker, foreign: Sequence[socket.socket] = ()
) -> Worker:
    """Start a process of a kind; it waits until it is told to go, without sockets that are not its own."""
    ours, theirs = socket.socketpair()
    if kind is _FORK:
        foreign = [ours, *foreign]
    child = kind(target=_work, args=(name, run, theirs, foreign), name=name, daemon=True)
    with theirs:
        try:
            child.start()
        except BaseException:
            ours.close()
            raise
    return Worker(child, ours)


def _work(name: str, run: RunWorker, end: socket.socket, foreign: Sequence[socket.socket]) -> None:
    atexit._clear()  # what the process that forked this one does at its end is not for this one to do
    for one in foreign:
        one.close()
    # Ctrl-C reaches both processes, and the other one says when this one stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if end.recv(1) == _GO:
            count_as(name)
            run(end)
    finally:
        atexit._run_exitfuncs()
