import asyncio
import threading

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from receiver.http.admission import Admission
from receiver.http.auth import Access
from receiver.http.limits import Limits
from receiver.http.routing import Answer, Operation, served
from receiver.http.sessions import Sessions
from receiver.schedule import system_clock

SHOW = Operation("GET /here", "show", answers={200: Answer(str, "The name of its thread.")})
SCOPE = {
    "type": "http", "method": "GET", "path": "/here", "query_string": b"", "path_params": {},
    "headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 5000),
}  # fmt: skip


def test_a_plain_handler_runs_in_a_thread() -> None:
    access = Access([])
    limits = Limits(system_clock, api_token=0, callback_token=0, bad_tokens=0, body_timeout_s=1)
    admission = Admission(access, limits, Sessions(access, ["key"], system_clock))

    def plain(_request: Request) -> Response:
        return PlainTextResponse(threading.current_thread().name)

    async def awaiting(request: Request) -> Response:
        return plain(request)

    for handler, on_the_loop in ((plain, False), (awaiting, True)):
        response = asyncio.run(served(SHOW, handler, admission).endpoint(Request(SCOPE)))
        assert (response.body.decode() == threading.current_thread().name) is on_the_loop
