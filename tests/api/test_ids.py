"""An id may be given by its beginning, wherever one is taken; one that fits several is refused with them."""

from typing import Any

import pytest
import uuid_utils

from receiver.client import Darkroom
from storage.models import JobRequest
from tests.support.ledgers import add_job
from tests.support.live import ULTRA, Live, Start
from tests.support.notifications import SECRET, Application
from tests.support.running import command, data

UNIQUE = 23
"""Characters of an id: its time, its counter, and a part that is random."""


@pytest.fixture(scope="module")
def house(start_shared: Start) -> Live:
    return start_shared(notify={"secrets": [SECRET], "allow_networks": ["127.0.0.0/8"]})


@pytest.fixture(scope="module")
def job(house: Live) -> dict[str, Any]:
    with Application() as app:
        return house.make(ULTRA, num_images=2, notify_url=app.url)


@pytest.fixture(scope="module")
def alike(house: Live) -> list[str]:
    """Two jobs of one minute, which share the digits that the shortest beginning has."""
    ids = [f"0199aaaa-{n:04x}-7000-8000-{uuid_utils.uuid4().hex[:12]}" for n in range(2)]
    for job_id in ids:
        add_job(house.service.resources.ledger, job_id, "apiframe", JobRequest(model="imagen-4", prompt="x"))
    return ids


def get(live: Live, path: str, **query: str) -> Any:
    answer = live.http.get(path, params=query)
    assert answer.is_success, answer.text
    return answer.json()


def test_every_route_takes_a_beginning(house: Live, job: dict[str, Any]) -> None:
    short, output = job["id"][:UNIQUE], job["outputs"][1]
    assert get(house, f"/v1/jobs/{short}")["id"] == job["id"]
    assert get(house, f"/v1/jobs/{short.upper()}", wait="1")["id"] == job["id"]
    assert get(house, f"/v1/outputs/{short}.1")["id"] == output["id"]
    assert get(house, f"/v1/outputs/{short}.1/record")["job"]["id"] == job["id"]
    image = house.http.get(f"/v1/outputs/{short}.1/image", params={"stream": "1"})
    assert image.headers["etag"] == f'"{output["sha256"]}"'
    for query in ({"job": short}, {"q": f"job:{short}"}):
        assert [one["job_id"] for one in get(house, "/v1/outputs", **query)["outputs"]] == [job["id"]] * 2
        assert get(house, "/v1/facets", **query)["counted"] == 2
    (one,) = get(house, "/v1/notifications", job=short)["notifications"]
    with house.http.stream("GET", "/v1/events", params={"job": short, "since": "0", "wait": "0"}) as events:
        assert job["id"] in events.read().decode()
    assert one["id"] == f"msg_{job['id']}_1"
    for name in (one["id"], f"msg_{short}_1", f"msg_{short}", short, f"{short}.1", f"{job['id']}.1"):
        assert get(house, f"/v1/notifications/{name}")["id"] == one["id"]
    refused = house.http.post(f"/v1/jobs/{short}/cancel")
    assert (refused.status_code, refused.json()["code"]) == (409, "not_cancellable")
    refused = house.http.post(f"/v1/jobs/{short}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "not_retryable")


def test_one_that_fits_several_is_refused_with_them(house: Live, alike: list[str]) -> None:
    for path in ("/v1/jobs/0199aaaa", "/v1/outputs?job=0199aaaa", "/v1/jobs?q=job:0199aaaa"):
        refused = house.http.get(path)
        problem = refused.json()
        assert (refused.status_code, problem["code"]) == (409, "ambiguous_id")
        assert problem["candidates"] == alike[::-1]
        assert all(job_id in problem["detail"] for job_id in alike)
    page = house.http.get("/jobs/0199aaaa", headers={"accept": "text/html"})
    assert page.status_code == 409
    assert all(f'href="/jobs/{job_id}"' in page.text for job_id in alike)
    done = command("cancel", "0199aaaa", DARKROOM_URL=house.url)
    assert (done.returncode, alike[0] in done.stderr) == (1, True)
    assert data(command("show", alike[0][:13], "--json", DARKROOM_URL=house.url))["id"] == alike[0]


@pytest.mark.parametrize("name", ["0199aaa", "0199bbbb", "0199-aaaa", "0199aaag"])
def test_what_fits_none_is_not_there(house: Live, alike: list[str], name: str) -> None:
    assert len(alike) == 2
    refused = house.http.get(f"/v1/jobs/{name}")
    assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
    assert house.http.get(f"/jobs/{name}").status_code == 404


def test_pages_and_commands_take_a_beginning(house: Live, job: dict[str, Any], tmp_path: Any) -> None:
    short = job["id"][:UNIQUE]
    for path in (f"/jobs/{short}", f"/outputs/{short}.0"):
        page = house.http.get(path)
        assert (page.status_code, job["id"] in page.text) == (200, True)
    assert data(command("show", f"{short}.1", "--json", DARKROOM_URL=house.url))["id"] == f"{job['id']}.1"
    assert data(command("show", f"msg_{short}", "--json", DARKROOM_URL=house.url))["job_id"] == job["id"]
    saved = data(command("download", short, "--to", str(tmp_path), "--json", DARKROOM_URL=house.url))
    assert len(saved) == 2
    found = command("search", "--job", short, "--ids", DARKROOM_URL=house.url).stdout.split()
    assert found == [one["id"] for one in job["outputs"]]
    with Darkroom(house.url) as darkroom:
        assert darkroom.wait(short, 5).id == job["id"]
        assert darkroom.thumbnail(f"{short}.0")
