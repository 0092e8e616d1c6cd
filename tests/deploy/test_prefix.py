"""Darkroom below a path behind a real nginx and a real Caddy, which take the path away or leave it."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from receiver.client import Darkroom
from tests.support.galleries import SECRETS, TOKENS
from tests.support.live import IMAGEN, Live, Start
from tests.support.processes import free_port
from tests.support.proxies import below

BELOW = "/photos"


@pytest.fixture(
    scope="module", params=[(name, strips) for name in ("nginx", "caddy") for strips in (True, False)]
)
def fronted(
    request: pytest.FixtureRequest, start_shared: Start, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Live, str]]:
    """A service, and its address behind the proxy."""
    name, strips = request.param
    folder, port = tmp_path_factory.mktemp(name), free_port()
    url = f"http://127.0.0.1:{port}{BELOW}"
    live = start_shared(folder / "data", callbacks=False, public_url=url, api_tokens=TOKENS)
    with below(name, folder, port, urlsplit(live.url).port or 0, BELOW, strips=strips):
        yield live, url


def test_a_job_lives_its_whole_life_below_a_path(fronted: tuple[Live, str]) -> None:
    live, url = fronted
    with Darkroom(url, SECRETS["admin"]) as darkroom:
        made = darkroom.submit(gateway=IMAGEN["gateway"], model=IMAGEN["model"], prompt=IMAGEN["prompt"])
        job = darkroom.wait(made.id, timeout_s=30)
        (output,) = darkroom.search(job=job.id)
        assert job.status == "archived"
    assert live.service.resources.ledger.deliveries(job.id), "its callback came through"
    with httpx.Client(trust_env=False, follow_redirects=True) as client:
        asked = client.get(f"{url}/outputs/{output.id}")
        assert asked.url.path == f"{BELOW}/sign-in"
        form = {"token": SECRETS["submit"], "next": asked.url.params["next"]}
        shown = client.post(asked.url, data=form)
        assert (shown.status_code, shown.url.path) == (200, f"{BELOW}/outputs/{output.id}")
        image = client.get(f"{url}/v1/outputs/{output.id}/image?stream=1")
        assert image.headers["content-type"] == output.media_type
        assert client.get(f"{url}/docs.css").status_code == 200
        assert client.get(f"{url}/openapi.json").json()["servers"][0]["url"] == BELOW
        assert client.get(url.removesuffix(BELOW) + "/").status_code == 404, "where other things are"


def test_events_come_below_a_path(fronted: tuple[Live, str]) -> None:
    live, url = fronted
    bearer = {"authorization": f"Bearer {SECRETS['admin']}"}
    live.http.headers.update(bearer)
    with httpx.stream("GET", f"{url}/v1/events", headers=bearer, timeout=20, trust_env=False) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("retry:")
        job_id = live.submit(IMAGEN)["id"]
        data = next(line for line in lines if line.startswith("data:") and job_id in line)
        assert json.loads(data.removeprefix("data:"))
    live.finish(job_id)


def test_a_proxy_that_drops_the_host_is_told(start: Start, tmp_path: Path) -> None:
    live, port = start(tmp_path / "data", api_tokens=TOKENS, path_prefix=BELOW), free_port()
    behind = urlsplit(live.url).port or 0
    with below("nginx", tmp_path, port, behind, BELOW, strips=False, host="upstream"):
        # As a browser does over plain http: no Sec-Fetch-Site.
        headers = {"host": "nas.local:8080", "origin": "http://nas.local:8080"}
        url = f"http://127.0.0.1:{port}{BELOW}/sign-in"
        answer = httpx.post(url, data={"token": SECRETS["read"]}, headers=headers, trust_env=False)
    assert answer.status_code == 403
    assert "The browser had it from nas.local, and here it came to upstream and 127.0.0.1." in answer.text
    assert "let it pass on the Host header" in answer.text
