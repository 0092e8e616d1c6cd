"""Define the result of a batch of jobs in JSON."""

from receiver.schemas.job import Job
from receiver.schemas.problem import Problem
from receiver.schemas.types import Resource


class BatchResult(Resource):
    """What became of one job of a batch. A dry run of a good job has neither `job` nor `problem`."""

    created: bool
    """Whether the job is new; false for one that was created earlier with its idempotency key."""
    job: Job | None
    problem: Problem | None
    """Why it was refused: what `POST /v1/jobs` would have responded."""


class Batch(Resource):
    """What became of each job of a batch."""

    results: tuple[BatchResult, ...]
    """In the order of the request."""
