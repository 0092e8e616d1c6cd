"""Requests are signed as botocore signs them, whose own tests are AWS's."""

from datetime import UTC, datetime
from unittest.mock import patch

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from storage.archive.signature import Keys, signed

NOW = datetime(2026, 11, 30, 9, 5, 7, tzinfo=UTC)
SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
HEADERS = {
    "content-type": "image/png",
    "if-none-match": "*",
    "x-amz-meta-job": "01938f4e-0000-7000-8000-000000000000",
    "x-amz-checksum-sha256": "n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=",
}


@pytest.mark.parametrize("token", [None, "a/session+token=="])
@pytest.mark.parametrize("path", ["/bucket/a/b.png", "/%E7%94%BB/with%20space/%2B~%27.png", "/"])
@pytest.mark.parametrize("host", ["127.0.0.1:8333", "bucket.s3.eu-central-1.amazonaws.com", "[::1]:9000"])
def test_signature_is_botocores(token: str | None, path: str, host: str) -> None:
    keys, headers = Keys("AKID", "s3cr3t", token), HEADERS | {"host": host}
    ours = signed(keys, "eu-central-1", "PUT", path, headers, SHA256, NOW)
    request = AWSRequest("PUT", f"http://{host}{path}", headers=HEADERS)
    signer = S3SigV4Auth(Credentials("AKID", "s3cr3t", token), "s3", "eu-central-1")
    with (
        patch.object(signer, "payload", lambda _request: SHA256),
        patch("botocore.auth.get_current_datetime", lambda: NOW.replace(tzinfo=None)),
    ):
        signer.add_auth(request)
    theirs = {name.lower(): value for name, value in request.headers.items()}
    assert ours == theirs | {"host": host}
