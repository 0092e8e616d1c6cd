"""Send a PUT whose known SHA-256 both signs the request and is checked by the store: a third of boto3's cost.

boto3 computes the digest of a body again to sign it, or does not sign it at all. Here the digest that the
download gave signs it, and the standard library's HTTP client sends it, on connections that are kept.
Whatever is not a plain success is left to boto3, which retries, follows and explains.
"""

from __future__ import annotations

import base64
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO, Self
from urllib.parse import SplitResult, parse_qs, quote, urlsplit

from botocore import exceptions as boto

from storage.archive import s3
from storage.archive.signature import Keys, signed

if TYPE_CHECKING:
    from botocore.credentials import Credentials
    from mypy_boto3_s3 import S3Client

MOST_BYTES = 16 * 1024 * 1024
"""Larger bodies are left to boto3, which reads them piece by piece."""

_TAKEN = {"Error": {"Code": "PreconditionFailed"}, "ResponseMetadata": {"HTTPStatusCode": 412}}
_FACTS = {"ETag": "etag", "ChecksumSHA256": "x-amz-checksum-sha256", "VersionId": "x-amz-version-id"}
_ENDED = (ConnectionError, ssl.SSLError)
"""What a kept connection may have come to, which a server closes whenever it likes: RFC 9112, 9.5."""


class Connections:
    """Connections to one host, kept between requests. Thread-safe."""

    def __init__(self, url: SplitResult, context: ssl.SSLContext, most: int) -> None:
        """`context` is for https; `most`: how many are kept that are not used."""
        self._url = url
        self._context = context
        self._most = most
        self._lock = Lock()
        self._idle: list[HTTPConnection] = []

    def put(self, path: str, body: bytes, headers: Mapping[str, str]) -> HTTPResponse:
        """Send a PUT and return the answer, read whole.

        Raises TimeoutError if the server is silent, and another OSError or HTTPException if all else fails.
        """
        with self._lock:
            kept = self._idle.pop() if self._idle else None
        if kept is not None:
            try:
                return self._send(kept, path, body, headers)
            except _ENDED:
                pass
        return self._send(self._open(), path, body, headers)

    def close(self) -> None:
        """Close those that are kept."""
        with self._lock:
            idle, self._idle = self._idle, []
        for one in idle:
            one.close()

    def __del__(self) -> None:
        self.close()

    def _open(self) -> HTTPConnection:
        host, port, timeout = self._url.hostname or "", self._url.port, s3.CONNECT_TIMEOUT_S
        if self._url.scheme == "https":
            connection: HTTPConnection = HTTPSConnection(host, port, timeout=timeout, context=self._context)
        else:
            connection = HTTPConnection(host, port, timeout=timeout)
        try:
            connection.connect()
        except TimeoutError as error:
            raise ConnectionError("There was no connection in time.") from error
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.sock.settimeout(s3.READ_TIMEOUT_S)
        return connection

    def _send(
        self, connection: HTTPConnection, path: str, body: bytes, headers: Mapping[str, str]
    ) -> HTTPResponse:
        try:
            connection.request("PUT", path, body, headers)
            answer = connection.getresponse()
            answer.read()
        except BaseException:
            connection.close()
            raise
        with self._lock:
            keep = len(self._idle) < self._most and not answer.will_close
            if keep:
                self._idle.append(connection)
        if not keep:
            connection.close()
        return answer


@dataclass(frozen=True, slots=True)
class SignedPut:
    """Puts objects into one bucket. Thread-safe."""

    connections: Connections
    credentials: Credentials
    url: SplitResult
    """Of the bucket, with a slash at its end."""
    region: str

    @classmethod
    def into(
        cls, bucket: str, client: S3Client, credentials: Credentials | None, context: ssl.SSLContext
    ) -> Self | None:
        """Return one for a bucket; None where boto3 alone knows how its requests are sent and signed."""
        config: Any = client.meta.config
        if credentials is None or config.proxies or ":" in bucket or bucket.endswith("--x-s3"):
            return None
        # Where boto3 itself would send it, and for which region it would sign.
        link = urlsplit(client.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "k"}))
        asked = parse_qs(link.query)
        if asked.get("X-Amz-Algorithm") != ["AWS4-HMAC-SHA256"]:
            return None
        *_, region, service, _ = asked["X-Amz-Credential"][0].split("/")
        if service != "s3":
            return None
        connections = Connections(link, context, config.max_pool_connections)
        url = link._replace(path=link.path.removesuffix("k"), query="")
        return cls(connections, credentials, url, region)

    def put(
        self, key: str, file: BinaryIO, size: int, sha256: str, headers: Mapping[str, str]
    ) -> Mapping[str, Any] | None:
        """Write an object from where a file is; `sha256` in hex. None where boto3 has to do it.

        Returns facts as `put_object` does. Raises ClientError for a key that is taken, and BotoCoreError if
        the store is silent.
        """
        keys = self.credentials.get_frozen_credentials()
        if size > MOST_BYTES or keys.access_key is None or keys.secret_key is None:
            return None
        path = self.url.path + quote(key, safe="/~")
        checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
        named = {**headers, "host": self.url.netloc, "x-amz-checksum-sha256": checksum}
        account = Keys(keys.access_key, keys.secret_key, keys.token)
        sent = signed(account, self.region, "PUT", path, named, sha256, datetime.now(UTC))
        try:
            answer = self.connections.put(path, file.read(), sent)
        except TimeoutError as error:
            raise boto.ReadTimeoutError(endpoint_url=self.url.geturl(), error=error) from error
        except (OSError, HTTPException):
            return None
        if answer.status == 412:
            raise boto.ClientError(_TAKEN, "PutObject")  # type: ignore[arg-type]
        if answer.status != 200:
            return None
        told = {name: answer.headers[header] for name, header in _FACTS.items()}
        return {name: value for name, value in told.items() if value is not None}
