"""Bring a ready job's images into the archive, and close the job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import structlog

from receiver.download.downloader import Downloader
from receiver.download.ssrf import parse_target
from receiver.errors import (
    ForbiddenAddress,
    GatewayError,
    ImageError,
    ImageExpired,
    ImageTooLarge,
    ImageTruncated,
    ImageUnavailable,
    Unready,
)
from receiver.gateways.base import Gateway
from receiver.jobs.circuit_breaker import CircuitBreaker
from receiver.jobs.reconcile import Reconciler
from receiver.redaction import Redactor
from receiver.schedule import Timing
from receiver.telemetry.metrics import Metrics
from storage.archive.archive import Archive, NewImage
from storage.archive.record import record_document
from storage.errors import Conflict, Corrupt, LeaseLost, Misconfigured, Unavailable
from storage.ledger.ledger import Ledger
from storage.models import Attempt, Clock, Job, JobError, JobRequest, JobResult, Output, Status

log = structlog.get_logger("darkroom.collect")

MAY_MEND = (ImageUnavailable, ImageTruncated)
"""What may be well the next time, by whatever chance: tried again as long as the gateway keeps the image."""
HOPELESS = (ForbiddenAddress, ImageTooLarge)
"""What no other try can change."""


class _CircuitOpen(ImageUnavailable):
    """The image was not asked for, because its host is left alone for `wait_ms` milliseconds."""

    def __init__(self, host: str, wait_ms: int) -> None:
        self.wait_ms = wait_ms
        super().__init__(f"{host} failed too often and is left alone for now.")


@dataclass(frozen=True, slots=True)
class Archiver:
    """The last step of a job's life. Thread-safe."""

    ledger: Ledger
    archive: Archive
    downloader: Downloader
    reconciler: Reconciler
    gateways: Mapping[str, Gateway]
    breaker: CircuitBreaker
    redactor: Redactor
    timing: Timing
    clock: Clock
    metrics: Metrics

    def collect(self, job: Job, worker: str) -> Job:
        """Download and archive what is missing; close the job, or leave it for another try."""
        try:
            failures = self._fetch_missing(job)
            if self._wants_fresh_links(job, failures):
                job, failures = self._fetch_by_fresh_links(job, failures)
            if failures and (wait := self._wait(job, failures)) is not None:
                return self._later(job, worker, failures, wait)
            return self._close(job, worker, self._without_stored(job, failures))
        except (Unavailable, Misconfigured, Unready) as error:
            # The store is away, or there is no room here to spool an image: neither is the job's fault.
            log.warning("not archived yet", why=str(error))
            return self._wait_for_storage(job, worker, error)
        except LeaseLost:
            raise
        except Corrupt as error:
            if job.attempts + 1 < len(self.timing.downloads):
                # Bytes may be damaged on the way; that is what the digests are for.
                wait = self.timing.download_wait(job.attempts + 1)
                attempt = self._attempt("archive", "archive_corrupt", error)
                return self.ledger.postpone(job, worker, due_in_ms=int(wait * 1000), attempts=[attempt])
            return self._fail_loudly(job, worker, error)
        except Conflict as error:
            return self._fail_loudly(job, worker, error)

    def _later(self, job: Job, worker: str, failures: Mapping[int, ImageError], wait: float) -> Job:
        """Leave the job for another try; where nothing was tried, that costs it none."""
        left_alone = [failure for failure in failures.values() if isinstance(failure, _CircuitOpen)]
        tried = len(left_alone) < len(failures)
        wait_ms = int(wait * 1000) if tried else min(failure.wait_ms for failure in left_alone)
        return self.ledger.postpone(
            job,
            worker,
            due_in_ms=wait_ms,
            counts_as_attempt=tried,
            attempts=self._attempts(failures),
            result=job.result,
            error=self._reason(failures),
        )

    def _wait_for_storage(self, job: Job, worker: str, error: Exception) -> Job:
        """Wait for ever, rarer and rarer; that is no try of the images, and costs them none."""
        since = (self.clock() - (job.moved_at(Status.READY) or job.created_at)) / 1000
        return self.ledger.postpone(
            job,
            worker,
            due_in_ms=int(self.timing.outage_wait(since) * 1000),
            counts_as_attempt=False,
            attempts=[self._attempt("archive", "storage_unavailable", error)],
            result=job.result,
            error=JobError("storage_unavailable", self.redactor.text(str(error)), "operator"),
        )

    def _fetch_missing(self, job: Job) -> dict[int, ImageError]:
        have = {output.index for output in self.ledger.outputs(job.id)}
        failures: dict[int, ImageError] = {}
        for index in range(len(job.result.images)):
            if index in have:
                continue
            try:
                self._note(job, self._fetch(job, index))
            except ImageError as error:
                log.warning("image failed", index=index, code=error.code, why=str(error))
                failures[index] = error
        return failures

    def _without_stored(self, job: Job, failures: Mapping[int, ImageError]) -> dict[int, ImageError]:
        """Adopt what earlier tries stored of the images that failed; returns the failures that remain."""
        missing = dict(failures)
        for index in failures:
            image = job.result.images[index]
            seed = image.seed or _only_seed(job.result)
            with self._storing():
                output = self.archive.find_image(
                    job, index, seed=seed, source_url=self._shown(image.url), now=self.clock()
                )
            if output is not None:
                log.warning("kept the image of an earlier try: it cannot be downloaded", index=index)
                self._note(job, output)
                self.metrics.count("darkroom_images_archived_total", gateway=job.gateway)
                del missing[index]
        return missing

    def _shown(self, url: str) -> str | None:
        try:
            return self.redactor.text(parse_target(url).source_url)
        except ForbiddenAddress:
            return None

    def _note(self, job: Job, output: Output) -> None:
        """Note an output, unless a worker that lost its lease noted another image of this submission."""
        try:
            self.ledger.add_output(output)
        except Conflict:
            known = next(one for one in self.ledger.outputs(job.id) if one.index == output.index)
            if not self.archive.names(job, known):
                raise
            log.warning("kept the image of another worker", index=output.index, key=known.key)

    @contextmanager
    def _host(self, host: str) -> Iterator[None]:
        """Keep the circuit of an image's host; raises _LeftAlone while it is open."""
        if (wait_ms := self.breaker.host_waits_ms(host)) > 0:
            raise _CircuitOpen(host, wait_ms)
        try:
            yield
        except ImageError as error:
            if not self.downloader.closed:
                self.breaker.host_answered(host, error)
            raise
        self.breaker.host_answered(host, None)

    def _fetch(self, job: Job, index: int) -> Output:
        image = job.result.images[index]
        hosts = self.gateways[job.gateway].image_hosts if job.gateway in self.gateways else ()
        with ExitStack() as opened:
            target = parse_target(image.url)
            with self._host(target.host), self._counted(job.gateway):
                fetched = opened.enter_context(self.downloader.fetch(target, hosts=hosts))
            self.metrics.count("darkroom_download_bytes_total", fetched.bytes, gateway=job.gateway)
            new = NewImage(
                index=index,
                file=fetched.file,
                sha256=fetched.sha256,
                bytes=fetched.bytes,
                facts=fetched.facts,
                declared_type=fetched.declared_type,
                seed=image.seed or _only_seed(job.result),
                source_url=self.redactor.text(fetched.source_url),
                downloaded_at=self.clock(),
            )
            with self._storing():
                output = self.archive.store_image(job, new, now=self.clock())
        if output.sha256 != new.sha256:
            log.warning("kept the image of an earlier try: its host gave other bytes", index=index)
        self.metrics.count("darkroom_images_archived_total", gateway=job.gateway)
        self.metrics.count("darkroom_archived_bytes_total", output.bytes, gateway=job.gateway)
        log.info("archived image", index=index, key=output.key, bytes=output.bytes)
        return output

    @contextmanager
    def _counted(self, gateway: str) -> Iterator[None]:
        try:
            with self.metrics.timed("darkroom_download_seconds", gateway=gateway):
                yield
        except (ImageError, Unready) as error:
            self.metrics.count("darkroom_downloads_total", gateway=gateway, outcome=error.code)
            raise
        self.metrics.count("darkroom_downloads_total", gateway=gateway, outcome="done")

    @contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            yield
        except (Unavailable, Misconfigured, Corrupt, Conflict) as error:
            self.metrics.count("darkroom_store_errors_total", kind=_kind(error))
            raise

    def _fetch_by_fresh_links(
        self, job: Job, failures: dict[int, ImageError]
    ) -> tuple[Job, dict[int, ImageError]]:
        try:
            completion = self.reconciler.fresh(job)
        except GatewayError as error:
            log.warning("no fresh link", code=error.code, why=str(error))
            # Whether the image is gone is not known before the gateway has answered.
            unknown = ImageUnavailable(f"Its link is dead, and there is no fresh one yet: {error}")
            return job, {
                index: unknown if isinstance(failure, ImageExpired) else failure
                for index, failure in failures.items()
            }
        if completion is None or len(completion.images) != len(job.result.images):
            return job, failures
        job = replace(job, result=replace(job.result, images=completion.images))
        return job, self._fetch_missing(job)

    def _wait(self, job: Job, failures: Mapping[int, ImageError]) -> float | None:
        """Seconds until another try is worth it; None if none is."""
        if all(isinstance(failure, HOPELESS) for failure in failures.values()):
            return None
        tries = job.attempts + 1
        since = job.moved_at(Status.READY) or job.created_at
        if self.clock() - since > self.timing.retention * 1000:
            return None
        if tries >= len(self.timing.downloads) and not self._may_come_back(failures):
            return None
        return self.timing.download_wait(tries)

    def _may_come_back(self, failures: Mapping[int, ImageError]) -> bool:
        # A link that is dead even when fresh, or bytes that are no image every time, will not mend.
        return any(isinstance(failure, MAY_MEND) for failure in failures.values())

    def _wants_fresh_links(self, job: Job, failures: Mapping[int, ImageError]) -> bool:
        """Whether to ask for fresh links: at once if one is dead, after some tries if any does not work."""
        patient = job.attempts + 1 < len(self.timing.downloads)
        kinds = (ImageExpired,) if patient else (ImageExpired, *MAY_MEND)
        tried = [failure for failure in failures.values() if not isinstance(failure, _CircuitOpen)]
        return any(isinstance(failure, kinds) for failure in tried)

    def _close(self, job: Job, worker: str, failures: Mapping[int, ImageError]) -> Job:
        outputs = self.ledger.outputs(job.id)
        missing = self._reason(failures) if failures else None
        if not outputs:
            return self.ledger.move(
                job, Status.FAILED, worker, error=missing, attempts=self._attempts(failures)
            )
        to = Status.PARTIAL if failures else Status.ARCHIVED
        gateway = self.gateways.get(job.gateway)
        document = record_document(
            job,
            outputs,
            self.ledger.deliveries(job.id),
            closing=(to, self.clock()),
            missing=missing,
            seed_supported=None if gateway is None else "seed" not in gateway.unsupported(_seeded(job)),
        )
        with self._storing():
            written = self.archive.write_record(job, document)
        log.info("archived", gateway=job.gateway, status=to, images=len(outputs), record=written.key)
        return self.ledger.move(
            job, to, worker, error=missing, records=written.number, attempts=self._attempts(failures)
        )

    def _attempt(self, step: str, code: str, error: Exception) -> Attempt:
        return Attempt.once(step, code, self.redactor.text(str(error)), self.clock())

    def _attempts(self, failures: Mapping[int, ImageError]) -> list[Attempt]:
        return [self._attempt("download", error.code, error) for _, error in sorted(failures.items())]

    def _reason(self, failures: Mapping[int, ImageError]) -> JobError:
        index, error = min(failures.items())
        names = ", ".join(str(index) for index in sorted(failures))
        message = f"Image {names} could not be had: {self.redactor.text(str(failures[index]))}"
        return JobError(error.code, message, error.at_fault)

    def _fail_loudly(self, job: Job, worker: str, error: Conflict | Corrupt) -> Job:
        log.error("archive contradicts", why=str(error))
        code = "archive_conflict" if isinstance(error, Conflict) else "archive_corrupt"
        return self.ledger.move(
            job,
            Status.FAILED,
            worker,
            error=JobError(code, str(error), "archive"),
            attempts=[self._attempt("archive", code, error)],
        )


def _only_seed(result: JobResult) -> str | None:
    # One seed for several images is the job's, not any image's: it would not make that image again.
    return result.seed if len(result.images) == 1 else None


def _seeded(job: Job) -> JobRequest:
    return replace(job.request, seed=job.request.seed or "0")


def _kind(error: Exception) -> str:
    kinds = (Unavailable, Misconfigured, Corrupt, Conflict)
    return next(kind.__name__.lower() for kind in kinds if isinstance(error, kind))
