"""Several accounts of one gateway: each has a key, limits, spending and pauses of its own."""

import json
from collections.abc import Iterator

import pytest

from receiver.sandbox import SandboxServer
from tests.support.live import IMAGEN, QUICK, ULTRA, Live, Start
from tests.support.running import command

SECOND = IMAGEN | {"gateway": "apiframe.second"}
NAMES = ["api-in-one", "apiframe", "apiframe.second"]


@pytest.fixture(scope="module")
def live(start_shared: Start) -> Iterator[Live]:
    second = {"second": {"api_key": "afk_poor", "concurrency": 1}}
    with SandboxServer(QUICK) as sandbox:
        yield start_shared(sandbox=sandbox, apiframe={"accounts": second, "concurrency": 7})


def test_each_account_pays_signs_and_is_found_alone(live: Live) -> None:
    jobs = {name: live.make(IMAGEN | {"gateway": name}) for name in NAMES[1:]}
    for name, key in (("apiframe", "afk_sandbox"), ("apiframe.second", "afk_poor")):
        job = jobs[name]
        assert (job["status"], job["gateway"]) == ("archived", name), job
        theirs = live.sandbox.sandbox.jobs.get(job["gateway_job_id"])
        assert theirs
        assert theirs.account.key == key
        record = live.bucket.archive.read_record(live.job(job["id"]))
        assert record["job"]["gateway"] == name
        assert {one["signature"] for one in record["evidence"]["deliveries"]} == {"valid"}
        for query in ({"gateway": name}, {"q": f"gateway:{name}"}):
            found = live.http.get("/v1/outputs", params=query).json()["outputs"]
            assert {one["job_id"] for one in found} == {job["id"]}
    usage = live.http.get("/v1/usage", params={"by": "gateway"}).json()
    assert {one["value"]: one["jobs"] for one in usage["groups"]} == dict.fromkeys(jobs, 1)
    assert 'darkroom_jobs{gateway="apiframe.second",status="archived"} 1' in live.http.get("/metrics").text
    shown = command("jobs", "--gateway", "apiframe.second", "--json", DARKROOM_URL=live.url)
    assert [one["id"] for one in json.loads(shown.stdout)] == [jobs["apiframe.second"]["id"]]


def test_an_account_has_the_models_and_a_limit_of_its_own(live: Live) -> None:
    offered = live.http.get("/v1/models").json()["models"]
    models = {name: [one["model"] for one in offered if one["gateway"] == name] for name in NAMES}
    assert models["apiframe.second"] == models["apiframe"] != []
    limits = live.parts.submitter.context.sender.limits
    assert (limits["apiframe"], limits["apiframe.second"]) == (7, 1)
    assert [one["name"] for one in live.http.get("/v1/gateways").json()["gateways"]] == NAMES


def test_a_callback_url_is_of_one_account(live: Live) -> None:
    url = live.callback_url(live.submit(SECOND | {"model": "flux-schnell"})["id"])
    assert url.startswith(f"{live.url}/callbacks/apiframe.second/")
    assert live.http.get(url).status_code == 200
    assert live.http.get(url.replace("apiframe.second", "apiframe")).status_code == 401


def test_an_account_without_credits_is_paused_alone(live: Live) -> None:
    waiting = live.submit(SECOND)["id"]
    for _ in range(100):
        job = live.http.get(f"/v1/jobs/{waiting}", params={"wait": 0.05}).json()
        if job["error"]:
            break
    assert job["error"]["code"] == "out_of_credits"
    assert "Apiframe (second)" in job["error"]["message"]
    circuits = {one["name"]: one["circuit"] for one in live.http.get("/v1/gateways").json()["gateways"]}
    assert circuits["apiframe.second"]["code"] == "out_of_credits"
    assert circuits["apiframe"] is circuits["api-in-one"] is None
    assert [live.make(body)["status"] for body in (IMAGEN, ULTRA)] == ["archived"] * 2
