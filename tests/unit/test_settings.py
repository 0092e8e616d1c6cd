import stat
from pathlib import Path

import pytest

from receiver.app import build
from receiver.errors import SettingsError
from receiver.keyring import every_secret, secret_keys
from receiver.settings import Settings, load, require
from tests.support.running import command

ENOUGH = {"DARKROOM_S3__BUCKET": "archive", "DARKROOM_GATEWAYS__APIFRAME__API_KEY": "afk_secret_1"}


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def given(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in (ENOUGH | variables).items():
        monkeypatch.setenv(name, value)
    return load()


def test_lists_are_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = given(
        monkeypatch,
        DARKROOM_SECRET_KEYS="first-key-of-two, second-key-of-two",
        DARKROOM_DOWNLOAD__ALLOW_NETWORKS="127.0.0.0/8,::1/128",
    )
    assert secret_keys(settings) == ["first-key-of-two", "second-key-of-two"]
    assert settings.download.allow_networks == ["127.0.0.0/8", "::1/128"]


def test_prefix_and_template_too_long_together(monkeypatch: pytest.MonkeyPatch) -> None:
    template = "x" * 120 + "/{job_id}/{index}"
    settings = given(monkeypatch, DARKROOM_S3__PREFIX="p" * 120, DARKROOM_KEY_TEMPLATE=template)
    with pytest.raises(SettingsError, match=r"DARKROOM_S3__PREFIX with DARKROOM_KEY_TEMPLATE.* 240 bytes"):
        build(settings)


def test_every_missing_setting_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        require(load())
    for name in ("DARKROOM_S3__BUCKET", "DARKROOM_GATEWAYS__APIFRAME__API_KEY", "API_IN_ONE__API_KEY"):
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"DARKROOM_DATABASE_URL": "postgresql://db/x"}, "DARKROOM_SECRET_KEYS"),
        ({"DARKROOM_S3__ACCESS_KEY": "half"}, "DARKROOM_S3__SECRET_KEY"),
        ({"DARKROOM_API_TOKENS": "me:read:short"}, "DARKROOM_API_TOKENS"),
        ({"DARKROOM_HOST": "0.0.0.0"}, "DARKROOM_API_TOKENS"),
        ({"DARKROOM_PUBLIC_URL": "https://darkroom.example.com"}, "DARKROOM_API_TOKENS"),
        ({"DARKROOM_SECRET_KEYS": "first-key-of-two,short"}, "DARKROOM_SECRET_KEYS"),
        ({"DARKROOM_SECRET_KEYS": "first-key-of-two,"}, "DARKROOM_SECRET_KEYS: .* empty"),
        ({"DARKROOM_SECRET_KEYS": "first-key-of-two,first-key-of-two"}, "DARKROOM_SECRET_KEYS: .* twice"),
        ({"DARKROOM_API_TOKENS": "me:read:0123456789abcdef,"}, "DARKROOM_API_TOKENS: .* empty"),
        ({"DARKROOM_GATEWAYS__APIFRAME__API_KEY": ""}, "DARKROOM_GATEWAYS__APIFRAME__API_KEY: .*empty"),
        ({"DARKROOM_GATEWAYS__API_IN_ONE__API_KEY": " "}, "DARKROOM_GATEWAYS__API_IN_ONE__API_KEY: .*empty"),
        ({"DARKROOM_S3__ACCESS_KEY": "", "DARKROOM_S3__SECRET_KEY": "x"}, "DARKROOM_S3__ACCESS_KEY: .*empty"),
        ({"DARKROOM_DATABASE_URL": ""}, "DARKROOM_DATABASE_URL: .*empty"),
        ({"DARKROOM_TRUSTED_PROXIES": "the-proxy"}, "DARKROOM_TRUSTED_PROXIES"),
        ({"DARKROOM_PORT": "eighty"}, "DARKROOM_PORT"),
        ({"DARKROOM_PUBLIC_URL": "ftp://host"}, "DARKROOM_PUBLIC_URL"),
        ({"DARKROOM_PUBLIC_URL": "https://user:pass@host"}, "DARKROOM_PUBLIC_URL"),
        (
            {"DARKROOM_GATEWAYS__APIFRAME__BASE_URL": "https://host/v2"},
            "DARKROOM_GATEWAYS__APIFRAME__BASE_URL",
        ),
        ({"DARKROOM_GATEWAYS__APIFRAME__CONFIRM": "sometimes"}, "DARKROOM_GATEWAYS__APIFRAME__CONFIRM"),
        ({"DARKROOM_GATEWAYS__APIFRAME__APIKEY": "a misspelt name"}, "DARKROOM_GATEWAYS__APIFRAME__APIKEY"),
        ({"DARKROOM_DOWNLOAD__ALLOW_NETWORKS": "everywhere"}, "DARKROOM_DOWNLOAD__ALLOW_NETWORKS"),
        ({"DARKROOM_KEY_TEMPLATE": "{date}.png"}, "DARKROOM_KEY_TEMPLATE"),
        ({"DARKROOM_KEY_TEMPLATE": "darkroom-probes/{job_id}/{index}"}, "DARKROOM_KEY_TEMPLATE"),
        ({"DARKROOM_S3__PREFIX": "../up"}, "DARKROOM_S3__PREFIX"),
        ({"DARKROOM_CALLBACKS__MAX_BYTES": "0"}, "DARKROOM_CALLBACKS__MAX_BYTES"),
    ],
)
def test_half_settings_are_told(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], named: str
) -> None:
    with pytest.raises(SettingsError, match=named):
        build(given(monkeypatch, **variables))


def test_an_empty_list_is_no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = dict.fromkeys(("DARKROOM_SECRET_KEYS", "DARKROOM_API_TOKENS", "DARKROOM_TRUSTED_PROXIES"), "")
    settings = given(monkeypatch, **empty)
    assert (settings.secret_keys, settings.api_tokens, settings.trusted_proxies) == ([], [], [])
    require(settings)


def test_the_config_command_judges_secrets_too(tmp_path: Path) -> None:
    twice = "me:read:0123456789abcdef,me:admin:fedcba9876543210"
    for name, value in (("DARKROOM_API_TOKENS", twice), ("DARKROOM_SECRET_KEYS", "short-key")):
        done = command("config", cwd=tmp_path, **ENOUGH, **{name: value})
        assert (done.returncode, done.stdout) == (2, "")
        assert name in done.stderr
        assert value not in done.stderr
    done = command("config", cwd=tmp_path, DARKROOM_GATEWAYS__APIFRAME__PREVIOUS_API_KEYS="afk_old")
    assert "DARKROOM_GATEWAYS__APIFRAME__API_KEY: the key that follows" in done.stderr


def test_a_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    settings = load(data_dir=tmp_path / "data")
    first = secret_keys(settings)
    assert secret_keys(settings) == first
    assert len(first[0]) >= 40
    kept = tmp_path / "data" / "secret-key"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert [path.name for path in kept.parent.iterdir()] == ["secret-key"]


def test_secrets_are_masked_in_shown_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = given(monkeypatch, DARKROOM_API_TOKENS="me:read:0123456789abcdef")
    assert set(every_secret(settings)) >= {"afk_secret_1", "0123456789abcdef"}
    for secret in every_secret(settings):
        assert secret not in repr(settings)
        assert secret not in settings.model_dump_json()
