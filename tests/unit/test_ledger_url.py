"""Whatever form its URL has, everybody means the same ledger."""

from pathlib import Path
from typing import Any

import pytest

from receiver.errors import SettingsError
from receiver.keyring import every_secret, notify_secrets
from receiver.settings import load, require
from storage.errors import Misconfigured
from storage.ledger.database import Database
from storage.ledger.url import LedgerUrl

POSTGRESQL = [
    "postgres://u:hunter2@db.example/darkroom",
    "postgresql://u:hunter2@db.example/darkroom",
    "postgresql+psycopg://u:hunter2@db.example/darkroom",
    "postgres+psycopg://u:hunter2@db.example/darkroom",
    "POSTGRES://u:hunter2@db.example/darkroom",
    "PostgreSQL://u:hunter2@db.example/darkroom?sslmode=require",
    " postgres://u:hunter2@db.example/darkroom\n",
    "postgresql://db.example/darkroom?user=u&password=hunter2",
    "postgresql:///darkroom?host=/var/run/postgresql&user=u",
    "postgres://u:hunter2@db.example/darkroom?options=-c%20search_path%3Dours&application_name=x",
    "postgres://u@/dark%72oom?host=one.example:5433&host=two.example:5434",
]
ENOUGH: dict[str, Any] = {
    "s3": {"bucket": "b"},
    "gateways": {"apiframe": {"api_key": "afk"}},
    "notify": {"url": "https://app.example/hook"},
}


@pytest.mark.parametrize("url", POSTGRESQL)
def test_every_form_of_postgresql_needs_keys(url: str, tmp_path: Path) -> None:
    """Otherwise each replica would make keys of its own, and refuse the callbacks of the others."""
    settings = load(database_url=url, data_dir=tmp_path / "data", **ENOUGH)
    with pytest.raises(SettingsError) as told:
        require(settings)
    assert "DARKROOM_SECRET_KEYS" in str(told.value)
    assert "DARKROOM_NOTIFY__SECRETS" in str(told.value)
    assert notify_secrets(settings) == []
    assert not (tmp_path / "data").exists(), "no key was made"


@pytest.mark.parametrize("url", POSTGRESQL)
def test_every_form_of_postgresql_can_be_used(url: str) -> None:
    place = LedgerUrl.parse(url)
    database = Database.connect(place)
    assert (database.shared, place.shared, place.path) == (True, True, None)
    database.close()
    assert "hunter2" not in str(place)
    assert (place.database, place.user) == ("darkroom", "u")


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("postgres://u@db.example:6432/d", "db.example:6432"),
        ("postgres://u@[::1]:6432/d", "::1:6432"),
        ("postgres:///d?host=/run/pg&port=6432", "/run/pg:6432"),
        ("postgres:///d?host=a:1&host=b:2", "a:1, b:2"),
        ("postgres:///d", "this machine"),
    ],
)
def test_the_host_is_named(url: str, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGHOST", raising=False)
    assert LedgerUrl.parse(url).host == host


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///{0}/ledger.sqlite3", "ledger.sqlite3"),
        ("SQLite+pysqlite:///{0}/l.db", "l.db"),
        ("sqlite:///{0}/my folder/l.db", "my folder/l.db"),
        ("sqlite:///{0}/my%20folder/l.db", "my folder/l.db"),
        ("sqlite:///{0}/here%", "here%"),
        ("sqlite:///relative/l.db", "relative/l.db"),
    ],
)
def test_a_file_is_the_same_for_everybody(
    url: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = LedgerUrl.parse(url.format(tmp_path))
    Database.open(place).close()
    assert place.path == tmp_path / path
    assert str(place) == str(tmp_path / path)
    assert (tmp_path / path).is_file()
    assert not place.shared


def test_a_file_that_is_there_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "l%20.db").touch()
    assert LedgerUrl.parse(f"sqlite:///{tmp_path}/l%20.db").path == tmp_path / "l%20.db"


@pytest.mark.parametrize("name", ["what?", "50%", "a b", "#1", "ü&x=y"])
def test_a_data_folder_may_have_any_name(name: str, tmp_path: Path) -> None:
    settings = load(data_dir=tmp_path / name)
    Database.open(settings.ledger_url).close()
    assert (tmp_path / name / "ledger.sqlite3").is_file()
    assert settings.ledger_url.setting == "DARKROOM_DATA_DIR"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "is empty"),
        ("ledger.sqlite3", "is no URL"),
        ("mysql://u:hunter2@h/d", "begins with mysql://"),
        ("postgresql+asyncpg://u:hunter2@h/d", "begins with postgresql+asyncpg://"),
        ("postgres://u:hunter2@x@h/d", "percent-encode"),
        ("postgres://u:hunter2@h:port/d", "percent-encode"),
        ("postgres://u:hunter2@h/d?pgbouncer=true&schema=x", "knows no pgbouncer, schema"),
        ("sqlite://", "must name a file"),
        ("sqlite:///:memory:", "must name a file"),
        ("sqlite://ledger.sqlite3", "must name a file"),
        ("sqlite:///file:l.db?mode=memory&uri=true", "must name a file"),
        ("sqlite:///l.db?timeout=5", "no parameters"),
    ],
)
def test_what_cannot_be_a_ledger_is_said(url: str, told: str, tmp_path: Path) -> None:
    with pytest.raises((Misconfigured, SettingsError)) as error:
        Database.connect(load(database_url=url, data_dir=tmp_path).ledger_url)
    assert "DARKROOM_DATABASE_URL" in str(error.value)
    assert told in str(error.value)
    assert "hunter2" not in str(error.value)


def test_a_direct_url_goes_with_postgresql(tmp_path: Path) -> None:
    direct = load(database_direct_url="postgres://h/d", data_dir=tmp_path, **ENOUGH)
    with pytest.raises(SettingsError, match="DIRECT_URL"):
        require(direct)
    with pytest.raises(SettingsError, match=r"DARKROOM_DATABASE_DIRECT_URL begins with mysql://"):
        require(load(database_direct_url="mysql://h/d", database_url="postgres://h/d", **ENOUGH))


def test_every_form_of_a_password_is_a_secret() -> None:
    """As it is written, and as the driver has it and may say it."""
    written = load(database_url="postgres://u:p%40ss%2Fword@h/d?password=other%21one")
    found = set(every_secret(written))
    assert {"p%40ss%2Fword", "p@ss/word", "other!one"} <= found
