"""The pages of the counts and of the usage: what they say, drawn and in words."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.gallery import charts
from receiver.gallery.rendering import age
from receiver.sandbox import SandboxServer
from storage.ledger.schema import accepted, jobs
from storage.models import Circuit, JobRequest
from storage.search.usage import DAY_MS, Group, Spent
from tests.support.ledgers import add_job
from tests.support.live import Live, started
from tests.support.pages import Node, Visitor, visiting

HOST = "cdn.<b>.example"
HOSTILE = "<script>alert(1)</script>\u202e寿司 שלום"


@pytest.fixture(scope="module")
def live(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    """A service in which nothing moves, with jobs of which some are paid."""
    with started(s3_server, tmp_path_factory.mktemp("status"), sandbox=sandbox, work=False) as running:
        fill(running)
        yield running


@pytest.fixture(scope="module")
def visitor(live: Live) -> Iterator[Visitor]:
    with visiting(live.url) as visitor:
        yield visitor


def fill(live: Live) -> None:
    ledger = live.service.resources.ledger
    for number in range(20):
        request = JobRequest(
            model=f"model-{number}" if number < 15 else HOSTILE,
            prompt="a kite",
            tags={"campaign": HOSTILE if number % 2 else "spring"} if number else {},
        )
        job_id = f"00000000-0000-7000-8000-{number:012}"
        add_job(ledger, job_id, "apiframe" if number % 4 else "api-in-one", request)
        if number < 18:
            paid = {"credits": number * 0.1, "credits_estimated": number % 4 == 0}
            with live.service.resources.database.write() as connection:
                connection.execute(update(jobs).where(jobs.c.id == job_id).values(paid))


def cells(row: Node) -> list[str]:
    return [cell.text for cell in row.children if cell.tag in {"th", "td"}]


def test_status_says_that_every_job_is_accounted_for_and_where_everything_is(visitor: Visitor) -> None:
    page = visitor.get("/status")
    text = page.tree.one("main").text
    assert "Every accepted job is accounted for: 20 jobs." in text
    rows = page.tree.one("table", class_="status").all("tr")
    assert cells(rows[1])[:3] == ["api-in-one", "5", "5"]
    assert cells(rows[2])[:3] == ["apiframe", "15", "15"]
    assert cells(rows[3])[:3] == ["Total", "20", "20"]
    assert rows[2].all("a")[0].attributes["href"] == "/jobs?status=queued&gateway=apiframe"
    assert text.count("healthy No recent failures.") == 2
    assert "This Darkroom ready" in text


def test_status_says_when_a_job_is_unaccounted_for(live: Live, visitor: Visitor) -> None:
    one_more = update(accepted).where(accepted.c.gateway == "apiframe")
    with live.service.resources.database.write() as connection:
        connection.execute(one_more.values(jobs=accepted.c.jobs + 1))
    page = visitor.get("/status")
    with live.service.resources.database.write() as connection:
        connection.execute(one_more.values(jobs=accepted.c.jobs - 1))
    assert "Not every accepted job is accounted for" in page.tree.one("p", role="alert").text
    (chip,) = page.tree.one("table", class_="status").all("span", class_="chip")
    assert chip.text == "not accounted for"


@pytest.mark.parametrize(
    ("wait_ms", "probe_ms", "said"),
    [(60_000, None, "paused"), (-1, None, "testing"), (None, None, "failed recently")],
)
def test_a_gateway_that_is_not_well_is_told_with_the_reason(
    live: Live, visitor: Visitor, wait_ms: int | None, probe_ms: int | None, said: str
) -> None:
    now = live.parts.submitter.context.clock()
    message = f"The account has too few credits {HOSTILE}"
    circuit = Circuit("gateway", "apiframe", "send", "out_of_credits", message, "operator", 3, now, None)
    circuit = replace(circuit, retry_at=None if wait_ms is None else now + wait_ms, probe_until=probe_ms)
    circuits = live.parts.breaker.circuits
    circuits.failed("gateway", "apiframe", lambda _before, _now: circuit)
    host_circuit = replace(circuit, kind="image_host", name=HOST)
    circuits.failed("image_host", HOST, lambda _before, _now: host_circuit)
    live.service.health.forget()
    page = visitor.get("/status")
    circuits.close("gateway", "apiframe")
    circuits.close("image_host", HOST)
    card, host = [one for one in page.tree.all("li", class_="card") if said in one.text]
    assert f"apiframe {said} out_of_credits The account has too few credits" in card.text
    assert card.one("table", class_="facts").all("td")[0].text == "3"
    assert ("Paused until" in card.text) == (wait_ms is not None)
    assert "Change the settings of this Darkroom" in card.text
    assert HOST in host.text
    if said == "paused":
        assert "warning" in page.tree.one("main").text.partition("This Darkroom")[2]


def test_what_was_spent_is_drawn_and_told_by_day(visitor: Visitor) -> None:
    page = visitor.get("/usage?days=7")
    svg = page.tree.all("svg", role="img")[0]
    named = [one.attributes["id"] for tag in ("title", "desc") for one in svg.all(tag) if one.attributes]
    assert svg.attributes["aria-labelledby"].split() == named
    assert svg.one("title", id_="chart-title").text.startswith("Credits by day since ")
    assert len(svg.all("rect", class_="chart-room")) == 7
    (bar,) = [one for one in svg.all("rect", class_="chart-bar") if "x" in one.attributes]
    assert float(bar.attributes["x"].removesuffix("%")) > 85, "only today is anything"
    (row,) = page.tree.one("table", class_="usage").one("tbody").all("tr")
    assert cells(row)[1:] == ["15.3", "4", "20", "2", "0"]
    assert cells(page.tree.one("tfoot").one("tr"))[1:] == ["15.3", "4", "20", "2", "0"]
    figures = page.tree.one("dl", class_="figures").text
    assert "Credits~15.3" in figures.replace("Credits ~", "Credits~")
    assert "cost of 2 unknown" in figures


def test_what_was_spent_is_drawn_and_told_by_model_and_tag(visitor: Visitor) -> None:
    page = visitor.get("/usage?by=model")
    rows = page.tree.one("table", class_="usage").one("tbody").all("tr")
    assert len(rows) == 16
    assert rows[0].one("th").text == HOSTILE.replace("\u202e", "")
    assert rows[0].all("td")[0].text == "4.8"
    svg = page.tree.all("svg", role="img")[0]
    assert len(svg.all("text", class_="chart-name")) == charts.MOST_ROWS
    assert "The 12 with the most are drawn." in page.tree.one("figcaption").text
    by_tag = visitor.get("/usage?by=tag&tag=campaign").tree.one("table", class_="usage").one("tbody")
    values = [cells(row)[0] for row in by_tag.all("tr")]
    assert values == [HOSTILE.replace("\u202e", ""), "spring", "without this tag"]
    assert by_tag.all("tr")[1].one("a").attributes["href"] == "/?q=tag%3Acampaign%3Dspring"
    one_gateway = visitor.get("/usage?by=gateway&gateway=api-in-one").tree.one("tfoot")
    assert cells(one_gateway.one("tr"))[1:4] == ["4", "4", "5"]


def test_a_page_of_usage_tells_what_the_api_tells(live: Live, visitor: Visitor) -> None:
    page = visitor.get("/usage?by=model&days=30")
    (link,) = [one for one in page.tree.all("a") if one.text == "As JSON"]
    told = live.http.get(link.attributes["href"]).json()
    rows = page.tree.one("table", class_="usage").one("tbody").all("tr")
    shown = [[*cells(row)[1:2], cells(row)[3]] for row in rows]
    assert shown == [[charts.amount(one["credits"]), f"{one['jobs']}"] for one in told["groups"]]


def test_a_link_of_a_group_finds_its_pictures(live: Live, visitor: Visitor) -> None:
    for path in ("/usage?by=day", "/usage?by=model", "/usage?by=gateway", "/usage?by=tag&tag=campaign"):
        for link in visitor.get(path).tree.one("table", class_="usage").one("tbody").all("a"):
            assert visitor.get(link.attributes["href"]).status == 200
            found = live.http.get("/v1/jobs" + link.attributes["href"].removeprefix("/"))
            assert found.json()["jobs"], link.attributes["href"]


@pytest.mark.parametrize(
    ("query", "field"), [("by=week", "by"), ("by=tag&tag=a/b", "tag"), ("by=tag&tag=<script>", "tag")]
)
def test_what_is_wrong_with_a_question_is_said_on_the_page(visitor: Visitor, query: str, field: str) -> None:
    page = visitor.get(f"/usage?{query}")
    assert page.status == 422
    assert page.tree.one("p", role="alert").text.startswith(f"{field}: ")


def test_an_odd_period_is_the_usual_one_and_a_tag_is_only_asked_by_tag(visitor: Visitor) -> None:
    page = visitor.get("/usage?days=-1&by=day&tag=campaign")
    assert page.status == 200
    assert page.fields("filters")["days"] == "30"
    assert page.tree.all("svg", role="img")


def spent(amount: float | None, estimated: float | None = None) -> Spent:
    told = [None if one is None else Decimal(repr(one)) for one in (amount, estimated)]
    return Spent(1, amount is None, 0, *told)


@given(st.lists(st.one_of(st.none(), st.floats(0, 1e15)), min_size=1, max_size=400))
def test_every_bar_fits_its_chart(amounts: list[float | None]) -> None:
    day = 1_795_000_000_000 // DAY_MS
    groups = [
        Group(_date(day + n), spent(one, None if one is None else one / 2)) for n, one in enumerate(amounts)
    ]
    drawn: Any = charts.days(groups)
    assert len(drawn.bars) == len(groups)
    for bar in [*drawn.bars, *charts.rows(groups, "none")]:
        assert 0 <= bar.estimated <= bar.length <= 100.001
    assert all(0 <= line.at <= charts.DAYS_HEIGHT for line in drawn.lines)
    assert 1 <= len(drawn.dates) <= charts.MOST_DATES + 1
    assert drawn.dates[-1].at > 99 or len(groups) == 1
    assert abs(drawn.step * len(groups) - 100) < 1e-6


def _date(day: int) -> str:
    return datetime.fromtimestamp(day * DAY_MS / 1000, tz=UTC).date().isoformat()


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(None, "\N{EN DASH}"), (0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (200_000, "2 days")],
)
def test_ages_are_told_roughly(seconds: float | None, told: str) -> None:
    assert age(seconds) == told
