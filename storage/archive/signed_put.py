"""Send a PUT whose known SHA-256 both signs the request and is checked by the store: half of boto3's cost.

boto3 computes the digest of a body again to sign it, or does not sign it at all. Here botocore's own signer
gets the digest that the download gave, and botocore's own HTTP session sends the request once, on pooled
connections. Whatever is not a plain success is left to boto3, which retries, follows and explains.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Self
from urllib.parse import parse_qs, quote, urlsplit

from botocore import exceptions as boto
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest

if TYPE_CHECKING:
    from botocore.credentials import Credentials, ReadOnlyCredentials
    from botocore.httpsession import URLLib3Session
    from mypy_boto3_s3 import S3Client

MOST_BYTES = 16 * 1024 * 1024
"""Larger bodies are left to boto3, which reads them piece by piece."""

_TAKEN = {"Error": {"Code": "PreconditionFailed"}, "ResponseMetadata": {"HTTPStatusCode": 412}}
_UNSENT = (boto.HTTPClientError, boto.ConnectionError)
_FACTS = {"ETag": "etag", "ChecksumSHA256": "x-amz-checksum-sha256", "VersionId": "x-amz-version-id"}


class _Signer(S3SigV4Auth):
    """Signs a request with the digest that it carries, so that its body is not hashed again."""

    def __init__(self, credentials: ReadOnlyCredentials, region: str, sha256: str) -> None:
        super().__init__(credentials, "s3", region)
        self._sha256 = sha256

    def payload(self, request: AWSRequest) -> str:  # noqa: ARG002 - it would be hashed for the same
        """Return the digest of the body."""
        return self._sha256


@dataclass(frozen=True, slots=True)
class SignedPut:
    """Puts objects into one bucket. Thread-safe."""

    http: URLLib3Session
    credentials: Credentials
    url: str
    """Of the bucket, with a slash at its end."""
    region: str

    @classmethod
    def into(
        cls, bucket: str, client: S3Client, credentials: Credentials | None, http: URLLib3Session
    ) -> Self | None:
        """Return one for a bucket; None where boto3 alone knows how its requests are sent and signed."""
        if credentials is None or ":" in bucket or bucket.endswith("--x-s3"):
            return None
        # Where boto3 itself would send it, and for which region it would sign.
        link = urlsplit(client.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "k"}))
        asked = parse_qs(link.query)
        if asked.get("X-Amz-Algorithm") != ["AWS4-HMAC-SHA256"]:
            return None
        *_, region, service, _ = asked["X-Amz-Credential"][0].split("/")
        if service != "s3":
            return None
        return cls(http, credentials, f"{link.scheme}://{link.netloc}{link.path.removesuffix('k')}", region)

    def put(
        self, key: str, file: BinaryIO, size: int, sha256: str, headers: Mapping[str, str]
    ) -> Mapping[str, Any] | None:
        """Write an object from where a file is; `sha256` in hex. None where boto3 has to do it.

        Returns facts as `put_object` does. Raises ClientError for a key that is taken, and BotoCoreError if
        the store is silent.
        """
        if size > MOST_BYTES:
            return None
        named = {"x-amz-checksum-sha256": base64.b64encode(bytes.fromhex(sha256)).decode()}
        url = self.url + quote(key, safe="/~")
        request = AWSRequest("PUT", url, headers={**headers, **named}, data=file.read())
        _Signer(self.credentials.get_frozen_credentials(), self.region, sha256).add_auth(request)
        try:
            answer = self.http.send(request.prepare())
        except boto.ReadTimeoutError:
            raise
        except _UNSENT:
            return None
        if answer.status_code == 412:
            raise boto.ClientError(_TAKEN, "PutObject")  # type: ignore[arg-type]
        if answer.status_code != 200:
            return None
        return {name: answer.headers[header] for name, header in _FACTS.items() if header in answer.headers}
