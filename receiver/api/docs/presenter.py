"""An OpenAPI document, put into the order and the words in which its page tells it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from markdown_it import MarkdownIt
from markupsafe import Markup, escape

Schema = Mapping[str, Any]
BOUNDS = (
    ("minimum", "maximum", ""),
    ("minLength", "maxLength", " characters"),
    ("minItems", "maxItems", " entries"),
    ("minProperties", "maxProperties", " names"),
)
PATTERNS = {r"^[^\x00]*$": "no NUL character"}
"""Patterns that are plainer in words."""
_markdown = MarkdownIt("commonmark", {"html": False})


def prose(text: str) -> Markup:
    """CommonMark as HTML; what looks like HTML in it is shown as it is written."""
    return Markup(_markdown.render(text))  # noqa: S704 - the renderer escapes what it is given


@dataclass(frozen=True, slots=True)
class Field:
    """A parameter, a header, or a field of a body: its kind and its bounds in words."""

    name: str
    kind: Markup
    meaning: Markup
    bounds: tuple[Markup, ...]
    needed: bool
    place: str = ""
    """Where a parameter goes: `path`, `query` or `header`."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer or an error: its status, when it comes, and what is in it."""

    status: str
    meaning: Markup
    content: Markup
    headers: tuple[Field, ...]
    example: str
    codes: tuple[str, ...]
    """The `code` that its body may have, where it is an error."""


@dataclass(frozen=True, slots=True)
class Asking:
    """The body that an operation takes."""

    meaning: Markup
    kind: Markup
    fields: tuple[Field, ...]
    needed: bool


@dataclass(frozen=True, slots=True)
class Told:
    """One operation."""

    name: str
    method: str
    path: str
    summary: Markup
    more: Markup
    parameters: tuple[Field, ...]
    body: Asking | None
    answers: tuple[Reply, ...]
    errors: tuple[Reply, ...]
    code: tuple[Mapping[str, str], ...]


@dataclass(frozen=True, slots=True)
class Group:
    """The operations of one tag."""

    name: str
    meaning: Markup
    operations: tuple[Told, ...]


@dataclass(frozen=True, slots=True)
class Kind:
    """One named schema. `bounds` are those of one without fields."""

    name: str
    meaning: Markup
    kind: Markup
    bounds: tuple[Markup, ...]
    fields: tuple[Field, ...]
    answered: bool
    """Whether it is something that the service answers; what it takes has no fields but those named."""


class Reading:
    """Reads a document that `receiver.api.openapi` made."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._schemas: Mapping[str, Schema] = document["components"]["schemas"]
        self._everywhere = self._common()

    @property
    def about(self) -> Markup:
        """What the document says of the whole."""
        return prose(self._document["info"]["description"])

    def every(self) -> Iterator[Field]:
        """The headers that every answer has."""
        yield from self._headers({name: {"$ref": f"/{name}"} for name in sorted(self._everywhere)})

    def _common(self) -> set[str]:
        operations = [one for methods in self._document["paths"].values() for one in methods.values()]
        answers = [answer for operation in operations for answer in operation["responses"].values()]
        return set.intersection(*(set(answer["headers"]) for answer in answers))

    def groups(self) -> Iterator[Group]:
        """The operations by tag, in the order of the document's tags."""
        by_tag: dict[str, list[Told]] = {tag["name"]: [] for tag in self._document["tags"]}
        for path, methods in self._document["paths"].items():
            for method, operation in methods.items():
                by_tag[operation["tags"][0]].append(self._operation(method.upper(), path, operation))
        for tag in self._document["tags"]:
            yield Group(tag["name"], prose(tag.get("description", "")), tuple(by_tag[tag["name"]]))

    def kinds(self) -> Iterator[Kind]:
        """The named schemas, by name."""
        for name, schema in sorted(self._schemas.items()):
            meaning = prose(schema.get("description", ""))
            answered = schema.get("additionalProperties") is not False
            fields = tuple(self._fields(schema))
            yield Kind(name, meaning, kind(schema), tuple(bounds(schema)), fields, answered)

    def _operation(self, method: str, path: str, operation: Mapping[str, Any]) -> Told:
        replies = {status: self._reply(status, told) for status, told in operation["responses"].items()}
        return Told(
            name=operation["operationId"],
            method=method,
            path=path,
            summary=_line(operation["summary"]),
            more=prose(operation.get("description", "")),
            parameters=tuple(self._parameter(one) for one in operation.get("parameters", ())),
            body=self._body(operation["requestBody"]) if "requestBody" in operation else None,
            answers=tuple(reply for reply in replies.values() if not reply.codes),
            errors=tuple(reply for reply in replies.values() if reply.codes),
            code=tuple(operation.get("x-codeSamples", ())),
        )

    def _parameter(self, told: Mapping[str, Any]) -> Field:
        schema = told["schema"]
        meaning = prose(told.get("description", ""))
        needed = told.get("required", False)
        return Field(told["name"], kind(schema), meaning, tuple(bounds(schema)), needed, told["in"])

    def _body(self, told: Mapping[str, Any]) -> Asking:
        (content,) = told["content"].values()
        schema = content["schema"]
        fields = tuple(self._fields(self._resolved(schema)))
        return Asking(prose(told["description"]), kind(schema), fields, told["required"])

    def _reply(self, status: str, told: Mapping[str, Any]) -> Reply:
        contents = told.get("content", {})
        content: Mapping[str, Any] = next(iter(contents.values()), {})
        codes = content.get("schema", {}).get("properties", {}).get("code", {}).get("enum", ())
        return Reply(
            status=status,
            meaning=prose(told["description"]),
            content=_content(contents),
            headers=tuple(one for one in self._headers(told["headers"]) if one.name not in self._everywhere),
            example=_shown(content["example"]) if "example" in content else "",
            codes=tuple(codes),
        )

    def _headers(self, told: Mapping[str, Any]) -> Iterator[Field]:
        for name, one in told.items():
            if reference := one.get("$ref"):
                one = self._document["components"]["headers"][reference.rpartition("/")[2]]  # noqa: PLW2901
            schema = one["schema"]
            yield Field(name, kind(schema), _line(one["description"]), tuple(bounds(schema)), one["required"])

    def _fields(self, schema: Schema) -> Iterator[Field]:
        needed = schema.get("required", ())
        for name, one in schema.get("properties", {}).items():
            meaning = prose(one.get("description", ""))
            yield Field(name, kind(one), meaning, tuple(bounds(one)), name in needed)

    def _resolved(self, schema: Schema) -> Schema:
        return self._schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def kind(schema: Schema) -> Markup:
    """The type of a schema in words, with links to those that have a name."""
    if reference := schema.get("$ref"):
        name = reference.rpartition("/")[2]
        return Markup('<a href="#schema-{0}">{0}</a>').format(name)
    if variants := schema.get("oneOf") or ("type" not in schema and schema.get("anyOf")):
        return Markup(" or ").join(dict.fromkeys(kind(variant) for variant in variants))
    match schema.get("type"):
        case "array":
            return Markup("array of {}").format(kind(schema["items"]))
        case "object":
            if isinstance(values := schema.get("additionalProperties"), Mapping):
                return Markup("object of {}").format(kind(values))
    name = schema.get("type", "anything")
    return escape(f"{name} ({schema['format']})" if "format" in schema else name)


def bounds(schema: Schema) -> Iterator[Markup]:
    """What a value is held to beside its type, each in a few words."""
    if "const" in schema:
        yield _code("always", schema["const"])
    if "enum" in schema:
        yield Markup("one of ") + Markup(", ").join(_literal(value) for value in schema["enum"])
    for least, most, of_what in BOUNDS:
        if words := _range(schema.get(least), schema.get(most)):
            yield escape(words + of_what)
    if pattern := schema.get("pattern"):
        yield escape(PATTERNS[pattern]) if pattern in PATTERNS else _code("matches", pattern)
    if pattern := schema.get("propertyNames", {}).get("pattern"):
        yield _code("names match", pattern)
    for one in schema.get("anyOf", ()):
        yield from bounds(one)
    if "items" in schema:
        yield from bounds(schema["items"])
    if schema.get("default") is not None:
        yield Markup("default ") + _literal(schema["default"])


def _range(least: Any, most: Any) -> str:
    if least is not None and most is not None:
        return f"{least} to {most}"
    if least is not None:
        return f"at least {least}"
    return "" if most is None else f"at most {most}"


def _content(contents: Mapping[str, Any]) -> Markup:
    """Which media types an answer may have, and what is in them."""
    if not contents:
        return Markup("no body")
    schema = next(iter(contents.values())).get("schema")
    types = Markup(", ").join(Markup("<code>{}</code>").format(one) for one in contents)
    return types if schema is None else Markup("{} in {}").format(kind(schema), types)


def _shown(example: Any) -> str:
    return json.dumps(example, indent=2, ensure_ascii=False)


def _literal(value: Any) -> Markup:
    shown = value if isinstance(value, str) and value else json.dumps(value)
    return Markup("<code>{}</code>").format(shown)


def _code(words: str, value: Any) -> Markup:
    return Markup("{} {}").format(words, _literal(value))


def _line(text: str) -> Markup:
    """One line of CommonMark, without a paragraph around it."""
    return Markup(_markdown.renderInline(text))  # noqa: S704 - the renderer escapes what it is given
