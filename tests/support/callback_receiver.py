"""A small real HTTP server that keeps the callbacks it is sent, for tests of those who send them."""

import json
import queue
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class CallbackReceiver:
    """Answers `statuses` in turn, then 200; each answer waits until `together` requests are there."""

    def __init__(self, *statuses: int, together: int = 1) -> None:
        self.waiting: queue.Queue[Received] = queue.Queue()
        self._statuses: queue.Queue[int] = queue.Queue()
        for status in statuses:
            self._statuses.put(status)
        barrier = threading.Barrier(together)
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.waiting.put(Received(self.path, headers, body))
                barrier.wait(10)
                self.send_response(receiver._next_status())
                self.send_header("location", "/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/callbacks/token"

    def next(self, timeout_s: float = 10.0) -> Received:
        return self.waiting.get(timeout=timeout_s)

    def none_left(self) -> bool:
        return self.waiting.empty()

    def _next_status(self) -> int:
        try:
            return self._statuses.get_nowait()
        except queue.Empty:
            return 200

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
