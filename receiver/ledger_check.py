"""Check that the ledger knows the jobs that the bucket has records of: a lost one forgets their keys."""

from collections.abc import Mapping
from functools import partial

import structlog

from receiver.cache import TtlCache
from receiver.errors import LedgerIncomplete
from storage.archive.archive import Archive
from storage.errors import NotFound, StorageError
from storage.ledger.ledger import Ledger
from storage.models import Job, Status

log = structlog.get_logger("darkroom.ledger")

AGAIN_S = 5.0
"""How long a result is cached that is not final; a ledger may be restored while the service runs."""
FEW = 20
"""How many jobs that wait are looked up in the bucket."""
SETTING = "DARKROOM_LEDGER__ACCEPT_INCOMPLETE"
NO_LONGER_NEEDED = (
    f"{SETTING} is set and no longer needed: remove it, or the next lost ledger would be accepted as well."
)


class LedgerCheck:
    """Compares the ledger with the bucket until they fit, once at least. Thread-safe.

    A ledger that lacks jobs is a fresh one, or one from a backup. The first job that is accepted nevertheless
    is later than all records, so that the ledger fits from then on, on every replica.
    """

    def __init__(self, archive: Archive, ledger: Ledger, *, accepted: bool, again_s: float = AGAIN_S) -> None:
        """`accepted`: go on with an incomplete ledger; then `check` raises nothing."""
        self._archive = archive
        self._ledger = ledger
        self._accepted = accepted
        self._fits = False
        self._said = self._other = ""
        self._fault = TtlCache(self._find, again_s)

    def check(self) -> None:
        """Raise LedgerIncomplete if the ledger lacks jobs, or is empty and that is not known yet."""
        if not self._accepted and (fault := self._now()):
            raise LedgerIncomplete(fault)

    def begin(self) -> None:
        """Compare them now that both are open, and log if they do not fit."""
        self._fault.forget()
        self._now()

    def warnings(self) -> Mapping[str, str]:
        """Return what an operator should know: that the setting is on, or the bucket another one."""
        if self._accepted:
            return {"history": self._now() or NO_LONGER_NEEDED}
        return {"history": self._other} if self._other else {}

    def _now(self) -> str:
        return "" if self._fits else self._fault()

    def _find(self) -> str:
        if not self._archive.facts.lists:
            # Only a listing finds the record of an unknown job. Status warns that the key may not list.
            self._fits = True
            return ""
        try:
            newest = self._ledger.newest_job()
            recorded = self._ledger.newest_job(with_record=True)
            unknown = self._archive.unknown_record(recorded, partial(self._knows, newest))
            if recorded is not None:
                unknown = unknown or self._record_of_unsent(recorded)
            self._other = "" if recorded is None else self._missing_record(recorded)
        except StorageError as error:
            log.warning("the ledger could not be compared with the bucket", why=str(error))
            # With jobs in it, it is hardly another ledger; without any, nothing says that it is new.
            return "" if self._known_jobs() else f"Not known yet whether this ledger is new: {error}"
        self._fits = unknown is None and not self._other
        fault = _fault(unknown, empty=newest is None) if unknown else ""
        if fault and fault != self._said:
            log.error("the ledger is incomplete", why=fault)
        self._said = fault
        return fault

    def _knows(self, newest: Job | None, job_id: str) -> bool:
        """Return whether the ledger has a job with a record as one that was sent, or was accepted without it.

        Those before the newest job were accepted as lost.
        """
        try:
            job = self._ledger.job(job_id)
        except NotFound:
            return newest is not None and job_id < newest.id
        return job.records > 0 or job.status not in {Status.QUEUED, Status.SUBMITTING}

    def _record_of_unsent(self, recorded: Job) -> str | None:
        """Return the key of a record of a job that waits to be sent, though its record says that it was.

        Only of jobs before the newest record, behind which all records are listed, and only of the newest few
        of these, because each costs a request.
        """
        for job in self._ledger.unsent_before(recorded, FEW):
            if self._archive.size(key := self._archive.record_key(job)) is not None:
                return key
        return None

    def _missing_record(self, job: Job) -> str:
        """Return that the newest record of the ledger is not in the bucket; empty if it is."""
        if self._archive.size(key := self._archive.record_key(job)) is not None:
            return ""
        log.warning("the bucket lacks the newest record of the ledger", key=key)
        return (
            f"The newest record of this ledger, {key}, is not in the bucket: the settings name another "
            "bucket or prefix than before, or objects were deleted."
        )

    def _known_jobs(self) -> bool:
        try:
            return self._ledger.newest_job() is not None
        except StorageError:
            return False


def _fault(key: str, *, empty: bool) -> str:
    ledger = "has no jobs" if empty else "is older than the bucket"
    return (
        f"This ledger {ledger}: {key} is the record of a job that it does not know, or has not sent yet. "
        "What was charged since would be charged again, so nothing is submitted. "
        "Fix: restore the ledger, or correct the settings of the ledger or the bucket. To go on without the "
        f"jobs that it lacks, set {SETTING}=true."
    )
