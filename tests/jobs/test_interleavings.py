"""Any interleaving of submit answers, callbacks, polls, crashes and retries leads to legal states only."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from receiver.demo.seaweedfs import EmbeddedS3
from storage.ledger.deliveries import DECIDED, DeliveryResult
from storage.ledger.job_counts import wrong_counts
from storage.ledger.transitions import MOVES, REOPENS
from storage.models import FoundBy, Job, Status
from tests.jobs.interleaving import Plan, Shared, Trouble, World, shared
from tests.jobs.scripted_gateways import Gone, Kind, Manner, State, Theirs
from tests.support.raw_server import Server, serving

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
WHO = st.integers(0, 1)
WHICH = st.integers(0, 7)
KINDS = st.sampled_from(["completed", "failed", "progress", "empty", "nameless"])
MANNERS = st.sampled_from([Manner.WELL, Manner.WELL, *Manner])
AHEAD = st.sampled_from([SECOND, 31 * SECOND, 5 * MINUTE, 16 * MINUTE, HOUR, DAY])
STATES = st.sampled_from(["succeeded", "succeeded", "failed"])
PICTURES = st.sampled_from(["404", "403", "500", "text", "cut", "there"])
MOST_JOBS = 4
LONGEST_WAIT_MS = 3 * HOUR
"""No job and no gateway may ever have to wait longer, wherever the clock was before."""

ACTS = st.one_of(
    st.tuples(st.just("pass"), AHEAD),
    st.tuples(st.just("other")),
    st.tuples(st.just("deliver"), WHICH, KINDS, st.booleans(), st.sampled_from([None, None, 0, 1, 2])),
    st.tuples(st.just("decide"), WHICH, STATES),
    st.tuples(st.just("retry"), WHICH, st.booleans()),
    st.tuples(st.just("back"), st.just(HOUR)),
    st.tuples(st.just("cancel"), WHICH),
)
PLANS = st.one_of(
    st.none(),
    st.none(),
    st.tuples(st.integers(1, 8), st.sampled_from(["crash", "unavailable"]), st.just(())),
    st.tuples(st.integers(1, 8), st.just("meanwhile"), st.lists(ACTS, min_size=1, max_size=3)),
)

GATEWAYS = st.sampled_from(["apiframe", "api-in-one"])
# Some jobs have come a long way already, so that few steps lead into every corner.
BEGUN = st.tuples(GATEWAYS, st.integers(1, 2), st.sampled_from(["queued", "running", "archived", "failed"]))

Drawn = tuple[int, Trouble, Sequence[tuple[Any, ...]]]
"""A plan as it is drawn: at which point, what, and the acts that come between."""

BOUNDED = settings(
    max_examples=min(60, settings().max_examples),  # half of them by default
    stateful_step_count=30,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


class Interleavings(RuleBasedStateMachine):
    """Everything that can happen, in any order, also in the middle of each other."""

    shared: Shared
    world: World
    sound = False
    """Whether all invariants held when they were last looked at."""

    @initialize(
        callbacks=st.sampled_from([True, True, True, False]), jobs=st.lists(BEGUN, min_size=1, max_size=2)
    )
    def begin(self, callbacks: bool, jobs: list[tuple[str, int, str]]) -> None:
        self.world = World(self.shared, callbacks=callbacks)
        self.before: dict[str, Job] = {}
        self.retries_before: dict[str, int] = {}
        self.kept: dict[str, str] = {}
        for gateway, images, phase in jobs:
            self.world.submit(0, gateway, images)
            if phase != "queued":
                self.world.work(0)
            if phase in {"archived", "failed"}:
                self._theirs(0).state = "failed" if phase == "failed" else "succeeded"
                self.world.clock.now += 31 * SECOND
                self.world.work(0)

    @precondition(lambda self: len(self.world.asked) < MOST_JOBS)
    @rule(who=WHO, gateway=GATEWAYS, images=st.integers(1, 2), plan=PLANS)
    def submit(self, who: int, gateway: str, images: int, plan: Drawn | None) -> None:
        with self.world.planned(self._plan(who, plan), Manner.WELL):
            self.world.submit(who, gateway, images)

    @rule(who=WHO, many=st.integers(1, 3))
    def claim(self, who: int, many: int) -> None:
        self.world.claim(who, many)

    @precondition(lambda self: any(process.hand for process in self.world.processes))
    @rule(who=WHO, which=WHICH, manner=MANNERS, plan=PLANS)
    def step(self, who: int, which: int, manner: Manner, plan: Drawn | None) -> None:
        hand = list(self.world.processes[who].hand.values())
        if hand:
            with self.world.planned(self._plan(who, plan), manner):
                self.world.step(who, hand[which % len(hand)])

    @precondition(lambda self: not all(job.status.terminal for job in self.before.values()))
    @rule(who=WHO)
    def work_well(self, who: int) -> None:
        self.world.work(who)

    @precondition(lambda self: not all(job.status.terminal for job in self.before.values()))
    @rule(who=WHO, manner=MANNERS, plan=PLANS)
    def work(self, who: int, manner: Manner, plan: Drawn | None) -> None:
        with self.world.planned(self._plan(who, plan), manner):
            self.world.work(who)

    @precondition(lambda self: self.world.gateways.jobs and self.world.callbacks)
    @rule(
        who=WHO,
        which=WHICH,
        kind=KINDS,
        signed=st.booleans(),
        at=st.sampled_from([None, None, 0, 1, 2]),
        times=st.integers(1, 2),
        plan=PLANS,
    )
    def deliver(
        self,
        who: int,
        which: int,
        kind: Kind,
        signed: bool,
        at: int | None,
        times: int,
        plan: Drawn | None,
    ) -> None:
        with self.world.planned(self._plan(who, plan), Manner.WELL):
            for _ in range(times):
                self._deliver(who, which, kind, signed, at)

    @precondition(lambda self: any(job.state == "running" for job in self.world.gateways.jobs.values()))
    @rule(which=WHICH, state=STATES)
    def decide(self, which: int, state: State) -> None:
        self._decide(which, state)

    @precondition(lambda self: self.world.gateways.jobs)
    @rule(which=WHICH, index=st.integers(0, 1), how=PICTURES)
    def change_picture(self, which: int, index: int, how: Gone) -> None:
        self._theirs(which).pictures[index] = how

    @rule(ms=AHEAD)
    def time_passes(self, ms: int) -> None:
        self.world.clock.now += ms

    @rule(ms=st.sampled_from([HOUR, 7 * DAY]))
    def set_back(self, ms: int) -> None:
        self.world.set_back(ms)

    @precondition(lambda self: any(process.hand for process in self.world.processes))
    @rule(who=WHO)
    def crash(self, who: int) -> None:
        self.world.crash(who)

    @precondition(lambda self: any(job.status.terminal for job in self.before.values()))
    @rule(who=WHO, which=WHICH, resubmit=st.booleans(), plan=PLANS)
    def retry(self, who: int, which: int, resubmit: bool, plan: Drawn | None) -> None:
        with self.world.planned(self._plan(who, plan), Manner.WELL):
            self._retry(who, which, resubmit)

    @precondition(lambda self: not all(job.status.terminal for job in self.before.values()))
    @rule(who=WHO, which=WHICH, plan=PLANS)
    def cancel(self, who: int, which: int, plan: Drawn | None) -> None:
        with self.world.planned(self._plan(who, plan), Manner.WELL):
            self._cancel(who, which)

    def _plan(self, who: int, plan: Drawn | None) -> Plan | None:
        if plan is None:
            return None
        nth, trouble, acts = plan
        return Plan(nth, trouble, [partial(self._act, 1 - who, *act) for act in acts])

    def _act(self, who: int, name: str, *how: Any) -> None:
        acts: dict[str, Callable[..., None]] = {
            "pass": lambda _who, ms: self.time_passes(ms),
            "other": self.world.work,
            "deliver": self._deliver,
            "decide": lambda _who, *how: self._decide(*how),
            "retry": self._retry,
            "cancel": self._cancel,
            "back": lambda _who, ms: self.world.set_back(ms),
        }
        acts[name](who, *how)

    def _theirs(self, which: int) -> Theirs:
        """A job at a gateway; 0 is the latest."""
        jobs = list(self.world.gateways.jobs.values())
        return jobs[-1 - which % len(jobs)]

    def _deliver(self, who: int, which: int, kind: Kind, signed: bool, at: int | None) -> None:
        if not self.world.gateways.jobs or not self.world.callbacks:
            return
        theirs = self._theirs(which)
        target = theirs if at is None else self._theirs(at)
        if target.gateway != theirs.gateway:
            return
        self.world.deliver(who, theirs, kind, signed=signed, at=target)

    def _decide(self, which: int, state: State) -> None:
        if self.world.gateways.jobs:
            theirs = self._theirs(which)
            # A gateway does not change its mind.
            theirs.state = state if theirs.state == "running" else theirs.state

    def _retry(self, who: int, which: int, resubmit: bool) -> None:
        jobs = [self.world.ledger.job(job_id) for job_id in self.world.job_ids()]
        jobs = [job for job in jobs if job.status in REOPENS] or jobs
        if jobs:
            self.world.retry(who, jobs[which % len(jobs)], resubmit=resubmit)

    def _cancel(self, who: int, which: int) -> None:
        jobs = [self.world.ledger.job(job_id) for job_id in self.world.job_ids()]
        jobs = [job for job in jobs if job.status is Status.QUEUED] or jobs
        if jobs:
            self.world.cancel(who, jobs[which % len(jobs)].id)

    @invariant()
    def nothing_illegal(self) -> None:
        world = self.world
        self.sound = False
        world.clock.now += 1
        jobs = {job_id: world.ledger.job(job_id) for job_id in world.job_ids()}
        counts = world.ledger.job_counts()
        assert all(page.balanced for page in counts.values()), counts
        assert sum(page.accepted for page in counts.values()) == len(jobs)
        with world.processes[0].service.resources.database.read() as connection:
            assert wrong_counts(connection) == {}
        assert world.accepted.keys() <= jobs.keys()
        assert not world.refused, world.refused
        for job in jobs.values():
            self._check_life(job)
            self._check_deliveries(job)
            self._check_outputs(job)
        self._check_submissions(jobs)
        self._check_waits(jobs)
        self.before, self.retries_before = jobs, dict(world.retried)
        self.sound = True

    def _check_life(self, job: Job) -> None:
        moves = [status for status, _ in job.moves]
        assert moves[0] is Status.QUEUED
        assert moves[-1] is job.status
        again = 0
        for at, to in pairwise(moves):
            assert to in MOVES[at] or to in REOPENS.get(at, ()), moves
            again += at.terminal
        assert again <= self.world.retried[job.id], "a terminal job moved by itself"
        assert (job.next_attempt_at is None) == job.status.terminal
        if job.status is Status.CANCELLED:
            made = [(one.prompt, one.submission) for one in self.world.gateways.jobs.values()]
            assert (job.request.prompt, job.submission) not in made, "cancelled, and charged"
        before = self.before.get(job.id)
        if before is None:
            return
        assert moves[: len(before.moves)] == [status for status, _ in before.moves], "its history was changed"
        assert job.submission >= before.submission
        if before.status.terminal and self.world.retried[job.id] == self.retries_before.get(job.id, 0):
            assert job == before, "a terminal job changed"
        if job.submission == before.submission and before.gateway_job_id is not None:
            assert job.gateway_job_id == before.gateway_job_id

    def _check_deliveries(self, job: Job) -> None:
        kept = [(one.job_id, one.body_sha256) for one in self.world.ledger.deliveries(job.id)]
        assert len(kept) == len(set(kept))
        accepted = {key for key in self.world.taken_in if key[0] == job.id}
        assert accepted <= set(kept), "a callback that was accepted is lost"
        assert all(self.world.taken_in[key] == 1 for key in accepted), "it was accepted twice"
        if job.status in DECIDED:
            assert all(one.applied_at is not None for one in self.world.ledger.deliveries(job.id))

    def _check_outputs(self, job: Job) -> None:
        outputs = self.world.ledger.outputs(job.id)
        theirs = self.world.gateways.jobs.get(job.gateway_job_id or "")
        for output in outputs:
            assert theirs is not None
            assert output.sha256 == hashlib.sha256(theirs.bytes_of(output.index)).hexdigest()
            if self.kept.get(output.key) is None:
                self.kept[output.key], _ = self.world.shared.store.digest(output.key)
            assert self.kept[output.key] == output.sha256
        if job.status is Status.ARCHIVED:
            assert theirs is not None
            assert [output.index for output in outputs] == list(range(theirs.images))
        before = self.before.get(job.id)
        if job.status in {Status.ARCHIVED, Status.PARTIAL} and (
            before is None or before.status != job.status
        ):
            record = self.world.processes[0].parts.bucket.archive.read_record(job)
            assert record["job"]["status"] == job.status
            assert [(one["index"], one["sha256"], one["key"]) for one in record["outputs"]] == [
                (output.index, output.sha256, output.key) for output in outputs
            ]

    def _check_submissions(self, jobs: dict[str, Job]) -> None:
        gateways = self.world.gateways
        assert not gateways.contradictions, gateways.contradictions
        for (gateway, prompt, submission), times in gateways.arrived.items():
            assert gateway != "api-in-one" or times <= 1, f"{prompt}, {submission}: sent {times} times"
        made = [(job.prompt, job.submission) for job in gateways.jobs.values()]
        assert len(made) == len(set(made)), "made twice"
        by_prompt = {job.request.prompt: job for job in jobs.values()}
        for key, (_, theirs) in gateways.keys.items():
            job = by_prompt[theirs.prompt]
            if self.world.callbacks:
                assert key == (job.id if theirs.submission == 1 else f"{job.id}.{theirs.submission}")

    def _check_waits(self, jobs: dict[str, Job]) -> None:
        now = self.world.clock.now
        for job in jobs.values():
            assert (job.next_attempt_at or 0) <= now + LONGEST_WAIT_MS, job
        for circuit in self.world.processes[0].parts.breaker.circuits.every():
            assert max(circuit.retry_at or 0, circuit.probe_until or 0) <= now + LONGEST_WAIT_MS, circuit

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            if self.sound:
                self._settle()
        finally:
            self.world.close()

    def _settle(self) -> None:
        world = self.world
        for theirs in world.gateways.jobs.values():
            theirs.pictures = {index: how for index, how in theirs.pictures.items() if how in ("404", "403")}
        began = world.clock.now
        for _ in range(400):
            for theirs in world.gateways.jobs.values():
                theirs.state = "succeeded" if theirs.state == "running" else theirs.state
            for who in (0, 1):
                while world.processes[who].hand or world.claim(who, 1):
                    world.work(who)
            self.nothing_illegal()
            due = [job.next_attempt_at for job in self.before.values() if job.next_attempt_at is not None]
            if not due:
                break
            ahead = max(min(due) - world.clock.now, 10 * SECOND)
            world.clock.now += ahead
        assert all(job.status.terminal for job in self.before.values()), [
            (job.status, job.error, job.moves) for job in self.before.values()
        ]
        assert world.clock.now - began < 26 * HOUR


@pytest.fixture(scope="module")
def pictures() -> Iterator[Server]:
    with serving() as serve:
        yield serve({})


@pytest.fixture(scope="module")
def common(
    s3_server: EmbeddedS3, pictures: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shared]:
    with shared(s3_server, pictures, tmp_path_factory.mktemp("interleavings")) as ours:
        yield ours


@pytest.fixture
def world(common: Shared) -> Iterator[World]:
    made = World(common, callbacks=True)
    yield made
    made.close()


def only(world: World) -> Job:
    (job_id,) = world.job_ids()
    return world.ledger.job(job_id)


@pytest.mark.exhaustive
def test_any_interleaving_leads_to_legal_states_only(common: Shared) -> None:
    class Bound(Interleavings):
        shared = common

    run_state_machine_as_test(Bound, settings=BOUNDED)


def test_a_clock_set_back_delays_no_question(world: World) -> None:
    world.submit(0, "apiframe", 1)
    world.work(0)
    assert only(world).status is Status.RUNNING
    world.set_back(7 * DAY)
    for _ in range(3):
        world.work(0)
        job = only(world)
        assert job.status is Status.RUNNING
        assert job.next_attempt_at is not None
        assert job.next_attempt_at - world.clock.now <= 2 * MINUTE
        world.clock.now = job.next_attempt_at
    assert job.attempts > 0, "it was asked"


def test_a_clock_set_back_delays_no_deadline(world: World) -> None:
    world.submit(0, "api-in-one", 1)
    with world.planned(None, Manner.LOST):
        world.work(0)
    assert only(world).status is Status.SUBMITTING
    world.set_back(7 * DAY)
    world.work(0)
    job = only(world)
    assert job.status is Status.SUBMITTING
    assert job.next_attempt_at == world.clock.now + 15 * MINUTE
    world.clock.now = job.next_attempt_at
    world.work(0)
    job = only(world)
    assert (job.status, job.error and job.error.code) == (Status.FAILED, "submission_unconfirmed")


def test_a_callback_that_names_another_job_ends(world: World) -> None:
    for _ in range(2):
        world.submit(0, "api-in-one", 1)
        with world.planned(None, Manner.LOST):
            world.work(0)
    mine, other = world.gateways.jobs.values()
    mine.state = "succeeded"
    # Both come before it is known which job is whose.
    assert world.deliver(0, mine, "completed", signed=False, at=other) == DeliveryResult.ACCEPTED
    assert world.deliver(0, mine, "completed", signed=False) == DeliveryResult.ACCEPTED
    for _ in range(3):
        world.work(0)
        world.clock.now += 16 * MINUTE
    owner, forged = (world.ledger.job(job_id) for job_id in world.job_ids())
    assert (owner.status, owner.gateway_job_id) == (Status.ARCHIVED, mine.id)
    assert (forged.status, forged.error and forged.error.code) == (Status.FAILED, "submission_unconfirmed")
    assert [one.effect for one in world.ledger.deliveries(forged.id)] == ["mismatch"]


def test_a_hint_says_nothing_of_the_next_submission(world: World) -> None:
    world.submit(0, "api-in-one", 1)
    world.work(0)
    (first,) = world.gateways.jobs.values()
    first.state = "failed"
    world.deliver(0, first, "failed", signed=False)
    world.work(0)
    assert only(world).status is Status.FAILED
    world.clock.now += MINUTE
    assert world.retry(0, only(world), resubmit=True) == "asked"
    world.work(0)
    world.gateways.jobs[only(world).gateway_job_id or ""].state = "succeeded"
    world.clock.now += 31 * SECOND
    world.work(0)
    assert (only(world).status, only(world).found_by) == (Status.ARCHIVED, FoundBy.POLL)
