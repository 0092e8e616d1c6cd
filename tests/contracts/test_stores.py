"""Stores that refuse or ignore what is optional are used by a weaker path, which is said and remembered."""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from storage.archive import conformance, s3
from storage.archive.archive import Archive, NewImage
from storage.archive.conformance import probe
from storage.archive.keys import Keys
from storage.archive.object_store import ObjectStore
from storage.archive.store_facts import StoreFacts
from storage.archive.thumbnails import ThumbnailStore
from storage.errors import Conflict, Corrupt, Misconfigured, NotFound, Unavailable
from storage.media.inspect import ImageFacts
from storage.models import Job, JobRequest, Output, Status
from tests.docs.stores import PAGE, row
from tests.faults import harm
from tests.faults.proxy import Proxy
from tests.support.live import FAST, IMAGEN, Start
from tests.support.processes import until
from tests.support.services import DOMAIN, S3Access
from tests.support.stores import (
    BY_NAME,
    DENIES_LISTS,
    NO_CHECKSUMS,
    NO_DELETES,
    NO_PATHS,
    STAND_INS,
    believes_any_digest,
    by_name,
    each,
    keeps_other_bytes,
    refuse,
    stand_in,
)

ALL = StoreFacts(returns_sha256=True, deletes=True, probe_key="darkroom-probes/kept")
REFUSES: dict[str, Any] = {"create_only": "refused"}
PLAIN: dict[str, Any] = {"sha256": "refused", "returns_sha256": False, "checksum_mode": False}
FACTS: dict[str, dict[str, Any]] = {
    "refuses checksums (Backblaze B2)": PLAIN,
    "refuses If-None-Match": REFUSES,
    "refuses both": PLAIN | REFUSES,
    "refuses both as 400 (Google Cloud Storage)": PLAIN | REFUSES,
    "refuses CRC (Cloudflare R2)": {},
    "refuses chunked uploads": {},
    "ignores If-None-Match": {"create_only": "ignored"},
    "ignores SHA-256": {"sha256": "ignored"},
    "denies DELETE (append-only key)": {"deletes": False},
    DENIES_LISTS: {"lists": False},
    BY_NAME: {"addressing": "virtual"},
}
JOB = Job("0" * 36, "apiframe", Status.READY, JobRequest("imagen-4", "a kite"), 0, 0, None)
OUTPUT = Output(JOB.id, 0, "images/0.png", "00" * 32, 5, "image/png", 8, 8, 0)
BODY, SHA256 = conformance.BODY, conformance.SHA256


def put(store: ObjectStore, key: str, body: bytes = BODY, sha256: str = SHA256) -> None:
    facts: dict[str, Any] = {"content_type": "text/plain", "metadata": {}}
    store.put_new(key, io.BytesIO(body), size=len(body), sha256=sha256, **facts)


def image() -> NewImage:
    facts = ImageFacts("image/png", "png", 3, 2)
    return NewImage(0, io.BytesIO(BODY), SHA256, len(BODY), facts, None, None, 0)


@contextmanager
def opened(
    name: str, s3_access: S3Access, **settings: Any
) -> Iterator[tuple[Proxy, ObjectStore, ObjectStore]]:
    """The proxy, the bucket through it, and the same bucket directly."""
    direct = s3_access.open()
    direct.check(create=True)
    with stand_in(name, s3_access) as proxy:
        yield proxy, s3_access.open(endpoint=proxy.url, bucket=direct._bucket, **settings), direct


@pytest.mark.exhaustive(*(name for name in STAND_INS if name != "refuses both"))
@pytest.mark.parametrize("name", STAND_INS)
def test_a_store_is_used_by_what_it_takes(s3_access: S3Access, name: str) -> None:
    with opened(name, s3_access, checksums="when_required") as (_, store, direct):
        expected = replace(ALL, **FACTS[name])
        assert [probe(store) for _ in range(3)] == [expected] * 3
        assert store.facts == expected
        kept = {found.key for found in direct.list("")}
        assert kept <= {"darkroom-probes/kept", "darkroom-probes/damaged"}, "nothing piles up"
        put(store, "images/0.png")
        with pytest.raises(Conflict):
            put(store, "images/0.png")
        assert store.head("images/0.png").bytes == len(BODY)
        assert store.read("images/0.png", max_bytes=99) == BODY
        with pytest.raises(NotFound):
            store.head("images/1.png")
        store.ping()


def archives_one_job(start: Start, access: S3Access, bucket: str, name: str) -> None:
    """A service archives a job there, and says in every place how."""
    facts = replace(ALL, **FACTS[name])
    live = start(s3={"endpoint": access.endpoint, "bucket": bucket}, outbound={"proxy": access.proxy})
    job = live.make(IMAGEN)
    assert job["status"] == "archived"
    (output,) = live.outputs(job["id"])
    assert live.http.get(f"/v1/outputs/{output['id']}/image?stream=1").status_code == 200
    record = live.bucket.archive.read_record(live.job(job["id"]))
    assert record["store"] == {
        "create_only": facts.create_only,
        "sha256": facts.sha256,
        "verified_by": "store" if facts.trusts_sha256 else "read_back",
    }
    told = live.http.get("/v1/status").json()["store"]
    assert (told["create_only"], told["deletes"]) == (facts.create_only, facts.deletes)
    assert told["summary"] == facts.summary
    assert facts.summary in live.http.get("/status").text
    ready = live.http.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["warnings"].get("archive", "") == " ".join(facts.warnings)
    assert row(name, live.bucket.facts, job["status"]) in PAGE.read_text(), "run python -m tests.docs.stores"


@pytest.mark.exhaustive(*(name for name in STAND_INS if name not in {"refuses both", DENIES_LISTS}))
@pytest.mark.parametrize("name", STAND_INS)
def test_one_job_is_archived_on_each(start: Start, s3_access: S3Access, name: str) -> None:
    with opened(name, s3_access) as (proxy, _, direct):
        archives_one_job(start, replace(s3_access, endpoint=proxy.url), direct._bucket, name)


def test_one_job_is_archived_by_host_name(start: Start, s3_access: S3Access) -> None:
    direct = s3_access.open()
    direct.check(create=True)
    with by_name(s3_access) as access:
        archives_one_job(start, access, direct._bucket, BY_NAME)


def test_denied_rights_cost_only_what_needs_them(s3_access: S3Access) -> None:
    with opened("denies DELETE (append-only key)", s3_access) as (_, store, direct):
        probe(store)
        ThumbnailStore(store, Keys(), "old").save(OUTPUT, b"small")
        renewed = ThumbnailStore(store, Keys(), "new")
        assert renewed.read(OUTPUT) is None
        renewed.save(OUTPUT, b"smaller")
        assert direct.read(Keys().thumbnail(OUTPUT.id), max_bytes=9) == b"small"
    with opened(DENIES_LISTS, s3_access) as (proxy, store, direct):
        probe(store)
        known = {"seed": None, "now": 0}
        assert Archive(store, Keys()).find_image(JOB, 0, **known) is None  # type: ignore[arg-type]
        direct.delete("darkroom-probes/kept")
        store.ping()
        proxy.down()
        with pytest.raises(Unavailable):
            store.ping()


def test_the_refused_header_or_right_is_named() -> None:
    told = {name: " ".join((facts.summary, *facts.warnings)) for name, facts in _facts().items()}
    for name, text in told.items():
        assert ("refuses the header x-amz-checksum-sha256" in text) == ("checksums" in name or "both" in name)
        assert ("refuses the header If-None-Match" in text) == (
            name == "refuses If-None-Match" or "both" in name
        )
        assert ("s3:DeleteObject" in text) == ("DELETE" in name)
        assert ("s3:ListBucket" in text) == ("listing" in name)


def _facts() -> dict[str, StoreFacts]:
    return {name: replace(ALL, **facts) for name, facts in FACTS.items()}


@pytest.mark.parametrize(
    ("method", "right"), [("PUT", "s3:PutObject"), ("GET|HEAD", "s3:GetObject")], ids=["write", "read"]
)
def test_a_right_that_the_work_needs_is_named(s3_access: S3Access, method: str, right: str) -> None:
    with Proxy(s3_access.endpoint) as proxy:
        store = s3_access.open(endpoint=proxy.url)
        store.check(create=True)
        proxy.arm(refuse(403, "AccessDenied", method=method, path="darkroom-probes/"))
        with pytest.raises(s3.Denied, match=right):
            probe(store)


def test_a_true_digest_that_is_refused_is_left_out(s3_access: S3Access) -> None:
    with Proxy(s3_access.endpoint) as proxy:
        store = s3_access.open(endpoint=proxy.url, checksums="when_required")
        store.check(create=True)
        proxy.arm(refuse(400, "BadDigest", header="x-amz-checksum-sha256", method="PUT"))
        assert probe(store) == replace(ALL, sha256="refused", returns_sha256=False)


@pytest.mark.exhaustive
def test_a_store_that_keeps_all_it_is_given_keeps_two_probes(s3_access: S3Access) -> None:
    with Proxy(s3_access.endpoint) as proxy:
        store = s3_access.open(endpoint=proxy.url, checksums="when_required")
        store.check(create=True)
        proxy.arm(each(believes_any_digest(s3_access), NO_DELETES))
        assert [probe(store) for _ in range(3)] == [replace(ALL, sha256="ignored", deletes=False)] * 3
        assert [found.key for found in store.list("")] == ["darkroom-probes/damaged", "darkroom-probes/kept"]


@pytest.mark.parametrize("honest_at_first", [False, True])
def test_a_store_that_keeps_other_bytes_is_not_believed(s3_access: S3Access, honest_at_first: bool) -> None:
    with Proxy(s3_access.endpoint) as proxy:
        store = s3_access.open(endpoint=proxy.url, checksums="when_required")
        store.check(create=True)
        if honest_at_first:
            assert probe(store).trusts_sha256
        proxy.arm(keeps_other_bytes(s3_access))
        facts = probe(store)
        assert (facts.sha256, facts.keeps_bytes, facts.trusts_sha256) == ("honoured", False, False)
        assert "other bytes" in " ".join(facts.warnings)
        archive = Archive(store, Keys())
        with pytest.raises(Corrupt, match="other bytes"):
            archive.store_image(JOB, image(), now=0)
        with pytest.raises(Corrupt, match="other bytes"):
            archive.write_record(JOB, {"outputs": []})


@pytest.mark.parametrize("answer", [{}, {"x-amz-checksum-sha256": "A" * 43 + "="}], ids=["none", "another"])
def test_an_answer_without_the_digest_proves_nothing(s3_access: S3Access, answer: dict[str, str]) -> None:
    with Proxy(s3_access.endpoint) as proxy:
        store = s3_access.open(endpoint=proxy.url, checksums="when_required")
        store.check(create=True)
        assert probe(store).trusts_sha256
        proxy.arm(harm.answer(200, b"", **answer), method="PUT")
        archive = Archive(store, Keys())
        with pytest.raises(NotFound):
            archive.store_image(JOB, image(), now=0)
        with pytest.raises(NotFound):
            archive.write_record(JOB, {"outputs": []})


def test_where_the_store_proves_it_nothing_is_asked_twice(s3_access: S3Access) -> None:
    with Proxy(s3_access.endpoint) as proxy:
        store = s3_access.open(endpoint=proxy.url, checksums="when_required")
        store.check(create=True)
        probe(store)
        before = len(proxy.calls)
        archive = Archive(store, Keys())
        archive.store_image(JOB, image(), now=0)
        archive.write_record(JOB, {"outputs": []})
        asked = [call.request for call in proxy.calls[before:]]
        assert [one.method for one in asked] == ["PUT", "PUT"]
        assert asked[0].headers["x-amz-content-sha256"] == SHA256, "it signs the request as well"


def test_what_is_no_plain_success_is_left_to_boto3(s3_access: S3Access) -> None:
    with Proxy(s3_access.endpoint) as proxy:
        store = s3_access.open(endpoint=proxy.url)
        store.check(create=True)
        for action in (harm.s3_error(503, "SlowDown"), harm.drop, harm.swallow):
            armed = proxy.arm(action, method="PUT", times=1)
            key = f"images/{len(proxy.calls)}"
            with suppress(Conflict):  # where the write took place although its answer was lost
                put(store, key)
            assert armed.struck == 1
            assert store.head(key).sha256 == SHA256


def test_a_crc_that_is_refused_names_its_setting(s3_access: S3Access) -> None:
    with opened("refuses checksums (Backblaze B2)", s3_access) as (_, store, _):
        assert store.adds_checksums
        with pytest.raises(Misconfigured, match="DARKROOM_S3__CHECKSUMS=when_required"):
            probe(store)


def test_a_probe_may_be_repeated_beside_the_work(s3_access: S3Access) -> None:
    with Proxy(s3_access.endpoint) as proxy:
        store = s3_access.open(endpoint=proxy.url, checksums="when_required")
        assert probe(store, create=True) == ALL
        with proxy.armed(NO_CHECKSUMS):
            assert probe(store) == replace(ALL, **PLAIN)
            put(store, "images/0.png")
        assert probe(store) == ALL
        proxy.down()
        with pytest.raises(Unavailable):
            probe(store)
        assert store.facts == ALL, "an outage teaches nothing"


def test_a_copied_bucket_gets_its_checksum_again(s3_access: S3Access) -> None:
    store = s3_access.open(checksums="when_required")
    store.check(create=True)
    key = "darkroom-probes/kept"
    facts: dict[str, Any] = {"content_type": "text/plain", "metadata": {}}
    store.put(key, io.BytesIO(BODY), size=len(BODY), sha256=None, create_only=False, **facts)
    assert store.head(key).sha256 is None
    assert probe(store) == ALL
    store.delete(key)
    store.put(key, io.BytesIO(b"other"), size=5, sha256=None, create_only=False, **facts)
    with pytest.raises(Corrupt, match="delete that object"):
        probe(store)


# Where the bucket is named.


@pytest.fixture
def named(s3_access: S3Access) -> Iterator[Callable[..., ObjectStore]]:
    """Open buckets of the store that wants them in the host name."""
    with by_name(s3_access) as access:
        yield partial(access.open, checksums="when_required")


@pytest.mark.exhaustive
def test_the_bucket_moves_to_the_host_name_if_it_must(named: Callable[..., ObjectStore]) -> None:
    store = named()
    assert probe(store, create=True) == replace(ALL, addressing="virtual")
    put(store, "images/0.png")
    assert store.presign("images/0.png", expires_s=60).startswith(f"http://{store._bucket}.{DOMAIN}/images/")


@pytest.mark.exhaustive
def test_the_path_is_kept_where_it_works(s3_access: S3Access) -> None:
    with by_name(s3_access, harm.pass_on) as access:
        store = access.open()
        assert probe(store, create=True).addressing == "path"
        with pytest.raises(s3.NoSuchBucket):
            probe(access.open())
        assert probe(access.open(bucket=store._bucket, addressing="virtual")).addressing == "virtual"


@pytest.mark.exhaustive(*sorted(s3.STYLE_CODES)[1:])
@pytest.mark.parametrize("code", sorted(s3.STYLE_CODES))
def test_the_advice_for_a_path_is_not_about_keys(s3_access: S3Access, code: str) -> None:
    with by_name(s3_access, refuse(403, code)) as access:
        with pytest.raises(Misconfigured, match="DARKROOM_S3__ADDRESSING") as caught:
            probe(access.open(addressing="path"))
        assert "KEY" not in str(caught.value)


def test_a_host_that_cannot_be_reached_is_named(s3_access: S3Access) -> None:
    def only_paths(call: harm.Call) -> None:
        (NO_PATHS if f"//{DOMAIN}/" in call.request.path else harm.drop)(call)

    with (
        by_name(s3_access, only_paths) as access,
        pytest.raises(Unavailable, match=f"http://pictures.{DOMAIN}"),
    ):
        probe(access.open(bucket="pictures"))


@pytest.mark.exhaustive("file")
@pytest.mark.parametrize("where", ["variable", "file"])
def test_an_endpoint_of_the_aws_settings_is_not_aws(
    s3_access: S3Access, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str
) -> None:
    if where == "variable":
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_access.endpoint)
    else:
        (tmp_path / "config").write_text(f"[default]\nendpoint_url = {s3_access.endpoint}\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    store = s3_access.open(endpoint=None, region="eu-west-1", checksums="when_required")
    assert probe(store, create=True) == ALL
    assert store.presign("0.png", expires_s=60).startswith(f"{s3_access.endpoint}/{store._bucket}/0.png?")


@pytest.mark.exhaustive("https://s3.cn-north-1.amazonaws.com.cn", "https://amazonaws.com.example")
@pytest.mark.parametrize(
    ("endpoint", "starts"),
    [
        ("https://s3.eu-west-1.amazonaws.com", "https://pictures.s3.eu-west-1.amazonaws.com/0.png?"),
        ("https://s3.cn-north-1.amazonaws.com.cn", "https://pictures.s3.cn-north-1.amazonaws.com.cn/0.png?"),
        ("https://amazonaws.com.example", "https://amazonaws.com.example/pictures/0.png?"),
    ],
)
def test_aws_is_known_by_its_endpoint(endpoint: str, starts: str) -> None:
    keys = {"access_key": "A" * 20, "secret_key": "s" * 40}
    store = ObjectStore.connect(bucket="pictures", endpoint=endpoint, region="eu-west-1", **keys)  # type: ignore[arg-type]
    assert store.presign("0.png", expires_s=60).startswith(starts)


# Links behind a proxy with a path.


@pytest.fixture
def below(s3_access: S3Access) -> Iterator[str]:
    """A reverse proxy that has the store under `/s3`, and takes that off."""

    def without_path(call: harm.Call) -> None:
        first, rest = call.request.head.split(b"\r\n", 1)
        call.request = replace(call.request, head=first.replace(b" /s3/", b" /", 1) + b"\r\n" + rest)
        harm.pass_on(call)

    with Proxy(s3_access.endpoint) as proxy:
        proxy.arm(without_path)
        yield f"{proxy.url}/s3"


@pytest.mark.parametrize("key", ["images/0.png", "with space/s3/+plus&and=is?what#hash%25.png"])
def test_links_of_a_public_endpoint_with_a_path_work(s3_access: S3Access, below: str, key: str) -> None:
    store = s3_access.open(public_endpoint=below)
    store.check(create=True)
    put(store, key)
    link = store.presign(key, expires_s=60, filename="kite.png")
    assert link.startswith(f"{below}/{store._bucket}/")
    assert httpx.get(link, trust_env=False).content == BODY
    assert httpx.head(store.presign(key, expires_s=60, method="HEAD"), trust_env=False).status_code == 200


def test_a_path_that_the_store_has_itself_is_signed(s3_access: S3Access) -> None:
    inner, public = "http://127.0.0.1:1/storage/v1/s3", "https://x.example/storage/v1/s3"
    same = s3_access.open(endpoint=inner, public_endpoint=public, bucket="b")
    moved = s3_access.open(endpoint=inner, public_endpoint="https://x.example/p", bucket="b")
    pairs = [(same.presign("k", expires_s=60), moved.presign("k", expires_s=60)) for _ in range(20)]
    assert pairs[0][0].startswith(f"{public}/b/k?")
    assert pairs[0][1].startswith("https://x.example/p/b/k?")
    queries = [{httpx.URL(link).query for link in pair} for pair in pairs]
    # A second may have passed between the two of a pair, but not of all.
    assert min(map(len, queries)) == 1, "the store sees the same path of both"


# A store that refuses one object.


class RefusesFirst:
    """Refuse whatever is written under the first key that fits, and nothing else."""

    def __init__(self, status: int, code: str, keys: str) -> None:
        self.refusal, self.keys = harm.s3_error(status, code), re.compile(keys)
        self.path: str | None = None

    def __call__(self, call: harm.Call) -> None:
        path = call.request.path
        if self.path is None and self.keys.search(path):
            self.path = path
        (self.refusal if path == self.path else harm.pass_on)(call)


REFUSALS = [
    (400, "KeyTooLongError"),
    (400, "InvalidArgument"),
    (400, "EntityTooLarge"),
    (403, "AccessDenied"),
    (413, "EntityTooLarge"),
    (501, "NotImplemented"),
]


@pytest.mark.exhaustive("InvalidArgument", "EntityTooLarge", "NotImplemented", "AccessDenied")
@pytest.mark.parametrize(("status", "code"), REFUSALS)
@pytest.mark.parametrize("what", ["image", "record"])
def test_a_refused_object_is_its_jobs_own_trouble(
    start: Start, s3_access: S3Access, what: str, status: int, code: str
) -> None:
    with Proxy(s3_access.endpoint) as proxy:
        live = start(s3={"endpoint": proxy.url}, ready={"oldest_result": 0.2})
        armed = proxy.arm(RefusesFirst(status, code, rf"/{what}s/"), method="PUT")
        job = live.submit(IMAGEN)
        armed.wait(3)
        assert live.make(IMAGEN)["status"] == "archived", "others go on"
        shown = live.http.get(f"/v1/jobs/{job['id']}").json()
        assert (shown["status"], shown["error"]["code"]) == ("ready", f"{what}_refused")
        assert shown["error"]["at_fault"] == "archive"
        assert code in shown["error"]["message"]
        live.service.health.forget()
        ready = live.http.get("/readyz")
        assert ready.status_code == 200, ready.text
        assert f"darkroom jobs --code {what}_refused" in ready.json()["warnings"][f"apiframe {what}_refused"]
        assert "paused" not in live.http.get("/v1/gateways").text
        proxy.disarm()
        assert live.finish(job["id"])["status"] == "archived", "an operator mended it"


def test_a_refused_image_fails_when_the_gateway_keeps_it_no_more(start: Start, s3_access: S3Access) -> None:
    with Proxy(s3_access.endpoint) as proxy:
        live = start(s3={"endpoint": proxy.url}, timing=replace(FAST, retention=1))
        proxy.arm(refuse(400, "KeyTooLongError", method="PUT", path="/images/"))
        job = live.make(IMAGEN)
        assert (job["status"], job["error"]["code"]) == ("failed", "image_refused")
        assert "could not be stored" in job["error"]["message"]
        proxy.disarm()
        assert live.http.post(f"/v1/jobs/{job['id']}/retry").status_code == 200
        assert live.finish(job["id"])["status"] == "archived"


@pytest.mark.exhaustive("QuotaExceeded", "Whatever")
@pytest.mark.parametrize(
    ("status", "code"), [(403, "AccessDenied"), (403, "QuotaExceeded"), (400, "Whatever")]
)
def test_a_store_that_refuses_everything_is_waited_for(
    start: Start, s3_access: S3Access, status: int, code: str
) -> None:
    with Proxy(s3_access.endpoint) as proxy:
        live = start(s3={"endpoint": proxy.url}, ready={"oldest_result": 0.2})
        armed = proxy.arm(harm.s3_error(status, code), method="PUT")
        job = live.submit(IMAGEN)
        armed.wait(6)
        shown = live.http.get(f"/v1/jobs/{job['id']}").json()
        assert (shown["status"], shown["error"]["code"]) == ("ready", "storage_unavailable")

        def unready() -> bool:
            live.service.health.forget()
            return live.http.get("/readyz").status_code == 503

        until(unready)
        proxy.disarm()
        assert live.finish(job["id"])["status"] == "archived"
