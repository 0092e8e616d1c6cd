"""What is known of a job's present submission: its callback URL, whether it was sent, perhaps even taken."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile

from receiver.callbacks.tokens import CallbackTokens
from receiver.errors import GarbledAnswer, OutcomeUnknown, SubmittedBefore
from storage.models import Job, Status

UNCERTAIN = frozenset(kind.code for kind in (OutcomeUnknown, GarbledAnswer, SubmittedBefore))
"""What leaves open whether a submission was taken."""


@dataclass(frozen=True, slots=True)
class CallbackUrls:
    """Makes the signed URL on which a gateway reports a job; none without a public URL."""

    public_url: str | None
    tokens: CallbackTokens

    def make(self, job: Job) -> str | None:
        """The URL for one job, or None if no gateway could reach it."""
        if self.public_url is None:
            return None
        token = self.tokens.make(job.gateway, job.id, submission=job.submission, made_at=job.began_at)
        return f"{self.public_url}/callbacks/{job.gateway}/{token}"


def sent_before(job: Job) -> bool:
    """Whether this submission was sent before: told by the order of its moves, since clocks are set back."""
    since = takewhile(lambda status: not status.terminal, (status for status, _ in reversed(job.moves)))
    return Status.SUBMITTING in since


def perhaps_taken(job: Job) -> bool:
    """Whether the gateway may have taken this submission at an earlier try, and its answer was lost."""
    since = takewhile(lambda tried: tried.step != "retry", reversed(job.attempt_log))
    return any(tried.step == "send" and tried.code in UNCERTAIN for tried in since)
