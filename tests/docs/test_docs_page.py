"""The page at `/docs`: all of the OpenAPI document stands on it, its links resolve, and its examples run."""

import asyncio
import contextlib
import copy
import io
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import html5lib
import jsonschema_rs
import pytest
import uuid_utils
from starlette.requests import Request

from receiver.api.docs.page import GUIDES, POLICY, TOPICS, Reference
from receiver.api.docs.samples import PRELUDE, PYTHON
from receiver.client import Darkroom
from receiver.schemas.types import JOB_EXAMPLE
from storage.models import JobRequest
from tests.api.test_openapi import CALLBACK, TOKENS, document, operations
from tests.docs.test_readme import need, run
from tests.support.ledgers import add_job
from tests.support.live import IMAGEN, Live, Start

MAY_BE_EMPTY = {"list_jobs", "list_outputs", "list_notifications", "replay_notification"}
CLIENT = {name for name in vars(Darkroom) if not name.startswith("_")} - {"close"}


def parsed(page: str) -> Element:
    """A page as a tree; raises where it is not valid HTML."""
    tree: Element = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)
    return tree


def words(part: Element) -> str:
    return " ".join("".join(part.itertext()).split())


def by_id(tree: Element) -> dict[str, Element]:
    return {part.attrib["id"]: part for part in tree.iter() if "id" in part.attrib}


@pytest.fixture(scope="module")
def page(live: Live) -> str:
    answer = live.http.get("/docs", headers={"authorization": ""})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    return answer.text


@pytest.mark.smoke
def test_every_operation_stands_on_it_whole(live: Live, page: str) -> None:
    parts = by_id(parsed(page))
    for at, operation in operations(document(live)):
        told = words(parts[operation["operationId"]])
        codes = [code for answer in operation["responses"].values() for code in codes_of(answer)]
        names = [parameter["name"] for parameter in operation.get("parameters", ())]
        for needed in (at, operation["summary"], *names, *operation["responses"], *codes):
            assert needed.replace("`", "") in told, (at, needed)
        assert "internal" in codes, at
        for sample in operation["x-codeSamples"]:
            assert " ".join(sample["source"].split()) in told, at


def codes_of(answer: dict[str, Any]) -> list[str]:
    problem = answer.get("content", {}).get("application/problem+json", {})
    found: list[str] = problem.get("schema", {}).get("properties", {}).get("code", {}).get("enum", [])
    return found


def test_every_schema_stands_on_it_with_its_fields(live: Live, page: str) -> None:
    parts = by_id(parsed(page))
    schemas = document(live)["components"]["schemas"]
    assert len(schemas) > 20
    for name, schema in schemas.items():
        told = words(parts[f"schema-{name}"])
        for needed in (*schema.get("properties", ()), *schema.get("enum", ())):
            assert needed in told, (name, needed)


def test_bounds_and_defaults_are_told_in_words(page: str) -> None:
    parts = by_id(parsed(page))
    assert "limit integer · query How many a page has. 1 to 500; default 50" in words(parts["list_jobs"])
    assert "wait number · query" in words(parts["show_job"])
    submit = words(parts["submit_job"])
    assert "prompt string · required What to generate. 1 to 20000 characters; no NUL character" in submit
    assert "one of refuse, ignore" in submit
    assert "tags object of string" in submit


def test_guides_and_errors_stand_on_it(page: str) -> None:
    parts = by_id(parsed(page))
    assert {file.name.removesuffix(".md") for file in TOPICS.iterdir()} == set(GUIDES)
    for name in GUIDES:
        assert next(iter(parts[name])).tag == "h2"
    assert "job.archived" in words(parts["notifications"])
    assert "image_expired" in words(parts["errors"])


def test_its_links_lead_somewhere(live: Live, page: str) -> None:
    tree = parsed(page)
    ids = Counter(part.attrib["id"] for part in tree.iter() if "id" in part.attrib)
    assert [name for name, count in ids.items() if count > 1] == []
    links = {part.attrib["href"] for part in tree.iter() if "href" in part.attrib}
    assert len(links) > 50
    for link in links:
        if link.startswith("#"):
            assert link[1:] in ids
        elif link.startswith("/"):
            assert live.http.get(link).status_code == 200, link


def test_a_browser_may_only_fetch_its_stylesheet(live: Live, page: str) -> None:
    answer = live.http.get("/docs")
    assert answer.headers["content-security-policy"] == POLICY
    assert live.http.get("/docs.css").headers["content-type"] == "text/css; charset=utf-8"
    tree = parsed(page)
    assert not [part.tag for part in tree.iter() if part.tag in {"script", "style", "img", "iframe", "form"}]
    assert not [
        part for part in tree.iter() for name in part.attrib if name.startswith("on") or name == "style"
    ]


def test_it_asks_for_no_token_and_tells_none(start: Start) -> None:
    live = start(api_tokens=TOKENS)
    page = live.http.get("/docs").text
    assert "Authorization: Bearer $DARKROOM_TOKEN" in page
    settings = live.settings
    keys = [settings.s3.access_key, settings.s3.secret_key, *settings.api_tokens]
    for secret in [key.get_secret_value() for key in keys if key is not None]:
        assert secret.rpartition(":")[2] not in page


@pytest.mark.smoke
def test_whatever_the_document_says_is_only_shown(live: Live) -> None:
    evil = "</code><script>alert(1)</script>"
    told = copy.deepcopy(document(live))
    told["info"]["description"] = evil
    told["info"]["title"] = evil
    told["tags"][0]["description"] = f"[{evil}](javascript:alert)"
    show = told["paths"]["/v1/jobs/{id}"]["get"]
    show |= {"summary": evil, "description": evil}
    show["parameters"][0] |= {"name": evil, "description": evil, "schema": {"type": evil, "pattern": evil}}
    show["responses"]["200"]["description"] = evil
    show["responses"]["200"]["content"]["application/json"]["example"] = {evil: evil}
    show["x-codeSamples"][0]["source"] = evil
    told["components"]["schemas"]["Status"] |= {"description": evil, "enum": [evil]}
    answer = asyncio.run(Reference(lambda: told).docs(Request({"type": "http"})))
    tree = parsed(bytes(answer.body).decode())
    assert not list(tree.iter("script"))
    assert words(tree).count("<script>alert(1)</script>") > 10
    assert not [part for part in tree.iter() if part.attrib.get("href", "").startswith("javascript")]


def test_every_example_fits_its_schema(live: Live) -> None:
    told = document(live)
    seen = 0
    for at, operation in operations(told):
        pairs = [(one["schema"], one["example"], one["name"]) for one in operation.get("parameters", ())]
        contents = [operation.get("requestBody", {}), *operation["responses"].values()]
        for content in contents:
            if (json := content.get("content", {}).get("application/json")) is not None:
                # What may hold anything has no example.
                pairs.append((json["schema"], json.get("example", {}), "body"))
        for schema, example, name in pairs:
            whole = {**schema, "components": told["components"]}
            errors = list(jsonschema_rs.Draft202012Validator(whole).iter_errors(example))
            assert not errors, (at, name, errors)
            seen += 1
    assert seen > 40


@pytest.fixture
def jobs(live: Live) -> Mapping[str, str]:
    """The job that the examples of each operation are about."""
    failed = live.make(IMAGEN, fault={"fault": "expired_link", "forever": True})["id"]
    cancelled = add_job(
        live.service.resources.ledger, str(uuid_utils.uuid7()), "apiframe", JobRequest("m", "p")
    )
    live.parts.canceller.cancel(cancelled[0].id)
    archived = live.make(IMAGEN, notify_url="https://nobody.invalid/hook")["id"]
    return defaultdict(lambda: archived, {"retry_job": failed, "cancel_job": cancelled[0].id})


def test_the_curl_examples_run(live: Live, tmp_path: Path, jobs: Mapping[str, str]) -> None:
    need("curl", "--version")
    ran = 0
    for at, operation in operations(document(live)):
        # Two need a token of a gateway's.
        if at not in {CALLBACK, CALLBACK.replace("POST", "GET")}:
            name, script = operation["operationId"], operation["x-codeSamples"][0]["source"]
            script = script.replace(JOB_EXAMPLE, jobs[name])
            script = script.replace("wait=60", "wait=1")
            run(live, tmp_path, "bash", "-c", f'curl() {{ command curl -fsS "$@"; }}\n{script}')
            ran += 1
    assert ran > 10
    assert (tmp_path / "image.png").stat().st_size > 100


def test_the_python_examples_run(
    live: Live, tmp_path: Path, jobs: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DARKROOM_URL", live.url)
    monkeypatch.delenv("DARKROOM_TOKEN", raising=False)
    names: dict[str, Any] = {}
    exec(PRELUDE, names)
    with contextlib.closing(names["darkroom"]):
        for name, source in PYTHON.items():
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(source.replace(JOB_EXAMPLE, jobs[name]), names)
            assert printed.getvalue() or name in MAY_BE_EMPTY, name


def test_every_method_of_the_client_is_shown() -> None:
    shown = re.findall(r"darkroom\.(\w+)\(", "\n".join(PYTHON.values()))
    assert set(shown) == CLIENT
