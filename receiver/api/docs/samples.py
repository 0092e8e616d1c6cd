"""Write the examples of an OpenAPI document: values from its schemas, and code with curl and Python."""

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from receiver.schemas.types import JOB_EXAMPLE

Schema = Mapping[str, Any]

QUERIES: Mapping[str, Mapping[str, str]] = {
    "list_jobs": {"status": "failed", "since": "7d"},
    "list_outputs": {"q": "red kite", "tag.campaign": "autumn"},
    "show_job": {"wait": "60"},
    "show_usage": {"by": "model", "since": "7d"},
    "follow_events": {"wait": "60"},
    "list_notifications": {"state": "failed"},
}
"""The query of an operation's curl example."""


def add_examples(document: dict[str, Any]) -> dict[str, Any]:
    """Put examples into a document, in place, and return it."""
    schemas = document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for parameter in operation.get("parameters", ()):
                parameter["example"] = example(parameter["schema"], schemas)
            contents = [operation.get("requestBody", {}).get("content", {})]
            contents += [response.get("content", {}) for response in operation["responses"].values()]
            for content in contents:
                found = content.get("application/json", {})
                if "schema" in found and (value := example(found["schema"], schemas)) != {}:
                    found["example"] = value
            operation["x-codeSamples"] = list(_code(method.upper(), path, operation))
    return document


def example(schema: Schema, schemas: Mapping[str, Schema], *, whole: bool = True) -> Any:
    """Return a value that fits a schema. `whole`: with the fields that are not always there."""
    for found in (*schema.get("examples", ()), *schema.get("enum", ())):
        return found
    if "const" in schema:
        return schema["const"]
    if reference := schema.get("$ref"):
        return example(schemas[reference.rpartition("/")[2]], schemas, whole=whole)
    if variants := schema.get("oneOf") or schema.get("anyOf"):
        return None if {"type": "null"} in variants else example(variants[0], schemas, whole=whole)
    match schema.get("type"):
        case "object":
            needed, fields = schema.get("required", ()), schema.get("properties", {})
            names = [name for name in fields if whole or name in needed]
            made = {name: example(fields[name], schemas, whole=False) for name in names}
            if not made and isinstance(more := schema.get("additionalProperties"), Mapping):
                made["apiframe"] = example(more, schemas)
            return made
        case "array":
            kinds = schema["items"].get("oneOf", (schema["items"],))
            return [example(kind, schemas, whole=False) for kind in kinds]
        case "string":
            return "..."
        case "boolean":
            return schema.get("default", True)
        case "integer" | "number":
            return schema.get("default", schema.get("minimum", 1))
    return None if schema.get("type") == "null" else {}


def _code(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    yield {"lang": "Shell", "label": "curl", "source": _curl(method, path, operation)}
    if source := PYTHON.get(operation["operationId"]):
        yield {"lang": "Python", "label": "Python", "source": source}


def _curl(method: str, path: str, operation: Mapping[str, Any]) -> str:
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", quote(str(parameter["example"]), safe=""))
    if query := QUERIES.get(operation["operationId"]):
        path += "?" + "&".join(f"{name}={quote(value)}" for name, value in query.items())
    words = [f'"$DARKROOM_URL{path}"']
    if method != "GET":
        words = [f"-X {method}", *words]
    if {} not in operation.get("security", [{}]):
        words.append('-H "Authorization: Bearer $DARKROOM_TOKEN"')
    if "307" in operation["responses"]:
        words.append("-L")
    types = operation["responses"].get("200", {}).get("content", ())
    if "text/event-stream" in types:
        words.append("-N")
    words += [f"-o image.{kind.removeprefix('image/')}" for kind in types if kind.startswith("image/")][:1]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body is not None:
        sent = json.dumps(body.get("example", {}), indent=2, ensure_ascii=False)
        words += ['-H "Content-Type: application/json"', f"-d {shlex.quote(sent)}"]
    return "curl " + " \\\n  ".join(words)


PRELUDE = """\
import os
from receiver.client import Darkroom

darkroom = Darkroom(
    os.environ["DARKROOM_URL"],
    os.environ.get("DARKROOM_TOKEN"),
)"""
"""The beginning of every Python example."""

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
    "submit_batch": """\
kites = ["a red kite", "a blue kite"]
results = darkroom.submit_batch(
    [
        {
            "gateway": "apiframe",
            "model": "imagen-4-fast",
            "prompt": prompt,
            "idempotency_key": f"kites-{number}",
        }
        for number, prompt in enumerate(kites)
    ]
)
for result in results:
    print(result.job.id if result.job else result.problem.detail)""",
    "list_jobs": """\
for job in darkroom.jobs(status="failed", since="7d"):
    print(job.id, job.error)""",
    "show_job": f"""\
job = darkroom.job("{JOB_EXAMPLE}")
job = darkroom.wait(job.id, timeout_s=120)
print(job.status, job.outputs)""",
    "cancel_job": f"""\
job = darkroom.cancel("{JOB_EXAMPLE}")
print(job.status)""",
    "retry_job": f"""\
job = darkroom.retry("{JOB_EXAMPLE}")
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
for one in darkroom.notifications(state="failed"):
    print(one.id, one.host, one.message)""",
    "show_notification": f"""\
one = darkroom.notification("msg_{JOB_EXAMPLE}_1")
print(one.state, one.attempts, one.message)""",
    "test_notification": """\
result = darkroom.test_notification("https://app.example.com/webhooks/darkroom")
print(result.status, result.message, result.fix)""",
    "replay_notification": """\
for one in darkroom.notifications(state="failed"):
    darkroom.replay(one.id)""",
    "show_record": f"""\
record = darkroom.record("{JOB_EXAMPLE}.0")
print(record["schema"], record["seed"])""",
    "show_output": f"""\
output = darkroom.output("{JOB_EXAMPLE}.0")
print(output.prompt, output.seed)""",
    "fetch_image": f"""\
output = darkroom.output("{JOB_EXAMPLE}.0")
# a file whose SHA-256 was verified
path = darkroom.download(output, "pictures")
# a link that works for a while, without a token
link = darkroom.link(output.id)
# the bytes, piece by piece
with darkroom.image(output.id) as pieces:
    print(sum(len(piece) for piece in pieces))""",
    "fetch_thumbnail": f"""\
small = darkroom.thumbnail("{JOB_EXAMPLE}.0")
print(len(small), "bytes of WebP")""",
    "show_status": """\
status = darkroom.status()
print(status.accepted, status.balanced)""",
    "show_usage": """\
usage = darkroom.usage(by="model", since="7d")
for spent in usage.groups:
    print(spent.value, spent.credits, spent.jobs)
print(usage.total)""",
    "list_models": """\
for one in darkroom.models("api-in-one").models:
    print(one.model, one.estimate, one.takes)""",
    "show_gateways": """\
for gateway in darkroom.gateways().gateways:
    print(gateway.name, gateway.circuit)""",
}
"""A Python example for each operation that the client has a method for."""
