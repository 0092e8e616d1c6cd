"""A whole Darkroom on PostgreSQL, alone and beside others."""

import threading

import httpx
import pytest

from receiver.gateways.client import GatewayClient
from receiver.resources import Factories
from storage.ledger.job_counts import total
from tests.support.live import IMAGEN, Start

KEYS = ["0123456789abcdef0123456789abcdef"]


@pytest.fixture
def ours(postgres_url: str) -> dict[str, object]:
    return {"database_url": postgres_url, "secret_keys": KEYS}


def test_any_replica_answers_for_any_job(start: Start, ours: dict[str, object]) -> None:
    first, second = start(**ours), start(**ours, work=False)
    with second.http.stream("GET", "/v1/events", timeout=30) as stream:
        job = first.submit(IMAGEN)
        assert second.finish(job["id"])["status"] == "archived"
        told = iter(stream.iter_lines())
        assert any('"status":"archived"' in line.replace(" ", "") for line in told)
    assert total(list(second.service.resources.ledger.job_counts().values())).balanced


def test_replicas_share_the_limit_of_a_gateway(start: Start, ours: dict[str, object]) -> None:
    under_way, most = 0, 0
    lock, never = threading.Lock(), threading.Event()

    class Counted(GatewayClient):
        """Counts the submissions that are under way, and keeps each there for a while."""

        def send(self, request: httpx.Request) -> httpx.Response:
            nonlocal under_way, most
            if request.method != "POST":
                return super().send(request)
            with lock:
                under_way += 1
                most = max(most, under_way)
            never.wait(0.2)
            try:
                return super().send(request)
            finally:
                with lock:
                    under_way -= 1

    factories = Factories(sender=Counted)
    replicas = [start(**ours, factories=factories, apiframe={"concurrency": 2}) for _ in range(3)]
    jobs = [replicas[number % 3].submit(IMAGEN | {"prompt": f"kite {number}"})["id"] for number in range(9)]
    assert {replicas[0].finish(job)["status"] for job in jobs} == {"archived"}
    assert most == 2
