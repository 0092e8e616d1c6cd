"""A thousand good callbacks beside ten thousand hostile ones: all good ones are answered in time."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import pytest

from receiver.callbacks.tokens import CallbackTokens
from receiver.demo.seaweedfs import EmbeddedS3
from receiver.sandbox import SandboxConfig, SandboxServer
from receiver.schedule import system_clock
from tests.callbacks.test_callbacks import signed
from tests.faults.flood_help import Attack, Told
from tests.support.live import IMAGEN
from tests.support.processes import MIB, ROOT, Process, environment, free_port, serving, watch_rss

JOBS, LEAKED = 500, 40
GOOD = 2 * JOBS
"""Every good callback is sent twice, as gateways do."""
SECONDS = 12.0
KEY = "the-key-that-signs-callback-urls"
PATIENT_S, SLOWEST_S = 4.0, 10.0
"""Senders wait for five to ten seconds: most are answered within the first, and all within the second."""


@dataclass(frozen=True)
class Good:
    """One good callback's answer; times of the machine's monotonic clock, in seconds."""

    status: int
    began: float
    took_s: float


def jobs_made(process: Process, count: int) -> dict[str, str]:
    """Submit jobs and wait until the gateway has them all: their ids, and those that the gateway gave."""

    def submit(number: int) -> None:
        answer = http.post("/v1/jobs", json=IMAGEN | {"prompt": f"flood {number}"})
        assert answer.status_code == 202, answer.text

    with httpx.Client(base_url=process.url, timeout=30, trust_env=False) as http:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(submit, range(count)))
        deadline = monotonic() + 60
        while http.get("/v1/status").json()["running"] < count:
            assert monotonic() < deadline, http.get("/v1/status").text
        found: dict[str, str] = {}
        cursor = None
        while len(found) < count:
            query = {"limit": "500", "status": "running"} | ({"cursor": cursor} if cursor else {})
            page = http.get("/v1/jobs", params=query).json()
            found |= {job["id"]: job["gateway_job_id"] for job in page["jobs"]}
            cursor = page["next_cursor"]
        return found


async def send_good(port: int, token: str, body: bytes, at: float) -> Good:
    """Send a callback as gateways do: on a connection of its own, signed."""
    headers = {"host": "darkroom.example", "content-length": str(len(body)), **signed(body)}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    await asyncio.sleep(max(0.0, at - monotonic()))
    began = monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"POST /callbacks/apiframe/{token} HTTP/1.1\r\n{lines}\r\n".encode() + body)
        answer = await asyncio.wait_for(reader.readuntil(b"}"), 30)
    except (OSError, EOFError, TimeoutError):
        return Good(0, began, monotonic() - began)
    finally:
        writer.close()
    return Good(int(answer.split()[1]), began, monotonic() - began)


async def send_all_good(port: int, callbacks: list[tuple[str, bytes]]) -> list[Good]:
    """Send one after the other, evenly over the time that the attack takes."""
    began = monotonic()
    return await asyncio.gather(
        *(
            send_good(port, token, body, began + 0.5 + SECONDS * number / len(callbacks))
            for number, (token, body) in enumerate(callbacks)
        )
    )


def attacked(attack: Attack, callbacks: list[tuple[str, bytes]]) -> tuple[Told, list[Good]]:
    """Send the hostile ones from another process and, at the same time, the good ones from here."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.flood_help"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as attacker:  # fmt: skip
        assert attacker.stdin
        attacker.stdin.write(json.dumps(asdict(attack)))
        attacker.stdin.close()
        good = asyncio.run(send_all_good(attack.port, callbacks))
        assert attacker.stdout
        told = Told(**json.loads(attacker.stdout.read()))
    assert attacker.returncode == 0
    return told, good


def settled(process: Process, failed: int) -> dict[str, Any]:
    """The counts, once every good callback has had its effect."""
    deadline = monotonic() + 30
    while True:
        counts: dict[str, Any] = httpx.get(f"{process.url}/v1/status", timeout=30).json()
        if counts["failed"] >= failed:
            return counts
        assert monotonic() < deadline, counts


REFUSED = {"401", "429"}
ALLOWED = {
    "garbage signature": {"401", "429"},
    "deep JSON": {"400", "429"},
    "large body, announced": {"413", "429", "closed"},
    "large body, chunked": {"413", "429", "closed"},
    "bad token, endless body": {"401", "429", "closed"},
    "slow body": {"408", "429"},
    "bad token, slow body": {"401", "429"},
    "slow head": {"closed"},
    "idle connection": {"closed"},
}
"""How each kind may be answered; all others are `REFUSED`. `closed`: while it was still sending, or had not
sent a whole head."""


@dataclass(frozen=True)
class Prepared:
    """Jobs that their gateway has taken, in the ledger of a service that is not running now."""

    folder: Path
    variables: dict[str, str]
    port: int
    leaked: list[str]
    theirs: dict[str, str]
    """The gateway's id of each job whose token did not leak."""


@pytest.fixture(scope="module")
def prepared(s3_server: EmbeddedS3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    folder, port = tmp_path_factory.mktemp("flood"), free_port()
    with SandboxServer(SandboxConfig(latency_s=(3600, 3600), image_px=64)) as sandbox:
        variables = environment(
            s3_server, sandbox, folder, port,
            DARKROOM_SECRET_KEYS=KEY,
            DARKROOM_GATEWAYS__APIFRAME__CONCURRENCY="32",
            DARKROOM_WORKER__FIRST_POLL="3600",
            DARKROOM_LIMITS__HEAD_TIMEOUT="3",
            DARKROOM_LIMITS__BODY_TIMEOUT="4",
            DARKROOM_LIMITS__CONNECTIONS="150",
        )  # fmt: skip
        with serving(variables, folder) as process:
            jobs = jobs_made(process, JOBS + LEAKED)
            process.terminate()
        leaked = list(jobs)[:LEAKED]
        yield Prepared(folder, variables, port, leaked, {job: jobs[job] for job in list(jobs)[LEAKED:]})


def attack_on(prepared: Prepared, tokens: CallbackTokens) -> Attack:
    long_ago = system_clock() - 3 * 86_400_000
    other = CallbackTokens(["a-key-that-is-not-ours"], max_age_s=172_800, clock=system_clock)
    return Attack(
        prepared.port,
        leaked=[tokens.make("apiframe", job) for job in prepared.leaked],
        dead=[
            *(tokens.make("apiframe", job, made_at=long_ago) for job in prepared.leaked),
            *(other.make("apiframe", job) for job in prepared.leaked),
        ],
        over_bytes=4 * MIB + 1,
        seconds=SECONDS,
    )


@pytest.mark.alone
@pytest.mark.parametrize("bad_tokens", [120, 0], ids=["limited", "unlimited"])
def test_good_callbacks_come_through_a_flood(prepared: Prepared, bad_tokens: int) -> None:
    tokens = CallbackTokens([KEY], max_age_s=172_800, clock=system_clock)
    failed = {"event": "failed", "status": "FAILED", "error": f"with a limit of {bad_tokens}"}
    callbacks = [
        (tokens.make("apiframe", job), json.dumps({**failed, "jobId": theirs}).encode())
        for job, theirs in prepared.theirs.items()
    ]
    log = prepared.folder / "serve.log"
    log.write_text("")
    results: list[tuple[Told, list[Good]]] = []
    variables = prepared.variables | {"DARKROOM_LIMITS__BAD_TOKENS": str(bad_tokens)}
    with serving(variables, prepared.folder) as process:
        before = process.rss()
        most = watch_rss(
            process, lambda: results.append(attacked(attack_on(prepared, tokens), callbacks * 2))
        )
        ((told, good),) = results
        counts = settled(process, JOBS)
        code, _ = process.terminate()
    seen = log.read_text()

    assert sum(sum(counts.values()) for counts in told.answers.values()) == 10_000
    for kind, answers in told.answers.items():
        assert set(answers) <= ALLOWED.get(kind, REFUSED), (kind, answers)
    assert Counter(one.status for one in good) == {200: GOOD}
    took = sorted(one.took_s for one in good)
    assert took[-GOOD // 100] < PATIENT_S
    assert took[-1] < SLOWEST_S
    assert sum(told.began <= one.began <= told.ended for one in good) > 0.9 * GOOD, "at the same time"
    assert most - before < 60 * MIB
    assert most < 200 * MIB
    assert (counts["failed"], counts["running"], counts["balanced"]) == (JOBS, LEAKED, True)
    assert code == 0
    assert "Traceback" not in seen
    if bad_tokens:
        assert seen.count('"code": "bad_token"') <= 3 * bad_tokens, "what is over the limit is only counted"
