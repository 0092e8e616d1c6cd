"""The metrics: one list, nothing beside it, true numbers, and no secret or stranger's word in them."""

import re
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from prometheus_client import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from receiver.cache import TtlCache
from receiver.jobs.metrics import from_ledger, from_pauses, from_results
from receiver.schedule import system_clock
from receiver.telemetry.metric_list import METRICS
from receiver.telemetry.metrics import Metrics
from storage.ledger.backlog import Backlog, Waiting
from storage.ledger.database import Database
from storage.ledger.ledger import Ledger
from storage.models import Status
from tests.callbacks.test_callbacks import completed, signed
from tests.support.ledgers import Clock, offer, running
from tests.support.live import FAST, IMAGEN, ULTRA, Live, Start
from tests.support.running import ROOT

NAMES = {metric.name for metric in METRICS}


def page(live: Live) -> str:
    answer = live.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return answer.text


def families(shown: str | bytes) -> Iterator[Family]:
    yield from text_string_to_metric_families(shown.decode() if isinstance(shown, bytes) else shown)


def value(shown: str | bytes, name: str, **labels: str) -> float | None:
    """The value of one line, or None if there is no such line."""
    for family in families(shown):
        for sample in family.samples:
            if (sample.name, sample.labels) == (name, labels):
                return sample.value
    return None


def test_the_list_keeps_to_prometheus_rules_for_names() -> None:
    assert len(NAMES) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"(darkroom|process|python)_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.sentence.endswith("."), metric.name
        assert metric.buckets == tuple(sorted(metric.buckets))
        assert bool(metric.buckets) == (metric.kind == "histogram")
        if "second" in metric.sentence.lower() and metric.kind == "histogram":
            assert metric.name.endswith("_seconds")


def test_the_list_is_what_is_emitted() -> None:
    paths = [path for path in (ROOT / "receiver").rglob("*.py") if path.name != "metrics_table.py"]
    emitted = set(re.findall(r'"(darkroom_[a-z_]+)"', "".join(path.read_text() for path in paths)))
    assert {name for name in NAMES if name.startswith("darkroom_")} == emitted


def test_what_is_not_listed_cannot_be_emitted() -> None:
    metrics = Metrics(["apiframe"])
    with pytest.raises(KeyError):
        metrics.count("darkroom_callback_total", gateway="apiframe", outcome="accepted")
    with pytest.raises(KeyError):
        metrics.count("darkroom_jobs", gateway="apiframe", status="queued")
    with pytest.raises(KeyError):
        metrics.observe("darkroom_callbacks_total", 1, gateway="apiframe", outcome="accepted")
    for labels in ({}, {"gateway": "apiframe"}, {"gateway": "apiframe", "outcome": "accepted", "job": "1"}):
        with pytest.raises(ValueError, match="has the labels"):
            metrics.count("darkroom_callbacks_total", **labels)
    with pytest.raises(ValueError, match="has no outcome"):
        metrics.count("darkroom_callbacks_total", gateway="apiframe", outcome="a new word")
    metrics.watch(lambda: {"darkroom_jobs": 1.0})
    with pytest.raises(ValueError, match="has 2 labels"):
        metrics.page()


def test_a_gateway_not_configured_becomes_unknown() -> None:
    metrics = Metrics(["apiframe"])
    metrics.count("darkroom_callbacks_total", gateway="x" * 5000, outcome="bad_token")
    metrics.count("darkroom_callbacks_total", gateway="unknown\n", outcome="bad_token")
    shown = metrics.page()
    assert value(shown, "darkroom_callbacks_total", gateway="unknown", outcome="bad_token") == 2
    assert value(shown, "darkroom_callbacks_total", gateway="apiframe", outcome="bad_token") == 0
    assert b"xx" not in shown


@pytest.fixture(scope="module")
def used(start_shared: Start) -> tuple[Live, list[str]]:
    """A service after a run with everything in it, and the words that its metrics must not hold."""
    live = start_shared()
    done = live.make(IMAGEN)
    missed = live.make(IMAGEN, fault="expired_link")
    failed = live.make(ULTRA, fault={"fault": "failed", "message": "sk-live-in-a-message"})
    assert [done["status"], missed["status"], failed["status"]] == ["archived", "archived", "failed"]
    url = live.callback_url(done["id"])
    token = url.rpartition("/")[2]
    body = completed("somebody-elses-job")
    for path in (
        "/callbacks/apiframe/guessed-token",
        "/callbacks/no-such-gateway/x.y.z",
        f"/callbacks/api-in-one/{token}",
        f"/callbacks/%22%7D%0Adarkroom_jobs%20666/{token}",
        "/callbacks/apiframe/",
    ):
        assert httpx.post(live.url + path, content=body).status_code == 401
    assert httpx.post(url, content=body, headers=signed(body, b"afk_other")).status_code == 401
    assert httpx.post(url, content=body, headers=signed(body)).status_code == 409
    assert live.http.get("/no/such/path-xyzzy").status_code == 404
    assert live.http.request("PROPFIND", "/v1/status").status_code == 405
    key = (live.settings.data_dir / "secret-key").read_text().strip()
    return live, [
        "afk_sandbox", "aio_sandbox", "sk-live", key, token, token.split(".")[0], "guessed-token",
        "x.y.z", done["id"], missed["id"], failed["id"], done["gateway_job_id"], "no-such-gateway",
        "xyzzy", "darkroom_jobs 666", "PROPFIND", "somebody-elses", "127.0.0.1", "http:",
    ]  # fmt: skip


def test_every_line_of_the_page_is_on_the_list(used: tuple[Live, list[str]]) -> None:
    listed = {metric.name: metric for metric in METRICS}
    seen = set()
    for family in families(page(used[0])):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        metric = listed[name]
        seen.add(name)
        assert (family.type, family.documentation) == (metric.kind, metric.sentence) or not name.startswith(
            "darkroom_"
        )
        for sample in family.samples:
            suffix = sample.name.removeprefix(family.name)
            assert suffix in {"histogram": {"_bucket", "_sum", "_count"}}.get(family.type, {"", "_total"})
            assert set(sample.labels) - {"le"} == {label.name for label in metric.labels}
    fed_from_outside = {"darkroom_gateway_paused", "darkroom_oldest_unarchived_result_age_seconds"}
    assert NAMES - seen <= fed_from_outside


def test_the_page_holds_no_secret_id_or_foreign_word(used: tuple[Live, list[str]]) -> None:
    live, forbidden = used
    shown = page(live)
    assert [word for word in forbidden if word in shown] == []


def test_callbacks_are_counted_by_outcome(used: tuple[Live, list[str]]) -> None:
    shown = page(used[0])

    def callbacks(gateway: str, outcome: str) -> float | None:
        return value(shown, "darkroom_callbacks_total", gateway=gateway, outcome=outcome)

    accepted = (callbacks("apiframe", "accepted") or 0) + (callbacks("api-in-one", "accepted") or 0)
    assert accepted >= 3
    assert callbacks("apiframe", "bad_token") == 2
    assert callbacks("api-in-one", "bad_token") == 1
    assert callbacks("unknown", "bad_token") == 2
    assert callbacks("apiframe", "bad_signature") == 1
    assert callbacks("apiframe", "job_mismatch") == 1
    assert callbacks("apiframe", "malformed_callback") == 0
    for gateway, reason, times in (
        ("apiframe", "forged", 1), ("apiframe", "missing", 1), ("api-in-one", "foreign", 1),
        ("unknown", "forged", 1), ("unknown", "foreign", 1), ("apiframe", "expired", 0),
    ):  # fmt: skip
        name = "darkroom_callbacks_bad_token_total"
        assert value(shown, name, gateway=gateway, reason=reason) == times, (gateway, reason)
    seconds = [
        value(shown, "darkroom_callback_seconds_count", gateway=name) for name in ("apiframe", "api-in-one")
    ]
    assert sum(filter(None, seconds)) == accepted
    assert value(shown, "darkroom_intake_batch_callbacks_sum") == accepted + 1, "a mismatch is seen inside"


def test_jobs_are_counted_where_they_are_and_move(used: tuple[Live, list[str]]) -> None:
    # The ledger is counted at most every few seconds; by now that may be older than the last job.
    live = used[0]
    metrics = Metrics(["apiframe", "api-in-one"])
    resources = live.service.resources
    backlog = Backlog(resources.database, system_clock)
    metrics.watch(from_ledger(resources.ledger, backlog, lambda: 10**13))
    now, shown = metrics.page(), page(live)
    assert value(now, "darkroom_jobs", gateway="apiframe", status="archived") == 2
    assert value(now, "darkroom_jobs", gateway="api-in-one", status="failed") == 1
    assert value(now, "darkroom_jobs", gateway="api-in-one", status="archived") == 0
    assert value(now, "darkroom_jobs_accepted_total", gateway="apiframe") == 2
    assert value(now, "darkroom_status_balanced") == 1
    assert value(now, "darkroom_oldest_unfinished_job_age_seconds", gateway="apiframe") == 0
    assert value(now, "darkroom_jobs_due") == 0
    assert value(now, "darkroom_deliveries_waiting") == 0
    for gateway, status, times in (
        ("apiframe", "submitting", 2), ("apiframe", "running", 2), ("apiframe", "ready", 2),
        ("apiframe", "archived", 2), ("api-in-one", "failed", 1), ("api-in-one", "archived", 0),
    ):  # fmt: skip
        assert value(shown, "darkroom_moves_total", gateway=gateway, status=status) == times
    assert value(shown, "darkroom_results_total", gateway="apiframe", found_by="callback") == 2
    assert value(shown, "darkroom_result_to_archive_seconds_count", gateway="apiframe") == 2
    downloads = value(shown, "darkroom_download_seconds_count", gateway="apiframe")
    assert downloads == 2, "the one that failed is not timed"
    assert value(shown, "darkroom_worker_slots") == 8
    assert value(shown, "darkroom_steps_failed_total", status="running") == 0
    assert (value(shown, "darkroom_step_seconds_count", status="ready") or 0) >= 2


def test_requests_are_counted_by_route_not_by_path(used: tuple[Live, list[str]]) -> None:
    shown = page(used[0])

    def requests(route: str, method: str, status: int) -> float | None:
        name = "darkroom_http_requests_total"
        return value(shown, name, route=route, method=method, status=str(status))

    assert requests("/v1/jobs", "POST", 202) == 3
    assert requests("/callbacks/{gateway}/{token}", "POST", 409) == 1
    assert requests("/callbacks/{gateway}/{token}", "POST", 401) == 6
    assert requests("none", "GET", 404) == 1
    assert requests("/v1/status", "other", 405) == 1
    asked = value(shown, "darkroom_http_request_seconds_count", route="/v1/jobs", method="POST")
    assert asked == 3


def test_a_missed_callback_shows_as_found_by_polling(start: Start) -> None:
    live = start(timing=replace(FAST, callback_polls=(0.2, 0.2)))
    assert live.make(IMAGEN, fault="no_callback")["status"] == "archived"
    shown = page(live)
    assert value(shown, "darkroom_jobs_found_by_polling", gateway="apiframe") == 1
    assert value(shown, "darkroom_results_total", gateway="apiframe", found_by="poll") == 1
    assert value(shown, "darkroom_result_to_archive_seconds_count", gateway="apiframe") == 1


def test_the_page_is_there_while_the_ledger_is_not(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    database = Database.open(f"sqlite:///{path}")
    metrics = Metrics(["apiframe"])
    metrics.watch(from_ledger(Ledger(database, Clock()), Backlog(database, Clock()), Clock()))
    database.close()
    path.write_bytes(b"no database at all, " * 100)
    metrics.page()
    shown = metrics.page()
    assert value(shown, "darkroom_ledger_errors_total", part="metrics") >= 1  # type: ignore[operator]
    assert value(shown, "darkroom_status_balanced") is None
    assert value(shown, "darkroom_leases_lost_total") == 0
    database.close()


def test_what_waits_is_counted(tmp_path: Path) -> None:
    clock = Clock()
    with closing(Database.open(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")) as database:
        ledger, backlog = Ledger(database, clock), Backlog(database, clock)
        running(ledger)
        assert backlog.read() == Waiting(jobs_due=0, deliveries=0, images_missing=0)
        ledger.add_deliveries([offer(body=b"1"), offer(body=b"2")])
        assert backlog.read() == Waiting(jobs_due=1, deliveries=2, images_missing=0)
        clock.now += 31_000
        (job,) = ledger.claim("w", 1)
        first, second = ledger.pending_deliveries(job.id)
        applied = {first.id: "progress", second.id: "ready"}
        ledger.move(job, Status.READY, "w", applied=applied, keep_lease=True)
        assert backlog.read() == Waiting(jobs_due=1, deliveries=0, images_missing=0)


def test_waiting_results_and_pauses_are_shown() -> None:
    metrics, clock, ready = Metrics(["apiframe", "api-in-one"]), Clock(), [None, Clock().now - 90_000]
    reasons = {"apiframe": "out_of_credits"}
    metrics.watch(from_results(lambda: ready[0], clock))
    metrics.watch(from_pauses(lambda: reasons))
    shown = metrics.page()
    assert value(shown, "darkroom_oldest_unarchived_result_age_seconds") == 0
    assert value(shown, "darkroom_gateway_paused", gateway="apiframe", code="out_of_credits") == 1
    assert value(shown, "darkroom_gateway_paused", gateway="api-in-one", code="out_of_credits") == 0
    ready.reverse()
    reasons.clear()
    shown = metrics.page()
    assert value(shown, "darkroom_oldest_unarchived_result_age_seconds") == 90
    assert value(shown, "darkroom_gateway_paused", gateway="apiframe", code="out_of_credits") == 0


def test_cache_is_filled_by_one_at_a_time() -> None:
    found, inside, go = [], threading.Event(), threading.Event()

    def find() -> int:
        found.append(1)
        if len(found) == 2:
            inside.set()
            assert go.wait(10)
        return len(found)

    remembered = TtlCache(find, 3600)
    assert [remembered(), remembered()] == [1, 1]
    remembered.forget()
    slow = threading.Thread(target=remembered)
    slow.start()
    assert inside.wait(10)
    assert remembered() == 1, "the last answer, while a new one is being found"
    go.set()
    slow.join()
    assert remembered() == 2


def test_cache_keeps_no_failure() -> None:
    answers = iter([0, 7])
    remembered = TtlCache(lambda: 7 // next(answers), 3600)
    with pytest.raises(ZeroDivisionError):
        remembered()
    assert remembered() == 1
