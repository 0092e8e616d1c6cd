"""Where notifications may go: as a job is taken in, and at each connection."""

import time
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from receiver.download.lookup import Deadline
from receiver.errors import EndpointForbidden, SettingsError
from receiver.keyring import NOTIFY_FILE, notify_secrets
from receiver.notifications.transport import Poster
from receiver.notifications.url_policy import NotifyPolicy, read
from receiver.resources import notify_policy
from receiver.settings import load, require
from tests.support.notifications import SECRET

LOOPBACK = (ip_network("127.0.0.0/8"),)


def ruled(*networks: str, hosts: tuple[str, ...] = (), secrets: tuple[str, ...] = (SECRET,)) -> NotifyPolicy:
    return NotifyPolicy(networks=tuple(map(ip_network, networks)), hosts=hosts, secrets=secrets)


OPEN, SIDECAR = ruled(), ruled("127.0.0.0/8", "::1/128")


@pytest.mark.parametrize(
    ("policy", "url", "why"),
    [
        (OPEN, "https://app.example/hook?key=1", None),
        (OPEN, "https://93.184.216.34/hook", None),
        (OPEN, "", None),
        (OPEN, "http://app.example/hook", "not https"),
        (OPEN, "http://93.184.216.34/hook", "not https"),
        (OPEN, "https://127.0.0.1/hook", "loopback"),
        (OPEN, "https://[::ffff:127.0.0.1]/hook", "loopback"),
        (OPEN, "https://169.254.169.254/latest/meta-data", "cloud metadata"),
        (OPEN, "https://me:secret@app.example/hook", "credentials"),
        (OPEN, "https://app.example/hook#part", "fragment"),
        (OPEN, "ftp://app.example/hook", "not an https URL"),
        (OPEN, "app.example/hook", "not an https URL"),
        (OPEN, "https://app.example/" + "x" * 2048, "over 2048"),
        (SIDECAR, "http://127.0.0.1:9000/hook", None),
        (SIDECAR, "http://localhost:9000/hook", None),
        (SIDECAR, "http://[::1]:9000/hook", None),
        (SIDECAR, "http://10.1.2.3/hook", "not https"),
        (SIDECAR, "https://169.254.169.254/", "cloud metadata"),
        (ruled(hosts=("app.example",)), "https://eu.app.example/hook", None),
        (ruled(hosts=("app.example",)), "https://other.example/hook", "ALLOW_HOSTS"),
        (ruled(secrets=()), "https://app.example/hook", "DARKROOM_NOTIFY__SECRETS"),
    ],
)
def test_a_url_is_judged_when_it_is_given(policy: NotifyPolicy, url: str, why: str | None) -> None:
    if why is None:
        policy.check(url)
        return
    with pytest.raises(EndpointForbidden, match=why) as caught:
        policy.check(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("policy", "url", "addresses", "why"),
    [
        (OPEN, "https://app.example/", ["93.184.216.34"], None),
        (OPEN, "https://app.example/", ["93.184.216.34", "127.0.0.1"], "loopback"),
        (OPEN, "https://app.example/", ["169.254.169.254"], "cloud metadata"),
        (OPEN, "https://app.example/", ["fd00::1"], "unique local"),
        (OPEN, "https://app.example/", ["fe80::1%eth0"], "app.example leads to .*zone"),
        (OPEN, "http://app.example/", [], "not https"),
        (SIDECAR, "https://app.example/", ["fe80::1%eth0"], "zone"),
        (SIDECAR, "https://app.example/", ["10.0.0.1"], "private"),
        (SIDECAR, "http://app.example/", ["93.184.216.34"], "not https"),
        (SIDECAR, "http://app.example/", ["127.0.0.1", "93.184.216.34"], "not https"),
        (SIDECAR, "http://app.example/", ["127.0.0.1", "::1"], None),
    ],
)
def test_each_address_is_judged(
    policy: NotifyPolicy, url: str, addresses: list[str], why: str | None
) -> None:
    looked_up = []

    def resolve(host: str) -> list[str]:
        looked_up.append(host)
        return addresses

    deadline = Deadline(time.monotonic, 5)
    if why is None:
        assert [str(one) for one in policy.route(read(url), resolve, deadline)] == addresses
    else:
        with pytest.raises(EndpointForbidden, match=why):
            policy.route(read(url), resolve, deadline)
    once = ["app.example"] if addresses else []
    assert looked_up == once, "so that no second answer can differ"


def test_a_name_that_leads_inwards_is_not_called() -> None:
    poster = Poster(OPEN, timeout_s=5, resolve=lambda _host: ["127.0.0.1"])
    with pytest.raises(EndpointForbidden, match="leads to a forbidden address: loopback"):
        poster.post("https://app.example/hook", {}, b"{}")


def test_the_url_of_the_settings_is_judged_too() -> None:
    ours: dict[str, Any] = {"url": "http://127.0.0.1:9000/hook", "secrets": [SECRET]}
    with pytest.raises(SettingsError, match=r"DARKROOM_NOTIFY__URL: .* not https"):
        notify_policy(load(notify=ours))
    ours["allow_networks"] = ["127.0.0.0/8"]
    assert notify_policy(load(notify=ours)).default == ours["url"]


BAD_SECRETS = ["", "short", "A" * 33, "A" * 100, "é"]


@pytest.mark.parametrize("secret", ["A" * 44, "whsk_" + "A" * 44, *(f"whsec_{bad}" for bad in BAD_SECRETS)])
def test_a_bad_secret_is_named_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secret: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DARKROOM_NOTIFY__SECRETS", f"{SECRET},{secret}")
    with pytest.raises(SettingsError, match=r"DARKROOM_NOTIFY__SECRETS: .*whsec_ and the base64") as caught:
        load()
    assert SECRET not in str(caught.value)


def test_a_secret_is_made_once_and_damage_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load(data_dir=tmp_path / "data")
    (made,) = notify_secrets(settings)
    assert notify_secrets(settings) == [made]
    assert notify_secrets(load(data_dir=tmp_path / "data", notify={"secrets": [SECRET]})) == [SECRET]
    (tmp_path / "data" / NOTIFY_FILE).write_text("whsec_but-not-base64-any-more")
    with pytest.raises(SettingsError, match=NOTIFY_FILE):
        notify_secrets(settings)


def test_replicas_are_not_left_with_a_secret_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load(database_url="postgresql://db/x", notify={"url": "https://app.example/"})
    assert notify_secrets(settings) == []
    with pytest.raises(SettingsError, match="DARKROOM_NOTIFY__SECRETS"):
        require(settings)
