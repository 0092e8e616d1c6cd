"""The sandbox that the tests of a file share, with a client of each gateway and a receiver of callbacks."""

from collections.abc import Iterator

import httpx
import pytest

from receiver.sandbox import SandboxServer
from tests.support.recorder import CallbackReceiver
from tests.support.sandbox import FAST, connect


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer(FAST) as server:
        yield server


@pytest.fixture(scope="module")
def client(sandbox: SandboxServer) -> Iterator[httpx.Client]:
    with connect(sandbox, x_api_key="afk_sandbox") as client:
        yield client


@pytest.fixture(scope="module")
def one(sandbox: SandboxServer) -> Iterator[httpx.Client]:
    with connect(sandbox, authorization="Bearer aio_sandbox") as client:
        yield client


@pytest.fixture
def receiver() -> Iterator[CallbackReceiver]:
    with CallbackReceiver() as receiver:
        yield receiver
