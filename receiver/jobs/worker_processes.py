"""Have worker processes beside the one that serves, and wake each other.

Python runs one thread of a process at a time: while images are archived, a callback would wait for the
threads that archive, but not for another process. They share the ledger and the settings; through a socket
they wake each other, and its end tells that the other side is gone.
"""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from receiver.processes import Child, Children, Supervisor
from receiver.telemetry.multiprocess import remove_counts
from storage.ledger.wakeup import Topic, WakeupChannel

_SENT = {Topic.WORK: b"w", Topic.EVENTS: b"e"}
_READY = b"r"


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


class WorkerProcesses:
    """Processes that work on jobs until they are stopped. `start` them once."""

    def __init__(self, wakeup: WakeupChannel) -> None:
        self._wakeup = wakeup
        self._supervisor = Supervisor(self._attend)
        self._lock = threading.Lock()
        self._pipes: set[WakePipe] = set()
        self._ready: set[Child] = set()

    @property
    def running(self) -> int:
        """How many of them work now."""
        return len(self._ready)

    def start(self, workers: Children) -> None:
        """Start them, and restart each that ends by itself."""
        self._wakeup.forward(self._notify)
        self._supervisor.start(workers)

    def leave(self) -> None:
        """Send them SIGTERM; returns at once."""
        self._supervisor.leave()

    def stop(self, timeout_s: float) -> None:
        """Wait until they have stopped, and kill what has not by then."""
        self._supervisor.stop(timeout_s)

    def _notify(self, topic: Topic) -> None:
        with self._lock:
            pipes = list(self._pipes)
        for pipe in pipes:
            pipe.notify(topic)

    def _attend(self, worker: Child) -> None:
        pipe = WakePipe(worker.end, self._wakeup, partial(self._ready.add, worker))
        with self._lock:
            self._pipes.add(pipe)
        try:
            pipe.listen()
        finally:
            self._ready.discard(worker)
            with self._lock:
                self._pipes.discard(pipe)


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
