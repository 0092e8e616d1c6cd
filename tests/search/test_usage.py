"""What was spent: added up from the ledger, and told by the API, the client and the command."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert

from receiver.client import ApiError, Darkroom
from storage.ledger.database import Database
from storage.ledger.job_numbers import first_number
from storage.ledger.job_writer import new_job
from storage.ledger.schema import jobs, outputs
from storage.models import JobRequest, Output, Status, UsageBy
from storage.search.usage import DAY_MS, Spent, Usage, UsageFilter
from tests.support.live import IMAGEN, ULTRA, Live
from tests.support.running import Running, data
from tests.support.sandbox import PROMPT

BEGIN = 1_795_000_000_000 // DAY_MS * DAY_MS
"""The midnight after which the jobs of these tests are taken in."""


@dataclass(frozen=True)
class Paid:
    """A job as far as usage is concerned."""

    gateway: str
    model: str
    reported: str | None
    tags: dict[str, str]
    at: int
    credits: float | None
    estimated: bool
    images: int
    before: tuple[float, float] = (0.0, 0.0)
    """What earlier submissions were charged by report, and by estimate."""


PRICES = st.one_of(st.none(), st.sampled_from([0.0, 0.1, 0.2, 0.7, 4.0, 8.0, 1e-6]), st.floats(0, 1e12))
PAID = st.builds(
    Paid,
    gateway=st.sampled_from(["apiframe", "api-in-one"]),
    model=st.sampled_from(["imagen-4", "寿司"]),
    reported=st.sampled_from([None, "imagen-4", "imagen-4-ultra"]),
    tags=st.dictionaries(st.sampled_from(["a", "b.c", "x_y-z"]), st.sampled_from(["1", "2", 'q"u', "é", ""])),
    at=st.integers(BEGIN, BEGIN + 4 * DAY_MS - 1),
    credits=PRICES,
    estimated=st.booleans(),
    images=st.integers(0, 2),
    before=st.sampled_from([(0.0, 0.0)] * 3 + [(8.0, 0.0), (0.0, 0.5), (12.0, 0.25)]),
)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Any:
    database = Database.open(f"sqlite:///{tmp_path_factory.mktemp('usage') / 'ledger.sqlite3'}")
    yield database
    database.close()


def fill(database: Database, paid: Sequence[Paid]) -> None:
    """Put jobs into the ledger as a life would have left them there."""
    rows, images = [], []
    for place, one in enumerate(paid):
        job_id = f"job-{place}"
        request = JobRequest(model=one.model, prompt=PROMPT, tags=one.tags)
        row = new_job(job_id, one.gateway, request, one.at) | {
            "status": Status.ARCHIVED,
            "request_sha256": "",
            # A place of its own within the millisecond.
            "number": first_number(one.at) + place,
            "result_model": one.reported,
            "credits": one.credits,
            "credits_estimated": one.estimated and one.credits is not None,
            "credits_before": sum(one.before),
            "credits_before_estimated": one.before[1],
        }
        rows.append(row)
        images += [
            {**_columns(Output(job_id, n, f"{job_id}/{n}", "ab", 1, "image/png", 1, 1, one.at))}
            for n in range(one.images)
        ]
    with database.write() as connection:
        connection.execute(delete(outputs))
        connection.execute(delete(jobs))
        if rows:
            connection.execute(insert(jobs), rows)
        if images:
            connection.execute(insert(outputs), images)


def _columns(output: Output) -> dict[str, Any]:
    return {column.name: getattr(output, column.name) for column in outputs.c}


def spent(paid: Sequence[Paid]) -> tuple[int, int, int, Fraction | None, Fraction | None]:
    """The same sums, by hand, in exact fractions."""
    reported = [one.credits for one in paid if one.credits is not None and not one.estimated]
    guessed = [one.credits for one in paid if one.credits is not None and one.estimated]
    known = len(reported) + len(guessed)
    reported += [one.before[0] for one in paid if one.before[0]]
    guessed += [one.before[1] for one in paid if one.before[1]]
    return (
        len(paid),
        len(paid) - known,
        sum(one.images for one in paid),
        _sum(reported + guessed),
        _sum(guessed),
    )


def _sum(amounts: Sequence[float]) -> Fraction | None:
    return sum((Fraction(repr(one)) for one in amounts), Fraction()) if amounts else None


def told(found: Spent) -> tuple[int, int, int, Fraction | None, Fraction | None]:
    amounts = [None if one is None else Fraction(one) for one in (found.credits, found.estimated)]
    return (found.jobs, found.unknown, found.outputs, amounts[0], amounts[1])


def value_of(one: Paid, wanted: UsageFilter) -> str | None:
    match wanted.by:
        case UsageBy.GATEWAY:
            return one.gateway
        case UsageBy.MODEL:
            return one.reported or one.model
        case UsageBy.DAY:
            return datetime.fromtimestamp(one.at / 1000, tz=UTC).strftime("%Y-%m-%d")
        case UsageBy.TAG:
            return one.tags.get(wanted.tag or "")


@settings(max_examples=60, deadline=None)
@given(
    paid=st.lists(PAID, max_size=25),
    by=st.sampled_from(UsageBy),
    tag=st.sampled_from(["a", "b.c", "x_y-z", "none"]),
    gateway=st.sampled_from([None, "apiframe"]),
    hours=st.tuples(st.integers(0, 95), st.integers(1, 96)).filter(lambda pair: pair[0] < pair[1]),
    limit=st.integers(1, 4),
)
def test_the_sums_are_those_made_by_hand(
    ledger: Database,
    paid: list[Paid],
    by: UsageBy,
    tag: str,
    gateway: str | None,
    hours: tuple[int, int],
    limit: int,
) -> None:
    fill(ledger, paid)
    since, until = (BEGIN + hour * 3600_000 for hour in hours)
    wanted = UsageFilter(by, since, until, gateway, tag if by is UsageBy.TAG else None)
    found = Usage(ledger).read(wanted, limit=limit)

    counted = [one for one in paid if since <= one.at < until and gateway in (None, one.gateway)]
    groups: dict[str | None, list[Paid]] = {}
    for one in counted:
        groups.setdefault(value_of(one, wanted), []).append(one)
    assert told(found.total) == spent(counted)
    named = {group.value: told(group.spent) for group in found.groups}
    assert len(named) == len(found.groups)
    if by is UsageBy.DAY:
        assert list(named) == sorted(named, key=str)
        assert set(groups) <= set(named)
        assert found.others is None
    else:
        assert len(found.groups) == min(limit, len(groups))
        amounts = [-1 if group.spent.credits is None else group.spent.credits for group in found.groups]
        assert amounts == sorted(amounts, reverse=True)
        rest = [one for value, members in groups.items() if value not in named for one in members]
        assert (found.others and told(found.others)) == (spent(rest) if rest else None)
    assert named == {value: spent(groups.get(value, [])) for value in named}


def test_each_day_of_the_time_is_there_and_no_other(ledger: Database) -> None:
    fill(ledger, [Paid("apiframe", "m", None, {}, BEGIN + DAY_MS, 3.0, False, 1)])
    found = Usage(ledger).read(UsageFilter(UsageBy.DAY, BEGIN + 1, BEGIN + 3 * DAY_MS), limit=1)
    first = datetime.fromtimestamp(BEGIN / 1000, tz=UTC).date()
    assert [group.value for group in found.groups] == [
        first.replace(day=first.day + n).isoformat() for n in range(3)
    ]
    assert [group.spent.jobs for group in found.groups] == [0, 1, 0]


def read(live: Live, **query: str) -> dict[str, Any]:
    answer = live.http.get("/v1/usage", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_the_api_tells_charges_and_estimates(live: Live) -> None:
    marker = f"usage-{random.Random(7).randrange(10**6)}"
    live.make(IMAGEN, tags={"usage": marker})
    live.make(ULTRA, tags={"usage": marker}, num_images=2)
    failed = live.make(ULTRA, tags={"usage": marker}, fault="failed")
    assert failed["result"]["credits"] is None
    found = read(live, tag="usage")
    group = next(one for one in found["groups"] if one["value"] == marker)
    assert group == {
        "value": marker,
        "jobs": 3,
        "jobs_without_credits": 1,
        "outputs": 3,
        "credits": 4 + 24,
        "credits_estimated": 24,
    }
    assert (found["by"], found["tag"], found["gateway"]) == ("tag", "usage", None)
    assert [one["value"] for one in read(live, by="gateway", gateway="apiframe")["groups"]] == ["apiframe"]
    for far in ("9999-12-31", "2099-01-01T00:00:00Z"):
        assert read(live, until=far, since="1d")["until"] < "2099"
    days = read(live, by="day")["groups"]
    assert len(days) == 30, "today, and the 29 days before"
    assert days[-1]["jobs"] >= 3


@pytest.mark.parametrize(
    ("query", "field", "message"),
    [
        ({"by": "week"}, "by", "'gateway', 'model', 'day' or 'tag'"),
        ({"by": "tag"}, "tag", "say which tag"),
        ({"by": "day", "tag": "x"}, "tag", "goes with by=tag only"),
        ({"tag": "no/slash"}, "tag", "must be 1 to 64"),
        ({"since": "2020-01-01"}, "since", "at most 366 days"),
        ({"since": "2100-01-01"}, "since", "before until"),
        ({"since": "1d", "until": "2d"}, "since", "before until"),
        ({"since": "yesterday"}, "since", "must be a time"),
        ({"limit": "0"}, "limit", "must be 1 or more"),
        ({"limit": "1001"}, "limit", "must be 1000 at most"),
        ({"gateways": "x"}, "gateways", "unknown; use by, gateway, limit, since, tag, until"),
    ],
)
def test_what_is_wrong_with_a_query_is_said(
    live: Live, query: dict[str, str], field: str, message: str
) -> None:
    answer = live.http.get("/v1/usage", params=query)
    assert answer.status_code == 422
    (fault,) = answer.json()["faults"]
    assert fault["field"] == field
    assert message in fault["message"]


def test_client_and_command_tell_the_same(running: Running) -> None:
    with Darkroom(running.url) as darkroom:
        job = darkroom.submit(
            gateway="api-in-one", model="imagen4-ultra", prompt=PROMPT, tags={"spent": "<b>🪁"}
        )
        assert darkroom.wait(job.id, 30).status == "archived"
        usage = darkroom.usage(tag="spent")
        assert {one.value: one.credits for one in usage.groups}["<b>🪁"] == 12
        assert usage.total.jobs == sum(one.jobs for one in usage.groups)
        with pytest.raises(ApiError, match="say which tag"):
            darkroom.usage(by="tag")
    done = running.darkroom_command("usage", "--tag", "spent", "--json")
    assert data(done)["groups"][0]["value"] in {"<b>🪁", None}
    shown = running.darkroom_command("usage", "--tag", "spent").stdout
    (line,) = [line for line in shown.splitlines() if line.startswith("<b>🪁")]
    assert line.split()[1:] == ["~12", line.split()[2], "1", "-", "1"]
    assert set(line.split()[2]) <= set("█▏▎▍▌▋▊▉")
    assert "Total" in shown
    assert "estimated from price lists" in shown


def test_a_time_without_jobs_is_said_to_have_none(running: Running, tmp_path: Path) -> None:
    done = running.darkroom_command("usage", "--since", "2026-01-01", "--until", "2026-01-02")
    assert (done.returncode, done.stdout) == (0, "")
    assert "No jobs were created from 2026-01-01 00:00 to 2026-01-02 00:00 (UTC)." in done.stderr
