"""What stands before replicas: takes a connection, and gives it to the next of them that is there."""

import itertools
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

from receiver.http.server import listen


class Front:
    """Passes connections on to whoever listens on one of some ports, in turn. Use it as a context manager.

    A connection of one that dies breaks off, as it would behind any load balancer.
    """

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = ports
        self._turn = itertools.count()
        self._listener = listen("127.0.0.1", 0)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, name="front", daemon=True)

    def __enter__(self) -> Self:
        self._listener.listen(256)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            replica = self._reach()
            if replica is None:
                caller.close()
                continue
            threading.Thread(target=_connect, args=(caller, replica), daemon=True).start()

    def _reach(self) -> socket.socket | None:
        first = next(self._turn)
        for n in range(len(self._ports)):
            with suppress(OSError):
                reached = socket.create_connection(
                    ("127.0.0.1", self._ports[(first + n) % len(self._ports)]), 2
                )
                reached.settimeout(None)  # answers may take as long as they like
                return reached
        return None


def _connect(caller: socket.socket, replica: socket.socket) -> None:
    with caller, replica:
        back = threading.Thread(target=_pass_on, args=(replica, caller), daemon=True)
        back.start()
        _pass_on(caller, replica)
        back.join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    # Both ways end together: half a connection would have the other side wait for ever.
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
