"""The pages of the gallery, as a browser without JavaScript gets them."""

import json
import re
from collections.abc import Iterator
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from sqlalchemy import event, update

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.gallery.charts import amount
from receiver.gallery.find_by_file import MAX_AROUND
from receiver.gallery.grid import A_PAGE, MORE
from receiver.gallery.output import MAX_RECORD_CHARS
from receiver.gallery.rendering import NARROWEST, WIDEST, shape
from receiver.gallery.search_box import phrase
from receiver.query.language import read_query_text
from receiver.sandbox import SandboxServer
from storage.ledger.schema import jobs
from storage.models import JobRequest, Output
from tests.support.galleries import HOSTILE, MAX_BYTES, Hung
from tests.support.ledgers import add_job, add_output
from tests.support.live import IMAGEN, Live, started
from tests.support.pages import Page, page

STATIC = Path(__file__).parents[2] / "receiver" / "gallery" / "static"


def shown(found: Page) -> list[str]:
    """The ids of the outputs in the grid, in their order."""
    return [link["data-output"] for link in found.all("a") if "data-output" in link]


def ids(job: dict[str, Any]) -> list[str]:
    """The ids of a job's outputs."""
    return [output["id"] for output in job["outputs"]]


def asks(link: dict[str, str]) -> str:
    """The search text that a link leads to."""
    return parse_qs(urlsplit(link["href"]).query).get("q", [""])[0]


def test_the_grid_shows_every_picture_with_its_prompt(hung: Hung, reader: httpx.Client) -> None:
    found = page(reader.get("/"))
    newest_first = [*ids(hung.hostile), *ids(hung.ramen), *ids(hung.kite)]
    ours = [output for output in shown(found) if output in newest_first]
    assert ours == newest_first
    by_source = {image["src"]: image for image in found.all("img")}
    kite = by_source[f"/v1/outputs/{hung.kite['outputs'][0]['id']}/thumbnail"]
    assert kite["alt"] == "a red kite over a grey harbour"
    output = hung.live.outputs(hung.kite["id"])[0]
    assert (kite["width"], kite["height"]) == (str(output["width"]), str(output["height"]))
    assert reader.get(kite["src"]).headers["content-type"] == "image/webp"
    assert {"imagen-4-fast", "seed", "42"} <= set(found.text.split())


@pytest.mark.parametrize(
    ("q", "which"),
    [
        ("KITE", "kite"),
        ("seed:42", "ramen"),
        ('tag:campaign="spring sale"', "kite"),
        ("寿司", "hostile"),
    ],
)
def test_the_search_box_takes_the_query_language(
    hung: Hung, reader: httpx.Client, q: str, which: str
) -> None:
    found = page(reader.get("/", params={"q": q}))
    wanted = ids(getattr(hung, which))
    assert set(shown(found)) >= set(wanted)
    others = {"kite": hung.ramen, "ramen": hung.hostile, "hostile": hung.kite}[which]
    assert not set(shown(found)) & set(ids(others))
    assert found.one("q")["value"] == q
    # The picture's page keeps the search, so that one can go on within it.
    first = next(link["href"] for link in found.all("a") if "data-output" in link)
    assert first.endswith(f"?{_query(q)}")


def _query(q: str) -> str:
    return str(httpx.QueryParams({"q": q}))


def test_facets_narrow_the_search_and_are_removable(hung: Hung, reader: httpx.Client) -> None:
    found = page(reader.get("/"))
    assert [one["data-facet"] for one in found.all("section") if "data-facet" in one] == [
        "gateway", "model", "day", "tag",
    ]  # fmt: skip
    links = [asks(link) for link in found.all("a")]
    assert "gateway:api-in-one" in links
    assert 'tag:campaign="spring sale"' in links
    narrowed = page(reader.get("/", params={"q": "gateway:api-in-one"}))
    assert set(shown(narrowed)) == {*ids(hung.hostile), *ids(hung.ramen)}
    (active,) = narrowed.all("a", **{"aria-current": "true"})
    assert active["href"] == "/"
    more = page(reader.get("/", params={"q": "gateway:api-in-one model:imagen4-ultra ramen"}))
    removals = {link["aria-label"]: asks(link) for link in more.all("a") if "aria-label" in link}
    assert removals["Remove gateway:api-in-one"] == "model:imagen4-ultra ramen"
    assert removals["Remove model:imagen4-ultra"] == "gateway:api-in-one ramen"


def test_a_search_without_results_says_why(reader: httpx.Client) -> None:
    found = page(reader.get("/", params={"q": 'width:red "a'}))
    assert "could not be read" in found.text
    assert "width takes" in found.text
    assert shown(found) == []
    found = page(reader.get("/", params={"q": "no-such-word-anywhere"}))
    assert "Nothing found" in found.text
    assert "/" in found.links()
    for path in ("/", "/jobs"):
        found = page(reader.get(path, params={"q": "gateway:apifram kite"}))
        assert "Did you mean apiframe?" in found.text


def test_the_page_of_an_output_tells_everything(hung: Hung, submitter: httpx.Client) -> None:
    job = hung.live.http.get(f"/v1/jobs/{hung.ramen['id']}").json()
    outputs = hung.live.outputs(job["id"])
    output = outputs[0]
    found = page(submitter.get(f"/outputs/{output['id']}"))
    for fact in (
        *(job["request"]["prompt"], "blurry, <b>text</b>", "api-in-one", "imagen4-ultra"),
        *(output["sha256"], output["key"], job["id"], job["gateway_job_id"], output["media_type"]),
        *(f"{output['width']}\u00d7{output['height']}", "confirmed by asking the gateway", "archived"),
        *("Asked for 42", "Reported for the job 42", "Reported for this image none"),
        "Taken by the model yes, as asked for here",
    ):
        assert fact in found.text, fact
    for event_ in job["timeline"]:
        assert event_["at"][:19].replace("T", " ") in found.text
    assert all(one["body_sha256"][:12] in found.text for one in job["timeline"] if one["event"] == "delivery")
    assert '"schema": "darkroom/record/1"' in found.text
    assert found.one("image")["src"] == f"/v1/outputs/{output['id']}/image?stream=1"
    assert submitter.get(found.one("image")["src"]).headers["content-type"] == output["media_type"]
    saved = submitter.get(found.one("download")["href"])
    assert saved.headers["content-disposition"].startswith("attachment")
    assert sha256(saved.content).hexdigest() == output["sha256"]
    assert asks(found.one("same-prompt")) == '"a bowl of ramen, side lighting"'
    assert asks(found.one("same-seed")) == "seed:42"
    assert found.one("make-again")["href"] == f"/submit?from={output['id']}"
    assert f"/outputs/{outputs[1]['id']}" in found.links()


def test_same_prompt_and_same_seed_find_it_again(hung: Hung, reader: httpx.Client) -> None:
    for job in (hung.ramen, hung.hostile):
        output = job["outputs"][0]["id"]
        found = page(reader.get(f"/outputs/{output}"))
        again = page(reader.get(found.one("same-prompt")["href"]))
        assert set(shown(again)) >= set(ids(job))
        assert not set(shown(again)) & set(ids(hung.kite))
    tags = page(reader.get(f"/outputs/{hung.hostile['outputs'][0]['id']}"))
    (link,) = [link for link in tags.all("a") if asks(link).startswith("tag:mark=")]
    assert shown(page(reader.get(link["href"]))) == ids(hung.hostile)


def test_a_page_without_its_record_is_still_a_page(hung: Hung, reader: httpx.Client) -> None:
    job = hung.live.make(IMAGEN, prompt="a page without a record")
    bucket = hung.live.bucket
    bucket.store.delete(bucket.archive.record_key(hung.live.job(job["id"])))
    found = page(reader.get(f"/outputs/{job['outputs'][0]['id']}"))
    assert "record of this job is no longer in the bucket" in found.text
    assert "Taken by the model unknown" in found.text
    assert not [link for link in found.links() if link.startswith("/submit")], "which is not for a reader"


def test_hostile_prompts_and_tags_are_text(hung: Hung, reader: httpx.Client) -> None:
    hostile = f"/outputs/{hung.hostile['outputs'][0]['id']}"
    for path in ("/", "/?" + _query('"<script>alert(1)</script>"'), hostile):
        found = page(reader.get(path))
        assert len(found.all("script")) == 1, path
        # Attributes are kept from turning the order of letters; elsewhere an element of its own keeps it in.
        for node in found.tree.within():
            assert "\u202e" not in node.attributes.get("alt", "") + node.attributes.get("aria-label", "")
    found = page(reader.get(hostile))
    assert HOSTILE in found.tree.raw
    assert found.one("prompt")["class"] == "prompt"


@pytest.mark.parametrize(
    "path",
    ["/outputs/nobody", "/outputs/00000000-0000-7000-8000-000000000000.0", "/no/such/page", "/outputs/%00",
     "/?cursor=nonsense", "/?cursor=00000000-0000-7000-8000-000000000000.0"],
)  # fmt: skip
def test_what_is_not_there_is_told_on_a_page(reader: httpx.Client, path: str) -> None:
    found = page(reader.get(path, headers={"accept": "text/html,*/*"}), 404)
    assert "/" in found.links()


def test_programs_and_the_api_get_no_pages(reader: httpx.Client) -> None:
    for path, accept in (("/no/such/page", "*/*"), ("/v1/nothing", "text/html"), ("/v1/jobs/x", "text/html")):
        answer = reader.get(path, headers={"accept": accept})
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


def test_a_picture_is_found_by_its_digest(hung: Hung, reader: httpx.Client) -> None:
    output = hung.live.outputs(hung.kite["id"])[0]
    image = reader.get(f"/v1/outputs/{output['id']}/image?stream=1").content
    csrf = page(reader.get("/find")).csrf
    answer = reader.post(
        "/find", data={"csrf": csrf}, files={"file": ("<b>kite</b>.png", image, "image/png")}
    )
    assert answer.status_code == 303
    found = page(reader.get(answer.headers["location"]))
    assert "Yes, this picture is in the archive." in found.text
    assert output["prompt"] in found.text
    assert f"/outputs/{output['id']}" in found.links()
    assert "<b>kite</b>.png" in found.text


def test_a_foreign_picture_is_told_from_ours(reader: httpx.Client) -> None:
    csrf = page(reader.get("/find")).csrf
    answer = reader.post("/find", data={"csrf": csrf}, files={"file": ("x.png", b"not one of ours")})
    assert "No picture in the archive has these bytes" in page(reader.get(answer.headers["location"])).text
    assert parse_qs(urlsplit(answer.headers["location"]).query)["sha256"] == [
        sha256(b"not one of ours").hexdigest()
    ]
    empty = reader.post("/find", data={"csrf": csrf}, files={"file": ("", b"")})
    assert empty.headers["location"] == "/find?"
    page(reader.get("/find?sha256=nonsense"), 422)


def test_a_file_is_taken_from_our_form_within_bounds(reader: httpx.Client) -> None:
    for csrf in ("", "x"):
        answer = reader.post("/find", data={"csrf": csrf}, files={"file": ("x.png", b"x")})
        page(answer, 403)
    csrf = page(reader.get("/find")).csrf
    page(reader.post("/find", data={"csrf": csrf}), 422)
    kind = {"content-type": "multipart/form-data; boundary=x"}
    page(reader.post("/find", content=b"--y\r\nnonsense", headers=kind), 422)
    page(reader.post("/find", content=b"--x\r\n" + b"a: b\r\n" * 2000 + b"\r\n", headers=kind), 422)
    too_much = {"file": ("x.png", b"x" * (MAX_BYTES + 100_000))}
    page(reader.post("/find", data={"csrf": csrf}, files=too_much), 413)


def test_what_comes_beside_the_file_is_bounded(live: Live) -> None:
    csrf = page(live.http.get("/find")).csrf
    fields = b"".join(
        b'--x\r\ncontent-disposition: form-data; name="%d"\r\n\r\n%s\r\n' % (n, b"y" * 64)
        for n in range(64 * 1024)
    )
    assert len(fields) >= 7 * 1024 * 1024
    one = b'--x\r\ncontent-disposition: form-data; name="y"\r\n\r\n' + b"y" * (MAX_AROUND + 1000) + b"\r\n"
    kind = {"content-type": "multipart/form-data; boundary=x"}
    token = b'--x\r\ncontent-disposition: form-data; name="csrf"\r\n\r\n' + csrf.encode() + b"\r\n"
    for around in (fields, one):
        answer = live.http.post("/find", content=around + token + b"--x--\r\n", headers=kind)
        assert "must be sent alone in a form" in page(answer, 422).text
    large = {"file": ("x.png", b"x" * (8 * MAX_AROUND))}
    assert live.http.post("/find", data={"csrf": csrf}, files=large).status_code == 303


def test_a_long_record_is_cut_and_credits_are_whole(hung: Hung, reader: httpx.Client) -> None:
    job = hung.live.make({**IMAGEN, "prompt": "a costly page"})
    bucket = hung.live.bucket
    with hung.live.service.resources.database.write() as connection:
        connection.execute(update(jobs).where(jobs.c.id == job["id"]).values(credits=1234567.5))
    record = bucket.archive.read_record(hung.live.job(job["id"]))
    key = bucket.archive.record_key(hung.live.job(job["id"]))
    record |= {"seed": None, "filler": "z" * MAX_RECORD_CHARS}
    bucket.store.delete(key)
    body = json.dumps(record).encode()
    more: Any = {"sha256": sha256(body).hexdigest(), "content_type": "application/json", "metadata": {}}
    bucket.store.put_new(key, BytesIO(body), size=len(body), **more)
    found = page(reader.get(f"/outputs/{job['outputs'][0]['id']}"))
    assert amount(1234567.5) in found.text
    assert "Only its beginning is shown." in found.text
    assert "z" * MAX_RECORD_CHARS not in found.text
    assert found.links().count(f"/v1/outputs/{job['outputs'][0]['id']}/record") == 2


def test_files_are_kept_for_ever_under_their_digest(reader: httpx.Client) -> None:
    found = page(reader.get("/"))
    files = [*(link["href"] for link in found.all("link")), *(one["src"] for one in found.all("script"))]
    assert len(files) >= 3
    for path in files:
        answer = reader.get(path)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert sha256(answer.content).hexdigest()[:12] in path
    assert reader.get("/static/gallery.000000000000.css").status_code == 404
    assert reader.get("/static/..%2Ffiles.py").status_code == 404


def test_every_shape_has_its_class() -> None:
    classes = set(re.findall(r"\.(r\d+)\{--r:", (STATIC / "gallery.css").read_text()))
    assert classes == {f"r{number}" for number in range(NARROWEST, WIDEST + 1)}
    assert {shape(width, height) for width in (1, 512, 9999) for height in (0, 1, 512, 9999)} <= classes
    assert (shape(1024, 1024), shape(1600, 900), shape(900, 1600)) == ("r20", "r36", "r11")


@pytest.mark.parametrize(
    "prompt",
    ["a", 'say "cheese"', "two\nlines \n\n", "x" * 5000, '"' * 900, "a\n" * 100, "“curly” -x seed:1"],
)
def test_the_phrase_of_any_prompt_can_be_asked(prompt: str) -> None:
    wanted = read_query_text(phrase(prompt), 0)
    assert wanted.words
    assert all(word in prompt for word in wanted.words)


@pytest.fixture(scope="module")
def full(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    """A service with pages full of outputs, straight in its ledger; nothing works on them."""
    with started(s3_server, tmp_path_factory.mktemp("full"), sandbox=sandbox, work=False) as live:
        ledger = live.service.resources.ledger
        for number in range(65):
            job_id = f"00000000-0000-7000-8000-{number:012}"
            asked = JobRequest("imagen-4", f"picture {number} of many", tags={"n": str(number % 3)})
            add_job(ledger, job_id, "apiframe", asked)
            for index in range(3):
                key = f"images/{number}/{index}.png"
                digest = sha256(key.encode()).hexdigest()
                add_output(ledger, Output(job_id, index, key, digest, 9, "image/png", 640, 480, 1))
        yield live


def links_to(found: Page, rel: str) -> list[str]:
    return [link["href"] for link in found.all("a", rel=rel)]


@pytest.mark.parametrize("q", ["", "many", "tag:n=1"])
def test_paging_leads_through_everything_and_back(full: Live, q: str) -> None:
    at, pages, seen = f"/?{_query(q)}", [], []
    while at:
        pages.append(page(full.http.get(at)))
        seen += shown(pages[-1])
        at = next(iter(links_to(pages[-1], "next")), "")
    expected = 3 * (22 if q == "tag:n=1" else 65)
    assert (len(seen), len(set(seen))) == (expected, expected)
    assert seen == sorted(seen, key=lambda output: (output[:-2], -int(output[-1])), reverse=True)
    assert links_to(pages[0], "prev") == []
    back, found = [shown(pages[-1])], pages[-1]
    while at := next(iter(links_to(found, "prev")), ""):
        found = page(full.http.get(at))
        back.append(shown(found))
    # The first page has no cursor, so that what arrived meanwhile is on it.
    assert f"/?{_query(q)}".removesuffix("?q=") in found.links()
    assert [output for one in reversed(back) for output in one] == seen[A_PAGE:]


def test_the_script_gets_the_pictures_alone(full: Live) -> None:
    whole = page(full.http.get("/"))
    answer = full.http.get("/", headers={MORE: "1"})
    assert len(answer.content) < len(whole.answer.content)
    part = Page(answer)
    assert (shown(part), links_to(part, "next")) == (shown(whole), links_to(whole, "next"))
    assert not part.all("html")


def test_neighbours_are_those_of_the_search(full: Live) -> None:
    order = shown(page(full.http.get("/?q=tag%3An%3D1")))
    for before, here, after in zip(order[:5], order[1:], order[2:], strict=False):
        found = page(full.http.get(f"/outputs/{here}?q=tag%3An%3D1"))
        assert found.one("newer")["href"] == f"/outputs/{before}?q=tag%3An%3D1"
        assert found.one("older")["href"] == f"/outputs/{after}?q=tag%3An%3D1"
    first = page(full.http.get(f"/outputs/{order[0]}?q=tag%3An%3D1"))
    assert links_to(first, "prev") == []


def test_a_page_asks_the_ledger_few_questions(full: Live) -> None:
    asked: list[str] = []
    engine = full.service.resources.database._engine

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.lstrip().upper().startswith(("SELECT", "WITH")):
            asked.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        counts = {}
        for at in ("/", "/?q=many+tag%3An%3D1", f"/outputs/{shown(page(full.http.get('/')))[0]}"):
            asked.clear()
            page(full.http.get(at))
            counts[at.partition("?")[0][:9]] = len(asked)
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert max(counts.values()) <= 14, counts


def test_an_empty_gallery_says_what_to_do(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path: Path
) -> None:
    with started(s3_server, tmp_path, sandbox=sandbox, work=False) as live:
        found = page(live.http.get("/"))
    assert "Nothing here yet" in found.text
    assert "/submit" in found.links()
