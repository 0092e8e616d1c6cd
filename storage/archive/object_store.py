"""Read and write objects in an S3 bucket with boto3: create-only puts, checksums, presigned URLs."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Self

from storage.archive import s3
from storage.archive.clients import ClientFactory, Clients
from storage.archive.signed_put import SignedPut
from storage.archive.store_facts import Addressing, StoreFacts
from storage.errors import Conflict, Corrupt, Misconfigured, NotFound, StorageError
from storage.gate import Gate

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object's metadata. `list` returns its key, bytes, etag and time only."""

    key: str
    bytes: int
    etag: str
    sha256: str | None = None
    """Hex digest of the whole object, from the store; None if it has none."""
    version_id: str | None = None
    content_type: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    modified_at: int | None = None
    """Milliseconds since 1970 UTC."""


@dataclass(frozen=True, slots=True)
class ObjectStream:
    """An open object. `object.bytes` is its whole size, `length` that of all `chunks`."""

    object: StoredObject
    length: int
    content_range: str | None
    chunks: Iterator[bytes]


class ObjectStore:
    """One bucket. Thread-safe.

    Every method raises Unavailable if the store is unavailable, and Misconfigured if it refuses until a
    setting is changed. No message holds an access key, a secret or a presigned URL.
    """

    facts: StoreFacts
    """What it supports, which decides how objects are written and read; `conformance.probe` replaces it."""

    def __init__(self, factory: ClientFactory, *, bucket: str) -> None:
        """Use `connect`."""
        self._factory = factory
        self._clients = factory.first()
        self._bucket = bucket
        self._puts: tuple[SignedPut | None] | None = None
        self.facts = StoreFacts(addressing=self._clients.addressing)
        self.gate = Gate()
        """Closed while another thread has to probe it first."""

    @classmethod
    def connect(
        cls,
        *,
        bucket: str,
        endpoint: str | None = None,
        public_endpoint: str | None = None,
        region: str | None = None,
        access_key: str | None = None,
        secret_key: str | None = None,
        addressing: Literal["auto"] | Addressing = "auto",
        checksums: s3.Checksums = "when_supported",
        max_connections: int = 32,
        ca_bundle: str | None = None,
        proxy: str | None = None,
    ) -> Self:
        """Create the clients of a bucket; nothing is sent before the first call.

        Without an endpoint, keys or region, the usual AWS variables and files provide them; AWS itself is
        the endpoint if they name none. `ca_bundle` is a file in PEM, by default boto3's own; `proxy` is a
        URL, and the proxies of the environment are not used.
        """
        with s3.translate_errors("the bucket", bucket=bucket, endpoint=endpoint or "AWS"):
            session = partial(s3.session, access_key, secret_key, region, ca_bundle=ca_bundle, proxy=proxy)
            factory = ClientFactory(
                session, endpoint, public_endpoint, addressing, checksums, max_connections
            )
            return cls(factory, bucket=bucket)

    def check(self, *, create: bool = False) -> None:
        """Check that the bucket is there, and create it if it is missing and `create` is set.

        Tries both addressing styles if that is left open. Raises Misconfigured, which says which setting to
        change. `conformance.probe` tries the rest out.
        """
        try:
            self._find()
        except s3.NoSuchBucket:
            if not create:
                raise
            self._create()
        except NotFound as error:
            raise Misconfigured(
                f"{self._endpoint} responds, but not as an object store: check DARKROOM_S3__ENDPOINT."
            ) from error

    def renew_keys(self) -> None:
        """Look for access keys again, where the usual AWS variables and files provide them."""
        with self._errors("the bucket"):
            self._use(self._factory.first())

    def ping(self) -> None:
        """Check that the bucket responds now; raises as `check` does."""
        self.gate.check()
        if not self.facts.lists and self.facts.probe_key is not None:
            # That it is gone says nothing of the bucket, which responded.
            with suppress(NotFound):
                self.read(self.facts.probe_key, max_bytes=CHUNK_BYTES)
        else:
            self._list_one(self._clients)

    def put_new(
        self,
        key: str,
        file: BinaryIO,
        *,
        size: int,
        sha256: str,
        content_type: str,
        metadata: Mapping[str, str],
    ) -> StoredObject:
        """Write an object create-only, with the whole of a seekable file; `sha256` in hex.

        Raises Conflict if the key exists: perhaps from an earlier try of this write whose response was lost.
        Raises Corrupt if the file does not have that size, or if the store finds another checksum.
        """
        facts = self.facts
        if facts.create_only != "honoured" and self._exists(key):
            raise Conflict(f"{key} is there already.")
        return self.put(
            key,
            file,
            size=size,
            sha256=sha256 if facts.sha256 != "refused" else None,
            create_only=facts.create_only != "refused",
            content_type=content_type,
            metadata=metadata,
        )

    def put(
        self,
        key: str,
        file: BinaryIO,
        *,
        size: int,
        sha256: str | None,
        create_only: bool,
        content_type: str,
        metadata: Mapping[str, str],
    ) -> StoredObject:
        """Write an object with just these optional headers, whatever `facts` say; raises as `put_new` does.

        `sha256`: x-amz-checksum-sha256, given in hex; `create_only`: If-None-Match.
        """
        if (actual := file.seek(0, os.SEEK_END)) != size:
            raise Corrupt(f"{key} would have {actual} bytes, not {size}.")
        optional: dict[str, Any] = {"IfNoneMatch": "*"} if create_only else {}
        plain = {"content-type": content_type} | ({"if-none-match": "*"} if create_only else {})
        plain |= {f"x-amz-meta-{name}": value for name, value in metadata.items()}
        if sha256 is not None:
            optional["ChecksumSHA256"] = base64.b64encode(bytes.fromhex(sha256)).decode()

        def put() -> Mapping[str, Any]:
            with self._errors(key):
                file.seek(0)
                if sha256 is not None and (signed := self._signed()) is not None:
                    if (answer := signed.put(key, file, size, sha256, plain)) is not None:
                        return answer
                    file.seek(0)
                return self._client.put_object(
                    Bucket=self._bucket,
                    Key=key,
                    Body=file,
                    ContentLength=size,
                    ContentType=content_type,
                    Metadata=metadata,
                    **optional,
                )

        answer = s3.retry_contended(put)
        facts = {**answer, "ContentType": content_type, "Metadata": dict(metadata)}
        return _stored(key, facts, size)

    def head(self, key: str, *, checksum: bool | None = None) -> StoredObject:
        """Return an object's metadata, with its SHA-256 if `checksum`, by default as `facts` say.

        Raises NotFound.
        """
        wanted = self._checksum_mode(self.facts.checksum_mode if checksum is None else checksum)
        with self._reading(key):
            answer = self._client.head_object(Bucket=self._bucket, Key=key, **wanted)
        return _stored(key, answer, answer["ContentLength"])

    def read(self, key: str, *, max_bytes: int) -> bytes:
        """Return a small object; raises NotFound, or Corrupt if larger or failing the store's checksum."""
        with self.stream(key) as stream:
            if stream.length > max_bytes:
                raise Corrupt(f"{key} has {stream.length} bytes; at most {max_bytes} were expected.")
            return b"".join(stream.chunks)

    def digest(self, key: str) -> tuple[str, int]:
        """Read a whole object; returns its SHA-256 in hex and its size; raises NotFound or Corrupt."""
        digest, size = hashlib.sha256(), 0
        with self.stream(key) as stream:
            for chunk in stream.chunks:
                digest.update(chunk)
                size += len(chunk)
        return digest.hexdigest(), size

    @contextmanager
    def stream(self, key: str, *, byte_range: str | None = None) -> Iterator[ObjectStream]:
        """Open an object, or a part of it; `byte_range` is as in HTTP's Range header: `bytes=0-99`.

        Raises NotFound or NoSuchRange on opening; the chunks raise Unavailable if the connection breaks, and
        Corrupt if the whole was read and fails the store's own checksum.
        """
        # Some stores send the whole object's checksum with a range, which its bytes cannot fit.
        wanted = {"Range": byte_range} if byte_range else self._checksum_mode(self.facts.checksum_mode)
        with self._reading(key):
            answer = self._client.get_object(Bucket=self._bucket, Key=key, **wanted)
        content_range, length = answer.get("ContentRange"), answer["ContentLength"]
        size = int(content_range.rpartition("/")[2]) if content_range else length
        with closing(answer["Body"]) as body:
            chunks = self._chunks(key, body.read)
            yield ObjectStream(_stored(key, answer, size), length, content_range, chunks)

    def find(self, key: str) -> StoredObject | None:
        """Look an object up in a listing, which proves also that there is none: a bare 404 does not."""
        found = next(self.list(key, page=1), None)
        return found if found is not None and found.key == key else None

    def list(self, prefix: str, *, after: str = "", page: int = 1000) -> Iterator[StoredObject]:
        """Yield the objects below a prefix and after a key, in the order of their keys, `page` at a time."""
        with self._errors(prefix or "the bucket"):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=prefix, StartAfter=after, PaginationConfig={"PageSize": page}
            )
            for page_of in pages:
                for entry in page_of.get("Contents", ()):
                    yield _stored(entry["Key"], entry, entry["Size"])

    def presign(
        self,
        key: str,
        *,
        expires_s: int,
        filename: str | None = None,
        plain_name: str | None = None,
        content_type: str | None = None,
        disposition: Literal["inline", "attachment"] = "inline",
        method: Literal["GET", "HEAD"] = "GET",
    ) -> str:
        """Return a presigned URL of the object, valid for `expires_s` seconds (a week at most).

        Nothing is sent, so the object may not exist. The URL is a secret while it is valid, and for one
        `method` only. For the names see `s3.content_disposition`.
        """
        wanted = {"Bucket": self._bucket, "Key": key}
        if filename is not None or disposition != "inline":
            wanted["ResponseContentDisposition"] = s3.content_disposition(disposition, filename, plain_name)
        if content_type is not None:
            wanted["ResponseContentType"] = content_type
        with self._errors(key):
            asked = "get_object" if method == "GET" else "head_object"
            link = self._clients.links.generate_presigned_url(asked, Params=wanted, ExpiresIn=expires_s)
        return self._clients.public(link)

    def delete(self, key: str) -> None:
        """Delete something derived; no error if it is not there."""
        with self._errors(key):
            self._client.delete_object(Bucket=self._bucket, Key=key)

    @property
    def adds_checksums(self) -> bool:
        """Whether boto3 adds a CRC to a put that has no SHA-256."""
        return self._factory.checksums == "when_supported"

    def _signed(self) -> SignedPut | None:
        """Return what puts objects at less cost than boto3, if that can be; made at its first use."""
        if self._puts is None:
            self._puts = (self._clients.signed(self._bucket),)
        return self._puts[0]

    @property
    def _client(self) -> S3Client:
        return self._clients.requests

    @property
    def _endpoint(self) -> str:
        return self._clients.url_of(self._bucket)

    def _list_one(self, clients: Clients) -> None:
        # Not HeadBucket: a response to HEAD has no body, so a wrong key would look like a missing bucket.
        endpoint = clients.url_of(self._bucket)
        with s3.translate_errors("the bucket", bucket=self._bucket, endpoint=endpoint):
            clients.requests.list_objects_v2(Bucket=self._bucket, MaxKeys=1)

    def _find(self) -> None:
        """Find the bucket, in the other addressing style if the first one is refused."""
        try:
            self._list_one(self._clients)
        except (Misconfigured, NotFound) as refused:
            if (other := self._factory.other(self._clients)) is None:
                raise
            try:
                self._list_one(other)
            except StorageError:
                if not isinstance(refused, s3.PathRefused):
                    raise refused from None
                self._use(other)
                raise
            self._use(other)

    def _use(self, clients: Clients) -> None:
        self._clients, self._puts = clients, None
        self.facts = replace(self.facts, addressing=clients.addressing)

    def _exists(self, key: str) -> bool:
        try:
            self.head(key)
        except NotFound:
            return False
        return True

    @staticmethod
    def _checksum_mode(asked: bool) -> dict[str, Any]:  # noqa: FBT001
        return {"ChecksumMode": "ENABLED"} if asked else {}

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        try:
            with self._errors(key):
                yield
        except s3.Denied as error:
            # https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html: of an object that is not
            # there, only those hear who may list the bucket.
            if self.facts.lists:
                raise
            raise NotFound(f"The object store has no {key}, or does not show it.") from error

    def _errors(self, what: str) -> AbstractContextManager[None]:
        self.gate.check()
        return s3.translate_errors(what, bucket=self._bucket, endpoint=self._endpoint)

    def _chunks(self, key: str, read: Callable[[int], bytes]) -> Iterator[bytes]:
        with self._errors(key):
            while chunk := read(CHUNK_BYTES):
                yield chunk

    def _create(self) -> None:
        region = self._client.meta.region_name
        place: dict[str, Any] = {}
        if self._clients.on_aws and region != "us-east-1":  # AWS wants it named, except for this one
            place = {"CreateBucketConfiguration": {"LocationConstraint": region}}
        with self._errors("the bucket"):
            # Another replica was faster, or it is another account's: `ping` tells.
            taken = self._client.exceptions
            with suppress(taken.BucketAlreadyOwnedByYou, taken.BucketAlreadyExists):
                self._client.create_bucket(Bucket=self._bucket, **place)
        self.ping()


def _stored(key: str, facts: Mapping[str, Any], size: int) -> StoredObject:
    modified = facts.get("LastModified")
    return StoredObject(
        key=key,
        bytes=size,
        etag=facts.get("ETag", "").strip('"'),
        sha256=s3.whole_sha256(facts),
        version_id=facts.get("VersionId"),
        content_type=facts.get("ContentType"),
        metadata=facts.get("Metadata", {}),
        modified_at=modified and int(modified.timestamp() * 1000),
    )
