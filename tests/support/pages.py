"""A visitor of the gallery for tests: signs in, reads pages as a tree, and sends their forms."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser

import httpx

SHAPES = ("circle", "line", "path", "polygon", "polyline", "rect")
VOID = frozenset({"br", "col", "hr", "img", "input", "link", "meta", "use", "wbr", *SHAPES})


@dataclass(repr=False)
class Node:
    """An element: its attributes, what is in it, and its text."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)
    pieces: list[str | Node] = field(default_factory=list)

    def all(self, tag: str, **wanted: str) -> list[Node]:
        """Every element of this kind within; `id_="x"`, `class_="row"` (one of its classes), `href="/"`."""
        return [node for node in self.within() if node.tag == tag and node.fits(wanted)]

    def one(self, tag: str, **wanted: str) -> Node:
        found = self.all(tag, **wanted)
        assert len(found) == 1, f"{len(found)} of {tag} {wanted}"
        return found[0]

    def fits(self, wanted: Mapping[str, str]) -> bool:
        for name, value in wanted.items():
            has = self.attributes.get(name.rstrip("_").replace("_", "-"))
            if has is None or (value not in has.split() if name == "class_" else has != value):
                return False
        return True

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts()).split())

    @property
    def raw(self) -> str:
        return "".join(self.texts())

    def within(self) -> Iterator[Node]:
        for child in self.children:
            yield child
            yield from child.within()

    def texts(self) -> Iterator[str]:
        for piece in self.pieces:
            if isinstance(piece, str):
                yield piece
            else:
                yield from piece.texts()


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("root")
        self._open = [self.root]

    def handle_decl(self, decl: str) -> None:
        assert decl.lower() == "doctype html"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {name: value or "" for name, value in attrs})
        assert len(node.attributes) == len(attrs), f"an attribute of <{tag}> is there twice: {attrs}"
        self._open[-1].children.append(node)
        self._open[-1].pieces.append(node)
        if tag not in VOID:
            self._open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID, f"<{tag}/> is not closed"
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert tag not in VOID, f"</{tag}> closes nothing"
        assert self._open[-1].tag == tag, f"<{self._open[-1].tag}> is closed by </{tag}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self._open[-1].pieces.append(data)


def read(html: str) -> Node:
    """Read a page, whose elements must all be closed in their order."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert reader._open == [reader.root], [node.tag for node in reader._open]
    return reader.root


def check(tree: Node) -> None:
    """Hold a page to its policy: nothing is inline or from another host, and every reference has its end."""
    ids = [node.attributes["id"] for node in tree.within() if "id" in node.attributes]
    assert len(ids) == len(set(ids)), f"an id is there twice: {sorted(ids)}"
    for node in tree.within():
        assert node.tag != "style"
        assert "style" not in node.attributes, "the policy allows no styles in attributes"
        assert not any(name.startswith("on") for name in node.attributes), node.attributes
        if node.tag == "script":
            assert node.attributes["src"].startswith("/static/")
            assert not node.raw.strip()
        for name in ("src", "href", "action", "srcset"):
            # Whatever a prompt or a tag says.
            assert re.match(r"(/(?!/)|#|$)", node.attributes.get(name, "")), node.attributes
        for name in ("aria-labelledby", "aria-describedby", "for"):
            assert set(node.attributes.get(name, "").split()) <= set(ids), node.attributes


@dataclass(repr=False)
class Shown:
    status: int
    html: str
    tree: Node
    answer: httpx.Response

    def fields(self, form: str) -> dict[str, str]:
        """What the form with this id would send as it is."""
        found = self.tree.one("form", id_=form)
        values = {one.attributes["name"]: one.attributes.get("value", "") for one in _inputs(found)}
        values |= {one.attributes["name"]: one.raw.removeprefix("\n") for one in found.all("textarea")}
        for one in found.all("select"):
            chosen = [option for option in one.all("option") if "selected" in option.attributes]
            values[one.attributes["name"]] = (chosen or one.all("option"))[0].attributes["value"]
        return values


def _inputs(form: Node) -> list[Node]:
    # A box that is not ticked sends nothing.
    boxes = ("checkbox", "radio")
    return [
        one
        for one in form.all("input")
        if one.attributes.get("type") not in boxes or "checked" in one.attributes
    ]


@dataclass
class Visitor:
    http: httpx.Client

    def get(self, path: str, **query: str) -> Shown:
        """Load a page; every page must be whole, and follow the policy it is served under."""
        return self._shown(self.http.get(path, params=query or None, headers={"accept": "text/html"}))

    def send(self, path: str, fields: Mapping[str, str]) -> Shown:
        """Send a form, and answer what came, without going where it leads."""
        return self._shown(self.http.post(path, data=dict(fields), headers={"sec-fetch-site": "same-origin"}))

    def token(self) -> str:
        """The form token of this visitor's session."""
        (meta,) = self.get("/status").tree.all("meta", name="csrf-token")
        return meta.attributes["content"]

    def _shown(self, answer: httpx.Response) -> Shown:
        html = answer.text if "html" in answer.headers.get("content-type", "") else ""
        tree = read(html)
        check(tree)
        return Shown(answer.status_code, html, tree, answer)


@contextmanager
def visiting(url: str, token: str | None = None) -> Iterator[Visitor]:
    """Visit a gallery, signed in with a token if there is one."""
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as http:
        visitor = Visitor(http)
        if token is not None:
            answer = http.post("/sign-in", data={"token": token}, headers={"sec-fetch-site": "same-origin"})
            assert answer.status_code == 303, answer.text
        yield visitor
