"""A real HTTP server that keeps the requests it is sent, for tests of whoever sends them."""

import json
import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass(frozen=True)
class Received:
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """What a request is answered; it is held back until `until` is set."""

    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    until: threading.Event | None = None


class Recorder:
    """Gives `answers` in turn, then `then`; each waits until `together` requests are there."""

    def __init__(self, *answers: Answer, then: Answer, port: int = 0, together: int = 1) -> None:
        self.requests: queue.Queue[Received] = queue.Queue()
        self._answers, self._then = iter(answers), then
        self._barrier, self._lock = threading.Barrier(together), threading.Lock()
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                recorder._handle(self)

            do_GET = do_HEAD = do_PUT = do_POST  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def next(self, timeout_s: float = 10) -> Received:
        return self.requests.get(timeout=timeout_s)

    def none_left(self) -> bool:
        return self.requests.empty()

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        body = handler.rfile.read(int(headers.get("content-length", 0)))
        with self._lock:
            answer = next(self._answers, self._then)
        self.requests.put(Received(handler.path, headers, body))
        self._barrier.wait(10)
        if answer.until is not None:
            answer.until.wait(30)
        try:
            handler.send_response(answer.status)
            sent = {"content-length": str(len(answer.body)), **answer.headers}
            for name, value in sent.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(answer.body if handler.command != "HEAD" else b"")
            handler.close_connection |= int(sent["content-length"]) > len(answer.body)
        except ConnectionError:
            handler.close_connection = True

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class CallbackReceiver(Recorder):
    """Answers `statuses` in turn, then 200, and always names another place."""

    def __init__(self, *statuses: int, together: int = 1) -> None:
        first, *more = (Answer(status, {"location": "/elsewhere"}) for status in (200, *statuses))
        super().__init__(*more, then=first, together=together)
        self.url += "/callbacks/token"
