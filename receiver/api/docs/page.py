"""`GET /docs`: the OpenAPI document as one page of plain HTML, with one stylesheet and no script."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from receiver.api.docs.presenter import Reading
from receiver.api.docs.python_examples import PRELUDE
from receiver.http.query import NoQuery
from receiver.http.routing import Answer, Operation, Served

DOCS = Operation(
    "GET /docs",
    "read_reference",
    query=NoQuery,
    answers={200: Answer(str, "The page.", media_types=("text/html",))},
)
STYLE = Operation(
    "GET /docs.css",
    "style_reference",
    query=NoQuery,
    answers={200: Answer(str, "The stylesheet.", media_types=("text/css",))},
)

POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The page needs its stylesheet and nothing else, so a browser is told to fetch nothing else."""
STYLE_KEPT = "max-age=300"


class Reference:
    """The page. It says what `/openapi.json` says, so whoever reaches the service may read it."""

    def __init__(self, document: Callable[[], Mapping[str, Any]]) -> None:
        """`document` answers the OpenAPI document; it is asked for when somebody wants the page."""
        self._document = document

    def routes(self) -> list[Served]:
        """The routes of this part."""
        return [Served(DOCS, self.docs), Served(STYLE, self.style)]

    async def docs(self, _request: Request) -> Response:
        """Show this reference."""
        page = await run_in_threadpool(lambda: self._page)
        return Response(page, media_type="text/html", headers={"content-security-policy": POLICY})

    async def style(self, _request: Request) -> Response:
        """Answer the stylesheet of `/docs`."""
        return Response(self._style, media_type="text/css", headers={"cache-control": STYLE_KEPT})

    @cached_property
    def _page(self) -> bytes:
        document = self._document()
        reading = Reading(document)
        templates = Environment(
            loader=PackageLoader("receiver.api.docs", "."),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        page = templates.get_template("page.html").render(
            info=document["info"],
            about=reading.about,
            every=list(reading.every()),
            groups=list(reading.groups()),
            kinds=list(reading.kinds()),
            prelude=PRELUDE,
        )
        return page.encode()

    @cached_property
    def _style(self) -> bytes:
        return (files("receiver.api.docs") / "style.css").read_bytes()
