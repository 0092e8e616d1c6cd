"""Serve `GET /docs`: the OpenAPI document and guides as one page of plain HTML, without scripts."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache, cached_property
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from receiver.api.docs.samples import PRELUDE
from receiver.errors import DarkroomError
from receiver.http.routing import Answer, Operation

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The page needs its stylesheet only, so a browser may fetch nothing else."""
STYLE_KEPT = "max-age=300"

TOPICS = files("receiver") / "api" / "docs" / "topics"
"""A Markdown file for each guide; `darkroom help` prints the same texts."""
GUIDES = ("search", "images", "notifications", "events", "life", "gateways")
"""The guides, in the order in which they are read."""

Schema = Mapping[str, Any]
BOUNDS = (
    ("minimum", "maximum", ""),
    ("minLength", "maxLength", " characters"),
    ("minItems", "maxItems", " entries"),
    ("minProperties", "maxProperties", " names"),
)
PATTERNS = {r"^[^\x00]*$": "no NUL character"}
"""Patterns that are plainer in words."""


class Reference:
    """The page. It shows what `/openapi.json` shows, so it needs no token."""

    def __init__(self, document: Callable[[], Mapping[str, Any]]) -> None:
        """`document` returns the OpenAPI document; it is called at the first request for the page."""
        self._document = document

    @Operation(
        "GET /docs",
        "read_reference",
        answers={200: Answer(str, "The page.", media_types=("text/html",))},
        scope=None,
    )
    async def docs(self, _request: Request) -> Response:
        """Show this reference."""
        page = await run_in_threadpool(lambda: self._page)
        return Response(page, media_type="text/html", headers={"content-security-policy": POLICY})

    @Operation(
        "GET /docs.css",
        "style_reference",
        answers={200: Answer(str, "The stylesheet.", media_types=("text/css",))},
        scope=None,
    )
    async def style(self, _request: Request) -> Response:
        """Return the stylesheet of `/docs`."""
        return Response(self._style, media_type="text/css", headers={"cache-control": STYLE_KEPT})

    @cached_property
    def _page(self) -> bytes:
        return render(self._document()).encode()

    @cached_property
    def _style(self) -> bytes:
        return (files("receiver.api.docs") / "style.css").read_bytes()


def render(document: Mapping[str, Any]) -> str:
    """Return an OpenAPI document and the guides as an HTML page."""
    from jinja2 import Environment, PackageLoader

    templates = Environment(
        loader=PackageLoader("receiver.api.docs", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters |= {"prose": prose, "line": line, "kind": kind, "bounds": bounds, "shown": _shown}
    groups: dict[str, list[Any]] = {tag["name"]: [] for tag in document["tags"]}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            groups[operation["tags"][0]].append((method.upper(), path, operation))
    operations = [operation for group in groups.values() for _, _, operation in group]
    responses = [response for operation in operations for response in operation["responses"].values()]
    return templates.get_template("page.html").render(
        document=document,
        base=document["servers"][0]["url"].rstrip("/"),
        groups=groups,
        guides={name: _guide(name) for name in GUIDES},
        errors=list(_errors()),
        headers=document["components"]["headers"],
        everywhere=sorted(set.intersection(*(set(response["headers"]) for response in responses))),
        codes=_codes,
        prelude=PRELUDE,
    )


def _guide(name: str) -> tuple[str, Markup]:
    """Return the short title of a guide, and its text."""
    text = re.sub(r"<!--.*?-->", "", (TOPICS / f"{name}.md").read_text(encoding="utf-8"))
    return text.partition("\n")[0].removeprefix("# ").partition(":")[0], prose(text, below=1)


@cache
def _markdown() -> MarkdownIt:
    """Return the renderer. It and Jinja are loaded by the first request for the page."""
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable("table")


def prose(text: str, below: int = 0) -> Markup:
    """Render CommonMark with tables as HTML, headings moved down by `below`; HTML in it is escaped."""
    tokens = _markdown().parse(text)
    for token in tokens:
        if token.type.startswith("heading"):
            token.tag = f"h{int(token.tag[1:]) + below}"
    html = _markdown().renderer.render(tokens, _markdown().options, {})
    # A block that scrolls must be reachable by keyboard.
    return Markup(html.replace("<pre>", '<pre tabindex="0">'))  # noqa: S704 - it is escaped


def line(text: str) -> Markup:
    """Render one line of CommonMark, without a paragraph around it."""
    return Markup(_markdown().renderInline(text))  # noqa: S704 - the renderer escapes what it is given


def kind(schema: Schema) -> Markup:
    """Return the type of a schema in words, with links to named ones."""
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


def bounds(schema: Schema) -> Markup:
    """Return what a value must hold to beside its type, in a few words."""
    return Markup("; ").join(_bounds(schema))


def _bounds(schema: Schema) -> Iterator[Markup]:
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
    for one in (*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else ())):
        yield from _bounds(one)
    if schema.get("default") is not None:
        yield _code("default", schema["default"])


def _range(least: Any, most: Any) -> str:
    if least is None:
        return "" if most is None else f"at most {most}"
    return f"at least {least}" if most is None else f"{least} to {most}"


def _literal(value: Any) -> Markup:
    return Markup("<code>{}</code>").format(value if isinstance(value, str) and value else json.dumps(value))


def _code(words: str, value: Any) -> Markup:
    return Markup("{} {}").format(words, _literal(value))


def _shown(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _codes(response: Mapping[str, Any]) -> list[str]:
    """Return the `code` that an error may have; empty for a response that is no error."""
    content: Mapping[str, Any] = next(iter(response.get("content", {}).values()), {})
    codes: list[str] = content.get("schema", {}).get("properties", {}).get("code", {}).get("enum", [])
    return codes


def _errors() -> Iterator[tuple[str, str, str]]:
    """Return code, meaning and fault of each error that has a code of its own, by the tree of errors."""
    ahead: list[type[DarkroomError]] = list(DarkroomError.__subclasses__())
    while ahead:
        error = ahead.pop(0)
        ahead = [*error.__subclasses__(), *ahead]
        if error.code != DarkroomError.code:
            yield error.code, (inspect.getdoc(error) or "").partition("\n\n")[0], error.at_fault
