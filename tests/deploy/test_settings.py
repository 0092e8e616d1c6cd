"""Every process that `deploy/` starts: its command can be run, and its environment is one that loads."""

import re
import shlex
from pathlib import Path

from receiver.cli.config import settings_table
from receiver.settings_sources import CLIENT
from tests.deploy.deployed import DEPLOY, FILLED, in_kubernetes, started
from tests.docs.test_pages import PAGES, misgiven
from tests.support.running import ROOT, command

STARTED = list(started())
TEXTS = [
    path for path in sorted(DEPLOY.rglob("*")) if path.suffix not in {".svg", ".webp"} and path.is_file()
]


def settings() -> set[str]:
    rows = settings_table()
    return {row.variable for row in rows} | {f"{row.variable}_FILE" for row in rows if row.secret}


def test_settings_that_are_named_exist() -> None:
    # Those of the client are for commands and applications, and FAULTS.md names variables of
    # the tests; a `*` or `...` stands for several.
    known = settings() | {*CLIENT, "DARKROOM_PORT"}
    named = {
        (path.name, name)
        for path in {*TEXTS, *PAGES.values()}
        for name in re.findall(r"DARKROOM_[A-Z0-9_]+(?![A-Z0-9_*])", path.read_text(encoding="utf-8"))
    }
    # What an account has, its gateway has too.
    own = {name: name.replace("ACCOUNTS__SECOND__", "") for _, name in named}
    unknown = {(where, name) for where, name in named if own[name] not in known}
    assert {(where, name) for where, name in unknown if not name.startswith("DARKROOM_FAULTS_")} == set()


def test_environments_load(tmp_path: Path) -> None:
    for one in STARTED:
        assert set(one.given) <= settings(), one.where
        done = command("config", "--json", cwd=tmp_path, **one.filled())
        assert (done.returncode, done.stderr) == (0, ""), one.where
        assert not list(tmp_path.iterdir()), one.where


def test_commands_can_be_given() -> None:
    for one in STARTED:
        program, *words = one.command
        assert program.rpartition("/")[2] == "darkroom"
        assert misgiven(shlex.join(words)) is None


def test_nothing_starts_before_it_was_filled_in(tmp_path: Path) -> None:
    for one in in_kubernetes():
        empty = [name for name, value in one.given.items() if not value]
        done = command(*one.command[1:], cwd=tmp_path, **one.given)
        assert (done.returncode, bool(empty)) == (2, True), one.where
        assert [name for name in empty if name in done.stderr], f"{one.where}: it says which"


def test_no_role_has_what_it_does_not_need() -> None:
    secrets = {row.variable for row in settings_table() if row.secret}
    given = {one.where: set(one.given) & secrets for one in in_kubernetes() if one.where != "sidecar"}
    everybody = {"DARKROOM_DATABASE_URL", "DARKROOM_SECRET_KEYS", "DARKROOM_API_TOKENS"}
    keys = {"DARKROOM_GATEWAYS__APIFRAME__API_KEY", "DARKROOM_GATEWAYS__API_IN_ONE__API_KEY"}
    bucket = {"DARKROOM_S3__ACCESS_KEY", "DARKROOM_S3__SECRET_KEY", "DARKROOM_NOTIFY__SECRETS"}
    assert given.pop("replicas: callbacks") == everybody | {"DARKROOM_GATEWAYS__APIFRAME__API_KEY"}
    assert given.pop("replicas: api") == given.pop("replicas: workers") == everybody | keys | bucket
    assert set(given) == {"sidecar: darkroom"}


def test_no_secret_stands_in_any_file() -> None:
    for path in TEXTS:
        assert not [one for one in FILLED.values() if one in path.read_text(encoding="utf-8")], path
    ignored = (ROOT / ".gitignore").read_text().split()
    assert {"deploy/darkroom.env", "deploy/kubernetes/replicas/secrets.yaml"} <= set(ignored)
