"""Stand-ins for stores that refuse or ignore what others take: a proxy before a real S3 server, over HTTP.

Each does what a vendor documents, or what was reported of it, and hands on everything else.
"""

import base64
import hashlib
import io
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from urllib.parse import unquote

from storage.archive.object_store import ObjectStore
from storage.errors import Conflict
from tests.faults import harm
from tests.faults.harm import Action, Call
from tests.faults.proxy import Proxy
from tests.faults.wire import Message
from tests.support.services import DOMAIN, S3Access


def refuse(status: int, code: str, *, header: str = "", method: str = ".*", path: str = "") -> Action:
    """Refuse requests that have such a header, method and path; hand on all others."""

    def act(call: Call) -> None:
        asked = call.request
        headers = [name for name in asked.headers if re.fullmatch(header, name)] if header else [""]
        fits = headers and re.fullmatch(method, asked.method) and re.search(path, asked.path)
        (harm.s3_error(status, code) if fits else harm.pass_on)(call)

    return act


def each(*actions: Action) -> Action:
    """Do the first of these that does not just hand the request on."""

    def act(call: Call) -> None:
        for action in actions:
            seen = _Seen(call)
            action(seen)
            if not seen.handed_on:
                return
        harm.pass_on(call)

    return act


class _Seen(Call):
    """A request that an action may answer; that it hands it on is only noted."""

    def __init__(self, call: Call) -> None:
        super().__init__(call.request, call.connect, call.sock)
        self.handed_on = False

    def relay(self) -> None:
        self.handed_on = True


def overwrites(s3: S3Access) -> Action:
    """Ignore If-None-Match: what is there is taken away before the write."""

    def act(call: Call) -> None:
        if call.request.method == "PUT" and "if-none-match" in call.request.headers:
            store, key = _object(s3, call.request)
            store.delete(key)
        harm.pass_on(call)

    return act


def believes_any_digest(s3: S3Access) -> Action:
    """Store bytes whatever SHA-256 is named for them."""

    def act(call: Call) -> None:
        named = call.request.headers.get("x-amz-checksum-sha256")
        body = call.request.body
        if named is None or base64.b64decode(named) == hashlib.sha256(body).digest():
            harm.pass_on(call)
            return
        store, key = _object(s3, call.request)
        create_only = "if-none-match" in call.request.headers
        facts = {"size": len(body), "content_type": "text/plain", "metadata": {}}
        try:
            store.put(key, io.BytesIO(body), sha256=None, create_only=create_only, **facts)  # type: ignore[arg-type]
        except Conflict:
            harm.s3_error(412, "PreconditionFailed")(call)
        else:
            harm.answer(200)(call)

    return act


def keeps_other_bytes(s3: S3Access) -> Action:
    """Store other bytes of the same length, and say of each object that it has the named SHA-256."""
    named: dict[str, str] = {}

    def act(call: Call) -> None:
        asked = call.request
        key = asked.path.partition("?")[0]
        if asked.method == "PUT" and (digest := asked.headers.get("x-amz-checksum-sha256")):
            if base64.b64decode(digest) != hashlib.sha256(asked.body).digest():
                harm.s3_error(400, "BadDigest")(call)
                return
            other = bytes(byte ^ 1 for byte in asked.body)
            facts = {"size": len(other), "content_type": "text/plain", "metadata": {}}
            create_only = "if-none-match" in asked.headers
            store, name = _object(s3, asked)
            try:
                store.put(name, io.BytesIO(other), sha256=None, create_only=create_only, **facts)  # type: ignore[arg-type]
            except Conflict:
                harm.s3_error(412, "PreconditionFailed")(call)
                return
            named[key] = digest
            harm.answer(200, b"", **{"x-amz-checksum-sha256": digest})(call)
        elif asked.method == "HEAD" and key in named:
            harm.altered(lambda told: told.with_header("x-amz-checksum-sha256", named[key]))(call)
        else:
            harm.pass_on(call)

    return act


def hides_what_is_missing(call: Call) -> None:
    """Say 403 of a missing object, as AWS does to whom may not list the bucket."""
    if call.request.method in {"GET", "HEAD"} and call.forward().status == 404:
        harm.s3_error(403, "AccessDenied")(call)
    else:
        harm.pass_on(call)


def _object(s3: S3Access, request: Message) -> tuple[ObjectStore, str]:
    _, bucket, key = unquote(request.path.partition("?")[0]).split("/", 2)
    return s3.open(bucket=bucket), key


def _fixed(action: Action) -> Callable[[S3Access], Action]:
    return lambda _: action


NO_CHECKSUMS = refuse(400, "InvalidArgument", header=r"x-amz-(sdk-)?checksum-.*|x-amz-trailer")
NO_CONDITIONS = refuse(501, "NotImplemented", header="if-none-match")
NO_LISTS = refuse(403, "AccessDenied", method="GET", path="list-type=2")
NO_DELETES = refuse(403, "AccessDenied", method="DELETE")
NO_CRC = refuse(
    501, "NotImplemented", header=r"x-amz-checksum-crc.*|x-amz-sdk-checksum-algorithm|x-amz-trailer"
)
NO_CHUNKS = refuse(
    501, "NotImplemented", header="x-amz-decoded-content-length|x-amz-trailer|transfer-encoding"
)
NO_PATHS = refuse(403, "SecondLevelDomainForbidden", path=rf"^(http://{DOMAIN}(:\d+)?)?/[a-z]")

DENIES_LISTS = "denies listing (write and read only)"

STAND_INS: Mapping[str, Callable[[S3Access], Action]] = {
    "refuses checksums (Backblaze B2)": _fixed(NO_CHECKSUMS),
    "refuses If-None-Match": _fixed(NO_CONDITIONS),
    "refuses both": _fixed(each(NO_CHECKSUMS, NO_CONDITIONS)),
    "refuses both as 400 (Google Cloud Storage)": _fixed(
        each(NO_CHECKSUMS, refuse(400, "InvalidArgument", header="if-none-match"))
    ),
    "refuses CRC (Cloudflare R2)": _fixed(NO_CRC),
    "refuses chunked uploads": _fixed(NO_CHUNKS),
    "ignores If-None-Match": overwrites,
    "ignores SHA-256": believes_any_digest,
    "denies DELETE (append-only key)": _fixed(NO_DELETES),
    DENIES_LISTS: _fixed(each(NO_LISTS, hides_what_is_missing)),
}
"""By what they do."""
BY_NAME = "wants the bucket in the host name (Alibaba OSS)"


@contextmanager
def stand_in(name: str, s3: S3Access) -> Iterator[Proxy]:
    """Run a stand-in before the server until the end of the block."""
    with Proxy(s3.endpoint) as proxy:
        proxy.arm(STAND_INS[name](s3))
        yield proxy


@contextmanager
def by_name(s3: S3Access, action: Action = NO_PATHS) -> Iterator[S3Access]:
    """Run one that is known by a host name, which an HTTP proxy leads to."""
    with Proxy(s3.endpoint) as proxy:
        proxy.arm(action)
        yield replace(s3, endpoint=f"http://{DOMAIN}", proxy=proxy.url)
