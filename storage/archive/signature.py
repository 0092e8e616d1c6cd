"""Sign a request whose body's digest is known, by AWS Signature Version 4.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html. botocore's own signer gives the
same, but hashes the body again unless it is told not to, and takes five times as long.
"""

import hmac
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from hashlib import sha256 as digest_of
from typing import NamedTuple


class Keys(NamedTuple):
    """The keys of an account."""

    access: str
    secret: str
    token: str | None
    """Of keys that expire."""


def signed(
    keys: Keys, region: str, method: str, path: str, headers: Mapping[str, str], sha256: str, now: datetime
) -> dict[str, str]:
    """Return the headers of a signed request, `host` among them; names are in lower case.

    `path` is quoted as it is sent, without a query. Values of headers have no spaces but single ones within.
    `sha256` is that of the body, in hex; `now` is in UTC.
    """
    at = now.strftime("%Y%m%dT%H%M%SZ")
    sent = {**headers, "x-amz-content-sha256": sha256, "x-amz-date": at}
    if keys.token:
        sent["x-amz-security-token"] = keys.token
    names = sorted(sent)
    listed = ";".join(names)
    canonical = "\n".join([method, path, "", *(f"{name}:{sent[name]}" for name in names), "", listed, sha256])
    scope = f"{at[:8]}/{region}/s3/aws4_request"
    told = "\n".join(["AWS4-HMAC-SHA256", at, scope, digest_of(canonical.encode()).hexdigest()])
    signature = hmac.digest(_key(keys.secret, scope), told.encode(), "sha256").hex()
    credential = f"Credential={keys.access}/{scope}, SignedHeaders={listed}"
    sent["authorization"] = f"AWS4-HMAC-SHA256 {credential}, Signature={signature}"
    return sent


@lru_cache(maxsize=4)
def _key(secret_key: str, scope: str) -> bytes:
    key = b"AWS4" + secret_key.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
