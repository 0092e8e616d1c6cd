"""A visitor of the gallery for tests: signs in, reads pages as a tree, and sends their forms."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser

import httpx

SHAPES = ("circle", "line", "path", "polygon", "polyline", "rect")
POLICY = {
    "default-src 'none'", "img-src 'self'", "style-src 'self'", "script-src 'self'", "connect-src 'self'",
    "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'",
}  # fmt: skip
VOID = frozenset({"br", "col", "hr", "img", "input", "link", "meta", "use", "wbr", *SHAPES})


@dataclass(repr=False)
class Node:
    """An element: its attributes, what is in it, and its text."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    pieces: list[str | Node] = field(default_factory=list)

    @property
    def children(self) -> list[Node]:
        return [piece for piece in self.pieces if isinstance(piece, Node)]

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


class Page:
    """An answer of the gallery, taken apart; every page must be whole."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.status = answer.status_code
        self.html = answer.text if "html" in answer.headers.get("content-type", "") else ""
        self.tree = read(self.html)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.tree.texts()).split())

    def all(self, tag: str, **having: str) -> list[dict[str, str]]:
        """The attributes of every element of this kind that has these ones."""
        return [node.attributes for node in self.tree.all(tag, **having)]

    def one(self, id_: str) -> dict[str, str]:
        (found,) = [node for node in self.tree.within() if node.attributes.get("id") == id_]
        return found.attributes

    def links(self) -> list[str]:
        return [link["href"] for link in self.all("a") if "href" in link]

    @property
    def csrf(self) -> str:
        """The form token of the session that it was made for."""
        (meta,) = self.all("meta", name="csrf-token")
        assert meta["content"]
        return meta["content"]

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


def page(answer: httpx.Response, status: int | None = None) -> Page:
    """Hold an answer to what every page of the gallery has to be, and take it apart."""
    found = Page(answer)
    assert status is None or (answer.status_code == status and found.html), answer.text
    if found.html:
        _check_headers(answer.headers)
        _check_structure(found)
        _check_policy(found.tree)
        _check_labels(found)
    return found


def _check_headers(headers: httpx.Headers) -> None:
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert set(headers["content-security-policy"].split("; ")) == POLICY
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"


def _check_structure(found: Page) -> None:
    assert found.tree.one("head").one("title").text
    for tag in ("html", "main", "h1"):
        assert len(found.all(tag)) == 1, f"{len(found.all(tag))} of <{tag}>"
    assert found.all("html")[0].get("lang") == "en"
    ids = [node.attributes["id"] for node in found.tree.within() if "id" in node.attributes]
    assert len(ids) == len(set(ids)), f"an id is there twice: {sorted(ids)}"
    for node in found.tree.within():
        for name in ("aria-labelledby", "aria-describedby", "for"):
            assert set(node.attributes.get(name, "").split()) <= set(ids), node.attributes


def _check_policy(tree: Node) -> None:
    """See that nothing is inline or from another host."""
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


def _check_labels(found: Page) -> None:
    assert all("alt" in image for image in found.all("img"))
    labelled = {label.get("for") for label in found.all("label")}
    for tag in ("input", "select", "textarea"):
        for one in found.all(tag):
            hidden = one.get("type") == "hidden" or "hidden" in one
            assert hidden or one.get("id") in labelled or one.get("aria-label"), one
    assert all(one.get("value") for one in found.all("input", name="csrf"))


@dataclass
class Visitor:
    http: httpx.Client

    def get(self, path: str, **query: str) -> Page:
        """Load a page, and hold it to what every page has to be."""
        return page(self.http.get(path, params=query or None, headers={"accept": "text/html"}))

    def send(self, path: str, fields: Mapping[str, str]) -> Page:
        """Send a form, and return what came, without going where it leads."""
        return page(self.http.post(path, data=dict(fields), headers={"sec-fetch-site": "same-origin"}))


@contextmanager
def visiting(url: str, token: str | None = None) -> Iterator[Visitor]:
    """Visit a gallery, signed in with a token if there is one."""
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as http:
        visitor = Visitor(http)
        if token is not None:
            answer = http.post("/sign-in", data={"token": token}, headers={"sec-fetch-site": "same-origin"})
            assert answer.status_code == 303, answer.text
        yield visitor
