"""An installed Darkroom, driven as its users and gateways drive it: by HTTP and by its command line alone."""

import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.gateway import API_KEY, Gateway
from tests.system.installation import Installation


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with Gateway() as gateway:
        yield gateway


@pytest.fixture
def darkroom(gateway: Gateway, s3_access: Any, tmp_path: Path) -> Installation:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "PORT": str(port),
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        "DATA_DIR": str(tmp_path / "data"),
        "S3__ENDPOINT": s3_access.endpoint,
        "S3__BUCKET": f"system-{uuid.uuid4().hex[:12]}",
        "S3__CREATE_BUCKET": "true",
        "S3__REGION": "us-east-1",
        "S3__ACCESS_KEY": s3_access.access_key,
        "S3__SECRET_KEY": s3_access.secret_key,
        "GATEWAYS__APIFRAME__API_KEY": API_KEY,
        "GATEWAYS__APIFRAME__BASE_URL": gateway.url,
        "DOWNLOAD__ALLOW_NETWORKS": "127.0.0.0/8",
    }
    return Installation(tmp_path, {f"DARKROOM_{name}": value for name, value in settings.items()})


def test_a_prompt_becomes_a_file(darkroom: Installation, gateway: Gateway, tmp_path: Path) -> None:
    with darkroom.process("serve") as service:
        job_id = darkroom.submit("a red kite over a grey harbour")
        callback_url = gateway.job(0).callback_url
        assert gateway.complete(0, to=f"{callback_url[:-2]}AA").status_code == 401
        darkroom.reach(job_id, "running")
        assert gateway.complete(0).status_code == 200
        job = darkroom.finish(job_id)
        assert job["status"] == "archived", job
        (output,) = darkroom.json("search", "kite harbour")
        assert (output["job_id"], output["id"]) == (job_id, job["outputs"][0]["id"])
        assert darkroom.json("search", "submarine") == []
        assert darkroom.run("download", job_id, "--to", "pictures").returncode == 0
        (picture,) = (tmp_path / "pictures").iterdir()
        assert picture.read_bytes() == gateway.job(0).image
        assert darkroom.get(f"/v1/outputs/{output['id']}/image").content == gateway.job(0).image
        service.terminate()
        assert service.wait(20) == 0
    with darkroom.process("serve"):
        assert darkroom.finish(job_id) == job, "a restart changes nothing"
        assert darkroom.json("status")["archived"] == 1
    assert darkroom.run("status").returncode != 0, "it is not there"


def test_a_killed_worker_loses_nothing(darkroom: Installation, gateway: Gateway) -> None:
    with darkroom.process("serve", "--no-work"):
        with darkroom.process("work") as worker:
            jobs = [darkroom.submit(f"a lighthouse, number {number}") for number in range(3)]
            gateway.job(2)
            assert gateway.complete(0, hold_image=True).status_code == 200
            assert gateway.job(0).downloading.wait(20)
            worker.kill()
            worker.wait(20)
        assert [gateway.complete(number).status_code for number in range(3)] == [200] * 3
        jobs.append(darkroom.submit("a lighthouse, while nobody works"))
        counts = darkroom.json("status")
        assert (counts["accepted"], counts["archived"], counts["balanced"]) == (4, 0, True)
        with darkroom.process("work"):
            assert gateway.complete(3).status_code == 200
            assert [darkroom.finish(job)["status"] for job in jobs] == ["archived"] * 4
        counts = darkroom.json("status")
        assert (counts["accepted"], counts["archived"], counts["balanced"]) == (4, 4, True)
        assert gateway.taken == 4, "each was paid for once"
        found = darkroom.json("search", "lighthouse")
        assert sorted(output["job_id"] for output in found) == sorted(jobs)
