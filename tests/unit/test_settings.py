import os
import stat
from pathlib import Path

import pytest

from receiver.app import build
from receiver.cli.config import settings_table
from receiver.cli.run import unreached
from receiver.errors import SettingsError
from receiver.keyring import every_secret, new_webhook_secret, secret_keys
from receiver.settings import Settings, ignored, load, require
from receiver.settings_sources import is_secret, leaves, variable
from tests.support.live import GivenSettings
from tests.support.running import command

OUTSIDE = list(os.environ)
ENOUGH = {"DARKROOM_S3__BUCKET": "archive", "DARKROOM_GATEWAYS__APIFRAME__API_KEY": "afk_secret_1"}


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("DARKROOM_")]:
        monkeypatch.delenv(name)


def given(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in (ENOUGH | variables).items():
        monkeypatch.setenv(name, value)
    return load()


def test_settings_of_the_caller_do_not_reach_the_tests() -> None:
    tools = ("DARKROOM_TEST_", "DARKROOM_FAULTS_")
    assert not [name for name in OUTSIDE if name.startswith("DARKROOM_") and not name.startswith(tools)]


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


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("PROXY", "https://proxy:3128", "must be http://HOST:PORT"),
        ("PROXY", "socks5://proxy:1080", "must be http://HOST:PORT"),
        ("PROXY", "proxy:3128", "must be http://HOST:PORT"),
        ("PROXY", "http://proxy:99999", "must be http://HOST:PORT"),
        ("PROXY", "http://proxy/path", "must be http://HOST:PORT"),
        ("PROXY", "http://user@proxy:3128", "a user and a password, or neither"),
        ("PROXY", "http://user:p%C3%A9@proxy:3128", "in ASCII"),
        ("DIRECT", "minio,10.0.0.1/8", "must be host names, and networks"),
        ("DIRECT", "http://minio", "must be host names"),
        ("DIRECT", "minio:9000", "must be host names"),
    ],
)
def test_a_proxy_that_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    with pytest.raises(SettingsError, match=f"DARKROOM_OUTBOUND__{name}: .*{told}"):
        given(monkeypatch, **{f"DARKROOM_OUTBOUND__{name}": value})


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
        ({"DARKROOM_GATEWAYS__APIFRAME__API_KEY": ""}, "DARKROOM_GATEWAYS__APIFRAME__API_KEY or"),
        ({"DARKROOM_GATEWAYS__API_IN_ONE__API_KEY": " "}, "DARKROOM_GATEWAYS__API_IN_ONE__API_KEY: .*empty"),
        ({"DARKROOM_S3__ACCESS_KEY": "", "DARKROOM_S3__SECRET_KEY": "x"}, "DARKROOM_S3__ACCESS_KEY and"),
        ({"DARKROOM_S3__BUCKET": ""}, "DARKROOM_S3__BUCKET: the bucket"),
        ({"DARKROOM_DATABASE_URL": ""}, "DARKROOM_DATABASE_URL: .*empty"),
        ({"DARKROOM_TRUSTED_PROXIES": "the-proxy"}, "DARKROOM_TRUSTED_PROXIES"),
        ({"DARKROOM_PORT": "eighty"}, "DARKROOM_PORT"),
        ({"DARKROOM_PUBLIC_URL": "ftp://host"}, "DARKROOM_PUBLIC_URL"),
        ({"DARKROOM_PUBLIC_URL": "https://user:pass@host"}, "DARKROOM_PUBLIC_URL"),
        ({"DARKROOM_PUBLIC_URL": "http://127.0.0.1:83210"}, "DARKROOM_PUBLIC_URL: must have a valid host"),
        ({"DARKROOM_PUBLIC_URL": "http://[::1:8321"}, "DARKROOM_PUBLIC_URL: must have a valid host"),
        (
            {"DARKROOM_GATEWAYS__APIFRAME__BASE_URL": "https://host/v2"},
            "DARKROOM_GATEWAYS__APIFRAME__BASE_URL",
        ),
        ({"DARKROOM_GATEWAYS__APIFRAME__CONFIRM": "sometimes"}, "DARKROOM_GATEWAYS__APIFRAME__CONFIRM"),
        ({"DARKROOM_GATEWAYS__APIFRAME__APIKEY": "misspelt"}, r"APIKEY: .*APIFRAME__API_KEY\?"),
        ({"DARKROOM_S3__BUKET": "misspelt"}, r"DARKROOM_S3__BUKET: .*DARKROOM_S3__BUCKET\?"),
        ({"DARKROOM_S3__BUCKET_FILE": "no secret"}, "DARKROOM_S3__BUCKET_FILE: is unknown"),
        ({"DARKROOM_S3": "archive"}, "DARKROOM_S3 cannot be read: .*DARKROOM_S3__"),
        ({"DARKROOM_DOWNLOAD__TIMEOUT": "inf"}, "DARKROOM_DOWNLOAD__TIMEOUT: must be a finite number"),
        ({"DARKROOM_DOWNLOAD__TIMEOUT": "0"}, "DARKROOM_DOWNLOAD__TIMEOUT: must be more than 0$"),
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


def test_an_unreadable_env_file_is_told(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"DARKROOM_S3__BUCKET=caf\xe9\n")
    with pytest.raises(SettingsError, match=r"^\.env is not text in UTF-8: see its byte 23"):
        load()


def test_an_empty_value_is_an_unset_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DARKROOM_PORT=\nDARKROOM_HOST=127.0.0.2\nDARKROOM_S3__REGION=\n")
    settings = given(monkeypatch, DARKROOM_HOST="", DARKROOM_LOG_LEVEL="", DARKROOM_WORKER__CONCURRENCY="")
    assert (settings.port, settings.host, settings.log_level) == (8321, "127.0.0.2", "info")
    assert (settings.worker.concurrency, settings.s3.region) == (8, None)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("DARKROOM_API_TOKEN", "DARKROOM_API_TOKENS"),
        ("DARKROOM_NOTIFY_URL", "DARKROOM_NOTIFY__URL"),
        ("DARKROOM_S3_PREFIX", "DARKROOM_S3__PREFIX"),
        ("DARKROOM_DATABSE_URL", "DARKROOM_DATABASE_URL"),
        ("DARKROOM_PORT_FILE", "DARKROOM_PORT"),
        ("darkroom_public_uri", "DARKROOM_PUBLIC_URL"),
        ("DARKROOM_XYZZY", None),
    ],
)
@pytest.mark.parametrize("in_file", [False, True])
def test_an_unknown_name_has_the_nearest_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, meant: str | None, in_file: bool
) -> None:
    if in_file:
        (tmp_path / ".env").write_text(f"{name}=x\n")
    else:
        monkeypatch.setenv(name, "x")
    load()
    more = f"; did you mean {meant}?" if meant else ""
    assert ignored() == [f"{name.upper()} is not a setting, so it is ignored{more}"]


def test_what_kubernetes_sets_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    for service in ("DARKROOM", "DARKROOM_API", "DARKROOM_CALLBACKS"):
        monkeypatch.setenv(f"{service}_PORT", "tcp://10.96.0.7:8321")
        monkeypatch.setenv(f"{service}_SERVICE_HOST", "10.96.0.7")
        monkeypatch.setenv(f"{service}_SERVICE_PORT", "8321")
        monkeypatch.setenv(f"{service}_SERVICE_PORT_HTTP", "8321")
        monkeypatch.setenv(f"{service}_PORT_8321_TCP", "tcp://10.96.0.7:8321")
        monkeypatch.setenv(f"{service}_PORT_8321_TCP_ADDR", "10.96.0.7")
    monkeypatch.setenv("DARKROOM_URL", "http://127.0.0.1:8321")
    monkeypatch.setenv("DARKROOM_TOKEN", "of the client")
    assert (load().port, ignored()) == (8321, [])


def secrets_in_files() -> list[str]:
    return [variable(path) for path, field in leaves(Settings) if is_secret(field)]


def test_every_secret_may_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key, lines = "a-secret-of-a-file", "me:read:0123456789abcdef\nyou:admin:fedcba9876543210\r\n"
    contents = dict.fromkeys(secrets_in_files(), key) | {
        "DARKROOM_API_TOKENS": lines,
        "DARKROOM_NOTIFY__SECRETS": new_webhook_secret(),
        "DARKROOM_OUTBOUND__PROXY": "http://user:pass-word@proxy:3128",
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(f"{content}\n")
        monkeypatch.setenv(f"{name}_FILE", str(tmp_path / name))
    settings = load()
    assert {"DARKROOM_S3__SECRET_KEY", "DARKROOM_DATABASE_URL", "DARKROOM_NOTIFY__URL"} <= contents.keys()
    secrets = {*lines.split(), key, contents["DARKROOM_NOTIFY__SECRETS"], "pass-word"}
    assert set(every_secret(settings)) >= secrets
    assert [
        row.value for row in settings_table(settings) if row.secret and set(row.value or "") > {"*", ","}
    ] == []
    assert ignored() == []


@pytest.mark.parametrize(
    ("content", "more", "told"),
    [
        (None, {}, "cannot be read: No such file"),
        (b"", {}, "is empty"),
        (b"\n", {}, "is empty"),
        (b"\xff\xfe", {}, "not text in UTF-8"),
        (b"x" * 70_000, {}, "more than 65536 bytes"),
        (b"one", {"DARKROOM_S3__SECRET_KEY": "two"}, "DARKROOM_S3__SECRET_KEY is set too"),
    ],
)
def test_a_useless_secret_file_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, more: dict[str, str], told: str
) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    with pytest.raises(SettingsError, match=rf"DARKROOM_S3__SECRET_KEY_FILE: .*{told}") as caught:
        given(monkeypatch, DARKROOM_S3__SECRET_KEY_FILE=str(tmp_path / "secret"), **more)
    assert "two" not in str(caught.value).removesuffix("set one of the two")


@pytest.mark.parametrize(
    ("public_url", "port", "told"),
    [
        ("http://127.0.0.1:8321", 8321, False),
        ("http://localhost:9000", 8321, True),
        ("https://127.0.0.1:8321", 8321, True),
        ("http://[::1]", 8321, True),
        ("http://localhost", 80, False),
        ("http://127.0.0.1:9000", 0, False),
        ("https://darkroom.example.com:9000", 8321, False),
        (None, 8321, False),
    ],
)
def test_a_public_url_beside_the_port_is_told(public_url: str | None, port: int, told: bool) -> None:
    sentences = unreached(load(public_url=public_url, port=port))
    assert [f"{public_url}" in sentence for sentence in sentences] == ([True] if told else [])


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


@pytest.mark.parametrize(
    ("public_url", "prefix", "links"),
    [
        (None, None, ""),
        (None, "/photos", "/photos"),
        ("https://darkroom.example", None, "https://darkroom.example"),
        ("https://app.example/photos", None, "https://app.example/photos"),
        ("https://app.example/photos", "/", "https://app.example"),
    ],
)
def test_links_of_images_begin_as_they_are_reached(
    public_url: str | None, prefix: str | None, links: str
) -> None:
    assert GivenSettings(public_url=public_url, path_prefix=prefix).links == links


ACCOUNTS = "DARKROOM_GATEWAYS__APIFRAME__ACCOUNTS"


def test_an_account_has_what_its_gateway_has_apart_from_secrets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("afk_of_a_file\n")
    settings = given(
        monkeypatch,
        DARKROOM_GATEWAYS__APIFRAME__CONCURRENCY="9",
        DARKROOM_GATEWAYS__APIFRAME__PREVIOUS_API_KEYS="afk_before",
        **{f"{ACCOUNTS}__SECOND_TEAM__API_KEY_FILE": str(tmp_path / "key")},
        **{f"{ACCOUNTS}__THIRD__API_KEY": "afk_third", f"{ACCOUNTS}__THIRD__CONFIRM": "always"},
        **{f"{ACCOUNTS}__THIRD__CONCURRENCY": "2", f"{ACCOUNTS}__OFF__CONCURRENCY": "3"},
    )
    accounts = settings.gateways.configured()
    assert {name: (one.key, one.concurrency, one.confirm) for name, one in accounts.items()} == {
        "apiframe": ("afk_secret_1", 9, "auto"),
        "apiframe.second-team": ("afk_of_a_file", 9, "auto"),
        "apiframe.third": ("afk_third", 2, "always"),
    }
    assert accounts["apiframe.third"].secrets("previous_api_keys") == []
    assert {"afk_of_a_file", "afk_third"} <= set(every_secret(settings))
    rows = {row.variable: (row.value, row.default) for row in settings_table(settings)}
    assert sorted((rows[ACCOUNTS][0] or "").split(",")) == ["off", "second_team", "third"]
    assert rows[f"{ACCOUNTS}__THIRD__API_KEY"] == ("********", None)
    assert rows[f"{ACCOUNTS}__THIRD__CONCURRENCY"] == ("2", "9")
    assert ignored() == []
    require(settings)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("SECOND__CONCURRENCY", "0", f"{ACCOUNTS}__SECOND__CONCURRENCY: must be 1 or more"),
        ("SECOND__API_KY", "k", f"{ACCOUNTS}__SECOND__API_KY: .*did you mean {ACCOUNTS}__SECOND__API_KEY"),
        ("SECOND__ACCOUNTS__X__API_KEY", "k", f"{ACCOUNTS}__SECOND__ACCOUNTS: is unknown"),
        ("A.B__API_KEY", "k", f"{ACCOUNTS}: 'a.b' cannot be the name"),
        ("SECOND__API_KEY_FILE", "/nowhere", f"{ACCOUNTS}__SECOND__API_KEY_FILE: .* cannot be read"),
    ],
)
def test_a_fault_names_the_setting_of_its_account(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    with pytest.raises(SettingsError, match=told):
        given(monkeypatch, **{f"{ACCOUNTS}__{name}": value})


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("API_KEY", "afk\nsplit", f"{ACCOUNTS}__SECOND__API_KEY"),
        ("PREVIOUS_API_KEYS", "afk_before", f"{ACCOUNTS}__SECOND__API_KEY: the key that follows"),
    ],
)
def test_a_useless_key_of_an_account_is_told(
    monkeypatch: pytest.MonkeyPatch, setting: str, value: str, told: str
) -> None:
    settings = given(monkeypatch, **{f"{ACCOUNTS}__SECOND__{setting}": value})
    check = require if setting == "PREVIOUS_API_KEYS" else build
    with pytest.raises(SettingsError, match=told):
        check(settings)
