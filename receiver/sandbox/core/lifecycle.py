"""Run the lifecycle of sandbox jobs: queued, drawn, finished, callbacks sent."""

import asyncio
import logging
import random
import uuid
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress

from receiver.sandbox.core.callbacks import CallbackSender, Caller
from receiver.sandbox.core.config import SandboxConfig
from receiver.sandbox.core.jobs import Event, Jobs, SandboxJob
from receiver.sandbox.core.pictures import Studio

log = logging.getLogger("darkroom.sandbox")

KEEP_UPLOADS = 20
STEPS = ((10, 0.25), (45, 0.4), (80, 0.35))
"""Progress in per cent, and the share of the job's time after it."""


class Sandbox:
    """The running sandbox: its jobs, the studio that draws, and the sender of callbacks."""

    def __init__(self, config: SandboxConfig, callers: Mapping[str, Caller]) -> None:
        self.config = config
        self._callers = callers
        self.jobs = Jobs(config)
        self.studio = Studio(config.drawing_threads, config.keep_images)
        self.sender = CallbackSender(config, self.jobs, callers)
        self.uploads: dict[str, bytes] = {}
        """Files that were uploaded, to be named by URL in submissions; the oldest first."""
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, job: SandboxJob) -> None:
        """Start a job's task, which outlives its request."""
        log.info("%s %s accepted %s: %.60s", job.account.gateway, job.id, job.model, job.prompt)
        task = asyncio.create_task(self._run(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def keep(self, data: bytes) -> str:
        """Keep an uploaded file for a while; return its id."""
        upload_id = str(uuid.uuid4())
        self.uploads[upload_id] = data
        if len(self.uploads) > KEEP_UPLOADS:
            del self.uploads[next(iter(self.uploads))]
        return upload_id

    def cancel(self, job: SandboxJob) -> bool:
        """Cancel a job, at no cost; return whether it was still running."""
        if job.done:
            return False
        job.status, job.completed_at = "CANCELLED", self.config.clock()
        self.jobs.refund(job)
        job.cancelled.set()
        self.jobs.changed()
        return True

    def expired(self, job: SandboxJob) -> bool:
        """Return whether a job's images are past their retention."""
        life_s = self.config.retention_s
        if life_s is None:
            life_s = self._callers[job.account.gateway].life_s
        age = self.config.clock() - (job.completed_at or job.created_at)
        return job.status == "COMPLETED" and age >= life_s

    async def close(self) -> None:
        """Cancel all tasks and close the connections."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.sender.close()
        await asyncio.to_thread(self.studio.close)

    async def _run(self, job: SandboxJob) -> None:
        try:
            await self._work(job)
            await self._tell(job)
            if "changes_mind" in job.faults:
                await asyncio.sleep(job.faults.delay_s)
                self._finish(job, failed=job.status == "COMPLETED")
                await self._tell(job)
        finally:
            job.over = True
            job.callbacks_sent.set()
            self.jobs.changed()

    async def _work(self, job: SandboxJob) -> None:
        pictures = [] if "failed" in job.faults else [self.studio.order(spec) for spec in job.specs]
        latency = 0.0 if "early" in job.faults else duration(job, self.config)
        caller = self._callers[job.account.gateway]
        for progress, share in STEPS:
            job.status, job.progress = "PROCESSING", progress
            self.jobs.changed()
            if self._calls_back(job) and caller.tells(job):
                await self.sender.once(job, "progress")
            with suppress(TimeoutError):
                await asyncio.wait_for(job.cancelled.wait(), latency * share)
            if job.done:
                return
        drawn = await asyncio.gather(*(asyncio.wrap_future(picture) for picture in pictures))
        if caller.inlines(job) or {"inline_image", "inline_answer"} & set(job.faults.fault):
            job.inline = tuple(f"data:image/png;base64,{b64encode(picture).decode()}" for picture in drawn)
        if not job.done:
            self._finish(job, failed="failed" in job.faults)

    def _finish(self, job: SandboxJob, *, failed: bool) -> None:
        job.completed_at = self.config.clock()
        if failed:
            self.jobs.refund(job)
            job.status, job.error = "FAILED", job.faults.message
        else:
            job.status, job.progress, job.error, job.made = "COMPLETED", 100, None, True
        log.info("%s %s", job.id, job.status.lower())
        self.jobs.changed()

    async def _tell(self, job: SandboxJob) -> None:
        events: dict[str, Event] = {"FAILED": "failed", "CANCELLED": "cancelled"}
        event = events.get(job.status, "completed")
        if event not in job.events or not self._calls_back(job):
            return
        if "late" in job.faults:
            await asyncio.sleep(job.faults.delay_s)
        times = (job.faults.times or 2) if "duplicate" in job.faults else 1
        if job.faults.at_once:
            await asyncio.gather(*(self.sender.deliver(job, event) for _ in range(times)))
        else:
            for _ in range(times):
                await self.sender.deliver(job, event)
        if "out_of_order" in job.faults:
            await self.sender.once(job, "progress")

    def _calls_back(self, job: SandboxJob) -> bool:
        return bool(job.callback_url) and not {"no_callback", "inline_answer"} & set(job.faults.fault)


def duration(job: SandboxJob, config: SandboxConfig) -> float:
    """Return how long a job takes, in seconds: the same for the same prompt, model and seed."""
    first = job.specs[0]
    # Not a secret: it only spreads the jobs.
    chance = random.Random(f"{first.prompt}\0{first.model}\0{first.seed}")  # noqa: S311
    return chance.uniform(*config.latency_s)
