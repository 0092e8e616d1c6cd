"""Count the modules of ours that one has to open to follow one thing through the running service.

A limit is the figure as measured, and is only ever lowered.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver.api.jobs import Api
from receiver.gateways.client import GatewayClient
from receiver.http.connection_limits import LimitedConnection
from receiver.jobs.archive import Archiver
from storage.archive.archive import Archive
from storage.ledger.ledger import Ledger
from tests.callbacks.test_callbacks import completed, running_job, signed
from tests.support.live import IMAGEN, Live, started
from tests.support.walks import Walk, walked

Walking = Callable[..., Any]


@pytest.fixture
def walking(s3_server: Any, sandbox: Any, tmp_path: Path) -> Walking:
    @contextmanager
    def walking(begin: Any, end: Any, *, work: bool = True, **more: Any) -> Iterator[tuple[Live, Walk]]:
        with (
            walked(begin, end, **more) as walk,
            started(s3_server, tmp_path, sandbox=sandbox, work=work) as live,
        ):
            yield live, walk
            assert walk.finished.wait(20)

    return walking


def test_callback_from_socket_to_ledger(walking: Walking) -> None:
    """From the head of the request to the call of the ledger that writes it."""
    with walking(LimitedConnection.on_headers_complete, Ledger.add_deliveries, work=False) as (live, walk):
        body = completed("theirs-walked")
        url = live.callback_url(running_job(live, "theirs-walked"))
        walk.armed = True
        assert httpx.post(url, content=body, headers=signed(body)).status_code == 200
    assert len(walk.modules) <= 12, walk.modules


def test_prompt_from_api_to_gateway(walking: Walking) -> None:
    """The modules that are passed the prompt, by either thread; shall become 10."""
    with walking(Api.submit, GatewayClient.send, holding="a zebra") as (live, walk):
        walk.armed = True
        live.submit(IMAGEN, prompt="a zebra")
    assert 5 <= len(walk.modules) <= 24, walk.modules


def test_image_url_from_completion_to_archive(walking: Walking) -> None:
    """From the step that archives a completed job to the archive; shall become 8."""
    with walking(Archiver.run, Archive.store_image, one_thread=True) as (live, walk):
        walk.armed = True
        live.submit(IMAGEN)
    assert 5 <= len(walk.modules) <= 15, walk.modules
