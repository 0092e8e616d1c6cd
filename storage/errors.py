"""The only errors that callers of `storage` see.

StorageError
├── NotFound       no such job, output, delivery or object
├── Conflict       it exists already and differs, or the move is not legal from where the job is
│   ├── LeaseLost  the worker does not hold the job any more
│   └── Crowded    as many jobs of its gateway are there already as may be
├── Unavailable    the database or the object store did not answer; trying again later may help
├── Misconfigured  it answered, and will go on refusing until somebody changes a setting
└── Corrupt        bytes are not what they were said to be
"""


class StorageError(Exception):
    """Root of everything that `storage` raises; `str(error)` is safe to show to a user."""


class NotFound(StorageError):
    """No such job, output, delivery or object."""


class Conflict(StorageError):
    """Something else is already there, or the job has moved on meanwhile."""


class LeaseLost(Conflict):
    """The worker does not hold the job any more; another one goes on with it."""


class Crowded(Conflict):
    """As many jobs of its gateway are there already as may be; the job stays where it is."""


class Unavailable(StorageError):
    """The database or the object store did not answer as it should; try again later."""


class TookTooLong(Unavailable):
    """A question that the database could not answer within the time that one may take."""


class Misconfigured(StorageError):
    """A setting is wrong: no such bucket, no permission, a wrong key. Trying again changes nothing."""


class Corrupt(StorageError):
    """Bytes are not what they were said to be: a digest, a length or a format differs."""
