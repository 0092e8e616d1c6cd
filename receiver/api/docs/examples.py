"""Examples for every operation of an OpenAPI document: parameters, bodies, answers, curl and Python.

They are made from the schemas, so a new field has an example without anybody writing one; `WORDS` says what
stands where a schema leaves it open. A test holds every example to its schema, and runs the requests.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from receiver.api.docs.python_examples import PYTHON

Schema = Mapping[str, Any]

JOB = "019a9f3e-5c1d-7b42-9d0e-3f6a8c2b7e51"
DIGEST = "9f2c1b7ad04e5c38e6f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f7"
TIME = "2026-11-22T09:30:00.000Z"
EVENT = "8731-1795000000000"

WORDS: Mapping[str, Any] = {
    "accepted": 128,
    "archived": 121,
    "aspect_ratio": "16:9",
    "at_fault": "gateway",
    "attempts": 1,
    "body_sha256": DIGEST,
    "by": "model",
    "bytes": 482_113,
    "checks": {"ledger": "ok", "archive": "ok", "results": "ok"},
    "code": "gateway_unavailable",
    "credits": 4.0,
    "credits_before": 0.0,
    "cursor": JOB,
    "delivered_at": TIME,
    "details": None,
    "effect": "ready",
    "error": None,
    "failed": 3,
    "failures": 5,
    "field": "prompt",
    "found_by": "callback",
    "gateway": "apiframe",
    "gateway_job_id": "3b241101-e2bb-4255-8caf-4136c566a962",
    "height": 1536,
    "host": "app.example.com",
    "id": JOB,
    "Idempotency-Key": "autumn-0001",
    "If-None-Match": f'"{DIGEST}"',
    "If-Range": f'"{DIGEST}"',
    "ignored": [],
    "job": JOB,
    "job_id": JOB,
    "jobs": 121,
    "jobs_without_credits": 0,
    "key": f"images/2026/11/22/{JOB}/0.png",
    "media_type": "image/png",
    "message": "It answered 503.",
    "model": "imagen-4-fast",
    "model_requested": "imagen-4-fast",
    "name": "apiframe",
    "negative_prompt": None,
    "next_attempt_at": None,
    "next_cursor": None,
    "num_images": 1,
    "number": 1,
    "oldest_unfinished_age_s": 4.2,
    "output": f"{JOB}.0",
    "outputs": 154,
    "params": {},
    "partial": 1,
    "prompt": "a red kite over a grey harbour",
    "q": "red kite",
    "queued": 0,
    "Range": "bytes=0-1023",
    "ready": 1,
    "request_id": "019a9f3e5c1c7d80a1b2c3d4e5f60718",
    "running": 2,
    "seed": None,
    "seed_requested": None,
    "sha256": DIGEST,
    "since": "7d",
    "state": "delivered",
    "status": "archived",
    "step": "send",
    "submission": 1,
    "submitting": 0,
    "tags": {"campaign": "autumn"},
    "times": 1,
    "token": "TOKEN",
    "type": "job.archived",
    "until": "2026-11-22",
    "value": "imagen-4-fast",
    "version_id": None,
    "wait": 60,
    "warnings": {},
    "width": 2816,
}
"""What stands in an example under a name, wherever that fits the schema."""

KNOWN: Mapping[str, Any] = {
    "Facets": {
        "counted": 154,
        "complete": True,
        "gateway": [{"value": "apiframe", "outputs": 154}],
        "model": [{"value": "imagen-4-fast", "outputs": 121}, {"value": "imagen-4", "outputs": 33}],
        "day": [{"value": "2026-11-22", "outputs": 154}],
        "tag": [{"value": "campaign=autumn", "outputs": 40}],
    },
}
"""Whole examples, by the name of their schema, where one word for a name would not do."""

PARAMETERS: Mapping[str, Any] = {"seed": "42", "tag": "campaign", "tags": {"tag.campaign": "autumn"}}
"""The same for parameters, where answers have something else under the name."""

ASKED: Mapping[str, Mapping[str, str]] = {
    "list_jobs": {"status": "failed", "since": "7d"},
    "list_outputs": {"q": "red kite", "tag.campaign": "autumn"},
    "show_job": {"wait": "60"},
    "show_usage": {"by": "model", "since": "7d"},
    "follow_events": {"wait": "60"},
    "list_notifications": {"state": "given_up"},
}
"""What an example request of an operation has behind the `?`."""


def with_examples(document: dict[str, Any]) -> dict[str, Any]:
    """Put examples into a document, in place; answers the document."""
    sampler = _Sampler(document["components"]["schemas"])
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for parameter in operation.get("parameters", ()):
                parameter["example"] = sampler.parameter(parameter)
            contents = [operation.get("requestBody", {}).get("content", {})]
            contents += [answer.get("content", {}) for answer in operation["responses"].values()]
            for content in contents:
                told = content.get("application/json", {})
                if "schema" in told and (example := sampler.sample(told["schema"])) != {}:
                    told["example"] = example
            operation["x-codeSamples"] = list(_code(method.upper(), path, operation))
    return document


class _Sampler:
    """Makes up values that fit a schema."""

    def __init__(self, schemas: Mapping[str, Schema]) -> None:
        self._schemas = schemas

    def parameter(self, parameter: Mapping[str, Any]) -> Any:
        """An example of a parameter's value."""
        name = parameter["name"]
        return PARAMETERS[name] if name in PARAMETERS else self.sample(parameter["schema"], name)

    def sample(self, schema: Schema, name: str = "", *, whole: bool = True) -> Any:
        """A value that fits. `whole`: with the fields that only some answers have."""
        schema = self._resolved(schema)
        if (title := schema.get("title", "")) in KNOWN:
            return KNOWN[title]
        if "const" in schema:
            return schema["const"]
        if name in WORDS and _fits(WORDS[name], schema):
            return WORDS[name]
        for found in (*schema.get("examples", ()), *schema.get("enum", ())):
            return found
        if variants := schema.get("oneOf") or schema.get("anyOf"):
            return None if {"type": "null"} in variants else self.sample(variants[0], name, whole=whole)
        return self._plain(schema, name, whole=whole)

    def _plain(self, schema: Schema, name: str, *, whole: bool) -> Any:
        match schema.get("type"):
            case "object":
                return self._object(schema, whole=whole)
            case "array":
                # A list of several kinds shows each of them.
                kinds = schema["items"].get("oneOf", (schema["items"],))
                return [self.sample(kind, name.removesuffix("s"), whole=False) for kind in kinds]
            case "string":
                return schema.get("default", next((text for text in TEXTS if _fits(text, schema)), TEXTS[0]))
            case "boolean":
                return schema.get("default", True)
            case "integer" | "number":
                return schema.get("default", schema.get("minimum", 1))
        return None if schema.get("type") == "null" else {}

    def _object(self, schema: Schema, *, whole: bool) -> dict[str, Any]:
        needed = schema.get("required", ())
        made = {
            name: self.sample(kind, name, whole=False)
            for name, kind in schema.get("properties", {}).items()
            if whole or name in needed
        }
        if not made and isinstance(more := schema.get("additionalProperties"), Mapping):
            made[WORDS["gateway"]] = self.sample(more, whole=False)
        return made

    def _resolved(self, schema: Schema) -> Schema:
        if "$ref" not in schema:
            return schema
        return self._resolved(self._schemas[schema["$ref"].rpartition("/")[2]])


TEXTS = ("...", JOB, f"{JOB}.0", DIGEST, TIME, EVENT)
JSON_TYPES = {
    str: {"string"},
    int: {"integer", "number"},
    float: {"number"},
    bool: {"boolean"},
    dict: {"object"},
    list: {"array"},
}


def _fits(value: Any, schema: Schema) -> bool:
    """Whether a value fits a schema, as far as examples need to know."""
    if "type" not in schema and (variants := schema.get("anyOf")):
        return any(_fits(value, variant) for variant in variants)
    if schema.get("type") not in JSON_TYPES.get(type(value), {"null"}):
        return False
    if schema.get("format") == "date-time" and value != TIME:
        return False
    return bool(re.search(schema.get("pattern", ""), str(value))) and value in schema.get("enum", [value])


def _code(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    yield {"lang": "Shell", "label": "curl", "source": _curl(method, path, operation)}
    if source := PYTHON.get(operation["operationId"]):
        yield {"lang": "Python", "label": "Python", "source": source}


def _curl(method: str, path: str, operation: Mapping[str, Any]) -> str:
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", quote(str(parameter["example"]), safe=""))
    if asked := ASKED.get(operation["operationId"], {}):
        path += "?" + "&".join(f"{name}={quote(value)}" for name, value in asked.items())
    words = [f'"$DARKROOM_URL{path}"']
    if method != "GET":
        words = [f"-X {method}", *words]
    if {} not in operation.get("security", [{}]):
        words.append('-H "Authorization: Bearer $DARKROOM_TOKEN"')
    answers = operation["responses"]
    if "307" in answers:
        words.append("-L")
    if "text/event-stream" in answers.get("200", {}).get("content", ()):
        words.append("-N")
    if kind := next(
        (kind for kind in answers.get("200", {}).get("content", ()) if kind.startswith("image/")), None
    ):
        words.append(f"-o image.{kind.removeprefix('image/')}")
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body is not None:
        told = json.dumps(body.get("example", {}), indent=2, ensure_ascii=False)
        words += ['-H "Content-Type: application/json"', f"-d {shlex.quote(told)}"]
    return "curl " + " \\\n  ".join(words)
