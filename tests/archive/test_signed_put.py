"""A PUT without boto3: its connections are kept, and whatever is not a plain success is boto3's to do."""

import hashlib
import io
import socket
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError, ReadTimeoutError

from storage.archive import s3
from storage.archive.signed_put import Connections, SignedPut
from tests.support.processes import nobody
from tests.support.raw_server import TLS, Script, Serve, reply

BODY = b"an image" * 100
SHA256 = hashlib.sha256(BODY).hexdigest()
PATH = "/bucket/a%20b.png"
STORED = reply(ETag='"e"', x_amz_version_id="v1")


def puts(url: str) -> SignedPut:
    where = urlsplit(f"{url}/bucket/")
    context = ssl.create_default_context(cafile=TLS / "ca.pem")
    return SignedPut(Connections(where, context, most=2), Credentials("AKID", "s3cr3t"), where, "us-east-1")


def put(puts: SignedPut) -> Mapping[str, Any] | None:
    return puts.put("a b.png", io.BytesIO(BODY), len(BODY), SHA256, {"content-type": "image/png"})


def answering(*answers: bytes) -> Script:
    """Answer so many requests on one connection, and close it as the next one comes."""

    def script(sock: socket.socket) -> None:
        for answer in answers:
            sock.sendall(answer)
            come = b""
            while b"\r\n\r\n" not in come:  # the head of the next one, after the body of this one
                if not (more := sock.recv(65536)):
                    return
                come += more

    return script


def silent(sock: socket.socket) -> None:
    while sock.recv(65536):
        pass


def test_connection_is_kept_and_made_anew(serve: Serve) -> None:
    server = serve({PATH: answering(STORED, STORED)})
    to = puts(server.url)
    for _ in range(4):
        assert put(to) == {"ETag": '"e"', "VersionId": "v1"}
    to.connections.close()
    assert server.connections == 2
    assert "authorization: AWS4-HMAC-SHA256 Credential=AKID/" in server.heads[0]


def test_taken_key_and_what_boto3_has_to_explain(serve: Serve) -> None:
    refused = [reply(status="412 Precondition Failed"), reply(b"<Error/>", status="503 Slow Down")]
    server = serve({PATH: answering(*refused)})
    to = puts(server.url)
    with pytest.raises(ClientError, match="PreconditionFailed"):
        put(to)
    assert put(to) is None
    to.connections.close()
    assert put(puts(f"http://127.0.0.1:{nobody()}")) is None


def test_store_that_is_silent(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 0.2)
    with pytest.raises(ReadTimeoutError):
        put(puts(serve({PATH: silent}).url))


def test_certificate_is_checked(serve: Serve) -> None:
    """It is for images.example, and this is an address."""
    server = serve({PATH: answering(STORED)}, tls=True)
    assert put(puts(server.url)) is None
    assert server.heads == []
