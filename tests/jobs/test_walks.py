"""Count the modules that are passed one thing on its way through the running service; see `support.walks`.

A limit is the figure as measured, and is only ever lowered.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from receiver.api.jobs import Api
from receiver.callbacks.intake import Intake
from receiver.gateways.client import GatewayClient
from receiver.http.connection_limits import LimitedConnection
from receiver.jobs.archive import Archiver
from receiver.jobs.reconcile import Reconciler
from receiver.jobs.worker import Worker
from storage.ledger.ledger import Ledger
from tests.callbacks.test_callbacks import Post, completed, in_both_ways, post_whole, running_job, signed
from tests.support.live import IMAGEN, Live, started
from tests.support.walks import Leg, Walk, walked

Walking = Callable[..., Any]


@pytest.fixture
def walking(s3_server: Any, sandbox: Any, tmp_path: Path) -> Walking:
    @contextmanager
    def walking(*legs: Leg, of_job: Collection[str] = (), work: bool = True) -> Iterator[tuple[Live, Walk]]:
        with (
            walked(*legs, fields_of_job=of_job) as walk,
            # Where an image is stored looks like no image's URL.
            started(s3_server, tmp_path, sandbox=sandbox, work=work, key_template="{job_id}.{index}") as live,
        ):
            yield live, walk
            assert walk.finished.wait(20)

    return walking


@in_both_ways
def test_callback_from_socket_to_ledger(walking: Walking, post: Post) -> None:
    """A callback: the token in its URL, and its body."""
    legs = (LimitedConnection.data_received, Intake.put), (Intake._write, Ledger.add_deliveries)
    with walking(*legs, work=False) as (live, walk):
        body = completed("theirs-walked")
        url = live.callback_url(running_job(live, "theirs-walked"))
        walk.value = (url.rpartition("/")[2], "theirs-walked")
        assert post(url, content=body, headers=signed(body)).status_code == 200
    assert 5 <= len(walk.modules) <= 12, walk.modules
    served = walk.modules["receiver/http/middleware.py"].partition(".")[0]
    assert served == ("AtOnce" if post is post_whole else "RequestMiddleware")


def test_prompt_from_api_to_gateway(walking: Walking) -> None:
    """A prompt: from `POST /v1/jobs` into the ledger, and with the worker to the gateway."""
    legs = (Api._submit, Ledger.add_jobs), (Worker.work, GatewayClient.send)
    with walking(*legs, of_job=("request", "prompt", "prompt_folded")) as (live, walk):
        walk.value = ("a zebra",)
        live.submit(IMAGEN, prompt="a zebra")
    assert 5 <= len(walk.modules) <= 10, walk.modules


def test_image_url_from_completion_to_archive(walking: Walking) -> None:
    """An image's URL: from a completion that is believed, by way of the ledger, into the archive."""
    leg = (Reconciler._decide, Archiver._fetch)
    with walking(leg, of_job=("images",)) as (live, walk):
        walk.value = ("/images/",)
        live.submit(IMAGEN)
    assert 5 <= len(walk.modules) <= 8, walk.modules
