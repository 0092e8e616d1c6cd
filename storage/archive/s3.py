"""Configure boto3, and translate its errors into the storage errors."""

import base64
import binascii
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple
from urllib.parse import quote, urlsplit

import botocore.exceptions as boto
from boto3.session import Session
from botocore.config import Config
from botocore.httpsession import get_cert_path
from botocore.parsers import ResponseParserError
from botocore.session import Session as BotocoreSession

from storage.archive.service_data import DATA
from storage.archive.store_facts import Addressing
from storage.errors import Conflict, Corrupt, Misconfigured, NotFound, StorageError, Unavailable
from storage.network import failure

Checksums = Literal["when_required", "when_supported"]

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
ATTEMPTS = 3
CONTENTION_WAITS_S = (0.05, 0.2, 0.8)

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, and those of other servers.
DIGEST_CODES = frozenset(
    {"BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"}
)
BUSY_CODES = frozenset({"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException"})
FULL_CODES = frozenset(
    {"QuotaExceeded", "StorageQuotaExceeded", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull"}
)
LOGIN_CODES = frozenset(
    {
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "Unauthorized",
    }
)
STYLE_CODES = frozenset({"SecondLevelDomainForbidden", "PathStyleDomainForbidden", "InvalidPathAccess"})
"""The bucket may not be in the path: of Alibaba OSS, Tencent COS and Volcengine TOS, in this order."""
REGION_CODES = frozenset(
    {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}
)
RIGHTS = {
    "PutObject": "s3:PutObject",
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "ListObjectsV2": "s3:ListBucket",
    "DeleteObject": "s3:DeleteObject",
    "CreateBucket": "s3:CreateBucket",
}
"""The right that each operation needs: https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations.html"""
AWS_DOMAINS = (".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu", ".api.aws")
_EXPIRED = "the login of the AWS profile has expired or is missing (aws sso login)"
LOGIN_ERRORS: Mapping[type[Exception], str] = {
    boto.NoCredentialsError: "none are set",
    boto.PartialCredentialsError: "one of the two is missing",
    boto.CredentialRetrievalError: "AWS's own way to get them, a role or a program, gave none",
    boto.ProfileNotFound: "there is no such profile as AWS_PROFILE names",
    boto.SSOError: _EXPIRED,
    boto.LoginError: _EXPIRED,
    boto.TokenRetrievalError: _EXPIRED,
}
"""Why there are no keys."""
AWS_FILE_ERRORS = (boto.ConfigParseError, boto.ConfigNotFound, boto.InvalidConfigError)


class NoSuchBucket(Misconfigured):
    """The bucket itself is missing."""


class Denied(Misconfigured):
    """The access key lacks a right."""


class PathRefused(Misconfigured):
    """The bucket must be named in the host, not in the path."""


class NotAccepted(Misconfigured):
    """The store refuses this request as it is: a header in it, its key or its size."""


class NoSuchRange(NotFound):
    """The object has no bytes in the requested range."""


class Contended(Unavailable):
    """Another write of the same key is in progress; S3 says to retry."""


@contextmanager
def translate_errors(what: str, *, bucket: str, endpoint: str) -> Iterator[None]:
    """Translate every error of boto3 into a StorageError that says what to do about `what`.

    No message repeats the store's own message, which may echo an access key.
    """
    try:
        yield
    except boto.ClientError as error:
        raise _error_for(error, what, bucket, endpoint) from error
    except tuple(LOGIN_ERRORS) as error:
        why = next(why for kind, why in LOGIN_ERRORS.items() if isinstance(error, kind))
        raise Misconfigured(
            f"There are no usable keys for the object store: {why}. "
            "Set DARKROOM_S3__ACCESS_KEY and DARKROOM_S3__SECRET_KEY, or the usual AWS ones."
        ) from error
    except AWS_FILE_ERRORS as error:
        raise Misconfigured(
            "The object store cannot be used: the configuration of AWS has an error, in the files that "
            "AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE name or in a variable that begins with AWS_."
        ) from error
    except boto.NoRegionError as error:
        raise Misconfigured(
            "The object store has no region: set DARKROOM_S3__REGION to that of the bucket, or AWS_REGION."
        ) from error
    except (boto.ParamValidationError, boto.EndpointProviderError, ValueError) as error:
        raise Misconfigured(
            f"The object store cannot be used for {what}: DARKROOM_S3__ENDPOINT, DARKROOM_S3__REGION or "
            "DARKROOM_S3__BUCKET is not written as it must be."
        ) from error
    except boto.FlexibleChecksumError as error:
        raise Corrupt(f"{what} came back with bytes that fail the store's own checksum.") from error
    except ResponseParserError as error:
        raise Unavailable(
            f"{endpoint} did not respond to a request for {what} as an object store should; "
            "DARKROOM_S3__ENDPOINT says where it is."
        ) from error
    except boto.BotoCoreError as error:
        raise Unavailable(
            f"The object store at {endpoint} {failure(error)} (asked for {what}; DARKROOM_S3__ENDPOINT says "
            "where it is)."
        ) from error


def _error_for(error: boto.ClientError, what: str, bucket: str, endpoint: str) -> StorageError:
    code = str(error.response.get("Error", {}).get("Code", "unknown"))[:64]
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    said = f"The object store at {endpoint} responded {status} {code} to a request for {what}"
    if code in DIGEST_CODES:
        return Corrupt(f"{what} did not arrive with the announced checksum ({code}).")
    if code in FULL_CODES:
        return Unavailable(f"{said}; it is full.")
    if code in BUSY_CODES or status == 429 or (status >= 500 and status != 501):
        return Unavailable(f"{said}; it has a fault or is overloaded.")
    if code in REGION_CODES or status in (301, 307):
        return Misconfigured(f"{said}: set DARKROOM_S3__REGION to the region of the bucket.")
    if code == "NoSuchBucket":
        return NoSuchBucket(
            f"There is no bucket {bucket!r}: set DARKROOM_S3__BUCKET to one that exists, or "
            "DARKROOM_S3__CREATE_BUCKET=true to let Darkroom create it."
        )
    if code == "RequestTimeTooSkewed":
        return Misconfigured(f"{said}: the clock of this machine is wrong.")
    if code in STYLE_CODES:
        return PathRefused(
            f"{said}: it wants the bucket in the host name; set DARKROOM_S3__ADDRESSING to auto or virtual."
        )
    if status == 401 or code in LOGIN_CODES:
        return Misconfigured(
            f"{said}: check DARKROOM_S3__ACCESS_KEY and DARKROOM_S3__SECRET_KEY, and that no proxy changes "
            "the path or the headers of a request."
        )
    if status == 403:
        right = RIGHTS.get(error.operation_name, error.operation_name)
        return Denied(
            f"{said}: the access key needs the right {right} in the bucket {bucket!r}; check its policy, and "
            "DARKROOM_S3__ACCESS_KEY and DARKROOM_S3__SECRET_KEY."
        )
    return _by_status(status, said, what)


def _by_status(status: int, said: str, what: str) -> StorageError:
    match status:
        case 404:
            return NotFound(f"The object store has no {what}.")
        case 409:
            return Contended(f"{said}: another write of it is in progress.")
        case 412:
            return Conflict(f"{what} is there already.")
        case 416:
            return NoSuchRange(f"{what} has no bytes in that range.")
    return NotAccepted(f"{said}; it does not accept that request.")


def on_aws(endpoint: str) -> bool:
    """Return whether an endpoint is one of AWS, wherever it was configured."""
    return f".{urlsplit(endpoint).hostname}".endswith(AWS_DOMAINS)


class Sessions(NamedTuple):
    """A session of boto3, and that of botocore in it."""

    boto3: Session
    core: BotocoreSession


def session(
    access_key: str | None,
    secret_key: str | None,
    region: str | None,
    *,
    ca_bundle: str | None,
    proxy: str | None,
) -> Sessions:
    """Return a session of boto3; what it trusts and its proxy hold for the clients that fetch keys too."""
    core = BotocoreSession()
    core.register_component("data_loader", DATA)
    if ca_bundle is not None:
        core.set_config_variable("ca_bundle", ca_bundle)
    # Empty, not None: with that botocore would take those of the environment.
    proxies = {} if proxy is None else dict.fromkeys(("http", "https"), proxy)
    core.set_default_client_config(Config(proxies=proxies))
    return Sessions(Session(access_key, secret_key, region_name=region, botocore_session=core), core)


def tls_context(core: BotocoreSession) -> ssl.SSLContext:
    """Return what the clients of a session trust: its own CA bundle, or boto3's."""
    bundle: Any = core.get_config_variable("ca_bundle") or True
    return ssl.create_default_context(cafile=get_cert_path(bundle))


def client_config(*, addressing: Addressing, checksums: Checksums, connections: int) -> Config:
    """Return boto3's configuration: signatures, addresses, checksums, retries, timeouts."""
    return Config(
        signature_version="s3v4",
        # `virtual` and not `auto`: URLs of AWS then have the region's host and need no redirect.
        s3={"addressing_style": addressing},
        request_checksum_calculation=checksums,
        response_checksum_validation="when_required",  # asked for where a whole object is read
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        max_pool_connections=connections,
        tcp_keepalive=True,
    )


def retry_contended(put: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """Retry with backoff while another write of the same key is in progress; then raise Contended."""
    for wait_s in CONTENTION_WAITS_S:
        try:
            return put()
        except Contended:
            time.sleep(wait_s)
    return put()


def whole_sha256(facts: Mapping[str, Any]) -> str | None:
    """Parse a response's SHA-256 of the whole object, in hex; None if it has none."""
    # The checksum of a multipart upload is one of checksums, and ends in the number of parts: `...-3`.
    try:
        digest = base64.b64decode(facts.get("ChecksumSHA256", ""), validate=True)
    except binascii.Error:
        return None
    return digest.hex() if len(digest) == 32 else None


def content_disposition(disposition: str, filename: str | None, plain: str | None = None) -> str:
    """Return a Content-Disposition value: RFC 6266 with RFC 8187, so that a name may be in any script.

    `plain` is the name for clients that only take ASCII; by default the same with `_` for other characters.
    """
    if filename is None:
        return disposition
    plain = "".join(
        sign if sign.isascii() and sign.isprintable() and sign not in '"\\%' else "_"
        for sign in plain or filename
    )
    return f"{disposition}; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"
