"""Notifications as an application gets them: signed, in order, at least once, on the standard's schedule."""

import base64
import json
import secrets as random
import socket
import ssl
import threading
from collections import Counter
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from receiver.api.subscriptions import Subscriptions
from receiver.app import _moved
from receiver.download.ssrf import parse_target
from receiver.keyring import new_webhook_secret
from receiver.notifications.message import MAX_WHOLE_BYTES, body_of
from receiver.notifications.transport import Poster
from receiver.schedule import Timing, system_clock
from storage.ledger.events import Events
from storage.ledger.outbox import Outbox
from storage.ledger.wakeup import WakeupChannel
from storage.models import Job, JobRequest, NotificationState, Output, Status
from storage.urls import authority_of
from tests.support.notifications import EXACT, SECRET, Application, desk, policy
from tests.support.processes import nobody
from tests.support.raw_server import PNG, TLS, Script, redirect, reply, serving
from tests.support.recorder import Answer

STANDARD_SCHEDULE = (0, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
"""In the specification, https://github.com/standard-webhooks/standard-webhooks."""

SPELLINGS = (
    *("app.example", "APP.example", "app.example:443", "app.example:", "app.example.", "app.example.:443"),
    "app。example",
)
"""Of one host. The last dot is one that international names may have."""


def test_a_notification_tells_the_outcome_signed(tmp_path: Path) -> None:
    with Application() as app, desk(tmp_path) as at:
        job = at.rest(app.url)
        told = app.next()
        assert at.delivered(job).state is NotificationState.DELIVERED
    message = told.verified()
    assert (message["type"], message["data"]["whole"]) == ("job.failed", True)
    shown = message["data"]["job"]
    assert (shown["id"], shown["status"], shown["error"]["message"]) == (job.id, "failed", "No.")
    assert datetime.fromisoformat(message["timestamp"]).timestamp() * 1000 == job.updated_at
    assert (told.path, told.id) == ("/hook", f"msg_{job.id}_1")
    assert "." not in told.id, "which stands between what is signed"
    assert told.headers["user-agent"].startswith("Darkroom/")
    assert told.headers["content-type"] == "application/json"


def test_every_secret_signs(tmp_path: Path) -> None:
    old, new = new_webhook_secret(), f"whsec_{base64.b64encode(random.token_bytes(24)).decode()}"
    with Application() as app, desk(tmp_path, secrets=[old, new]) as at:
        at.rest(app.url)
        told = app.next()
    assert told.verified(old) == told.verified(new)


def test_the_schedule_is_the_standards_plus_jitter() -> None:
    assert Timing().notify == STANDARD_SCHEDULE
    for attempts, wait in enumerate(STANDARD_SCHEDULE):
        waits = [Timing().notify_wait(attempts) for _ in range(50)]
        assert all(one is not None and wait <= one <= wait * 1.1 for one in waits)
    assert Timing().notify_wait(len(STANDARD_SCHEDULE)) is None


def test_a_receiver_gets_all_after_an_outage_in_order(tmp_path: Path) -> None:
    # The package verifies by the time of day, so the clock is set such that the last try is made now.
    behind_ms = sum(STANDARD_SCHEDULE[:5]) * 1000
    port = nobody()
    with desk(tmp_path, base=lambda: system_clock() - behind_ms) as at:
        began = at.clock()
        job = at.rest(f"http://127.0.0.1:{port}/hook")
        others = [at.rest(f"http://127.0.0.1:{port}/other-{n}") for n in range(10)]
        tries = [at.tried(job, 1)]
        [at.tried(other, 1) for other in others]
        again = at.again(job)
        for n, wait_s in enumerate(STANDARD_SCHEDULE[1:4], start=2):
            due = at.one(job).next_attempt_at
            at.forward(wait_s)
            tries.append(at.tried(job, n))
            [at.tried(other, n) for other in others]
            assert due is not None
            assert (tries[-1].tried_at or 0) >= due, "never before it is due"
        at.forward(3600 - sum(STANDARD_SCHEDULE[:4]))
        assert {one.code for one in tries} == {"receiver_unavailable"}
        waits = [(one.next_attempt_at or 0) - (one.tried_at or 0) for one in tries]
        assert waits == [1000 * wait for wait in STANDARD_SCHEDULE[1:5]]
        assert at.one(job, 2).attempts == 0, "which waits for the one before it"
        with Application(port=port) as app:
            at.forward(sum(STANDARD_SCHEDULE[:5]) - 3600)
            told = [app.next() for _ in range(2 + len(others))]
            assert at.delivered(again, 2).attempts == 1
            assert at.delivered(job).attempts == 5
            assert all(at.delivered(other).attempts == 5 for other in others)
            assert app.told.empty(), "nothing is told twice"
    assert (at.clock() - began) / 1000 >= sum(STANDARD_SCHEDULE[:5])
    assert Counter(one.id for one in told) == Counter(
        {f"msg_{job.id}_1": 1, f"msg_{job.id}_2": 1, **{f"msg_{other.id}_1": 1 for other in others}}
    )
    mine = [one.verified() for one in told if job.id in one.id]
    assert [one["type"] for one in mine] == ["job.failed", "job.archived"]
    statuses = [(one["data"]["job"]["status"], one["data"]["job"]["error"]) for one in mine]
    assert statuses[0][0] == "failed", "as it was then, although it is archived by now"
    assert statuses[0][1]["code"] == "generation_failed"
    assert statuses[1] == ("archived", None)


def test_it_is_given_up_at_last_and_can_be_replayed(tmp_path: Path) -> None:
    with Application(*[Answer(500)] * len(STANDARD_SCHEDULE)) as app, desk(tmp_path) as at:
        job = at.rest(app.url)
        for times, wait_s in enumerate((*STANDARD_SCHEDULE[1:], 0), start=1):
            at.tried(job, times)
            at.forward(wait_s)
        one = at.one(job)
        assert (one.state, one.code, one.attempts) == (NotificationState.FAILED, "receiver_refused", 10)
        assert one.message == f"127.0.0.1:{app.port} answered 500."
        at.forward(30 * 86400)
        again = at.rest(app.url)
        at.delivered(again)
        assert at.one(job) == one, "nothing is sent that was given up"
        assert at.notifications.replay(one.id).state is NotificationState.PENDING
        at.notifier.wake()
        assert (at.delivered(job).attempts, at.one(job).code) == (1, None)
        assert app.told.qsize() == 12


@pytest.mark.parametrize("status", [204, 410, 500])
def test_a_replay_during_a_try_is_a_try_of_its_own(tmp_path: Path, status: int) -> None:
    until = threading.Event()
    answer, once = Answer(status, until=until), replace(EXACT, notify=(0,))
    with Application(answer) as app, desk(tmp_path, timeout_s=30, timing=once) as at:
        job = at.rest(app.url)
        first = app.next()
        assert at.notifications.replay(at.one(job).id).attempts == 0
        at.notifier.wake()
        with Application() as other:
            at.delivered(at.rest(other.url))  # so that what is due was looked for meanwhile
        assert app.told.empty(), "not while the other try goes on"
        until.set()
        assert app.next().id == first.id
        assert at.delivered(job).attempts == 1


def test_one_host_is_one_however_it_is_spelled(tmp_path: Path) -> None:
    with desk(tmp_path, start=False) as at:
        assert {at.one(at.rest(f"https://{host}/hook")).host for host in SPELLINGS} == {"app.example"}
        outbox = Outbox(at.notifications._database, at.clock)
        assert len(outbox.claim("one", 8, per_host=1, held=(), lease_ms=20_000)) == 1


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        *((f"https://{host}/hook?key=1", "app.example") for host in SPELLINGS),
        ("http://app.example:80", "app.example"),
        ("https://app.example:8443/", "app.example:8443"),
        ("https://app.example.:8443?key=1", "app.example:8443"),
        ("https://bücher.example/", "xn--bcher-kva.example"),
        ("https://[0:0::1]:443/", "[::1]"),
        ("https://[2001:DB8::0:1]:8443/", "[2001:db8::1]:8443"),
        ("https://[::ffff:93.184.216.34]/", "93.184.216.34"),
        ("https://93.184.216.34/", "93.184.216.34"),
    ],
)
def test_an_authority_has_one_spelling(url: str, authority: str) -> None:
    assert parse_target(url).scheme == url.partition(":")[0], "it is one that is taken"
    assert authority_of(url) == authority


def test_a_sender_goes_on_after_any_fault(tmp_path: Path) -> None:
    nothing: Any = None
    broken = replace(EXACT, notify=nothing)  # a fault of ours: no wait can be had from it
    with Application(Answer(500)) as app, desk(tmp_path, concurrency=1, timing=broken) as at:
        job = at.rest(app.url)
        app.next()
        at.delivered(at.rest(app.url))
        assert at.one(job).state is NotificationState.PENDING
        at.forward(10)  # a try may take 5 s, and a lease is 5 s longer
        assert at.delivered(job).attempts == 1, "once its lease had run out"


@pytest.mark.parametrize(
    ("answer", "code", "again_s"),
    [
        (Answer(302, {"location": "/elsewhere"}), "receiver_refused", 5),
        (Answer(404), "receiver_refused", 5),
        (Answer(410), "receiver_gone", None),
        (Answer(429, {"retry-after": "90"}), "receiver_refused", 90),
        (Answer(503, {"retry-after": "2"}), "receiver_refused", 5),
        (Answer(503, {"retry-after": "100000000"}), "receiver_refused", 3600),
        (Answer(500, {"retry-after": "90"}), "receiver_refused", 5),
        (Answer(500, body=b"x" * 5_000_000), "receiver_refused", 5),
    ],
    ids=["302", "404", "410", "429", "503", "503-long", "500", "huge"],
)
def test_what_an_answer_means(tmp_path: Path, answer: Answer, code: str, again_s: int | None) -> None:
    with Application(answer) as app, desk(tmp_path) as at:
        job = at.rest(app.url)
        one = at.tried(job, 1)
        assert app.next().path == "/hook"
        assert app.told.empty(), "no redirect is followed"
    waits = None if one.next_attempt_at is None else (one.next_attempt_at - (one.tried_at or 0)) / 1000
    assert (one.code, waits) == (code, again_s)
    assert one.message is not None
    assert str(answer.status) in one.message


def test_any_2xx_will_do_whatever_its_body(tmp_path: Path) -> None:
    with Application(Answer(200, body=b"x" * 5_000_000), Answer(201)) as app, desk(tmp_path) as at:
        at.delivered(at.rest(app.url))
        at.delivered(at.rest(app.url))
    cut = reply(b"short", length=1000)
    with serving() as serve, desk(tmp_path) as at:
        at.delivered(at.rest(serve({"/": cut}).url + "/"))


def test_a_receiver_without_an_answer_is_tried_again(tmp_path: Path) -> None:
    scripts: dict[str, Script | bytes] = {"/reset": lambda sock: sock.close(), "/endless": _endless}
    scripts |= {"/noise": b"\x00\xff not HTTP\r\n\r\n", "/png": PNG}
    with serving() as serve, desk(tmp_path, timeout_s=5) as at:
        server = serve(scripts)
        jobs = [at.rest(server.url + path) for path in server.scripts]
        tried = [at.tried(job, 1) for job in jobs]
    assert {(one.code, one.state) for one in tried} == {("receiver_unavailable", NotificationState.PENDING)}


def _endless(sock: socket.socket) -> None:
    while True:
        sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)


def test_a_slow_receiver_holds_up_nobody_else(tmp_path: Path) -> None:
    never = threading.Event()
    slow, well = Application(*[Answer(until=never)] * 100), Application()
    with slow, well, desk(tmp_path, timeout_s=1.5) as at:
        dead = [at.rest(slow.url) for _ in range(20)]
        quick = [at.rest(well.url) for _ in range(20)]
        for job in quick:
            at.delivered(job)
        heard, tried = slow.told.qsize(), sum(at.one(job).attempts for job in dead)
        assert heard - tried <= 2, "two at a time"
        assert tried < len(dead), "while the others still wait"
        one = at.tried(dead[0], 1)
        assert one.code == "receiver_unavailable"
        assert (
            one.message == f"127.0.0.1:{slow.port} took longer than 1.5 seconds (DARKROOM_NOTIFY__TIMEOUT)."
        )
        never.set()


def test_what_was_sent_and_not_noted_is_sent_again(tmp_path: Path) -> None:
    """A sender that dies between the two loses its lease; what it sent is sent once more."""
    with Application() as app, desk(tmp_path, start=False) as at:
        job = at.rest(app.url)
        # The sender that dies, by hand.
        dead = Outbox(at.notifications._database, at.clock)
        (one,) = dead.claim("dead", 8, per_host=2, held=(), lease_ms=20_000)
        Poster(policy(), timeout_s=5).post(one.url, {"webhook-id": f"msg_{one.job_id}_{one.number}"}, b"{}")
        first = app.next()
        at.notifier.start()
        at.delivered(at.rest(app.url))
        app.next()
        assert app.told.empty(), "as long as somebody may still be at it"
        at.forward(20)
        assert app.next().id == first.id
        at.delivered(job)
        # Who lost the lease is not heard.
        assert not dead.failed(one, "dead", "receiver_refused", "Late.", due_in_ms=1)
        assert at.one(job).state is NotificationState.DELIVERED


def test_a_clock_that_is_set_back_strands_nothing(tmp_path: Path) -> None:
    with Application(Answer(500)) as app, desk(tmp_path) as at:
        at.forward(86400)
        job = at.rest(app.url)
        at.tried(job, 1)
        at.forward(-86400)
        at.ledger.repair_clock_skew()
        at.notifier.wake()
        assert at.delivered(job).attempts == 2


def test_a_clock_that_jumps_sends_nothing_twice(tmp_path: Path) -> None:
    until = threading.Event()
    with Application(Answer(until=until)) as app, desk(tmp_path, timeout_s=30) as at:
        job = at.rest(app.url)
        app.next()
        at.forward(3600)
        with Application() as other:
            at.delivered(at.rest(other.url))
        until.set()
        at.delivered(job)
        assert app.told.empty()


def test_a_body_is_bounded_and_says_so(tmp_path: Path) -> None:
    text = "ü" * 20_000
    tags = {f"{n}" * 64: "ü" * 256 for n in range(1, 10)}
    request = JobRequest(
        model="m" * 128, prompt=text, negative_prompt=text, params={"x": "y" * 900_000}, tags=tags
    )
    job = Job("01a201ee-0000-7000-8000-000000000000", "apiframe", Status.ARCHIVED, request, 1, 1, None)
    outputs = [Output(job.id, n, "k" * 1024, "0" * 64, 1, "image/png", 1, 1, 1) for n in range(256)]
    with desk(tmp_path, start=False) as at:
        one = at.one(at.rest("https://app.example/hook"))
    body = body_of(one, job, outputs, "")
    assert len(body) <= 2 * MAX_WHOLE_BYTES
    data = json.loads(body)["data"]
    assert data["whole"] is False
    assert (data["job"]["id"], data["job"]["request"]["prompt"]) == (job.id, "ü" * 200)
    assert data["outputs"][0]["image"] == f"/v1/outputs/{job.id}.0/image"


def test_messages_and_metrics_name_the_host_alone(tmp_path: Path) -> None:
    with Application(Answer(500)) as app, desk(tmp_path) as at:
        job = at.rest(f"{app.url}/hidden-path?key=hidden-query")
        one = at.tried(job, 1)
        assert app.next().path == "/hook/hidden-path?key=hidden-query"
        assert "hidden" not in repr(one)
        page = at.metrics.page().decode()
    assert 'darkroom_notifications_total{outcome="receiver_refused"} 1.0' in page
    assert "hidden" not in page
    assert SECRET not in repr(policy())


def test_tls_is_checked_against_the_name() -> None:
    context = ssl.create_default_context(cafile=TLS / "ca.pem")
    with serving() as serve:
        server = serve({"/hook": reply(status="204 No Content"), "/moved": redirect("/x")}, tls=True)
        poster = Poster(policy(), timeout_s=5, resolve=lambda _host: ["127.0.0.1"], ssl_context=context)
        poster.post(f"https://images.example:{server.port}/hook", {}, b"")
        assert server.names == ["images.example"]
        assert server.heads[0].startswith("POST /hook HTTP/1.1\r\nHost: images.example:")


def test_a_stop_gives_back_what_was_not_sent(tmp_path: Path) -> None:
    until = threading.Event()
    with Application(Answer(until=until)) as app:
        with desk(tmp_path, timeout_s=60, patience_s=0.05) as at:
            job = at.rest(app.url)
            app.next()
            at.notifier.stop(0.05)
            assert at.notifications.of_job(job.id)[0].state is NotificationState.PENDING
        with desk(tmp_path) as at:
            assert at.delivered(job).attempts == 1, "at once, and not when the lease had run out"
        until.set()


def test_only_a_finished_job_wakes_the_notifier(tmp_path: Path) -> None:
    with desk(tmp_path, start=False) as at:
        database = at.notifications._database
        subscriptions = Subscriptions(Events(database), at.metrics, most=9, most_each=9)
        moved = _moved(subscriptions, at.notifier, WakeupChannel(database, lambda _error: None))
        told, untold = at.rest("https://app.example/hook"), at.rest(None)
        assert at.notifications.of_job(untold.id) == []
        for after, wakes in ((told, True), (untold, False), (replace(told, status=Status.RUNNING), False)):
            at.notifier._wake.clear()
            moved(after)
            assert at.notifier._wake.is_set() is wakes
