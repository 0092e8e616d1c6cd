"""Load what a role needs, before processes are forked that share its memory."""

from importlib import import_module

from receiver.service import Role

_JOBS = (
    "receiver.api.subscriptions",
    "receiver.download.downloader",
    "receiver.jobs.archive",
    "receiver.jobs.bulk_poll",
    "receiver.jobs.cancel",
    "receiver.jobs.retry",
    "receiver.jobs.steps",
    "receiver.jobs.submit",
    "receiver.jobs.worker",
    "receiver.jobs.worker_processes",
    "receiver.ledger_check",
    "receiver.missing_images",
    "receiver.notifications.sender",
    "receiver.outbound.trust",
    "storage.archive.conformance",
    "storage.archive.object_store",
    "storage.ledger.outbox",
)
_API = (
    "receiver.api.batch",
    "receiver.api.events",
    "receiver.api.images",
    "receiver.api.jobs",
    "receiver.api.models",
    "receiver.api.notifications",
    "receiver.api.openapi",
    "receiver.api.usage",
    "receiver.gallery.routes",
    "receiver.thumbnails.cache",
    "receiver.thumbnails.pool",
    "storage.archive.thumbnails",
)


def preload(role: Role) -> None:
    """Import what `receiver.app.build` and the first requests would; a test finds what is missing here."""
    later = {Role.CALLBACKS: (), Role.WORK: _JOBS, Role.API: (*_JOBS, *_API), Role.ALL: (*_JOBS, *_API)}
    for name in ("receiver.app", "receiver.http.server", *later[role]):
        import_module(name)
    if later[role]:
        from storage.archive.service_data import preload as preload_data

        preload_data()
