"""Read and write objects in an S3 bucket with boto3: create-only puts, checksums, presigned URLs."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from boto3.session import Session

from storage.archive import s3
from storage.errors import Corrupt, Misconfigured, NotFound

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

    def __init__(self, client: S3Client, links: S3Client, *, bucket: str, on_aws: bool) -> None:
        """Use `connect`. `links` presigns for the public endpoint."""
        self._client = client
        self._links = links
        self._bucket = bucket
        self._on_aws = on_aws

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
        checksums: s3.Checksums = "when_supported",
        max_connections: int = 32,
    ) -> ObjectStore:
        """Create the clients of a bucket; nothing is sent before the first call.

        Without an endpoint it is on AWS; without keys or region the usual AWS chain provides them.
        """
        with s3.translate_errors("the bucket", bucket=bucket, endpoint=endpoint or "AWS"):
            session = Session(access_key, secret_key, region_name=region)
            config = s3.client_config(
                path_style=endpoint is not None, checksums=checksums, connections=max_connections
            )
            client = session.client("s3", endpoint_url=endpoint, config=config)
            links = session.client("s3", endpoint_url=public_endpoint or endpoint, config=config)
        return cls(client, links, bucket=bucket, on_aws=endpoint is None)

    def check(self, *, create: bool = False) -> None:
        """Check that the bucket is there, and create it if it is missing and `create` is set.

        Raises Misconfigured, which says which setting to change. `conformance.probe` tries the rest out.
        """
        try:
            self.ping()
        except s3.NoSuchBucket:
            if not create:
                raise
            self._create()
        except NotFound as error:
            raise Misconfigured(
                f"{self._endpoint} responds, but not as an object store: check DARKROOM_S3__ENDPOINT."
            ) from error

    def ping(self) -> None:
        """Check that the bucket responds now; raises as `check` does."""
        # Not HeadBucket: a response to HEAD has no body, so a wrong key would look like a missing bucket.
        with self._errors("the bucket"):
            self._client.list_objects_v2(Bucket=self._bucket, MaxKeys=1)

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
        """Write an object create-only (If-None-Match), with the whole of a seekable file; `sha256` in hex.

        Raises Conflict if the key exists: perhaps from an earlier try of this write whose response was lost.
        Raises Corrupt if the file does not have that size, or if the store finds another checksum.
        """
        if (actual := file.seek(0, os.SEEK_END)) != size:
            raise Corrupt(f"{key} would have {actual} bytes, not {size}.")
        digest = base64.b64encode(bytes.fromhex(sha256)).decode()

        def put() -> Mapping[str, Any]:
            file.seek(0)
            with self._errors(key):
                return self._client.put_object(
                    Bucket=self._bucket,
                    Key=key,
                    Body=file,
                    ContentLength=size,
                    ContentType=content_type,
                    Metadata=metadata,
                    ChecksumSHA256=digest,
                    IfNoneMatch="*",
                )

        answer = s3.retry_contended(put)
        facts = {**answer, "ContentType": content_type, "Metadata": dict(metadata)}
        return _stored(key, facts, size)

    def head(self, key: str) -> StoredObject:
        """Return an object's metadata; raises NotFound."""
        with self._errors(key):
            answer = self._client.head_object(Bucket=self._bucket, Key=key, ChecksumMode="ENABLED")
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
        with self._errors(key):
            # Some stores send the whole object's checksum with a range, which its bytes cannot fit.
            wanted: dict[str, Any] = {"Range": byte_range} if byte_range else {"ChecksumMode": "ENABLED"}
            answer = self._client.get_object(Bucket=self._bucket, Key=key, **wanted)
        content_range, length = answer.get("ContentRange"), answer["ContentLength"]
        size = int(content_range.rpartition("/")[2]) if content_range else length
        with closing(answer["Body"]) as body:
            chunks = self._chunks(key, body.read)
            yield ObjectStream(_stored(key, answer, size), length, content_range, chunks)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield the objects below a prefix, in the order of their keys, page by page."""
        with self._errors(prefix or "the bucket"):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            for page in pages:
                for entry in page.get("Contents", ()):
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
            return self._links.generate_presigned_url(asked, Params=wanted, ExpiresIn=expires_s)

    def delete(self, key: str) -> None:
        """Delete a probe or something derived; no error if it is not there."""
        with self._errors(key):
            self._client.delete_object(Bucket=self._bucket, Key=key)

    @property
    def _endpoint(self) -> str:
        return self._client.meta.endpoint_url

    def _errors(self, what: str) -> AbstractContextManager[None]:
        return s3.translate_errors(what, bucket=self._bucket, endpoint=self._endpoint)

    def _chunks(self, key: str, read: Callable[[int], bytes]) -> Iterator[bytes]:
        with self._errors(key):
            while chunk := read(CHUNK_BYTES):
                yield chunk

    def _create(self) -> None:
        region = self._client.meta.region_name
        place: dict[str, Any] = {}
        if self._on_aws and region != "us-east-1":  # AWS wants it named, except for this one
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
