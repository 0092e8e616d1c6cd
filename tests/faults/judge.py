"""The end of every scenario: was anything lost, was anything doubled, does anything contradict?"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from receiver.sandbox import JobReport
from storage.ledger.transitions import MOVES, REOPENS
from storage.models import Status
from tests.faults.evidence import Evidence, gather
from tests.faults.world import TERMINAL, World

Kind = Literal["lost", "doubled", "wrong"]

STORED = ("archived", "partial")
UNCONFIRMED = "submission_unconfirmed"
_LEGAL = {status: MOVES[status] | REOPENS.get(status, frozenset()) for status in Status}


@dataclass(frozen=True)
class Problem:
    """One thing that must not be: something `lost`, something `doubled`, or a contradiction (`wrong`)."""

    kind: Kind
    what: str


@dataclass(frozen=True)
class Verdict:
    """What the judge found, and the numbers of the table."""

    jobs: int
    callbacks_sent: int
    callbacks_answered: int
    archived: int
    """Jobs whose images are all there; partial ones too, with those that were to be had."""
    found_by_polling: int
    failed: Mapping[str, int]
    """Jobs that failed, by error code."""
    problems: tuple[Problem, ...]

    def count(self, kind: Kind) -> int:
        return sum(problem.kind == kind for problem in self.problems)

    def __str__(self) -> str:
        return "\n".join(f"{problem.kind}: {problem.what}" for problem in self.problems) or "all is well"


def judge(world: World, *, unfinished: bool = False) -> Verdict:
    """Judge a world whose service is up, after `settle`.

    With `unfinished`, a job may still be under way as long as it is due at some time; else it is lost.
    """
    evidence = gather(world)
    sent = [attempt for job in evidence.made for attempt in job.callbacks]
    rows = evidence.jobs.values()
    return Verdict(
        jobs=len(evidence.accepted),
        callbacks_sent=len(sent),
        callbacks_answered=sum(attempt.delivered for attempt in sent),
        archived=sum(row["status"] in STORED for row in rows),
        found_by_polling=evidence.status["found_by_polling"],
        failed=Counter(row["error_code"] for row in rows if row["status"] == "failed"),
        problems=(
            *_accounting(evidence),
            *(() if unfinished else _counts(evidence)),
            *_jobs(evidence, unfinished=unfinished),
            *_moves(evidence),
            *_callbacks(evidence),
            *_submissions(evidence),
            *_images(evidence),
            *_records(evidence),
            *_objects(evidence),
            *_failures(evidence),
        ),
    )


def _accounting(evidence: Evidence) -> Iterator[Problem]:
    counts, ours = evidence.status, len(evidence.accepted)
    if not counts["balanced"] or counts["accepted"] != sum(counts[status] for status in Status):
        yield Problem("wrong", f"not every accepted job is accounted for: {counts}")
    if counts["accepted"] != ours:
        kind: Kind = "lost" if counts["accepted"] < ours else "doubled"
        yield Problem(kind, f"{ours} submissions were answered, the status counts {counts['accepted']}")
    if evidence.integrity != ["ok"]:
        yield Problem("wrong", f"the ledger's file is damaged: {evidence.integrity}")


def _counts(evidence: Evidence) -> Iterator[Problem]:
    """What the status counts beside the jobs, against the jobs themselves."""
    real = Counter(row["status"] for row in evidence.jobs.values())
    kept = {status.value: evidence.status[status] for status in Status}
    if any(kept[status] != real[status] for status in Status):
        yield Problem("wrong", f"the status counts {kept}, and the jobs are {dict(real)}")


def _jobs(evidence: Evidence, *, unfinished: bool) -> Iterator[Problem]:
    for job in evidence.accepted:
        row, shown = evidence.jobs.get(job.job_id), evidence.shown_jobs.get(job.job_id)
        if row is None or shown is None:
            yield Problem("lost", f"job {job.job_id} was accepted and is not there")
        elif (row["idempotency_key"], row["prompt"]) != (job.key, job.prompt):
            yield Problem("wrong", f"job {job.job_id} is not what was submitted")
        elif row["status"] not in TERMINAL and not (unfinished and row["next_attempt_at"] is not None):
            error = f"{row['error_code']}: {row['error_message']}"
            yield Problem("lost", f"job {job.job_id} is {row['status']} for ever ({error}, {row['moves']})")
    for key, times in Counter(job.job_id for job in evidence.accepted).items():
        if times > 1:
            yield Problem("lost", f"{times} submissions were given the one job {key}")
    for job_id in evidence.jobs.keys() - {job.job_id for job in evidence.accepted}:
        yield Problem("doubled", f"job {job_id} is of no submission")


def _moves(evidence: Evidence) -> Iterator[Problem]:
    for job_id, row in evidence.jobs.items():
        moves = [Status(status) for status, _ in json.loads(row["moves"])]
        legal = moves[0] == Status.QUEUED and all(to in _LEGAL[at] for at, to in pairwise(moves))
        if not legal or moves[-1] != row["status"]:
            yield Problem("wrong", f"job {job_id} made a move that is not legal: {row['moves']}")


def _callbacks(evidence: Evidence) -> Iterator[Problem]:
    kept = Counter((row["job_id"], row["body_sha256"]) for row in evidence.deliveries)
    for made in evidence.made:
        if (job := evidence.prompts.get(made.prompt)) is None:
            continue
        for body in {attempt.body_sha256 for attempt in made.callbacks if attempt.delivered}:
            if not kept[job.job_id, body]:
                yield Problem("lost", f"a callback of job {job.job_id} was answered 2xx and is not there")
    for (job_id, _), times in kept.items():
        if times > 1:
            yield Problem("doubled", f"a callback of job {job_id} was recorded {times} times")
    for row in evidence.deliveries:
        job_row = evidence.jobs.get(row["job_id"])
        if job_row is None:
            yield Problem("lost", f"delivery {row['id']} has no job")
        elif row["applied_at"] is None and job_row["status"] in TERMINAL:
            yield Problem("wrong", f"delivery {row['id']} of a finished job was never applied")


def _submissions(evidence: Evidence) -> Iterator[Problem]:
    by_prompt: dict[str, list[JobReport]] = {}
    for made in evidence.made:
        by_prompt.setdefault(made.prompt, []).append(made)
    for prompt, jobs in by_prompt.items():
        if prompt not in evidence.prompts:
            yield Problem("lost", f"the sandbox has job {jobs[0].id}, which nobody here knows")
        if len(jobs) > 1:
            names = ", ".join(job.id for job in jobs)
            yield Problem("doubled", f"{jobs[0].gateway} was given one job {len(jobs)} times: {names}")
    once = sum(jobs[0].cost for jobs in by_prompt.values())
    if evidence.spent > once:
        yield Problem("doubled", f"{evidence.spent} credits were spent, and {once} would have done")


def _images(evidence: Evidence) -> Iterator[Problem]:
    shown = {(row["job_id"], row["index"]): row for row in evidence.shown_outputs}
    if len(shown) != len(evidence.shown_outputs) or len(shown) != len(evidence.outputs):
        yield Problem("doubled", "the API and the ledger do not list the same outputs, each once")
    have = Counter(row["job_id"] for row in evidence.outputs)
    made = {job.id: job for job in evidence.made}
    for row in evidence.outputs:
        job = evidence.jobs.get(row["job_id"], {})
        name = f"{row['job_id']}.{row['index']}"
        stored = evidence.objects.get(_plain(evidence, row["key"]))
        if stored is None:
            yield Problem("lost", f"the image of output {name} is not in the bucket")
            continue
        true = evidence.true_digests.get((_at_gateway(evidence, job), row["index"]))
        listed = shown.get((row["job_id"], row["index"]), {}).get("sha256")
        if not stored.sha256 == row["sha256"] == true == listed:
            digests = f"bucket {stored.sha256}, ledger {row['sha256']}, API {listed}, sandbox {true}"
            yield Problem("lost", f"the image of output {name} is another: {digests}")
    for job_id, job in evidence.jobs.items():
        report = made.get(_at_gateway(evidence, job))
        if job["status"] == "archived" and (report is None or have[job_id] != len(report.images)):
            yield Problem("lost", f"job {job_id} is archived with {have[job_id]} images, and there were more")


def _at_gateway(evidence: Evidence, job: Mapping[str, Any]) -> str:
    """The gateway's id of a job; where it gave none in its answer, that of the job with this prompt."""
    by_prompt = (made.id for made in evidence.made if made.prompt == job.get("prompt"))
    return str(job.get("gateway_job_id") or next(by_prompt, None))


def _records(evidence: Evidence) -> Iterator[Problem]:
    records: dict[str, list[Mapping[str, Any]]] = {}
    for found in sorted(evidence.objects.values(), key=lambda found: (len(found.key), found.key)):
        if found.document:  # the second record of a job has a longer name, so it comes later
            records.setdefault(found.document["job"]["id"], []).append(found.document)
    for job_id, job in evidence.jobs.items():
        ours = {row["index"]: row for row in evidence.outputs if row["job_id"] == job_id}
        yield from _record(job, ours, records.get(job_id, []))
    for job_id in records.keys() - evidence.jobs.keys():
        yield Problem("wrong", f"there is a record of job {job_id}, which the ledger does not know")


def _record(
    job: Mapping[str, Any], outputs: Mapping[int, Mapping[str, Any]], records: list[Mapping[str, Any]]
) -> Iterator[Problem]:
    name = f"job {job['id']}"
    if job["status"] in STORED and not records:
        yield Problem("lost", f"{name} is {job['status']} and has no record")
    if len(records) != job["records"]:
        yield Problem("wrong", f"{name} has {len(records)} records, and the ledger knows {job['records']}")
    if not records:
        return
    if records[-1]["job"]["status"] != job["status"] and job["status"] in STORED:
        yield Problem("wrong", f"{name} is {job['status']}, which its record denies")
    listed = {output["index"]: output for output in records[-1]["outputs"]}
    if len(listed) != len(records[-1]["outputs"]) or listed.keys() != outputs.keys():
        yield Problem("wrong", f"the record of {name} names other outputs than the ledger")
    elif any(_claim(listed[index]) != _claim(row) for index, row in outputs.items()):
        yield Problem("wrong", f"the record of {name} and the ledger contradict each other")


def _objects(evidence: Evidence) -> Iterator[Problem]:
    images = [found for key, found in evidence.objects.items() if key.startswith("images/")]
    named = {
        _plain(evidence, output["key"])
        for found in evidence.objects.values()
        if found.document
        for output in found.document["outputs"]
    }
    for found in images:
        if found.key not in named:
            yield Problem("wrong", f"{found.key} is in no record")
    of = Counter((f.metadata.get("darkroom-job-id"), f.metadata.get("darkroom-output-index")) for f in images)
    for (job_id, index), times in of.items():
        if times > 1:
            yield Problem("doubled", f"there are {times} objects of output {job_id}.{index}")


def _failures(evidence: Evidence) -> Iterator[Problem]:
    """A job may fail because its gateway says so; not when its images were there for the asking."""
    made = {job.prompt: job for job in evidence.made}
    heard = {row["job_id"] for row in evidence.deliveries if row["effect"] != "late"}
    for job_id, row in evidence.jobs.items():
        if row["status"] != "failed":
            continue
        report = made.get(row["prompt"])
        if row["error_code"] == UNCONFIRMED:
            # Nobody could know what became of it, unless a callback had come that said so.
            if job_id in heard:
                yield Problem("lost", f"job {job_id} failed as unconfirmed, and its callback was there")
        elif report is not None and report.status == "COMPLETED" and not report.fault:
            error = f"{row['error_code']}: {row['error_message']}"
            yield Problem("lost", f"job {job_id} failed, and its gateway had made its images ({error})")


def _claim(output: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(output[name] for name in ("index", "key", "sha256", "bytes", "media_type"))


def _plain(evidence: Evidence, key: str) -> str:
    """A key without the world's prefix."""
    return key.removeprefix(evidence.prefix)
