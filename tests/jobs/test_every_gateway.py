"""Every gateway from end to end over HTTP: submitted to its stand-in, told of or polled, archived.

Apiframe and API in One are in `test_life.py`.
"""

from dataclasses import replace
from typing import Any

import pytest

from receiver.demo.gateways import settings_of
from receiver.gateways.registry import BY_NAME
from receiver.gateways.table import Table
from receiver.sandbox import SandboxServer
from receiver.signatures import SCHEMES
from storage.models import FoundBy
from tests.support.live import FAST, IMAGEN, Live, Start

ALWAYS = {"bfl", "kie"}
"""One whose callbacks are proof, and one that is asked after each."""
NAMES = [name for name in BY_NAME if name not in {"apiframe", "api-in-one"}]
each_gateway = pytest.mark.parametrize(
    "name", [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.exhaustive) for name in NAMES]
)


@pytest.fixture(scope="module")
def told(start_shared: Start, sandbox: SandboxServer) -> Live:
    """A service with all gateways, which call it back."""
    return start_shared(gateways=settings_of(sandbox))


@pytest.fixture(scope="module")
def asking(start_shared: Start, sandbox: SandboxServer, tmp_path_factory: pytest.TempPathFactory) -> Live:
    """The same without a public URL, so that it can only ask."""
    return start_shared(tmp_path_factory.mktemp("asking"), gateways=settings_of(sandbox), callbacks=False)


@pytest.fixture(scope="module")
def doubting(start_shared: Start, sandbox: SandboxServer, tmp_path_factory: pytest.TempPathFactory) -> Live:
    """The same, which asks soon where no callback that it believes has come."""
    soon = replace(FAST, callback_polls=(0.3, 0.6), no_images=0.5)
    return start_shared(tmp_path_factory.mktemp("doubting"), gateways=settings_of(sandbox), timing=soon)


def asked(live: Live, name: str) -> dict[str, Any]:
    stand_in = next(one for one in live.sandbox.gateways if one.name == name)
    return {
        "gateway": name,
        "model": stand_in.model,
        "prompt": IMAGEN["prompt"],
        "params": stand_in.params(),
    }


def reads(table: Table, name: str) -> bool:
    return any(getattr(read, name) for read in table.read)


def proof(table: Table) -> str:
    """The verdict on its callbacks."""
    if table.signing is None:
        return "unsupported"
    content = "body" if table.signing.by == "keys" else SCHEMES[table.signing.scheme].content
    return "valid" if content.endswith("body") else "origin"


def assert_archived(live: Live, name: str, job: dict[str, Any]) -> None:
    assert job["status"] == "archived", job
    (output,) = live.outputs(job["id"])
    data = live.sandbox.image_bytes(job["gateway_job_id"])
    assert live.http.get(f"/v1/outputs/{output['id']}/image?stream=1").content == data
    result = live.job(job["id"]).result
    assert (result.images_returned, result.withheld) == (1, ())


@each_gateway
def test_a_job_is_told_of_and_archived(told: Live, name: str) -> None:
    """A seed that the gateway chose is recorded; what is only sent back to us proves none."""
    job, table = told.make(asked(told, name)), BY_NAME[name].table
    assert_archived(told, name, job)
    evidence = told.bucket.archive.read_record(told.job(job["id"]))["evidence"]
    assert evidence["found_by"] == "callback"
    # An answer with the images in it is kept, in the place of a callback that said the same.
    kept = {"answer"} if name == "runpod" else {proof(table)}
    assert {one["signature"] for one in evidence["deliveries"]} == kept
    assert evidence["confirmed_by"] == ("callback" if proof(table) == "valid" else "poll")
    result = told.job(job["id"]).result
    assert (result.seed is not None) == reads(table, "seed")
    assert result.echoed_seed is None


@each_gateway
def test_a_job_is_asked_for_and_archived(asking: Live, name: str) -> None:
    table, body = BY_NAME[name].table, asked(asking, name)
    family = table.family(body["model"])
    can = family is not None and "seed" in family.places
    job = asking.make(body | ({"seed": 7} if can else {}))
    assert_archived(asking, name, job)
    found = asking.job(job["id"])
    assert found.found_by is FoundBy.POLL_ONLY
    assert (found.result.seed is not None) == reads(table, "seed")
    if can and reads(table, "seed"):
        assert found.result.seed == "7"
    assert found.result.echoed_seed == ("7" if can and reads(table, "echoed") else None)


@pytest.mark.parametrize("fault", ["wrong_signature", "unsigned"])
@pytest.mark.parametrize(
    "name",
    [
        name if name == "bfl" else pytest.param(name, marks=pytest.mark.exhaustive)
        for name in NAMES
        if BY_NAME[name].table.signing
    ],
)
def test_what_a_callback_does_not_prove_is_asked_for(doubting: Live, name: str, fault: str) -> None:
    job = doubting.make(asked(doubting, name), fault=fault)
    assert_archived(doubting, name, job)
    evidence = doubting.bucket.archive.read_record(doubting.job(job["id"]))["evidence"]
    assert evidence["confirmed_by"] == "poll"
    assert {one["signature"] for one in evidence["deliveries"]} <= {"absent"}


@pytest.mark.parametrize("fault", [None, "missing_image", "item_error"])
def test_images_that_come_one_by_one_are_archived_once_all_are_there(
    doubting: Live, fault: str | None
) -> None:
    """One that never comes takes none of the others with it."""
    wish = {"sandbox": {"fault": fault}} if fault else {}
    job = doubting.make({**asked(doubting, "runware"), "num_images": 2, "params": wish})
    result = doubting.job(job["id"]).result
    assert result.images_returned == len(doubting.outputs(job["id"])) == (2 if fault is None else 1)
    assert len(result.withheld) == (1 if fault == "item_error" else 0)
