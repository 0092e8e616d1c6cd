"""The bucket, PostgreSQL or the gateways are away, or refuse, when the service starts, and are there later.

Whoever restarts during an outage must not make it worse: callbacks are answered by what is there, nothing is
lost, and all goes on without another restart.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.sandbox import SandboxServer
from tests.faults import harm
from tests.faults.forks import Forks
from tests.faults.judge import judge
from tests.faults.scenes import Report, Scene, Stage
from tests.faults.test_replicas import replicated
from tests.faults.world import SANDBOX, Accepted, World
from tests.support.postgres import Postgres
from tests.support.postgres import serving as postgres_serving
from tests.support.processes import free_port, until
from tests.support.services import S3Access

LATE = replace(SANDBOX, retry_delays_s=(0.3, 0.6, 1, 2, 4, 8, 8), callback_timeout_s=30)
"""A gateway that goes on sending its callbacks for longer than anything is away."""
DEAF = {"callback_polls": (60,)}
"""Nothing is found by polling, so what is archived came by a callback."""
SLOW = {"fault": "late", "delay_s": 2}


@pytest.fixture(scope="module")
def postgres_of_this_file() -> Iterator[Postgres]:
    with postgres_serving() as server:
        yield server


@pytest.fixture
def own_postgres(postgres_of_this_file: Postgres) -> Iterator[Postgres]:
    """One that may be stopped, beside that of all other tests."""
    yield postgres_of_this_file
    try:
        postgres_of_this_file.pid  # noqa: B018
    except FileNotFoundError:
        postgres_of_this_file.start()


def readiness(here: World) -> tuple[int, dict[str, str]]:
    """The status of `/readyz`, and what it says of each part."""
    answer = httpx.get(f"{here.url}/readyz", trust_env=False, timeout=40)
    return answer.status_code, answer.json()["checks"]


def unready(scene: Scene, part: str, said: str) -> None:
    """The service runs, and says what it waits for."""
    assert scene.answers("/healthz") == 200
    assert readiness(scene.world)[0] == 503
    scene.until(lambda: said in readiness(scene.world)[1][part])


def logged(here: World) -> list[dict[str, Any]]:
    return [json.loads(line) for line in here.log.read_text().splitlines() if line.startswith("{")]


def events(here: World) -> list[str]:
    return [line["event"] for line in logged(here)]


def callbacks_answered(scene: Scene, since: int = 0) -> list[int]:
    """The status of each answer to a callback, after the first so many."""
    return [call.answered.status for call in scene.wires.callbacks.calls[since:] if call.answered]


def running(scene: Scene) -> list[Accepted]:
    """Jobs whose callbacks will come in a moment."""
    jobs = scene.submit(each=2, fault=SLOW)
    scene.until(lambda: set(scene.places(jobs)) == {"running"})
    return jobs


@contextmanager
def restarted(scene: Scene, away: Callable[[], None], back: Callable[[], None]) -> Iterator[None]:
    """In the block the service runs that was started while something was away; then that is back."""
    scene.world.kill()
    away()
    scene.world.start()
    yield
    back()
    scene.until(lambda: readiness(scene.world)[0] == 200)


@pytest.mark.smoke
def test_a_bucket_that_is_away_at_the_start(stage: Stage) -> None:
    """Its callbacks are answered 200 all the while, and what they announce is archived later."""
    with stage.scene("bucket away at the start", sandbox=LATE, timing=DEAF) as scene:
        scene.archived(scene.submit(each=1))
        jobs, before = running(scene), len(scene.wires.callbacks.calls)
        with restarted(scene, scene.wires.s3.down, scene.wires.s3.up):
            unready(scene, "archive", "DARKROOM_S3__ENDPOINT")
            jobs += scene.submit(each=1)
            scene.until(lambda: set(scene.places(jobs)) == {"ready"})
            assert set(callbacks_answered(scene, before)) == {200}
            image = scene.world.get("/v1/outputs")["outputs"][0]["id"]
            assert scene.answers(f"/v1/outputs/{image}/image") == 503
        scene.archived(jobs)
        assert {"waiting for the bucket", "the bucket is there, going on"} <= set(events(scene.world))
        assert scene.world.get("/v1/status")["found_by_polling"] == 0


@pytest.mark.sqlite_file
def test_postgresql_that_is_away_at_the_start(stage: Stage, own_postgres: Postgres) -> None:
    """Its callbacks are answered 503 until it is back; then the gateway sends them again."""
    stage = replace(stage, ledger=own_postgres.url(own_postgres.create()))
    with stage.scene("PostgreSQL away at the start", sandbox=LATE, timing=DEAF) as scene:
        jobs, before = running(scene), len(scene.wires.callbacks.calls)
        with restarted(scene, own_postgres.stop, own_postgres.start):
            unready(scene, "ledger", "DARKROOM_DATABASE_URL")
            scene.until(lambda: len(callbacks_answered(scene, before)) >= len(jobs))
            assert set(callbacks_answered(scene, before)) == {503}
            told = [call.answered for call in scene.wires.callbacks.calls[before:] if call.answered]
            assert {answer.headers["retry-after"] for answer in told} == {"5"}
        scene.archived(jobs + scene.submit(each=1))
        assert events(scene.world).count("waiting for the ledger") == 1
        assert "ledger does not answer" in events(scene.world)
        assert events(scene.world).count("ledger does not answer") < 5, "once for each kind of worker"


@pytest.mark.sqlite_file
def test_a_new_database_that_is_away_at_first(stage: Stage, own_postgres: Postgres) -> None:
    """The tables are made once it is there, and a submission that was tried again meanwhile is accepted."""
    stage = replace(stage, ledger=own_postgres.url(own_postgres.create()))
    own_postgres.stop()
    with stage.scene("new PostgreSQL away at the start") as scene:
        submitted = [scene.world.submit_meanwhile(name) for name in ("apiframe", "api-in-one")]
        unready(scene, "ledger", "No PostgreSQL listens")
        assert not any(one.done() for one in submitted)
        own_postgres.start()
        scene.archived([one.result(120) for one in submitted])


@contextmanager
def gateways_later(here: World) -> Iterator[SandboxServer]:
    """Gateways to be started in the block; until then nobody listens on their port."""
    here.sandbox = SandboxServer(SANDBOX, port=free_port())
    for name in ("APIFRAME", "API_IN_ONE"):
        here.variables[f"DARKROOM_GATEWAYS__{name}__BASE_URL"] = here.sandbox.url
    yield here.sandbox
    here.sandbox.stop()


def test_gateways_that_are_away_at_the_start(stage: Stage) -> None:
    """Jobs are accepted and wait; the service itself is ready."""
    with stage.world() as here, gateways_later(here) as gateways:
        here.start()
        jobs = [here.submit(name) for name in ("apiframe", "api-in-one")]
        assert readiness(here)[0] == 200
        assert {here.get(f"/v1/jobs/{job.job_id}")["status"] for job in jobs} <= {"queued", "submitting"}
        gateways.start()
        here.settle()
        verdict = judge(here)
        stage.report("gateways away at the start", verdict)
        assert verdict.archived == len(jobs)


@pytest.mark.sqlite_file
@pytest.mark.parametrize("first", ["bucket", "PostgreSQL", "gateways"])
def test_all_away_at_the_start_back_in_any_order(stage: Stage, own_postgres: Postgres, first: str) -> None:
    stage = replace(stage, ledger=own_postgres.url(own_postgres.create()))
    with stage.scene("all away at the start", sandbox=LATE) as scene:
        wires, frame = scene.wires, scene.wires.gateway("apiframe")
        back = {"bucket": wires.s3.up, "PostgreSQL": own_postgres.start, "gateways": frame.up}
        jobs = running(scene)
        scene.world.kill()
        for down in (wires.s3.down, own_postgres.stop, frame.down):
            down()
        scene.world.start()
        status, checks = readiness(scene.world)
        assert (status, "ok" in checks.values()) == (503, False)
        # A kill during the wait costs nothing: all of it begins again.
        scene.world.kill()
        scene.world.start()
        for name in sorted(back, key=lambda name: name != first):
            back[name]()
            threading.Event().wait(0.7)  # longer than the backoff: what is back alone is found alone
        scene.archived(jobs + scene.submit(each=1))
        scene.until(lambda: readiness(scene.world)[0] == 200)


def no_bucket(scene: Scene) -> Callable[[], None]:
    """The bucket does not exist yet, and Darkroom may not create it."""
    world = scene.world
    name = f"later-{world.prefix.strip('/')}"
    world.variables |= {"DARKROOM_S3__BUCKET": name, "DARKROOM_S3__CREATE_BUCKET": "false"}
    world.store = access(world).open(bucket=name)
    return lambda: world.store.check(create=True)


def refused_keys(scene: Scene) -> Callable[[], None]:
    """The store does not know the access key yet."""
    scene.wires.s3.arm(harm.s3_error(403, "InvalidAccessKeyId"))
    return scene.wires.s3.disarm


def no_keys(scene: Scene) -> Callable[[], None]:
    """The file with the keys comes later, as some platforms mount it."""
    variables, file = scene.world.variables, scene.world.folder / "credentials"
    keys = [variables.pop(f"DARKROOM_S3__{name}") for name in ("ACCESS_KEY", "SECRET_KEY")]
    variables |= {"AWS_SHARED_CREDENTIALS_FILE": str(file), "AWS_EC2_METADATA_DISABLED": "true"}
    return lambda: credentials(file, *keys)


def old_keys(scene: Scene) -> Callable[[], None]:
    """The file with the keys has old ones at first."""
    write = no_keys(scene)
    credentials(scene.world.folder / "credentials", "old", "refused")
    return write


def credentials(file: Path, access_key: str, secret_key: str) -> None:
    file.write_text(f"[default]\naws_access_key_id = {access_key}\naws_secret_access_key = {secret_key}\n")


def says_nothing(scene: Scene) -> Callable[[], None]:
    """The store accepts connections and says nothing."""
    scene.wires.s3.arm(harm.stall)

    def back() -> None:
        scene.wires.s3.disarm()
        scene.wires.s3.down()  # ends what hangs
        scene.wires.s3.up()

    return back


def has_a_fault(scene: Scene) -> Callable[[], None]:
    scene.wires.s3.arm(harm.s3_error(500, "InternalError"))
    return scene.wires.s3.disarm


def access(world: World) -> S3Access:
    names = ("ACCESS_KEY", "SECRET_KEY")
    endpoint = world.variables["DARKROOM_S3__ENDPOINT"]
    return S3Access(endpoint, *(world.variables[f"DARKROOM_S3__{name}"] for name in names))


@pytest.mark.sqlite_file
@pytest.mark.parametrize(
    ("lack", "said"),
    [
        (no_bucket, "DARKROOM_S3__CREATE_BUCKET"),
        (refused_keys, "DARKROOM_S3__ACCESS_KEY"),
        (no_keys, "DARKROOM_S3__ACCESS_KEY"),
        (old_keys, "DARKROOM_S3__ACCESS_KEY"),
        (says_nothing, "The bucket is being opened"),
        (has_a_fault, "500 InternalError"),
    ],
)
def test_a_bucket_that_cannot_be_used_at_first(
    stage: Stage, lack: Callable[[Scene], Callable[[], None]], said: str
) -> None:
    """It may be created, or the key be accepted, while the service waits; no restart is needed."""
    mend: list[Callable[[], None]] = []
    name = lack.__name__.replace("_", " ")
    with stage.scene(f"bucket at the start: {name}", before=lambda scene: mend.append(lack(scene))) as scene:
        unready(scene, "archive", said)
        # Nothing is in this ledger, so whether it is the right one is known with the bucket only.
        submitted = [scene.world.submit_meanwhile(name) for name in ("apiframe", "api-in-one")]
        mend[0]()
        scene.archived([one.result(120) for one in submitted])
        scene.until(lambda: readiness(scene.world)[0] == 200)


def wrong_password(server: Postgres) -> tuple[str, Callable[[], None]]:
    name, user = server.create(), f"user_{server.create()}"
    server.tell(f"CREATE ROLE {user} LOGIN PASSWORD 'old'")
    server.tell(f"ALTER DATABASE {name} OWNER TO {user}")
    server.allow(f"host all {user} 127.0.0.1/32 scram-sha-256")
    url = server.url(name).replace("//postgres@", f"//{user}:new@")
    return url, lambda: server.tell(f"ALTER ROLE {user} PASSWORD 'new'")


def no_database(server: Postgres) -> tuple[str, Callable[[], None]]:
    name = server.create()
    server.drop(name)
    return server.url(name), lambda: server.tell(f"CREATE DATABASE {name}")


def no_rights(server: Postgres) -> tuple[str, Callable[[], None]]:
    name, user = server.create(), f"user_{server.create()}"
    server.tell(f"CREATE ROLE {user} LOGIN")
    url = server.url(name).replace("//postgres@", f"//{user}@")
    return url, lambda: server.tell(f"ALTER DATABASE {name} OWNER TO {user}")


@pytest.mark.sqlite_file
@pytest.mark.parametrize(
    ("lack", "said"),
    [
        (wrong_password, "does not accept the password of user"),
        (no_database, "There is no database"),
        (no_rights, "must own the database"),
    ],
)
def test_a_database_that_cannot_be_used_at_first(
    stage: Stage,
    own_postgres: Postgres,
    lack: Callable[[Postgres], tuple[str, Callable[[], None]]],
    said: str,
) -> None:
    url, mend = lack(own_postgres)
    name = lack.__name__.replace("_", " ")
    with replace(stage, ledger=url).scene(f"PostgreSQL at the start: {name}") as scene:
        unready(scene, "ledger", said)
        mend()
        scene.archived(scene.submit(each=1))
        scene.until(lambda: readiness(scene.world)[0] == 200)


def test_replicas_that_start_while_all_is_away(
    s3_server: EmbeddedS3, forks: Forks, report: Report, tmp_path: Path, own_postgres: Postgres
) -> None:
    """All of them wait, one makes the tables, and they share the work that was submitted meanwhile."""
    ledger = own_postgres.url(own_postgres.create())
    with (
        replicated(s3_server, forks, tmp_path, ledger) as (here, replicas),
        gateways_later(here) as gateways,
    ):
        own_postgres.stop()
        replicas.start()
        submitted = [here.submit_meanwhile(name) for name in ("apiframe", "api-in-one") * 4]
        until(lambda: events(here).count("waiting for the ledger") == 4)
        own_postgres.start()
        gateways.start()
        for one in submitted:
            one.result(120)
        here.settle()
        report("4 replicas started while PostgreSQL and the gateways were away", judge(here))
        assert readiness(here)[0] == 200
