"""Serve the page of one output: picture, request, result, and how it was confirmed."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from receiver.api.jobs import Api
from receiver.errors import ImageMissing, RecordMissing, Unready
from receiver.gallery import search_box
from receiver.gallery.page import PageRequest
from receiver.gallery.rendering import pretty
from receiver.http.bucket_threads import BucketThreads
from receiver.missing_images import MissingImages
from receiver.query.language import with_key
from receiver.schemas.job import proof, timeline
from receiver.thumbnails.cache import NONE_OF
from storage.errors import StorageError
from storage.ledger.transitions import REOPENS
from storage.media.inspect import is_shown
from storage.models import Job, Output
from storage.search.filters import SearchFilter
from storage.search.search import SearchHit

MAX_RECORD_CHARS = 200_000
"""As much of a record as the page shows; there is a link to all of it."""


@dataclass(frozen=True, slots=True)
class Detail:
    """The pages `/outputs/{id}`."""

    api: Api
    missing: MissingImages
    bucket: BucketThreads

    async def show(self, visit: PageRequest) -> Response:
        """Show one output. `q` is the search it was found by, which decides its neighbours."""
        found = await run_in_threadpool(self.api.search.output, visit.request.path_params["id"])
        missing = await self._missing(found.output)
        record, record_fault = await self._record(found.job)
        return await run_in_threadpool(self._page, visit, found, missing, record, record_fault)

    def _page(
        self,
        visit: PageRequest,
        found: SearchHit,
        missing: str,
        record: Mapping[str, Any] | None,
        record_fault: str,
    ) -> Response:
        q = visit.given("q") or ""
        wanted, _ = search_box.read_asked(q, self.api.clock())
        job, output = found.job, found.output
        deliveries, outputs = self.api.search.deliveries(job.id), self.api.ledger.outputs(job.id)
        seed = output.seed or job.result.seed or job.request.seed
        events = timeline(job, deliveries, outputs, self.api.notifications.of_job(job.id))
        return visit.page(
            "output.html",
            q=q,
            output=output,
            job=job,
            siblings=outputs,
            deliveries=deliveries,
            events=events,
            proof=proof(events, job.found_by),
            seeds=_seeds(job, output, record),
            missing=missing,
            shown=is_shown(output.media_type),
            small=output.media_type not in NONE_OF,
            may_ask=bool(missing) and visit.may("submit") and job.status in REOPENS,
            record=None if record is None else pretty(record),
            record_fault=record_fault,
            MAX_RECORD_CHARS=MAX_RECORD_CHARS,
            same_prompt=search_box.phrase(job.request.prompt),
            same_seed=None if seed is None else with_key("", "seed", seed),
            tags=search_box.tagged(job.request.tags),
            **self._neighbours(wanted or SearchFilter(), found),
        )

    def _neighbours(self, wanted: SearchFilter, found: SearchHit) -> dict[str, Any]:
        newer = self.api.search.newer_ids(wanted, found.output.id, limit=1)
        older = self.api.search.outputs(wanted, limit=1, cursor=found.output.id).rows
        return {"newer": newer[0] if newer else None, "older": older[0].output.id if older else None}

    async def _record(self, job: Job) -> tuple[Mapping[str, Any] | None, str]:
        """Return the job's record, or why it cannot be shown. The page is useful without it."""
        if not job.records:
            return None, "There is none yet; it is written when the job's images are archived."
        try:
            return await self.bucket.run(partial(self.missing.read_record, job)), ""
        except RecordMissing as error:
            return None, str(error)
        except (StorageError, Unready):
            return None, "The bucket did not give it now. Load this page again in a moment."

    async def _missing(self, output: Output) -> str:
        """Return why the image cannot be shown any more; empty if it can, or that is not known now."""
        try:
            await self.bucket.run(partial(self.missing.check, output))
        except ImageMissing as error:
            return str(error)
        except (StorageError, Unready):
            pass
        return ""


def _seeds(job: Job, output: Output, record: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Return what is known of the seed, each fact in words; nothing is derived or guessed."""
    supported = ((record or {}).get("seed") or {}).get("supported")
    words = {True: "yes, as asked for here", False: "no; a seed would change nothing", None: "unknown"}
    return [
        ("Asked for", job.request.seed or "none"),
        ("Reported for the job", job.result.seed or "none"),
        ("Reported for this image", output.seed or "none"),
        ("Taken by the model", words.get(supported, "unknown")),
    ]
