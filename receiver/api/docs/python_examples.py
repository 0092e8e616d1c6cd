"""How each operation is asked for with the Python client, `receiver.client.client`."""

from __future__ import annotations

from collections.abc import Mapping

PRELUDE = """\
import os
from receiver.client import Darkroom

darkroom = Darkroom(
    os.environ["DARKROOM_URL"],
    os.environ.get("DARKROOM_TOKEN"),
)"""
"""What every example begins with."""

_ID = "019a9f3e-5c1d-7b42-9d0e-3f6a8c2b7e51"

PYTHON: Mapping[str, str] = {
    "submit_job": """\
job = darkroom.submit(
    gateway="apiframe",
    model="imagen-4-fast",
    prompt="a red kite over a grey harbour",
    aspect_ratio="16:9",
    tags={"campaign": "autumn"},
    idempotency_key="autumn-0001",
)
print(job.id, job.status)""",
    "list_jobs": """\
for job in darkroom.jobs(status="failed", since="7d"):
    print(job.id, job.error)""",
    "show_job": f"""\
job = darkroom.job("{_ID}")
job = darkroom.wait(job.id, timeout_s=120)
print(job.status, job.outputs)""",
    "retry_job": f"""\
job = darkroom.retry("{_ID}")
print(job.status)""",
    "list_outputs": """\
autumn = {"tag.campaign": "autumn"}
for output in darkroom.search("red kite since:7d", **autumn):
    print(output.id, output.sha256)""",
    "count_facets": """\
facets = darkroom.facets("since:7d")
for model in facets.model:
    print(model.value, model.outputs)""",
    "follow_events": """\
for event in darkroom.events(since="0"):
    print(event.id, event.kind, event.data)
    if event.kind == "output":
        break""",
    "list_notifications": """\
for told in darkroom.notifications(state="given_up"):
    print(told.id, told.host, told.message)""",
    "replay_notification": """\
for told in darkroom.notifications(state="given_up"):
    darkroom.replay(told.id)""",
    "show_record": f"""\
record = darkroom.record("{_ID}.0")
print(record["schema"], record["seed"])""",
    "show_output": f"""\
output = darkroom.output("{_ID}.0")
print(output.prompt, output.seed)""",
    "fetch_image": f"""\
output = darkroom.output("{_ID}.0")
# a file whose SHA-256 was compared
path = darkroom.download(output, "pictures")
# a link that anybody may follow for a while
link = darkroom.link(output.id)
# the bytes, piece by piece
with darkroom.image(output.id) as pieces:
    print(sum(len(piece) for piece in pieces))""",
    "fetch_thumbnail": f"""\
small = darkroom.thumbnail("{_ID}.0")
print(len(small), "bytes of WebP")""",
    "show_status": """\
status = darkroom.status()
print(status.total.accepted, status.total.balanced)""",
    "show_usage": """\
usage = darkroom.usage(by="model", since="7d")
for model, spent in usage.groups:
    print(model, spent.credits, spent.jobs)
print(usage.total)""",
    "show_gateways": """\
print(darkroom.gateways())""",
}
"""An example for each operation that the client has a method for."""
