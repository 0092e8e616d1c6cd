"""What all scenarios of the fault suite share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.forks import Forks


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Where services are forked from."""
    with Forks() as forks:
        yield forks
