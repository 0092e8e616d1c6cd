"""The tree of errors that `storage` raises.

StorageError
├── NotFound       no such job, output, delivery or object
├── Ambiguous      several ids have this beginning
├── Conflict       it exists already and differs, or the move is not legal from the job's status
│   ├── LeaseLost  the worker's lease of the job has expired
│   └── Crowded    the limit of jobs of its gateway is reached
├── Unavailable    the database or the object store is unavailable; retry later
│   └── TookTooLong  a query exceeded its time limit
├── Misconfigured  it refuses, and will until a setting is changed
│   └── Unusable   the database is of a newer version, or none at all; waiting does not help
├── Refused        the object store refuses this one object, and stores others
└── Corrupt        a digest, a length or a format is wrong
"""

from collections.abc import Sequence


class StorageError(Exception):
    """Root of everything that `storage` raises; `str(error)` is safe to show to a user."""


class NotFound(StorageError):
    """No such job, output, delivery or object."""


class Ambiguous(StorageError):
    """Several ids have this beginning. `candidates`: some of them, the newest first."""

    def __init__(self, message: str, *, candidates: Sequence[str]) -> None:
        self.candidates = candidates
        super().__init__(message)


class Conflict(StorageError):
    """Something else is there already, or the job has moved meanwhile."""


class LeaseLost(Conflict):
    """The worker's lease of the job has expired; another worker goes on with it."""


class Crowded(Conflict):
    """The limit of jobs of its gateway in that status is reached; the job stays where it is."""


class Unavailable(StorageError):
    """The database or the object store is unavailable; retry later."""


class TookTooLong(Unavailable):
    """A query exceeded its time limit."""


class Misconfigured(StorageError):
    """A setting is wrong: no such bucket, no permission, a wrong key. Retrying does not help."""


class Unusable(Misconfigured):
    """The database is of a newer version of Darkroom, or is none at all. Waiting does not help."""


class Refused(StorageError):
    """The object store refuses one object, for its key or its size, and stores others at the same time."""


class Corrupt(StorageError):
    """Bytes are not what was expected: a digest, a length or a format is wrong."""
