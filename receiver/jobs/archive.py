"""Download a ready job's images into the archive, write its record, and finish the job."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial

import structlog

from receiver import errors
from receiver.download.downloader import Downloader, EndMissing, Fetched
from receiver.download.ssrf import Target, parse_link
from receiver.errors import ImageError
from receiver.gateways.parsing import DATA_URI, is_inline
from receiver.jobs.context import JobContext, Outcome, say
from receiver.jobs.image_threads import ImageThreads
from receiver.jobs.reconcile import HINT, INLINE, Reconciler
from storage.archive.archive import Archive, NewImage
from storage.archive.record import record_document
from storage.errors import Conflict, Corrupt, Misconfigured, Refused, Unavailable
from storage.ledger.job_writer import Move, Postpone
from storage.media.inspect import ON_REQUEST
from storage.models import Attempt, Delivery, ImageRef, Job, JobError, JobRequest, Output, Status

log = structlog.get_logger("darkroom.archive")

FINAL = (errors.ImageTooLarge,)
"""Errors that no other try can change. Of all others an operator, the image host or the gateway may mend the
cause, so they are tried again as long as the gateway keeps the image."""
STORE_ERRORS = (Unavailable, Misconfigured, Refused, Corrupt, Conflict)


class _CircuitOpen(errors.ImageUnavailable):
    """The image was not downloaded, because the circuit of its host is open for `wait_ms` milliseconds."""

    def __init__(self, host: str, wait_ms: int) -> None:
        self.wait_ms = wait_ms
        super().__init__(f"{host} is paused after too many failures.")


@dataclass(slots=True)
class _Try:
    """What one try has found so far. Threads that fetch its images share it."""

    noted: dict[int, Output]
    """The job's outputs by index, those that are missing from the bucket included."""
    indexes: list[int] = field(default_factory=list)
    """Those of the outputs that this try stored."""
    remarks: list[str] = field(default_factory=list)

    def has(self, index: int) -> bool:
        """Return whether the bucket has an image."""
        return index in self.noted and self.noted[index].missing_since is None

    def note(self, output: Output) -> None:
        """Note an image that was stored."""
        self.noted[output.index] = output
        self.indexes.append(output.index)

    @property
    def stored(self) -> list[Output]:
        """The outputs that this try stored; they are written with its outcome, in one transaction."""
        return [self.noted[index] for index in sorted(self.indexes)]


@dataclass(frozen=True, slots=True)
class Archiver:
    """The last step of a job's life. Thread-safe."""

    context: JobContext
    archive: Archive
    downloader: Downloader
    reconciler: Reconciler
    image_hosts: Mapping[str, Sequence[str]]
    """By gateway: the allow-list of the hosts of its images; empty allows any public host."""
    threads: ImageThreads
    """Threads that fetch further images of one job at the same time."""

    def run(self, job: Job) -> Outcome:
        """Download and store the images that are missing; then write the record, or wait for another try."""
        made = _Try(self._noted_before(job))
        try:
            failures = self._fetch_missing(job, made)
            if self._wants_fresh_links(job, failures):
                job, failures = self._fetch_by_fresh_links(job, failures, made)
            if failures and (wait_s := self._wait_s(job, failures)) is not None:
                return self._later(job, failures, wait_s, made)
            return self._close(job, self._without_stored(job, failures, made), made)
        except (Unavailable, Misconfigured, errors.Unready) as error:
            # The store is away, or there is no room here to spool an image: neither is the job's fault.
            log.warning("not archived yet", why=str(error))
            return self._wait_for_storage(job, error, made)
        except Refused as error:
            return self._wait_for_record(job, error, made)
        except (Corrupt, Conflict) as error:
            return self._contradicted(job, error, made)

    def _noted_before(self, job: Job) -> dict[int, Output]:
        """Return the outputs that the ledger has; not read where nothing was written since it was ready."""
        ready = [at for status, at in job.moves if status is Status.READY]
        if job.records == 0 and ready == [job.updated_at]:
            return {}
        return {output.index: output for output in self.context.ledger.outputs(job.id)}

    def _later(self, job: Job, failures: Mapping[int, ImageError], wait_s: float, made: _Try) -> Postpone:
        """Try again later; where every host was paused, that is no try."""
        paused = [failure.wait_ms for failure in failures.values() if isinstance(failure, _CircuitOpen)]
        tried = len(paused) < len(failures)
        return Postpone(
            int(wait_s * 1000) if tried else min(paused),
            counts_as_attempt=tried,
            attempts=self._attempts(failures, made.remarks),
            outputs=made.stored,
            result=job.result,
            error=self._reason(failures),
        )

    def _wait_for_storage(self, job: Job, error: Exception, made: _Try) -> Postpone:
        """Wait for ever, with backoff; that is no try of the images, and costs them none."""
        since_s = (self.context.clock() - (job.moved_at(Status.READY) or job.created_at)) / 1000
        return Postpone(
            int(self.context.timing.outage_wait(since_s) * 1000),
            counts_as_attempt=False,
            attempts=[*self._noted(made.remarks), self._attempt("archive", "storage_unavailable", error)],
            outputs=made.stored,
            result=job.result,
            error=JobError("storage_unavailable", self._text(str(error)), "operator"),
        )

    def _wait_for_record(self, job: Job, error: Refused, made: _Try) -> Postpone:
        """Wait until the bucket takes the job's record: the images are stored, so nothing can be lost."""
        log.warning("record refused", why=str(error))
        return Postpone(
            int(self.context.timing.download_wait(job.attempts + 1) * 1000),
            attempts=[self._attempt("archive", "record_refused", error)],
            outputs=made.stored,
            result=job.result,
            error=JobError("record_refused", self._text(str(error)), "archive"),
        )

    def _contradicted(self, job: Job, error: Corrupt | Conflict, made: _Try) -> Outcome:
        """Fail a job whose record contradicts; bytes may be damaged on the way, so try again."""
        timing, following = self.context.timing, job.attempts + 1
        kind = errors.ArchiveConflict if isinstance(error, Conflict) else errors.ArchiveCorrupt
        attempts = [self._attempt("archive", kind.code, error)]
        if isinstance(error, Corrupt) and following < len(timing.downloads):
            wait_ms = int(timing.download_wait(following) * 1000)
            return Postpone(wait_ms, attempts=attempts, outputs=made.stored)
        log.error("archive contradicts", why=str(error))
        failure = JobError(kind.code, str(error), kind.at_fault)
        return Move(Status.FAILED, error=failure, attempts=attempts, outputs=made.stored)

    def _is_over(self, job: Job) -> bool:
        """Return whether the gateway's retention is over, after which no link can be had."""
        since = job.moved_at(Status.READY) or job.created_at
        return self.context.clock() - since > self.context.timing.retention * 1000

    def _fetch_missing(self, job: Job, made: _Try) -> dict[int, ImageError]:
        """Fetch the images that the bucket lacks, several at the same time; return why some failed."""
        wanted = [index for index in _images(job) if not made.has(index)]
        job = self._with_inline(job, wanted)

        def fetch(index: int) -> ImageError | None:
            try:
                self._note(made, self._fetch(job, index, made.remarks))
            except ImageError as error:
                log.warning("image failed", index=index, code=error.code, why=str(error))
                return error
            return None

        found = zip(wanted, self.threads.each(fetch, wanted), strict=True)
        return {index: error for index, error in found if error is not None}

    def _with_inline(self, job: Job, wanted: Sequence[int]) -> Job:
        """Return a job with the bytes of its images that are in the gateway's answer; only for this step."""
        if not any(_images(job)[index].url == INLINE for index in wanted):
            return job
        try:
            given = {image.index: image for image in self.reconciler.inline_images(job)}
        except errors.GatewayError as error:
            log.warning("the answer with the images was not had", code=error.code, why=str(error))
            return job
        images = job.result.images
        put = (given.get(image.index, image) if image.url == INLINE else image for image in images)
        return replace(job, result=replace(job.result, images=tuple(put)))

    def _without_stored(
        self, job: Job, failures: Mapping[int, ImageError], made: _Try
    ) -> dict[int, ImageError]:
        """Adopt what earlier tries stored of the images that failed; return the failures that remain."""
        missing = dict(failures)
        for index in failures:
            image, source_url = _images(job)[index], None
            with suppress(errors.ForbiddenAddress):
                source_url = parse_link(image.url).source_url
            seed, now = image.seed or _only_seed(job), self.context.clock()
            with self._storing():
                output = self.archive.find_image(job, index, seed=seed, now=now)
            if output is not None:
                log.warning("kept the image of an earlier try: it cannot be downloaded", index=index)
                self._note(made, replace(output, source_url=source_url))
                self._count("darkroom_images_archived_total", job)
                del missing[index]
        return missing

    def _note(self, made: _Try, output: Output) -> None:
        """Note an image that was stored, and where it came from without the secrets that stand there."""
        source = output.source_url
        made.note(replace(output, source_url=None if source is None else self._text(source)))

    @contextmanager
    def _host(self, target: Target) -> Iterator[None]:
        """Open or close the circuit of an image's host; raise _CircuitOpen while it is open."""
        breaker, host = self.context.breaker, target.host
        if (wait_ms := breaker.host_waits_ms(host)) > 0:
            raise _CircuitOpen(host, wait_ms)
        try:
            yield
        except ImageError as error:
            if not self.downloader.closed:
                breaker.host_answered(host, error)
            raise
        breaker.host_answered(host, None)

    def _fetch(self, job: Job, index: int, remarks: list[str]) -> Output:
        image = _images(job)[index]
        if image.url == INLINE:
            raise errors.ImageUnavailable(f"The answer of {job.gateway} with the image is not to be had now.")
        with ExitStack() as opened:
            fetched = self._fetched(job, index, image.url, opened)
            self._count("darkroom_download_bytes_total", job, fetched.bytes)
            new = NewImage(
                index=index,
                file=fetched.file,
                sha256=fetched.sha256,
                bytes=fetched.bytes,
                facts=fetched.facts,
                declared_type=fetched.declared_type,
                seed=image.seed or _only_seed(job),
                downloaded_at=self.context.clock(),
            )
            with _told_apart(), self._storing():
                output = self.archive.store_image(job, new, now=self.context.clock())
        remarks += _remarks(index, fetched)
        if output.sha256 != new.sha256:
            log.warning("kept the image of an earlier try: its host gave other bytes", index=index)
        self._count("darkroom_images_archived_total", job)
        self._count("darkroom_archived_bytes_total", job, output.bytes)
        say(job, "archived image", index=index, key=output.key, bytes=output.bytes)
        return replace(output, source_url=fetched.source_url or None)

    def _fetched(self, job: Job, index: int, url: str, opened: ExitStack) -> Fetched:
        if url.startswith(DATA_URI):
            also = _asked_formats(job.request)
            return opened.enter_context(self.downloader.unpack(url, also=also))
        target = parse_link(url)
        with self._host(target), self._counted(job):
            return self._download(job, index, target, opened)

    def _download(self, job: Job, index: int, target: Target, opened: ExitStack) -> Fetched:
        """Download an image; one without an end is kept if it was so before, too, and now twice."""
        fetch = partial(
            self.downloader.fetch,
            target,
            hosts=self.image_hosts.get(job.gateway, ()),
            also=_asked_formats(job.request),
        )
        try:
            return opened.enter_context(fetch())
        except EndMissing as error:
            tried = job.attempts + 1 >= len(self.context.timing.downloads)
            if not tried or error.sha256 not in _said_before(job, index):
                raise
            return opened.enter_context(fetch(unended=error.sha256))

    @contextmanager
    def _counted(self, job: Job) -> Iterator[None]:
        metrics = self.context.metrics
        try:
            with metrics.timed("darkroom_download_seconds", gateway=job.gateway):
                yield
        except (ImageError, errors.Unready) as error:
            metrics.count("darkroom_downloads_total", gateway=job.gateway, outcome=error.code)
            raise
        metrics.count("darkroom_downloads_total", gateway=job.gateway, outcome="done")

    @contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            yield
        except STORE_ERRORS as error:
            kind = next(kind.__name__.lower() for kind in STORE_ERRORS if isinstance(error, kind))
            self.context.metrics.count("darkroom_store_errors_total", kind=kind)
            raise

    def _fetch_by_fresh_links(
        self, job: Job, failures: dict[int, ImageError], made: _Try
    ) -> tuple[Job, dict[int, ImageError]]:
        try:
            completion = self.reconciler.fresh(job)
        except errors.GatewayError as error:
            log.warning("no fresh link", code=error.code, why=str(error))
            # Whether the image is gone is not known before the gateway has answered.
            unknown = errors.ImageUnavailable(f"The link has expired, and there is no fresh one yet: {error}")
            return job, {
                index: unknown if isinstance(failure, errors.ImageExpired) else failure
                for index, failure in failures.items()
            }
        places = [image.index for image in job.result.images]
        if completion is None or [image.index for image in completion.images] != places:
            return job, failures
        images = tuple(
            replace(image, url=INLINE) if is_inline(image.url) else image for image in completion.images
        )
        job = replace(job, result=replace(job.result, images=images))
        return job, self._fetch_missing(job, made)

    def _wait_s(self, job: Job, failures: Mapping[int, ImageError]) -> float | None:
        """Return the seconds until another try is worth it; None if none is."""
        if all(isinstance(failure, FINAL) for failure in failures.values()):
            return None
        if self._is_over(job):
            return None
        timing, tries = self.context.timing, job.attempts + 1
        if tries >= len(timing.downloads) and all(map(_gone, failures.values())):
            return None
        return timing.download_wait(tries)

    def _wants_fresh_links(self, job: Job, failures: Mapping[int, ImageError]) -> bool:
        """Return whether to ask for fresh links: at once if one expired, after some tries if any fails."""
        patient = job.attempts + 1 < len(self.context.timing.downloads)
        others = (_CircuitOpen, errors.ImageNotStored, *FINAL)
        failed = [failure for failure in failures.values() if not isinstance(failure, others)]
        return any(isinstance(failure, errors.ImageExpired) or not patient for failure in failed)

    def _close(self, job: Job, failures: Mapping[int, ImageError], made: _Try) -> Move:
        attempts = self._attempts(failures, made.remarks)
        noted = [output for _, output in sorted(made.noted.items())]
        outputs = [output for output in noted if output.missing_since is None]
        missing = self._reason(failures) if failures else _still_missing(noted)
        if not outputs:
            return Move(Status.FAILED, error=missing, attempts=attempts)
        to = Status.PARTIAL if missing else Status.ARCHIVED
        deliveries = self.context.ledger.deliveries(job.id, bodies=False)
        document = record_document(
            replace(job, attempt_log=(*job.attempt_log, *self._noted(made.remarks))),
            outputs,
            deliveries,
            closing=(to, self.context.clock()),
            missing=missing,
            seed_supported=self._seed_supported(job),
            store=self.archive.facts,
        )
        with self._storing():
            written = self.archive.write_record(job, document)
        say(job, "archived", gateway=job.gateway, status=to, images=len(outputs), record=written.key)
        seconds = (self.context.clock() - _known_since(job, deliveries)) / 1000
        self.context.metrics.observe("darkroom_result_to_archive_seconds", seconds, gateway=job.gateway)
        return Move(to, error=missing, records=written.number, attempts=attempts, outputs=made.stored)

    def _seed_supported(self, job: Job) -> bool | None:
        gateway = self.context.gateways.get(job.gateway)
        seeded = replace(job.request, seed=job.request.seed or "0")
        return None if gateway is None else "seed" not in gateway.unsupported(seeded)

    def _attempt(self, step: str, code: str, error: Exception) -> Attempt:
        return Attempt.once(step, code, self._text(str(error)), self.context.clock())

    def _attempts(self, failures: Mapping[int, ImageError], remarks: Sequence[str]) -> list[Attempt]:
        failed = [self._attempt("download", error.code, error) for _, error in sorted(failures.items())]
        return [*self._noted(remarks), *failed]

    def _noted(self, remarks: Sequence[str]) -> list[Attempt]:
        text, now = " ".join(remarks), self.context.clock()
        return [Attempt.once("download", "noted", text, now)] if remarks else []

    def _reason(self, failures: Mapping[int, ImageError]) -> JobError:
        _, error = min(failures.items())
        names = ", ".join(str(index) for index in sorted(failures))
        what = "stored" if isinstance(error, errors.ImageNotStored) else "downloaded"
        message = f"Image {names} could not be {what}: {self._text(str(error))}"
        each = {_named(index): self._text(str(one)) for index, one in sorted(failures.items())}
        return JobError(error.code, message, error.at_fault, each if len(each) > 1 else None)

    def _text(self, text: str) -> str:
        return self.context.redactor.text(text)

    def _count(self, name: str, job: Job, amount: float = 1) -> None:
        self.context.metrics.count(name, amount, gateway=job.gateway)


def _remarks(index: int, fetched: Fetched) -> Iterator[str]:
    """Yield what the record shall say of how an image came."""
    if not fetched.source_url:
        yield f"Image {index} came in the gateway's answer itself."
    if fetched.wrappers:
        yield f"Image {index} came with {', '.join(fetched.wrappers)} around it, which was taken off."
    if not fetched.complete:
        yield f"Image {index} has no end; it came so at every download, and was archived as it is."


def _asked_formats(request: JobRequest) -> list[str]:
    """Return the formats that are accepted because the request names them, in its model or its parameters."""
    asked = f"{request.model} {json.dumps(request.params)}".lower()
    return [extension for extension in ON_REQUEST if extension in asked]


def _named(index: int) -> str:
    return f"image {index}"


def _said_before(job: Job, index: int) -> str:
    """Return what was wrong with an image at the try before: of several each has its own words."""
    if job.error is None:
        return ""
    return str((job.error.details or {}).get(_named(index), job.error.message))


@contextmanager
def _told_apart() -> Iterator[None]:
    """Raise what is wrong with one image in the bucket as an error of that image."""
    try:
        yield
    except Refused as error:
        raise errors.ImageRefused(str(error)) from error
    except Conflict as error:
        log.error("archive contradicts", why=str(error))
        raise errors.ArchiveConflict(str(error)) from error
    except Corrupt as error:
        log.error("archive contradicts", why=str(error))
        raise errors.ArchiveCorrupt(str(error)) from error


def _gone(failure: ImageError) -> bool:
    """Return whether there is no such image, or it is over a limit.

    After several tries with fresh links, the gateway keeps that image no more.
    """
    dead = isinstance(failure, errors.ImageExpired) and not isinstance(failure, errors.LinkRefused)
    return dead or isinstance(failure, FINAL)


def _still_missing(outputs: Sequence[Output]) -> JobError | None:
    """Return that images are missing which the gateway does not have any more; None if none are."""
    names = ", ".join(str(output.index) for output in outputs if output.missing_since is not None)
    message = f"Image {names} is no longer in the bucket, and the gateway does not have it any more."
    return JobError("image_missing", message, "archive") if names else None


def _known_since(job: Job, deliveries: Sequence[Delivery]) -> int:
    """Return when the callback with a job's result came; of one that was polled, when it was ready."""
    ready = job.moved_at(Status.READY) or job.created_at
    # Those that brought it, by themselves or by making us poll.
    return min([ready, *(one.received_at for one in deliveries if one.effect in {Status.READY, HINT})])


def _only_seed(job: Job) -> str | None:
    # One seed for several images is the job's, not any image's: it would not make that image again.
    return job.result.seed if len(job.result.images) == 1 and not job.short else None


def _images(job: Job) -> dict[int, ImageRef]:
    """Return the images that the gateway returned, by their index."""
    return {image.index: image for image in job.result.images}
