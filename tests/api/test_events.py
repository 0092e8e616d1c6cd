"""`GET /v1/events` and `?wait=`: everything is told once and in order, whatever happens to the reader."""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from time import monotonic, time
from typing import Any

import httpx
import pytest
from sqlalchemy import insert

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.sandbox import SandboxServer
from storage.ledger.events import Events
from storage.ledger.schema import events as table
from tests.support.live import IMAGEN, ULTRA, Live, Start, started
from tests.support.streams import PATIENCE_S, Told, as_told, everything, following, plain, take

NOBODY = "00000000-0000-7000-8000-000000000000"
TOKENS = ["a:read:a-token-of-somebody", "b:read:b-token-of-somebody", "c:admin:c-token-of-somebody"]
A, B, C = (token.rpartition(":")[2] for token in TOKENS)


def kept(live: Live) -> list[Told]:
    """Everything that the ledger has of what happened."""
    return [as_told(one) for one in Events(live.service.resources.database).after(0, limit=100_000)]


def put(live: Live, number: int, *, gateway: str = "apiframe") -> None:
    """Have so many events in the ledger, as another process would write them."""
    row = {"at": int(time() * 1000), "job_id": NOBODY, "gateway": gateway, "status": "queued"}
    with live.service.resources.database.write() as connection:
        connection.execute(insert(table), [row] * number)


def waiting(live: Live) -> int:
    """How many requests wait."""
    page = live.http.get("/metrics").text
    return int(float(page.partition("\ndarkroom_requests_waiting ")[2].partition("\n")[0]))


async def until(so: Callable[[], bool]) -> None:
    """Wait until it is so."""
    deadline = monotonic() + PATIENCE_S
    while not await asyncio.to_thread(so):
        assert monotonic() < deadline
        await asyncio.sleep(0.02)


async def collect(found: list[Told], url: str, **query: str) -> None:
    async with following(url, **query) as source:
        async for told in source:
            found.append(told)


async def collect_in_pieces(found: list[Told], url: str, size: int) -> None:
    """Cut the connection after every few events, and go on after the last one."""
    last: str | None = None
    while True:
        async with following(url, last) as source:
            found += await take(source, size)
            last = source.last_id


def test_everything_reaches_each_reader_once_in_order(start: Start) -> None:
    live = start()
    found: dict[str, list[Told]] = {name: [] for name in ("all", "more", "pieces", "api-in-one")}

    async def read_while(jobs: Awaitable[None]) -> None:
        readers = [
            collect(found["all"], live.url),
            collect(found["more"], live.url, since="0"),
            collect(found["api-in-one"], live.url, gateway="api-in-one"),
            collect_in_pieces(found["pieces"], live.url, 3),
        ]
        tasks = [asyncio.create_task(reader) for reader in readers]
        await until(lambda: waiting(live) == len(tasks))
        await jobs
        told = kept(live)
        for one in (found["all"], found["more"]):
            await until(lambda one=one: len(one) >= len(told))  # type: ignore[misc]
        await until(lambda: len(found["pieces"]) >= len(told) // 3 * 3)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def make() -> None:
        kinds: list[dict[str, Any]] = [IMAGEN, ULTRA | {"num_images": 2}, IMAGEN | {"fault": "failed"}]
        wanted = [kinds[number % 3] for number in range(50)]
        await asyncio.gather(*(asyncio.to_thread(live.make, {}, **asked) for asked in wanted))

    asyncio.run(read_while(make()))
    told = kept(live)
    jobs = {one.data["job_id"] for one in told}
    assert len(jobs) == 50
    assert found["all"] == found["more"] == told
    assert found["pieces"] == told[: len(told) // 3 * 3]
    assert found["api-in-one"] == [one for one in told if one.data["gateway"] == "api-in-one"]
    for job_id in jobs:
        mine = [one for one in told if one.data["job_id"] == job_id]
        moves = [one.data["status"] for one in mine if one.kind == "job"]
        outputs = [one.data["output_id"] for one in mine if one.kind == "output"]
        assert moves == ["queued", *(status for status, _ in live.job(job_id).moves if status != "queued")]
        assert sorted(outputs) == [one.id for one in live.service.resources.ledger.outputs(job_id)]
        assert mine[-1].data["error_code"] == ("generation_failed" if moves[-1] == "failed" else None)


@pytest.fixture
def still(start: Start) -> Live:
    """A service that does no work, so that only the test makes anything happen. It has five events."""
    live = start(work=False)
    put(live, 5)
    return live


def read(live: Live, last: str | None = None, **query: str) -> list[Told]:
    return asyncio.run(everything(live.url, last, **query))


def test_it_begins_where_it_is_asked_to(still: Live) -> None:
    told = kept(still)
    job = still.submit(IMAGEN)
    mine = kept(still)[5:]
    assert [one.data["status"] for one in mine] == ["queued"]
    assert read(still) == []
    assert read(still, since="0") == told + mine
    assert read(still, told[3].id) == told[4:] + mine
    assert read(still, "4") == told[4:] + mine, "its number is enough"
    assert read(still, told[4].id, since="1") == mine, "a browser that comes again has its old URL"
    assert read(still, since="0", job=job["id"]) == mine
    assert read(still, since="0", gateway="api-in-one") == []
    assert read(still, mine[0].id) == []


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        ("0-0", "forgotten"),
        ("1", "forgotten"),
        ("6", "unknown"),
        ("4-1700000000000", "unknown"),
        ("999999999999999999", "unknown"),
        ("01a201ee-8cc4-7255-b42d-d6cf39ac8954", "unknown"),
    ],
)
def test_who_may_have_missed_something_is_told_so(still: Live, last: str, reason: str) -> None:
    assert Events(still.service.resources.database).forget(0, most=3) == 2
    assert read(still, "2") == kept(still)

    async def follow() -> None:
        async with following(still.url, last) as source:
            events = aiter(source)
            reset = await anext(events)
            assert (reset.kind, reset.data) == ("reset", {"reason": reason})
            assert reset.id == kept(still)[-1].id
            put(still, 300)
            came = [await anext(events) for _ in range(300)]
        assert came == kept(still)[-300:], "the same stream goes on"

    asyncio.run(follow())


def test_0_is_the_oldest_that_is_kept(still: Live) -> None:
    job = still.submit(IMAGEN)
    assert Events(still.service.resources.database).forget(0, most=3) == 3
    told = kept(still)
    assert read(still, since="0") == read(still, "0") == told
    assert read(still, since="0", job=job["id"]) == told[-1:]
    assert read(still, since="0", job=NOBODY, gateway="api-in-one") == []


def test_who_came_before_all_events_is_told_of_losses(start: Start) -> None:
    live = start(work=False)

    async def begin() -> str:
        async with following(live.url, wait=0) as source:
            assert [told async for told in source] == []
            assert source.retry_ms
            return source.last_id

    last = asyncio.run(begin())
    put(live, 5)
    assert read(live, last) == kept(live)
    assert Events(live.service.resources.database).forget(0, most=3) == 2
    assert [one.kind for one in read(live, last)] == ["reset"]


@pytest.mark.parametrize("query", ["since=yesterday", "since=-1", "job=1", "wait=-1", "wait=nan", "last=1"])
def test_a_question_that_makes_no_sense_is_refused(still: Live, query: str) -> None:
    answer = still.http.get(f"/v1/events?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_the_answer_is_not_to_be_kept_by_anybody(still: Live) -> None:
    for answer in (still.http.get("/v1/events?wait=0"), still.http.head("/v1/events")):
        assert answer.status_code == 200
        assert answer.headers["content-type"].partition(";")[0] == "text/event-stream"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"


def ask_and_not_read(live: Live, lazy: socket.socket) -> None:
    put(live, 3_000, gateway="long" * 1_000)  # more than the sockets hold
    lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    lazy.connect(("127.0.0.1", httpx.URL(live.url).port or 0))
    lazy.sendall(b"GET /v1/events?since=0 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
    asyncio.run(until(lambda: waiting(live) == 1))


def test_who_does_not_read_is_cut_off_and_can_go_on(start: Start) -> None:
    live = start(work=False, limits={"head_timeout": 0.5})
    with socket.socket() as lazy:
        ask_and_not_read(live, lazy)
        told = kept(live)
        assert read(live, told[-2].id) == told[-1:], "others are not held up"
        asyncio.run(until(lambda: waiting(live) == 0))
        raw = b""
        while piece := lazy.recv(1 << 20):
            raw += piece
    whole = rb"id: (\d+-\d+)\nevent: job\ndata: [^\n]*\n\n"
    had = [found.decode() for found in re.findall(whole, raw)]
    assert 0 < len(had) < len(told)
    assert had + [one.id for one in read(live, had[-1])] == [one.id for one in told]


def test_who_does_not_read_holds_up_no_stop(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as lazy:
        with started(s3_server, tmp_path, sandbox=sandbox, work=False) as live:
            ask_and_not_read(live, lazy)
            began = monotonic()
        assert monotonic() - began < 9
    log = capsys.readouterr().out
    assert "path=/v1/events" in log
    assert "Traceback" not in log
    assert "CancelledError" not in log


def test_whoever_goes_away_leaves_nothing_behind(still: Live) -> None:
    job_id = still.submit(IMAGEN)["id"]

    async def come_and_go() -> None:
        async with AsyncExitStack() as stack:
            for _ in range(20):
                await stack.enter_async_context(following(still.url))
            http = await stack.enter_async_context(
                httpx.AsyncClient(base_url=still.url, trust_env=False, verify=plain(), timeout=PATIENCE_S)
            )
            waits = [asyncio.create_task(http.get(f"/v1/jobs/{job_id}?wait=60")) for _ in range(20)]
            await until(lambda: waiting(still) == 40)
            for wait in waits:
                wait.cancel()
        await until(lambda: waiting(still) == 0)
        assert still.parts.subscriptions._reader is None, "nor is the ledger read for nobody"

    asyncio.run(come_and_go())


def test_only_so_many_may_wait(start: Start) -> None:
    live = start(work=False, api_tokens=TOKENS, limits={"waiting": 3, "waiting_token": 2})
    live.http.headers["authorization"] = f"Bearer {C}"
    job_id = live.submit(IMAGEN)["id"]

    async def refused(token: str, path: str) -> tuple[int, str, str]:
        async with httpx.AsyncClient(base_url=live.url, trust_env=False, verify=plain()) as http:
            answer = await http.get(path, headers={"authorization": f"Bearer {token}"})
            return answer.status_code, answer.json()["code"], answer.headers["retry-after"]

    async def come() -> None:
        async with AsyncExitStack() as stack:
            for token in (A, A):
                await stack.enter_async_context(following(live.url, token=token))
            for path in ("/v1/events", f"/v1/jobs/{job_id}?wait=30"):
                assert await refused(A, path) == (429, "too_many_requests", "5")
            await stack.enter_async_context(following(live.url, token=B))
            for path in ("/v1/events", f"/v1/jobs/{job_id}?wait=30"):
                assert await refused(B, path) == (503, "too_many_waiting", "5")
        await until(lambda: waiting(live) == 0)
        async with following(live.url, token=A):
            pass

    asyncio.run(come())


def test_a_wait_is_answered_as_soon_as_the_job_ends(live: Live) -> None:
    late_ms = []
    for _ in range(10):
        job_id = live.make(IMAGEN)["id"]
        late_ms.append(time() * 1000 - live.job(job_id).updated_at)
    print("answered after ms:", sorted(round(late) for late in late_ms))
    assert median(late_ms) < 500, "so it was not the look that is taken every second"
