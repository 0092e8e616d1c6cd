"""`darkroom show`: show one job or one image with everything that made it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from rich.filesize import decimal
from rich.text import Text

from receiver.cli import completion
from receiver.cli.connection import Connection, Json
from receiver.cli.console import Column, cell, out, print_facts, print_json, print_table, status_cell
from receiver.cli.options import argument
from storage.models import Verdict

if TYPE_CHECKING:
    from receiver.schemas.job import Job, TimelineEvent
    from receiver.schemas.notification import Notification
    from receiver.schemas.output import Output

_TIMELINE: Sequence[Column[TimelineEvent]] = (
    Column("TIME", lambda event: cell(event.at, "dim")),
    Column("EVENT", lambda event: _described(event)[0]),
    Column("DETAIL", lambda event: _described(event)[1] or "", wrapped=True),
)
_IMAGES: Sequence[Column[Output]] = (
    Column("IMAGE", lambda output: output.id),
    Column("SIZE", lambda output: f"{output.width}x{output.height}"),
    Column("BYTES", lambda output: decimal(output.bytes), right=True),
    Column("SHA-256", lambda output: output.sha256, wrapped=True),
)


def show(
    id_: Annotated[
        str,
        argument(
            "ID",
            "Id of a job, of an image, such as JOB.0, or of a notification. The first 8 characters or more "
            "are enough where they fit no other.",
            autocompletion=completion.jobs_and_outputs,
        ),
    ],
    *,
    as_json: Json = False,
    connection: Connection,
) -> None:
    """Show a job or an image: the request, the result, and what proves it. Or show a notification."""
    with connection.open() as darkroom:
        if id_.startswith("msg_"):
            notification = darkroom.notification(id_)
            print_json(notification) if as_json else print_facts(_notification_facts(notification))
            return
        output = darkroom.output(id_) if "." in id_ else None
        job = darkroom.job(output.job_id if output else id_)
        outputs = [output] if output else job.outputs
    if as_json:
        print_json(output or job)
        return
    if output:
        print_facts(_image_facts(output))
        out().print()
    print_facts(_job_facts(job))
    if not output and outputs:
        out().print()
        print_table(_IMAGES, outputs)
    out().print()
    print_table(_TIMELINE, job.timeline)


def _image_facts(output: Output) -> Iterator[tuple[str, object]]:
    yield "Image", output.id
    yield "Key", output.key
    yield "SHA-256", output.sha256
    yield "Format", f"{output.media_type}, {output.width}x{output.height}, {decimal(output.bytes)}"
    yield "Seed", output.seed
    yield "Stored", output.stored_at
    if output.missing_since:
        yield "Missing", cell(f"not in the bucket as it was stored, seen {output.missing_since}", "red")


def _notification_facts(one: Notification) -> Iterator[tuple[str, object]]:
    yield "Notification", one.id
    yield "Type", one.type
    yield "State", one.state
    if one.code:
        yield "Last error", cell(f"{one.code}: {one.message}", "red")
    yield "Job", one.job_id
    yield "Host", one.host
    yield "Tries", one.attempts
    yield "Finished", one.at
    yield "Last try", one.tried_at
    if one.next_attempt_at:
        yield "Next try", one.next_attempt_at


def _job_facts(job: Job) -> Iterator[tuple[str, object]]:
    from receiver.schemas.job import proof, shortfall

    request, result = job.request, job.result
    yield "Job", job.id
    yield "Status", status_cell(job.status)
    if job.error:
        yield "Error", cell(f"{job.error.code}: {job.error.message}", "red")
        yield "At fault", job.error.at_fault
    for warning in job.warnings:
        yield "Warning", cell(warning, "yellow")
    if job.missing:
        yield "Missing", cell(f"no longer in the bucket: {', '.join(job.missing)}", "red")
    if proven := proof(job.timeline, job.found_by):
        yield "Proof", proven
    yield "Gateway", job.gateway
    yield "Gateway id", job.gateway_job_id
    yield "Model", _requested_and_reported(request.model, result.model)
    yield "Prompt", request.prompt
    optional = {
        "Avoid": request.negative_prompt,
        "Aspect ratio": request.aspect_ratio,
        "Images": shortfall(job) or request.num_images,
        "Parameters": _as_json(request.params),
        "Tags": _as_json(request.tags),
        "Ignored": ", ".join(request.ignored) or None,
    }
    yield from ((name, value) for name, value in optional.items() if value is not None)
    yield "Seed", _requested_and_reported(request.seed, result.seed)
    if result.credits is not None:
        yield "Credits", f"{result.credits:g}{' (estimated)' if result.credits_estimated else ''}"
    if result.credits_before:
        yield "Earlier", f"{result.credits_before:g} credits for earlier submissions"
    yield "Created", job.created_at
    yield "Updated", job.updated_at


def _requested_and_reported(requested: str | None, reported: str | None) -> str | None:
    if requested is None or requested == reported:
        return reported
    if reported is None:
        return f"{requested} (requested; the gateway reported none)"
    return f"{reported} (requested: {requested})"


def _as_json(values: Mapping[str, Any]) -> str | None:
    return json.dumps(values, ensure_ascii=False) if values else None


_NO_ERROR = ("taken", "asked", "running", "succeeded")
"""Codes of attempts whose message says it all."""


def _described(event: TimelineEvent) -> tuple[str | Text, str | None]:
    """Return the name of an event, and its details."""
    from receiver.schemas.job import Attempted, Delivered, Moved, Notified, Stored

    match event:
        case Moved():
            return status_cell(event.status), None
        case Delivered():
            detail = f"effect: {event.effect or 'none yet'}, body SHA-256 {event.body_sha256[:12]}"
            if event.signature == Verdict.ANSWER:
                return "answer", f"with the images in it, {detail}"
            return "callback", f"signature {event.signature}, {detail}"
        case Attempted():
            many = f" ({event.times} times since {event.first_at})" if event.times > 1 else ""
            detail = event.message if event.code in _NO_ERROR else f"{event.code}: {event.message}"
            return event.step, detail + many
        case Notified():
            detail = f"{event.state}, tries: {event.attempts}, {event.code or 'no error'}"
            return "notified", detail
        case Stored():
            return "stored", event.output
        case _:
            return event.event, _as_json(event.model_extra or {})
