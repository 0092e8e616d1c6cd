import asyncio
import threading
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from receiver.http.admission import Admission
from receiver.http.auth import Access
from receiver.http.limits import Limits
from receiver.http.routing import Answer, Operation, served
from receiver.http.sessions import Sessions
from receiver.schedule import system_clock

SHOW = Operation("GET /here", "show", answers={200: Answer(str, "The name of its thread.")})


@pytest.fixture
def admission() -> Admission:
    access = Access([])
    limits = Limits(system_clock, api_token=0, callback_token=0, bad_tokens=0, body_timeout_s=1)
    return Admission(access, limits, Sessions(access, ["key"], system_clock))


def plain(_request: Request) -> Response:
    """Return the name of the thread."""
    return PlainTextResponse(threading.current_thread().name)


async def awaiting(request: Request) -> Response:
    """Return the name of the thread."""
    return plain(request)


class TestServed:
    @pytest.mark.parametrize(("handler", "on_the_loop"), [(plain, False), (awaiting, True)])
    def test_runs_plain_handler_in_thread(
        self, admission: Admission, handler: Any, on_the_loop: bool
    ) -> None:
        scope = {
            "type": "http", "method": "GET", "path": "/here", "query_string": b"", "path_params": {},
            "headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 5000),
        }  # fmt: skip
        route = served(SHOW, handler, admission)
        response = asyncio.run(route.endpoint(Request(scope)))
        assert (response.body.decode() == threading.current_thread().name) is on_the_loop
        assert route.meaning == "Return the name of the thread."
