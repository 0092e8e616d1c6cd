"""Gateways that are declared in files: what a file may say, and what is wrong with one."""

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver import settings as all_settings
from receiver.errors import SettingsError
from receiver.gateways.adapter import Adapter
from receiver.gateways.base import Completion, Follow, State
from receiver.gateways.declared import MAX_FILE_BYTES, SHIPPED, adapter_of, parse, read, read_folder
from receiver.gateways.requests import sent
from receiver.gateways.settings import settings_of
from storage.models import Job
from tests.support.gateway_samples import a_job

FILE = """
name = "atelier"
title = "Atelier"
docs = "https://atelier.example/docs"
base_url = "https://api.atelier.example"
api_key = "env:ATELIER_KEY"
[submit]
path = "/v1/{model}/draw"
[submit.body]
text = "{prompt}"
number = "{seed:int}"
quality = "{params.quality=good}"
tell = { url = "{callback_url}", key = "{callback_secret}" }
[accept]
id = "ticket"
[poll]
path = "/v1/tickets/{id}"
follow = "result_at"
[read]
id = "ticket"
status = "phase"
images = "pictures"
seed_echo = "number"
[status]
succeeded = ["dried"]
[signature]
scheme = "piapi"
[errors]
kinds = { "418" = "credits" }
"""


def made(text: str = FILE, **environment: str) -> Adapter:
    kind = adapter_of(parse(text, "atelier.toml"), {"ATELIER_KEY": "key-of-atelier", **environment})
    return kind(settings_of(kind.table, kind.Settings)(**kind.defaults))


def job(**request: Any) -> Job:
    return replace(a_job("atelier", model="oil/thick", **request), gateway_job_id="t/1")


def test_a_request_is_filled_from_its_file() -> None:
    request = made().submit_request(job(seed="7", prompt="a kite"), "https://d.example/callbacks/t")
    assert str(request.url) == "https://api.atelier.example/v1/oil/thick/draw"
    assert request.headers["authorization"] == "Bearer key-of-atelier"
    body = sent(request)
    assert body is not None
    secret = body["tell"].pop("key")
    assert made().verify({"x-webhook-secret": secret}, b"{}", now_s=0) == "origin"
    assert body == {
        "text": "a kite",
        "number": 7,
        "quality": "good",
        "tell": {"url": "https://d.example/callbacks/t"},
    }
    assert sent(made().submit_request(job(params={"quality": "best", "frame": 1}), None)) == {
        "text": "a red kite",
        "quality": "best",
        "frame": 1,
    }
    assert str(made().poll(job()).url).endswith("/v1/tickets/t%2F1")


def test_a_report_is_read_by_its_file() -> None:
    report = {"ticket": "t1", "phase": "Dried", "pictures": ["https://a.example/1.png"], "number": 9}
    found = made().read_callback(json.dumps(report).encode())
    assert (found.state, found.gateway_job_id, found.seed, found.echoed_seed) == (
        "succeeded",
        "t1",
        None,
        "9",
    )
    assert [one.url for one in found.images] == ["https://a.example/1.png"]
    wet = made().read_callback(b'{"ticket": "t1", "phase": "wet"}')
    assert (wet.state, "wet" in str(wet.unread)) == (State.RUNNING, True)


@pytest.mark.parametrize(
    ("url", "followed"),
    [
        ("https://api.atelier.example/v1/results/1", True),
        ("https://evil.example/v1/results/1", False),
        ("http://api.atelier.example/v1/results/1", False),
        ("https://key@api.atelier.example/1", False),
        (7, False),
    ],
)
def test_a_poll_is_followed_on_the_same_host_only(url: object, *, followed: bool) -> None:
    gateway = made()
    answer = {"ticket": "t1", "phase": "dried", "result_at": url}
    found = gateway.read_poll(httpx.Response(200, json=answer), job())
    assert isinstance(found, Follow) == followed
    if isinstance(found, Follow):
        assert str(found.request.url) == url
        assert found.request.headers["authorization"] == "Bearer key-of-atelier"
        result = {"ticket": "t1", "phase": "dried", "pictures": ["https://a.example/1.png"]}
        read = found.read(httpx.Response(200, json=result))
        assert isinstance(read, Completion)
        assert len(read.images) == 1


WRONG = [
    ('name = "atelier"', 'name = "At elier"', "name: is not written as it must be"),
    ('title = "Atelier"', "", "title: is required"),
    ('api_key = "env:ATELIER_KEY"', 'api_key = "sk-12345678"', "api_key: is not written as it must be"),
    ('path = "/v1/tickets/{id}"', 'way = "/v1"', "poll.way: is unknown"),
    ('images = "pictures"', 'images = "pictures[["', "read.images: is no JMESPath expression"),
    ('images = "pictures"', f'images = "{"(" * 400}a"', "read.images: is "),
    ('images = "pictures"', f'images = "{"a" * 600}"', "read.images: is longer than 512 characters"),
    ('"credits"', '"rich"', "errors.kinds: must lead from a number to one of unauthorized, credits"),
    ('tell = { url = "{callback_url}"', 'tell = { url = "x"', "must have {callback_url} in one place"),
    ('scheme = "piapi"', 'scheme = "mine"', "signature.scheme: must be one of apiframe-v2"),
    ('[signature]\nscheme = "piapi"', "", "[signature] must say how it comes back"),
    ("[accept]", "[accept", "is not TOML"),
    ('base_url = "https://', 'base_url = "ftp://', "base_url: must be"),
]


@pytest.mark.parametrize(("old", "new", "said"), WRONG)
def test_what_is_wrong_with_a_file_is_said_with_its_key(old: str, new: str, said: str) -> None:
    assert old in FILE
    with pytest.raises(SettingsError) as caught:
        parse(FILE.replace(old, new, 1), "gateways/atelier.toml")
    assert str(caught.value).startswith("gateways/atelier.toml")
    assert said in str(caught.value)
    assert "sk-12345678" not in str(caught.value)


def test_a_folder_has_files_of_different_gateways(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text(FILE)
    assert [one.name for one in read_folder(tmp_path, taken=frozenset({"apiframe"}))] == ["atelier"]
    (tmp_path / "c.toml").write_text(FILE)
    with pytest.raises(SettingsError, match=r"c\.toml: there is a gateway atelier already"):
        read_folder(tmp_path, taken=frozenset())
    (tmp_path / "a.toml").write_text(FILE.replace("atelier", "apiframe", 1))
    with pytest.raises(SettingsError, match=r"a\.toml: there is a gateway apiframe already"):
        read_folder(tmp_path, taken=frozenset({"apiframe"}))
    (tmp_path / "a.toml").write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(SettingsError, match=r"a\.toml has more than 65536 bytes"):
        read_folder(tmp_path, taken=frozenset())
    (tmp_path / "a.toml").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match=r"a\.toml is not text"):
        read_folder(tmp_path, taken=frozenset())
    with pytest.raises(SettingsError, match=r"DARKROOM_GATEWAYS_DIR: .* is no folder"):
        read_folder(tmp_path / "none", taken=frozenset())


def test_the_settings_have_a_declared_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "atelier.toml").write_text(FILE)
    (tmp_path / "key").write_text("key-in-a-file\n")
    off = all_settings.load(gateways_dir=tmp_path, s3={"bucket": "b"})
    assert "atelier" in off.gateways.every()
    assert "atelier" not in off.gateways.configured()
    monkeypatch.setenv("ATELIER_KEY", "key-of-atelier")
    monkeypatch.setenv("DARKROOM_GATEWAYS_DIR", str(tmp_path))
    monkeypatch.setenv("DARKROOM_GATEWAYS__ATELIER__BASE_URL", "http://127.0.0.1:1")
    on = all_settings.load().gateways
    assert on.configured()["atelier"].key == "key-of-atelier"
    assert on.adapters()["atelier"].secrets[0] == "key-of-atelier"
    assert on.every()["atelier"].base_url == "http://127.0.0.1:1"
    # A process that takes the place of another is given them as they are.
    monkeypatch.delenv("DARKROOM_GATEWAYS__ATELIER__BASE_URL")
    given = pickle.loads(pickle.dumps(all_settings.load(port=0)))
    monkeypatch.setenv("DARKROOM_PORT", "1")
    again = pickle.loads(pickle.dumps(given))
    assert again.model_dump() == given.model_dump()
    assert (again.port, again.gateways.configured()["atelier"].key) == (0, "key-of-atelier")
    monkeypatch.delenv("DARKROOM_PORT")
    text = FILE.replace("env:ATELIER_KEY", f"file:{tmp_path / 'key'}")
    (tmp_path / "atelier.toml").write_text(text)
    assert all_settings.load().gateways.configured()["atelier"].key == "key-in-a-file"
    (tmp_path / "key").unlink()
    with pytest.raises(SettingsError, match=r"atelier: .* cannot be read"):
        all_settings.load()


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda path: path.stem)
def test_a_file_that_comes_with_darkroom_can_be_used(path: Path) -> None:
    file = read(path)
    assert (file.name, file.api_key[:4]) == (path.stem, "env:")
    assert file.poll is not None
    assert len(path.read_text().splitlines()) <= 100
