"""A whole Darkroom on PostgreSQL, alone and beside others."""

from __future__ import annotations

import pytest

from storage.books import total
from tests.live import IMAGEN, ULTRA, Start

KEYS = ["0123456789abcdef0123456789abcdef"]


@pytest.fixture
def ours(postgres_url: str) -> dict[str, object]:
    return {"database_url": postgres_url, "secret_keys": KEYS}


def test_jobs_of_every_gateway_are_archived(start: Start, ours: dict[str, object]) -> None:
    live = start(**ours)
    made = [live.make(IMAGEN, tags={"for": "shelf"}), live.make(ULTRA)]
    assert [job["status"] for job in made] == ["archived", "archived"]
    found = live.http.get("/v1/outputs", params={"q": "red kite tag:for=shelf"}).json()["outputs"]
    assert {one["job_id"] for one in found} == {made[0]["id"]}
    outputs = sum(len(job["outputs"]) for job in made)
    assert live.http.get("/v1/facets").json()["counted"] == outputs
    assert live.http.get("/readyz").status_code == 200
    assert live.http.get("/v1/books").json()["balanced"]


def test_any_replica_answers_for_any_job(start: Start, ours: dict[str, object]) -> None:
    first, second = start(**ours), start(**ours, work=False)
    with second.http.stream("GET", "/v1/events", timeout=30) as stream:
        job = first.submit(IMAGEN)
        assert second.finish(job["id"])["status"] == "archived"
        told = iter(stream.iter_lines())
        assert any('"status":"archived"' in line.replace(" ", "") for line in told)
    assert total(list(second.service.memory.ledger.books().values())).balanced
