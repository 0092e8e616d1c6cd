"""The sandbox's Apiframe, over HTTP, against that gateway's published contract."""

import json
import uuid
from dataclasses import asdict, replace
from typing import Any

import httpx
import pytest

from receiver.sandbox import SandboxServer
from tests.support.sandbox import FAST, PROMPT, ask, connect, credits_of, take


def test_a_job_is_accepted_and_completes(sandbox: SandboxServer, client: httpx.Client) -> None:
    answer = ask(client, imagenParams={"aspect_ratio": "16:9", "output_format": "png"})
    assert answer.status_code == 202
    assert answer.json() == {"jobId": str(uuid.UUID(answer.json()["jobId"])), "status": "QUEUED"}
    assert answer.headers["x-request-id"]
    job_id = answer.json()["jobId"]
    sandbox.wait(job_id)
    job = client.get(f"/v2/jobs/{job_id}").json()
    assert job["createdAt"] <= job["completedAt"]
    del job["createdAt"], job["completedAt"]
    assert job == {
        "id": job_id,
        "status": "COMPLETED",
        "model": "imagen-4-fast",
        "progress": 100,
        "result": {"images": [f"{sandbox.url}/images/{job_id}/0.png"]},
        "error": None,
        "creditCost": 4,
        "webhookStatus": None,
        "expired": False,
        "input": {"prompt": PROMPT, "aspect_ratio": "16:9", "output_format": "png"},
    }


@pytest.mark.parametrize(
    ("asked", "suffix", "media_type"),
    [
        ({}, "jpg", "image/jpeg"),
        ({"imagenParams": {"output_format": "png"}}, "png", "image/png"),
        ({"model": "flux-2-pro", "fluxParams": {"seed": 7, "anything": True}}, "jpg", "image/jpeg"),
    ],
)
def test_the_image_is_served_with_its_type(
    sandbox: SandboxServer, client: httpx.Client, asked: dict[str, Any], suffix: str, media_type: str
) -> None:
    job_id = take(client, **asked)
    (link,) = sandbox.wait(job_id).images
    image = httpx.get(link, trust_env=False)
    assert link.endswith(f"/0.{suffix}")
    assert (image.status_code, image.headers["content-type"]) == (200, media_type)
    assert image.content == sandbox.image_bytes(job_id)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x" * 2001}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"model": "imagen-5"}, "model"),
        ({"webhook_url": "https://example.com/"}, "webhook_url"),
        ({"webhookUrl": "not a url"}, "webhookUrl"),
        ({"webhookUrl": None}, "webhookUrl"),
        ({"webhookEvents": []}, "webhookEvents"),
        ({"webhookEvents": ["finished"]}, "webhookEvents.0"),
        ({"seed": 1}, "seed"),
        ({"imagenParams": {"seed": 1}}, "imagenParams.seed"),
        ({"imagenParams": {"aspect_ratio": "2:1"}}, "imagenParams.aspect_ratio"),
        ({"imagenParams": {"image_size": "4K"}}, "imagenParams.image_size"),
        ({"imagenParams": {"output_format": None}}, "imagenParams.output_format"),
        ({"imagenParams": []}, "imagenParams"),
        ({"fluxParams": {}}, "fluxParams"),
        ({"model": "flux-lora"}, "fluxLoraParams"),
        ({"imagenParams": {"sandbox": "laet"}}, "sandbox"),
        ({"imagenParams": {"sandbox": {"fault": "late", "delay": 2}}}, "sandbox"),
        ({"imagenParams": {"sandbox": "bytes"}}, "sandbox"),
        ({"imagenParams": {"sandbox": "failed_in_200"}}, "sandbox"),
    ],
)
def test_what_the_schema_forbids_is_refused(client: httpx.Client, fields: dict[str, Any], path: str) -> None:
    answer = ask(client, **fields)
    assert answer.status_code == 400
    assert list(answer.json()["details"]) == [path]
    assert all(isinstance(text, str) for text in answer.json()["details"][path])


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff"])
def test_a_body_that_is_no_json_object_is_refused(client: httpx.Client, body: bytes) -> None:
    assert client.post("/v2/images/generate", content=body).status_code == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x-api-key": ""}, 401),
        ({"x-api-key": "afk_unknown"}, 401),
        ({"x-api-key": "aio_sandbox"}, 401),
        ({"x-api-key": "afk_inactive"}, 403),
        ({"x-api-key": "", "authorization": "Bearer afk_sandbox"}, 200),
    ],
)
def test_only_active_keys_are_let_in(client: httpx.Client, headers: dict[str, str], status: int) -> None:
    answer = client.get("/v2/jobs", headers=headers)
    assert answer.status_code == status
    assert answer.headers["x-request-id"]
    assert ("error" in answer.json()) == (status != 200)


def test_an_account_runs_out_of_credits(sandbox: SandboxServer, client: httpx.Client) -> None:
    poor = {"x-api-key": "afk_poor"}
    take(client, poor)
    answer = ask(client, poor)
    assert answer.status_code == 402
    assert answer.json() == {"error": "Insufficient credits", "creditsRequired": 4, "creditsAvailable": 1}
    assert credits_of(sandbox, "afk_poor") == 1


def test_an_idempotency_key_holds_for_a_day() -> None:
    now = [1_800_000_000.0]
    config = replace(FAST, clock=lambda: now[0])
    with SandboxServer(config) as sandbox, connect(sandbox) as client:
        headers = {"x-api-key": "afk_sandbox", "idempotency-key": "one"}
        first = take(client, headers)
        assert take(client, headers) == first
        assert ask(client, headers, prompt="another").status_code == 409
        assert [job.id for job in sandbox.jobs()] == [first]
        assert credits_of(sandbox, "afk_sandbox") == 10_000_000 - 4
        now[0] += 24 * 3600
        assert take(client, headers) != first
        assert ask(client, headers | {"idempotency-key": "k" * 256}).status_code == 400


def test_polls_know_their_own_account_s_jobs_only(client: httpx.Client) -> None:
    job_id = take(client)
    assert client.get("/v2/jobs/not-a-uuid").status_code == 400
    assert client.get(f"/v2/jobs/{uuid.uuid4()}").status_code == 404
    assert client.get(f"/v2/jobs/{job_id}", headers={"x-api-key": "afk_poor"}).status_code == 404
    assert client.get("/v2/nothing").json() == {"error": "Not Found"}


def test_jobs_are_listed_newest_first_in_pages() -> None:
    with SandboxServer(FAST) as sandbox, connect(sandbox, x_api_key="afk_sandbox") as client:
        ids = [take(client, prompt=f"number {n}") for n in range(3)]
        other = take(client, model="imagen-4")
        for job_id in (*ids, other):
            sandbox.wait(job_id)
        query = {"model": "imagen-4-fast", "status": "COMPLETED", "limit": "2"}
        first = client.get("/v2/jobs", params=query).json()
        assert [job["id"] for job in first["jobs"]] == [ids[2], ids[1]]
        assert first["hasMore"] is True
        rest = client.get("/v2/jobs", params={**query, "cursor": first["nextCursor"]}).json()
        assert [job["id"] for job in rest["jobs"]] == [ids[0]]
        assert (rest["hasMore"], rest["nextCursor"]) == (False, None)
        assert client.get("/v2/jobs", params={"status": "FAILED"}).json()["jobs"] == []


@pytest.mark.parametrize(
    ("query", "status"), [("limit=0", 400), ("status=DONE", 400), ("cursor=x", 400), ("scope=team", 403)]
)
def test_a_bad_list_query_is_refused(client: httpx.Client, query: str, status: int) -> None:
    assert client.get(f"/v2/jobs?{query}").status_code == status


def test_links_expire() -> None:
    now = [1_800_000_000.0]
    config = replace(FAST, clock=lambda: now[0], retention_s=60)
    with SandboxServer(config) as sandbox, connect(sandbox) as client:
        headers = {"x-api-key": "afk_sandbox"}
        job_id = take(client, headers)
        (link,) = sandbox.wait(job_id).images
        assert client.get(link).status_code == 200
        now[0] += 60
        assert client.get(link).status_code == 404
        assert client.get(f"/v2/jobs/{job_id}", headers=headers).json()["expired"] is True


def test_people_can_look_at_the_jobs(sandbox: SandboxServer, client: httpx.Client) -> None:
    job_id = take(client, prompt="to be looked at")
    sandbox.wait(job_id)
    jobs = {job["id"]: job for job in client.get("/sandbox/jobs").json()["jobs"]}
    assert jobs[job_id] == json.loads(json.dumps(asdict(sandbox.job(job_id))))
    about = client.get("/").json()
    assert about["apiframe"]["keys"] == ["afk_sandbox", "afk_poor", "afk_inactive"]
    assert "late" in about["faults"]


def test_the_oldest_finished_jobs_are_forgotten() -> None:
    with (
        SandboxServer(replace(FAST, keep_jobs=2)) as sandbox,
        connect(sandbox, x_api_key="afk_sandbox") as client,
    ):
        ids = []
        for n in range(3):
            ids.append(take(client, prompt=f"number {n}"))
            sandbox.wait(ids[-1])
        assert [job.id for job in sandbox.jobs()] == ids[1:]


def test_a_taken_port_is_an_error(sandbox: SandboxServer) -> None:
    with pytest.raises(OSError, match="in use"):
        SandboxServer(FAST, port=sandbox.port).start()
