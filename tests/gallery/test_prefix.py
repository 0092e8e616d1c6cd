"""Everything is served below a path too: every link, redirect, cookie and description has it."""

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx
import pytest

from receiver.app import build
from receiver.errors import SettingsError
from receiver.settings import Settings, load
from tests.support.galleries import COOKIE, SECRETS, TOKENS
from tests.support.live import IMAGEN, ULTRA, Live, Start
from tests.support.pages import read

BELOW = "/media/photos"
ADMIN = {"authorization": f"Bearer {SECRETS['admin']}"}


@pytest.fixture(scope="module")
def below(start_shared: Start, tmp_path_factory: pytest.TempPathFactory) -> Live:
    live = start_shared(tmp_path_factory.mktemp("below"), api_tokens=TOKENS, path_prefix=f"{BELOW}/")
    live.http.headers.update(ADMIN)
    live.make(ULTRA, num_images=2, seed=42, tags={"campaign": "spring"})
    return live


def links(html: str) -> Iterator[str]:
    for node in read(html).within():
        for name in ("href", "src", "action", "formaction", "data-at"):
            if name in node.attributes:
                yield node.attributes[name]


def test_every_link_of_every_page_leads_below(below: Live) -> None:
    seen, waiting = set[str](), [f"{BELOW}/", f"{BELOW}/docs", f"{BELOW}/nowhere"]
    with httpx.Client(base_url=below.url, headers={"accept": "text/html"}, trust_env=False) as client:
        client.post(f"{BELOW}/sign-in", data={"token": SECRETS["admin"], "next": "/"})
        while waiting and len(seen) < 120:
            path = waiting.pop()
            if path in seen:
                continue
            seen.add(path)
            answer = client.get(path, timeout=30)
            if "/nowhere" not in path:
                # A page with a form alone is none to get.
                assert answer.status_code in {200, 307, 405}, path
            if "html" not in answer.headers.get("content-type", ""):
                continue
            for link in links(answer.text):
                if link.startswith("#") or urlsplit(link).netloc:
                    continue
                assert link.startswith(f"{BELOW}/"), f"{path} has {link}"
                waiting.append(urljoin(path, link).partition("#")[0])
    for page in ("jobs", "usage", "status", "submit", "outputs/", "v1/outputs/", "static/", "docs.css"):
        assert any(path.startswith(f"{BELOW}/{page}") for path in seen), page


def test_no_file_of_the_gallery_has_a_link_of_its_own() -> None:
    found = []
    for folder in ("templates", "static"):
        for file in files("receiver.gallery").joinpath(folder).iterdir():
            text = file.read_text(encoding="utf-8")
            found += re.findall(r"""(?:href|src|action|data-at)=["']?/.{9}|url\(/.{9}|[`"']/v1.{9}""", text)
    assert [one for one in found if "base" not in one] == ['"/v1/outputs/']


def test_signing_in_stays_below(below: Live) -> None:
    with httpx.Client(base_url=below.url, trust_env=False) as client:
        asked = client.get(f"{BELOW}/jobs?status=failed")
        assert asked.status_code == 303
        assert asked.headers["location"] == f"{BELOW}/sign-in?next=%2Fjobs%3Fstatus%3Dfailed&why=session"
        form = {"token": SECRETS["submit"], "next": "/jobs?status=failed"}
        answer = client.post(asked.headers["location"], data=form)
        assert (answer.status_code, answer.headers["location"]) == (303, f"{BELOW}/jobs?status=failed")
        assert f"Path={BELOW};" in answer.headers["set-cookie"]
        # A Darkroom at the root of the same host has another cookie, which is sent here too.
        assert list(client.cookies) == [f"{COOKIE}-media-photos"]
        assert client.get(answer.headers["location"]).status_code == 200
        lost = {"referer": f"{below.url}{BELOW}/submit", "content-type": "application/x-www-form-urlencoded"}
        client.cookies.clear()
        answer = client.post(f"{BELOW}/submit", headers=lost)
        assert answer.headers["location"] == f"{BELOW}/sign-in?next=%2Fsubmit&why=session"


@pytest.mark.parametrize("asked", [BELOW, ""])
def test_the_api_names_paths_below(below: Live, asked: str) -> None:
    made = below.http.post(f"{asked}/v1/jobs", json=IMAGEN)
    assert made.headers["location"] == f"{BELOW}/v1/jobs/{made.json()['id']}"
    assert below.http.get(made.headers["location"]).json()["id"] == made.json()["id"]
    listed = below.http.get(f"{asked}/v1/jobs?limit=1")
    assert listed.links["next"]["url"].startswith(f"{BELOW}/v1/jobs?limit=1&cursor=")
    document = below.http.get(f"{asked}/openapi.json").json()
    assert [server["url"] for server in document["servers"]] == [BELOW]
    assert below.http.get(f"{asked}/healthz").status_code == 200
    below.finish(made.json()["id"])


def test_what_only_begins_like_the_path_is_not_below(below: Live) -> None:
    assert below.http.get(BELOW).status_code == 303, "the gallery asks for a session"
    for path in (f"{BELOW}s/v1/jobs", f"{BELOW}{BELOW}/v1/jobs", f"/x{BELOW}/v1/jobs", f"{BELOW}//v1/jobs"):
        assert below.http.get(path).status_code == 404, path


def test_the_path_of_the_public_url_is_the_usual_one(start: Start, tmp_path: Path) -> None:
    live = start(tmp_path, callbacks=False, public_url="http://127.0.0.1:9/photos/", work=False)
    job = live.submit(IMAGEN)
    url = live.callback_url(job["id"])
    assert url.startswith("http://127.0.0.1:9/photos/callbacks/apiframe/")
    for path in (urlsplit(url).path, urlsplit(url).path.removeprefix("/photos")):
        assert live.http.get(path).json() == {"status": "ready"}
    assert 'href="/photos/jobs"' in live.http.get("/").text


@pytest.mark.parametrize(
    ("given", "prefix"),
    [
        ({"public_url": "https://example.com"}, ""),
        ({"public_url": "https://example.com/a/b/"}, "/a/b"),
        ({"public_url": "https://example.com/a", "path_prefix": "/"}, ""),
        ({"public_url": "https://hooks.example.com", "path_prefix": "photos"}, "/photos"),
        ({"path_prefix": "/photos/"}, "/photos"),
        ({}, ""),
    ],
)
def test_the_prefix_is_the_setting_or_the_url(given: dict[str, str], prefix: str) -> None:
    assert load(**given).prefix == prefix


@pytest.mark.parametrize(
    "given",
    [
        *(
            {"path_prefix": path}
            for path in ("/v1", "/callbacks/x", "/jobs", "/static", "docs", "/a/../b", "/a//b")
        ),
        *(
            {"public_url": f"http://127.0.0.1{path}"}
            for path in ("/v1", "/a%20b", "/é", "/a;b", "/healthz/x")
        ),
    ],
)
def test_a_path_that_cannot_be_one_is_told(live: Live, tmp_path: Path, given: dict[str, str]) -> None:
    settings = live.settings.model_copy(update={"data_dir": tmp_path, "public_url": None} | given)
    assert isinstance(settings, Settings)
    with pytest.raises(SettingsError, match=r"DARKROOM_PATH_PREFIX=/\."):
        build(settings)
