"""Build the bodies of callbacks: Apiframe's, and the shapes that API in One's might have.

API in One's callback is not documented. `envelope` is the likeliest: the same as its task route. The others
are those of gateways that are resold under many names (kie.ai, Kling, EvoLink) and a plain one.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from receiver.sandbox.config import Dialect, SandboxConfig
from receiver.sandbox.jobs import Event, SandboxJob

Body = dict[str, Any]


def apiframe(job: SandboxJob, event: Event, links: list[str], config: SandboxConfig) -> Body:
    """Build a webhook of Apiframe v2: https://docs-v2.apiframe.ai/docs/webhooks."""
    body: Body = {"event": event, "jobId": job.id}
    if event == "progress":
        return {**body, "status": "PROCESSING", "progress": so_far(job), "model": job.model}
    if event == "failed":
        return {**body, "status": "FAILED", "error": job.error, "model": job.model}
    return {
        **body,
        "status": "COMPLETED",
        "progress": 100,
        "result": result(links, config),
        "model": job.model,
        "creditCost": job.cost,
        "completedAt": job.done_at,
    }


def so_far(job: SandboxJob) -> int:
    """Return the per cent in a progress callback, which a fault may send after the end."""
    return min(job.progress, 80)


def result(links: list[str], config: SandboxConfig) -> Any:
    """Build Apiframe's result: images in a list, or the older bare URL."""
    return links[0] if config.bare_result else {"images": links}


def envelope(job: SandboxJob, event: Event, links: list[str], config: SandboxConfig) -> Body:
    """Build API in One's task, as its task route returns it."""
    words = {"progress": "IN_PROGRESS", "completed": "completed", "failed": "failed"}
    data: Body = {"task_id": job.id, "status": words[event], "model": job.model, "error": None}
    if event == "completed":
        data["output"] = {"image_urls": links}
        if "withheld_image" in job.faults:
            data["output"] = {
                "image_urls": [None if n == 1 else link for n, link in enumerate(links)],
                "reasons": [job.faults.message if n == 1 else None for n in range(len(links))],
            }
    if event == "failed":
        data["error"] = {"message": job.error}
    if config.reports_seed and job.seed is not None:
        data["seed"] = job.seed
    return {"code": 200, "message": "success", "data": data}


def kie(job: SandboxJob, event: Event, links: list[str], _config: SandboxConfig) -> Body:
    """Build kie.ai's: JSON as text inside JSON, and 501 for a failure: https://docs.kie.ai."""
    words = {"progress": "generating", "completed": "success", "failed": "fail"}
    failed = event == "failed"
    data = {
        "taskId": job.id,
        "model": job.model,
        "state": words[event],
        "param": json.dumps({"input": job.input}),
        "resultJson": json.dumps({"resultUrls": links}) if event == "completed" else None,
        "failCode": "501" if failed else None,
        "failMsg": job.error,
        "createTime": round(job.created_at * 1000),
        "completeTime": None if job.completed_at is None else round(job.completed_at * 1000),
        "creditsConsumed": job.cost,
    }
    return {
        "code": 501 if failed else 200,
        "msg": job.error if failed else "Playground task completed successfully.",
        "data": data,
    }


def kling(job: SandboxJob, event: Event, links: list[str], _config: SandboxConfig) -> Body:
    """Build Kling's, resold by many: `succeed` without an ending, and a callback at every change."""
    words = {"progress": "processing", "completed": "succeed", "failed": "failed"}
    updated_at = job.completed_at or job.created_at
    return {
        "task_id": job.id,
        "task_status": words[event],
        "task_status_msg": job.error or "",
        "created_at": round(job.created_at * 1000),
        "updated_at": round(updated_at * 1000),
        "task_result": {
            "images": [{"index": n, "url": url} for n, url in enumerate(links)]
            if event == "completed"
            else []
        },
    }


def evolink(job: SandboxJob, event: Event, links: list[str], _config: SandboxConfig) -> Body:
    """Build EvoLink's task object: https://docs.evolink.ai."""
    words = {"progress": "processing", "completed": "completed", "failed": "failed"}
    body: Body = {
        "id": job.id,
        "object": "image.generation.task",
        "model": job.model,
        "status": words[event],
        "progress": so_far(job) if event == "progress" else 100,
        "created": round(job.created_at),
        "results": links if event == "completed" else [],
        "task_info": {},
        "usage": {},
    }
    if event == "failed":
        body["error"] = {"code": "generation_failed", "message": job.error}
    return body


def flat(job: SandboxJob, event: Event, links: list[str], _config: SandboxConfig) -> Body:
    """Build a plain one: `data.image_url` and a word for the status."""
    words = {"progress": "processing", "completed": "success", "failed": "error"}
    data: Body = {}
    if event == "completed":
        data = {"image_url": links[0]} if len(links) == 1 else {"image_url": links[0], "image_urls": links}
    body: Body = {"task_id": job.id, "status": words[event], "data": data}
    return {**body, "message": job.error} if event == "failed" else body


Render = Callable[[SandboxJob, Event, list[str], SandboxConfig], Body]

API_IN_ONE: Mapping[Dialect, Render] = {
    "envelope": envelope,
    "kie": kie,
    "kling": kling,
    "evolink": evolink,
    "flat": flat,
}


def render(job: SandboxJob, event: Event, links: list[str], config: SandboxConfig) -> Body:
    """Build the body of a job's callback, by its gateway and dialect."""
    if job.account.gateway == "apiframe":
        return bent(job, apiframe(job, event, links, config))
    return bent(job, API_IN_ONE[job.dialect](job, event, links, config))


def bent(job: SandboxJob, body: Body) -> Body:
    """Return the body of a callback or a poll, bent as the faults of its job say."""
    data = body.get("data")
    task = data if isinstance(data, dict) else body
    if "odd_place" in job.faults and job.status == "COMPLETED":
        task["media"] = {"files": [{"href": link} for link in job.links()]}
    for key in ("event", "status", "state", "task_status"):
        if "odd_status" in job.faults and key in task:
            task[key] = job.faults.message
    return body
