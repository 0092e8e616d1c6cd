"""Generate the OpenAPI 3.1 document from the served routes and the models that validate."""

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode
from pydantic_core import core_schema
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from receiver.api.docs.page import Reference
from receiver.api.docs.samples import add_examples
from receiver.errors import DarkroomError
from receiver.field_docs import field_docs
from receiver.http.admission import Admission
from receiver.http.query import Tagged
from receiver.http.routing import Answer, Header, Operation, Served, adapter, routes_of
from receiver.schemas.notification import Message, TestMessage
from receiver.schemas.problem import Problem
from receiver.schemas.tags import TAG_FILTER
from receiver.version import installed_version

ABOUT = """\
Darkroom submits prompts to image gateways, and archives the images.

Errors are `application/problem+json` (RFC 9457) with a `code`: 404 for an unknown path, 405 with `Allow` for
an unknown method. `HEAD` works wherever `GET` does. Every response has an `X-Request-Id`: the request's own,
if it had a valid one. More fields may be added to any response."""

JSON = "application/json"
PROBLEM = "application/problem+json"
_TEXT = {"type": "string"}
TOKEN = "token"  # noqa: S105 - the name of the scheme
REQUEST_ID = Header("X-Request-Id", "The id under which the log has this request.")
OF_STATUS = {
    401: (Header("WWW-Authenticate", "`Bearer`."),),
    416: (Header("Content-Range", "`bytes */` and the length of the whole."),),
    429: (Header("Retry-After", "Seconds until the next request is allowed.", int, always=False),),
    503: (Header("Retry-After", "Seconds until another try makes sense.", int),),
}
"""The headers of every error of a status."""

TAGS = {
    "jobs": "A job is one submission to one gateway; it has one prompt and yields images.",
    "outputs": "An output is one archived image of a job. Its id is the job's id, a dot and a number from 0.",
    "facets": "Outputs, counted by what they have in common.",
    "events": "What happens, as it happens.",
    "notifications": "Webhooks to your application, sent when a job finishes.",
    "status": "How many jobs are in each state; every accepted job is accounted for.",
    "usage": "Credits, jobs and images, added up.",
    "models": "The models of the gateways, with what each takes and costs.",
    "gateways": "The image gateways that are configured here.",
    "callbacks": "Where gateways report results; the only route that must be public.",
    "service": "The service itself.",
}
"""The description of each group of operations, in the order of the page; other groups follow."""


class Described:
    """Serve `GET /openapi.json` and `GET /docs`, which hold nothing secret and need no token."""

    def __init__(self, routes: Sequence[Served], admission: Admission, prefix: str) -> None:
        """Describe these routes and those of the description. `prefix`: the path before all others."""
        self.routes = [*routes, *routes_of(admission, self, Reference(self.document))]
        self._prefix = prefix
        self._tokens = not admission.access.open
        self._made: dict[str, Any] | None = None

    @Operation(
        "GET /openapi.json",
        "describe",
        answers={200: Answer(dict[str, Any], "An OpenAPI 3.1 document.")},
        scope=None,
    )
    async def openapi(self, _request: Request) -> Response:
        """Describe this API in OpenAPI 3.1."""
        return JSONResponse(self.document())

    def document(self) -> dict[str, Any]:
        """Return the document, generated at the first call."""
        self._made = self._made or document(self.routes, self._prefix, tokens=self._tokens)
        return self._made


def document(routes: Iterable[Served], prefix: str = "", *, tokens: bool) -> dict[str, Any]:
    """Describe routes. `tokens`: whether those that have a scope ask for a token."""
    writer = _Writer(tokens=tokens)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path_format, {})[route.method.lower()] = writer.operation(route)
    scheme = {"type": "http", "scheme": "bearer", "description": "One of `DARKROOM_API_TOKENS`."}
    described = {
        "openapi": "3.1.0",
        "info": {"title": "Darkroom", "version": installed_version(), "description": ABOUT},
        "servers": [{"url": prefix or "/", "description": "The service that this document came from."}],
        "tags": list(_tags(paths)),
        "paths": paths,
        "webhooks": {"notification": {"post": writer.notification()}},
        "components": {
            "schemas": writer.schemas,
            "headers": writer.headers,
            "securitySchemes": {TOKEN: scheme},
        },
    }
    return add_examples(described)


def _tags(paths: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    used = dict.fromkeys(operation["tags"][0] for path in paths.values() for operation in path.values())
    for name in dict.fromkeys([*(name for name in TAGS if name in used), *used]):
        yield {"name": name, "description": TAGS.get(name, "")}


class _Generator(GenerateJsonSchema):
    """Generate schemas that client generators understand.

    No titles that repeat a name, and `propertyNames` with `additionalProperties` in place of
    `patternProperties`, which they ignore. A field is described by the docstring under it.
    """

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's own signature
        return False

    def model_schema(self, schema: core_schema.ModelSchema) -> dict[str, Any]:
        made = super().model_schema(schema)
        if made.get("additionalProperties") is True:
            del made["additionalProperties"]
        described: Any = schema["cls"]
        for name, sentence in field_docs(described).items():
            made["properties"][name] |= {"description": sentence}
        return made

    def union_schema(self, schema: core_schema.UnionSchema) -> dict[str, Any]:
        if schema.get("mode") == "left_to_right":
            known = schema["choices"][0]
            return self.generate_inner(known[0] if isinstance(known, tuple) else known)
        return super().union_schema(schema)

    def dict_schema(self, schema: core_schema.DictSchema) -> dict[str, Any]:
        made = super().dict_schema(schema)
        for pattern, value in made.pop("patternProperties", {}).items():
            made |= {"propertyNames": {"pattern": pattern}, "additionalProperties": value}
        return made


class _Writer:
    """Describe routes one by one, and collect the schemas and headers that they refer to."""

    def __init__(self, *, tokens: bool) -> None:
        self.schemas: dict[str, Any] = {}
        self.headers: dict[str, Any] = {}
        self._tokens = tokens

    def operation(self, route: Served) -> dict[str, Any]:
        operation = route.operation
        summary, _, more = route.meaning.partition("\n\n")
        made: dict[str, Any] = {"operationId": operation.name, "summary": summary, "tags": [_tag(route)]}
        if operation.scope is not None:
            needed = {TOKEN: [operation.scope]}
            made["security"] = [needed] if self._tokens else [{}, needed]
        needs = "no token" if operation.scope is None else f"a token of scope `{operation.scope}`"
        made["description"] = f"{more}\n\nNeeds {needs}.".strip()
        if parameters := list(self._parameters(route)):
            made["parameters"] = parameters
        if (body := operation.body) is not None:
            content = {JSON: {"schema": self._schema(body.kind, "validation")}}
            made["requestBody"] = {"required": body.needed, "description": body.meaning, "content": content}
        answers = {str(status): self._answer(answer) for status, answer in operation.answers.items()}
        made["responses"] = dict(sorted((answers | self._errors(operation)).items()))
        return made

    def notification(self) -> dict[str, Any]:
        """Describe the webhook to an application."""
        headers = {
            "webhook-id": "The same at each try: ignore an id that you have processed.",
            "webhook-timestamp": "When this try was made, in seconds since 1970.",
            "webhook-signature": "`v1,<base64>` for each secret, by the Standard Webhooks specification.",
        }
        return {
            "operationId": "notify",
            "summary": "Notify an application that its job finished.",
            "description": "At least once, and in order for each job; any response but 2xx is retried. "
            "A test (`POST /v1/notifications/test`) is sent once.",
            "parameters": [
                {"name": name, "in": "header", "required": True, "description": meaning, "schema": _TEXT}
                for name, meaning in headers.items()
            ],
            "requestBody": {
                "required": True,
                "content": {JSON: {"schema": self._schema(Message | TestMessage)}},
            },
            "responses": {
                "2XX": {"description": "Received."},
                "410": {"description": "Stop sending this notification."},
            },
        }

    def _parameters(self, route: Served) -> Iterator[dict[str, Any]]:
        for name, kind in route.operation.path.items():
            yield {"name": name, "in": "path", "required": True, "schema": self._schema(kind)}
        for header in route.operation.headers:
            one = {"name": header.name, "in": "header", "description": header.meaning}
            yield one | {"schema": self._schema(header.kind, "validation")}
        query = self._schema(route.query, "validation", by_name=False)
        for name, schema in query.get("properties", {}).items():
            yield {"name": name, "in": "query", **_apart(schema)}
        if issubclass(route.query, Tagged):
            tags: dict[str, Any] = {"type": "object", "propertyNames": {"pattern": TAG_FILTER}}
            tags["examples"] = [{"tag.campaign": "autumn"}]
            tags["additionalProperties"] = query["additionalProperties"]
            one = {"name": "tags", "in": "query", "description": "Values of tags, each as `tag.<name>`."}
            yield one | {"style": "form", "explode": True, "schema": tags}

    def _answer(self, answer: Answer) -> dict[str, Any]:
        made = self._response(answer.meaning, *answer.headers)
        if answer.kind is bytes:
            made["content"] = {media_type: {} for media_type in answer.media_types}
        elif answer.kind is not None:
            schema = {"schema": self._schema(answer.kind)}
            made["content"] = dict.fromkeys(answer.media_types, schema)
        return made

    def _errors(self, operation: Operation) -> dict[str, Any]:
        by_status: dict[int, list[type[DarkroomError]]] = {}
        for error in sorted(operation.every_error(), key=lambda error: error.code):
            by_status.setdefault(error.status, []).append(error)
        return {str(status): self._error(status, errors) for status, errors in by_status.items()}

    def _error(self, status: int, errors: Sequence[type[DarkroomError]]) -> dict[str, Any]:
        meanings = [f"`{error.code}`: {_meaning(error)}" for error in errors]
        made = self._response("\n\n".join(meanings), *OF_STATUS.get(status, ()))
        narrowed = {"status": {"const": status}, "code": {"enum": [error.code for error in errors]}}
        schema = self._schema(Problem) | {"properties": narrowed}
        return made | {"content": {PROBLEM: {"schema": schema}}}

    def _response(self, meaning: str, *headers: Header) -> dict[str, Any]:
        return {
            "description": meaning,
            "headers": {header.name: self._header(header) for header in (*headers, REQUEST_ID)},
        }

    def _header(self, header: Header) -> dict[str, Any]:
        schema = self._schema(header.kind)
        made = {"description": header.meaning, "required": header.always, "schema": schema}
        # Two routes may mean different things by one header, `Location` for instance.
        if self.headers.setdefault(header.name, made) != made:
            return made
        return {"$ref": f"#/components/headers/{header.name}"}

    def _schema(
        self, kind: Any, mode: JsonSchemaMode = "serialization", *, by_name: bool = True
    ) -> dict[str, Any]:
        """Return the schema of a type; a named one is collected and referred to."""
        made, more = TypeAdapter.json_schemas(
            [(0, mode, adapter(kind))],
            ref_template="#/components/schemas/{model}",
            schema_generator=_Generator,
        )
        schema, named = made[0, mode], more.get("$defs", {})
        name = schema.get("$ref", "").rpartition("/")[2]
        if not by_name and name:
            schema = named.pop(name)
        for name, one in named.items():
            if self.schemas.setdefault(name, one) != one:
                raise ValueError(f"two types of the API are called {name}")
        return schema


def _tag(route: Served) -> str:
    folders = [part for part in route.path_format.split("/")[1:] if part != "v1"]
    return folders[0] if len(folders) > 1 or route.path_format.startswith("/v1/") else "service"


def _meaning(error: type[DarkroomError]) -> str:
    if error is DarkroomError:
        return "A bug in Darkroom; the log has it under the `X-Request-Id`."
    return (inspect.getdoc(error) or "").partition("\n\n")[0]


def _apart(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a property as a parameter: description beside schema, and no null, which no query can hold."""
    schema = dict(schema)
    description = schema.pop("description", "")
    if {"type": "null"} in schema.get("anyOf", ()):
        (value,) = [one for one in schema["anyOf"] if one.get("type") != "null"]
        schema = value | {name: schema[name] for name in ("examples",) if name in schema}
    return {"description": description, "schema": schema}
