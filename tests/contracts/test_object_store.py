import base64
import hashlib
import io
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from storage.archive import conformance, s3
from storage.archive.object_store import ObjectStore, StoredObject
from storage.archive.store_facts import StoreFacts
from storage.errors import Conflict, Corrupt, Misconfigured, NotFound, StorageError, Unavailable
from tests.support.recorder import Answer, Recorder
from tests.support.services import S3Access

ODD_KEYS = [
    "plain.png",
    "a/b/c/0.png",
    "with space/+plus&and=is?what#hash%25.png",
    "Ünïcödé/画像/🖼.png",
    "quote'\"<>.json",
    "..dots.../.hidden",
]
MIB = 1024 * 1024
EVERYTHING = StoreFacts(returns_sha256=True, deletes=True, probe_key="darkroom-probes/kept")


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def put(store: ObjectStore, key: str, body: bytes, **changes: Any) -> StoredObject:
    facts = {"size": len(body), "sha256": sha256(body), "content_type": "image/png", "metadata": {}}
    return store.put_new(key, changes.pop("file", io.BytesIO(body)), **{**facts, **changes})


@pytest.fixture(params=["when_required", "when_supported"])
def either(request: pytest.FixtureRequest, s3_access: S3Access) -> ObjectStore:
    store = s3_access.open(checksums=request.param)
    store.check(create=True)
    return store


# What every store has to do.


def test_probe_says_what_the_store_honours(either: ObjectStore) -> None:
    for _ in range(2):
        assert conformance.probe(either, "here/") == replace(EVERYTHING, probe_key="here/kept")
        assert [found.key for found in either.list("")] == ["here/kept"], "one object, however often"


@pytest.mark.parametrize("body", [b"", b"x", os.urandom(100_000)], ids=len)
def test_what_was_put_comes_back(either: ObjectStore, body: bytes) -> None:
    metadata = {"darkroom-job-id": "0193", "darkroom-output-index": "0"}
    made = put(either, "images/0.png", body, metadata=metadata)
    found = either.head("images/0.png")
    assert (made.key, made.bytes, made.metadata) == ("images/0.png", len(body), metadata)
    assert (found.key, found.bytes, found.etag) == (made.key, made.bytes, made.etag)
    assert (found.sha256, found.content_type, found.metadata) == (sha256(body), "image/png", metadata)
    assert found.modified_at is not None
    assert either.read("images/0.png", max_bytes=len(body)) == body
    assert either.digest("images/0.png") == (sha256(body), len(body))


@pytest.mark.parametrize("key", ODD_KEYS)
def test_a_key_may_hold_any_sign(store: ObjectStore, key: str) -> None:
    put(store, key, b"image")
    assert store.read(key, max_bytes=5) == b"image"
    assert [found.key for found in store.list("")] == [key]
    assert httpx.get(store.presign(key, expires_s=60), trust_env=False).content == b"image"


def test_a_taken_key_is_a_conflict_whatever_the_bytes(either: ObjectStore) -> None:
    put(either, "key", b"first")
    for body in (b"first", b"second"):
        with pytest.raises(Conflict, match="key is there already"):
            put(either, "key", body)
    assert either.read("key", max_bytes=9) == b"first"


def test_of_fifty_writers_at_once_one_wins(store: ObjectStore) -> None:
    together = threading.Barrier(50)

    def write(number: int) -> int | StorageError:
        together.wait()
        try:
            put(store, "key", b"%d" % number)
        except StorageError as error:
            return error
        return number

    with ThreadPoolExecutor(50) as pool:
        outcomes = list(pool.map(write, range(50)))
    winners = [outcome for outcome in outcomes if isinstance(outcome, int)]
    losers = [outcome for outcome in outcomes if not isinstance(outcome, int)]
    assert len(winners) == 1
    assert {type(loser) for loser in losers} == {Conflict}
    assert store.read("key", max_bytes=9) == b"%d" % winners[0]


@pytest.mark.parametrize("size", [10, 9 * MIB])
def test_bytes_of_another_digest_are_refused(either: ObjectStore, size: int) -> None:
    with pytest.raises(Corrupt, match="checksum"):
        put(either, "key", bytes(size), sha256=sha256(b"other"))
    with pytest.raises(Corrupt, match=f"would have {size} bytes, not 6"):
        put(either, "key", bytes(size), size=6)
    with pytest.raises(NotFound):
        either.head("key")


@pytest.mark.parametrize(
    ("byte_range", "expected", "content_range"),
    [
        (None, b"0123456789", None),
        ("bytes=0-3", b"0123", "bytes 0-3/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=-2", b"89", "bytes 8-9/10"),
        ("bytes=8-99", b"89", "bytes 8-9/10"),
    ],
)
def test_a_stream_gives_the_part_that_is_asked_for(
    either: ObjectStore, byte_range: str | None, expected: bytes, content_range: str | None
) -> None:
    put(either, "key", b"0123456789", metadata={"darkroom-job-id": "1"})
    with either.stream("key", byte_range=byte_range) as stream:
        assert (stream.length, stream.content_range) == (len(expected), content_range)
        assert (stream.object.bytes, stream.object.content_type) == (10, "image/png")
        assert stream.object.metadata == {"darkroom-job-id": "1"}
        assert b"".join(stream.chunks) == expected
    with pytest.raises(s3.NoSuchRange), either.stream("key", byte_range="bytes=10-"):
        pass


def test_a_stream_may_be_left_early_again_and_again(s3_access: S3Access) -> None:
    store = s3_access.open(max_connections=2)
    store.check(create=True)
    put(store, "key", bytes(MIB))
    for _ in range(8):
        with store.stream("key") as stream:
            next(stream.chunks)
    assert store.head("key").bytes == MIB


def test_read_refuses_more_than_was_expected(store: ObjectStore) -> None:
    put(store, "key", b"0123456789")
    assert store.read("key", max_bytes=10) == b"0123456789"
    with pytest.raises(Corrupt, match="10 bytes; at most 9"):
        store.read("key", max_bytes=9)


def test_a_missing_object_is_not_found(store: ObjectStore) -> None:
    put(store, "a/b", b"")
    for key in ("none", "a", "a/b/c"):
        for ask in (store.head, store.digest, lambda key: store.read(key, max_bytes=9)):
            with pytest.raises(NotFound, match=key):
                ask(key)


@pytest.mark.exhaustive
def test_a_list_goes_over_all_pages_in_order(store: ObjectStore) -> None:
    keys = [f"many/{number:04}" for number in range(1005)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: put(store, key, b"image"), [*keys, "other", "manyfold"]))
    found = list(store.list("many/"))
    assert [each.key for each in found] == keys
    assert {each.bytes for each in found} == {5}
    assert all(each.modified_at and each.etag for each in found)
    assert [each.key for each in store.list("none")] == []


def test_delete_may_be_repeated(store: ObjectStore) -> None:
    put(store, "key", b"image")
    store.delete("key")
    store.delete("key")
    with pytest.raises(NotFound):
        store.head("key")
    put(store, "key", b"again")


# Links.


def test_a_link_gives_the_headers_asked_for(store: ObjectStore, s3_access: S3Access) -> None:
    put(store, "images/0", b"image")
    link = store.presign("images/0", expires_s=60, filename="Bäume 1.png", content_type="image/webp")
    assert s3_access.secret_key not in link
    answer = httpx.get(link, trust_env=False)
    assert (answer.status_code, answer.content) == (200, b"image")
    assert answer.headers["content-type"] == "image/webp"
    assert answer.headers["content-disposition"] == (
        "inline; filename=\"B_ume 1.png\"; filename*=UTF-8''B%C3%A4ume%201.png"
    )
    saved = httpx.get(store.presign("images/0", expires_s=60, disposition="attachment"), trust_env=False)
    assert saved.headers["content-disposition"] == "attachment"


def test_a_link_opens_nothing_else(store: ObjectStore) -> None:
    put(store, "images/0", b"image")
    put(store, "images/1", b"other")
    link = store.presign("images/0", expires_s=60)
    assert httpx.get(link.replace("images/0", "images/1"), trust_env=False).status_code == 403
    assert httpx.delete(link, trust_env=False).status_code == 403
    assert httpx.get(link.partition("?")[0], trust_env=False).status_code == 403


@pytest.mark.parametrize(
    ("region", "endpoint", "where"),
    [
        ("eu-west-1", None, "https://pictures.s3.eu-west-1.amazonaws.com/0.png?"),
        ("us-east-1", None, "https://pictures.s3.amazonaws.com/0.png?"),
        ("us-east-1", "https://images.example", "https://images.example/pictures/0.png?"),
    ],
)
def test_a_link_leads_to_aws_or_the_public_address(region: str, endpoint: str | None, where: str) -> None:
    inner = endpoint and "http://127.0.0.1:1"
    store = ObjectStore.connect(
        bucket="pictures", region=region, endpoint=inner, public_endpoint=endpoint,
        access_key="A" * 20, secret_key="s" * 40,
    )  # fmt: skip
    assert store.presign("0.png", expires_s=60).startswith(where)


def test_a_file_name_cannot_break_out_of_its_header() -> None:
    odd = 'a"b\\c\r\nSet-Cookie: d'
    value = "inline; filename=\"a_b_c__Set-Cookie: d\"; filename*=UTF-8''a%22b%5Cc%0D%0ASet-Cookie%3A%20d"
    assert s3.content_disposition("inline", odd) == value


# Wrong settings and trouble.


def test_a_missing_bucket_is_made_only_if_asked(s3_access: S3Access) -> None:
    store = s3_access.open()
    for attempt in (store.check, store.ping, lambda: put(store, "key", b"")):
        with pytest.raises(Misconfigured, match=r"DARKROOM_S3__BUCKET .* DARKROOM_S3__CREATE_BUCKET=true"):
            attempt()
    store.check(create=True)
    store.check()
    store.check(create=True)


@pytest.mark.exhaustive
def test_replicas_may_make_the_bucket_at_the_same_time(s3_access: S3Access) -> None:
    def start(_: int) -> StoreFacts:
        store = s3_access.open(bucket="made-by-many")
        store.check(create=True)
        return conformance.probe(store)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(start, range(8))) == {EVERYTHING}


@pytest.mark.parametrize("wrong", [{"access_key": "AKIAWRONG"}, {"secret_key": "wrong-secret"}])
def test_wrong_keys_are_named_and_not_shown(store: ObjectStore, s3_access: S3Access, wrong: Any) -> None:
    other = s3_access.open(**wrong)
    with pytest.raises(Misconfigured, match="DARKROOM_S3__ACCESS_KEY and DARKROOM_S3__SECRET_KEY") as caught:
        other.check(create=True)
    with pytest.raises(Misconfigured):
        other.head("key")
    for secret in (s3_access.secret_key, s3_access.access_key, *wrong.values()):
        assert secret not in str(caught.value)


def test_no_keys_at_all_are_misconfigured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    store = ObjectStore.connect(bucket="pictures", endpoint="http://127.0.0.1:1", region="us-east-1")
    for attempt in (store.check, lambda: store.presign("key", expires_s=60)):
        with pytest.raises(Misconfigured, match="DARKROOM_S3__ACCESS_KEY"):
            attempt()


@pytest.mark.parametrize(
    "wrong", [{"bucket": "no/bucket"}, {"endpoint": "nowhere"}, {"region": "no region"}], ids=repr
)
def test_settings_that_make_no_sense_are_misconfigured(s3_access: S3Access, wrong: Any) -> None:
    with pytest.raises(Misconfigured, match="DARKROOM_S3__ENDPOINT, DARKROOM_S3__REGION or"):
        s3_access.open(**wrong).check()


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, "none are set"),
        ({"AWS_ACCESS_KEY_ID": "half"}, "one of the two is missing"),
        ({"AWS_PROFILE": "nobody"}, "no such profile as AWS_PROFILE names"),
        ({"AWS_CONFIG_FILE": "damaged"}, "AWS_CONFIG_FILE"),
        ({"AWS_PROFILE": "sso", "AWS_CONFIG_FILE": "sso"}, "aws sso login"),
        ({"AWS_PROFILE": "program", "AWS_CONFIG_FILE": "program"}, "a role or a program, gave none"),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else "",
)
def test_why_there_are_no_keys_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], told: str
) -> None:
    sso = "sso_start_url = https://a.invalid\nsso_region = us-east-1\nsso_account_id = 1\nsso_role_name = r"
    (tmp_path / "damaged").write_text("[default\n")
    (tmp_path / "sso").write_text(f"[profile sso]\n{sso}\n")
    (tmp_path / "program").write_text("[profile program]\ncredential_process = /bin/false\n")
    usual = {
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_SHARED_CREDENTIALS_FILE": "/none",
        "HOME": str(tmp_path),
    }
    for name, value in {**usual, **variables}.items():
        monkeypatch.setenv(name, str(tmp_path / value) if name == "AWS_CONFIG_FILE" else value)
    with pytest.raises(Misconfigured, match=told) as caught:
        ObjectStore.connect(bucket="pictures", endpoint="http://127.0.0.1:1", region="us-east-1").check()
    assert "Error" not in str(caught.value)


def test_an_unreachable_endpoint_is_named(s3_access: S3Access) -> None:
    with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:1 .*; DARKROOM_S3__ENDPOINT"):
        s3_access.open(endpoint="http://127.0.0.1:1").check()


def says(status: int, code: str) -> Answer:
    body = f"<Error><Code>{code}</Code><Message>AKIASECRET</Message></Error>"
    return Answer(status, body=body.encode())


@pytest.fixture
def answers(s3_access: S3Access) -> Iterator[Any]:
    """Start a server that gives its answers in turn, the last one for ever; and connect to it."""
    with ExitStack() as running:

        def start(*script: Answer) -> tuple[Recorder, ObjectStore]:
            server = running.enter_context(Recorder(*script, then=script[-1]))
            return server, s3_access.open(endpoint=server.url)

        yield start


@pytest.mark.parametrize(
    ("status", "code", "expected", "named"),
    [
        (400, "RequestTimeout", Unavailable, "RequestTimeout"),
        (429, "TooManyRequests", Unavailable, "overloaded"),
        (500, "InternalError", Unavailable, "has a fault"),
        (503, "SlowDown", Unavailable, "SlowDown"),
        (507, "XMinioStorageFull", Unavailable, "XMinioStorageFull"),
        (400, "ExpiredToken", Misconfigured, "DARKROOM_S3__ACCESS_KEY"),
        (401, "Unauthorized", Misconfigured, "DARKROOM_S3__ACCESS_KEY"),
        (403, "AccessDenied", Misconfigured, "DARKROOM_S3__SECRET_KEY"),
        (403, "RequestTimeTooSkewed", Misconfigured, "clock"),
        (400, "AuthorizationHeaderMalformed", Misconfigured, "DARKROOM_S3__REGION"),
        (403, "SignatureDoesNotMatch", Misconfigured, "DARKROOM_S3__SECRET_KEY"),
        (403, "AccessDenied", s3.Denied, "right s3:PutObject in the bucket 'test-"),
        (403, "SecondLevelDomainForbidden", s3.PathRefused, "DARKROOM_S3__ADDRESSING"),
        (403, "PathStyleDomainForbidden", s3.PathRefused, "DARKROOM_S3__ADDRESSING"),
        (403, "QuotaExceeded", Unavailable, "full"),
        (400, "InvalidArgument", s3.NotAccepted, "InvalidArgument"),
        (400, "KeyTooLongError", s3.NotAccepted, "KeyTooLongError"),
        (501, "NotImplemented", s3.NotAccepted, "NotImplemented"),
        (400, "XAmzContentChecksumMismatch", Corrupt, "checksum"),
        (412, "PreconditionFailed", Conflict, "there already"),
        (409, "ConditionalRequestConflict", Unavailable, "another write"),
        (404, "NoSuchBucket", Misconfigured, "DARKROOM_S3__BUCKET"),
        (404, "NoSuchKey", NotFound, "key"),
    ],
)
def test_what_an_answer_means(
    answers: Any, status: int, code: str, expected: type[StorageError], named: str
) -> None:
    _, store = answers(says(status, code))
    with pytest.raises(expected, match=named) as caught:
        put(store, "key", b"image")
    assert "AKIASECRET" not in str(caught.value)


def test_a_contended_write_starts_again(answers: Any) -> None:
    stored = Answer(200, {"etag": '"e"', "x-amz-version-id": "v1"})
    server, store = answers(*[says(409, "ConditionalRequestConflict")] * 2, stored)
    made = put(store, "key", b"image")
    assert (made.etag, made.version_id, made.sha256) == ("e", "v1", None)
    assert [server.next().body for _ in range(3)] == [b"image"] * 3
    server, store = answers(says(503, "SlowDown"), Answer(200, {"etag": '"e"'}))
    assert put(store, "key", b"image").etag == "e"
    assert [server.next().body for _ in range(2)] == [b"image"] * 2, "a moment of trouble"


def test_a_digest_of_digests_is_not_used(answers: Any) -> None:
    whole = base64.b64encode(bytes(32)).decode()
    for value, expected in ((whole, "00" * 32), (f"{whole}-3", None), ("c2hvcnQ=", None), ("?", None)):
        _, store = answers(Answer(200, {"x-amz-checksum-sha256": value, "content-length": "5"}))
        assert store.head("key").sha256 == expected


def test_a_body_that_breaks_off_is_unavailable(answers: Any) -> None:
    _, store = answers(Answer(200, {"content-length": "99"}, b"half"))
    with pytest.raises(Unavailable, match="key"):
        store.digest("key")


def test_a_body_of_another_checksum_is_corrupt(answers: Any) -> None:
    wrong = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    _, store = answers(Answer(200, {"x-amz-checksum-sha256": wrong}, b"image"))
    with pytest.raises(Corrupt, match="key"):
        store.read("key", max_bytes=9)


@pytest.mark.parametrize("status", [200, 404])
def test_a_server_that_is_no_object_store_is_named(answers: Any, status: int) -> None:
    server, store = answers(Answer(status, {"content-type": "text/html"}, b"<!doctype html><p>hello"))
    with pytest.raises((Misconfigured, Unavailable), match=server.url):
        store.check(create=True)


def test_a_range_is_not_held_to_the_whole_checksum(answers: Any) -> None:
    whole = base64.b64encode(hashlib.sha256(b"0123456789").digest()).decode()
    headers = {"content-range": "bytes 0-3/10", "x-amz-checksum-sha256": whole}
    other = Answer(200, {"x-amz-checksum-sha256": whole}, b"other")
    _, store = answers(Answer(206, headers, b"0123"), other)
    with store.stream("key", byte_range="bytes=0-3") as stream:
        assert b"".join(stream.chunks) == b"0123"
    with pytest.raises(Corrupt):
        store.read("key", max_bytes=100)
