"""Put a proxy that can do harm between a command and the service."""

from collections.abc import Iterator

import pytest

from tests.faults.proxy import Proxy
from tests.support.running import Running


@pytest.fixture
def proxy(running: Running) -> Iterator[Proxy]:
    with Proxy(running.url) as proxy:
        yield proxy
