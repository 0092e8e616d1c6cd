"""Sign and verify the tokens in callback URLs. Pure: the clock is passed in."""

import hashlib
import hmac
import re
from binascii import a2b_base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import orjson
from itsdangerous import TimestampSigner, URLSafeTimedSerializer
from itsdangerous.encoding import base64_encode
from itsdangerous.url_safe import URLSafeSerializerMixin

from receiver.errors import BadToken
from storage.models import Clock, Job

SALT = "darkroom.callback.v1"
"""One salt per purpose and version, so that no other signed thing can stand in for a callback token."""

MAX_TOKEN_CHARS = 299

CLOCK_SLACK_S = 3600
"""How far in the future a token may have been made: a clock may have been set back since, or replicas
disagree. With no limit, a token made under a wildly wrong clock would be valid for ever."""

# Payload, time and signature. A compressed payload begins with a dot and so does not fit: ours never are.
# The last of the 43 characters that 32 bytes take has two spare bits, which would allow more spellings.
_SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]", re.ASCII)


class _ClockedSigner(TimestampSigner):
    """A signer with a clock of its own."""

    def __init__(self, *args: Any, clock: Clock, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._clock = clock

    def get_timestamp(self) -> int:
        return self._clock() // 1000


_STANDARD = bytes.maketrans(b"-_", b"+/")


class CallbackClaims(NamedTuple):
    """The claims of a callback token."""

    job_id: str
    submission: int
    """Which submission of the job it was, from 1."""


class _PlainSerializer(URLSafeTimedSerializer):
    """Serializes without compression, so that no token is ever decompressed."""

    def dump_payload(self, obj: Any) -> bytes:
        return base64_encode(super(URLSafeSerializerMixin, self).dump_payload(obj))


class CallbackTokens:
    """Signs and verifies the tokens in callback URLs. A token names a gateway and a job; it hides neither.

    `secret_keys` are oldest first: the last one signs, all of them verify. A token is good for
    `max_age_s` seconds, the last one included. It may be used any number of times: gateways send
    callbacks again, and the ledger drops duplicates.
    """

    def __init__(self, secret_keys: Sequence[str], *, max_age_s: int, clock: Clock) -> None:
        if isinstance(secret_keys, str) or not secret_keys or not all(secret_keys):
            # A bare text would be taken as a list of one-letter keys.
            raise ValueError("secret_keys must be a list of at least one key, none of them empty")
        self._max_age_s = max_age_s
        self._clock = clock
        self._secret_keys = list(secret_keys)
        self._serializer = self._made_at(clock)
        signer = cast("TimestampSigner", self._serializer.make_signer(SALT))
        # The newest first. Each has its key in it already, which itsdangerous would derive for every token.
        self._keyed = [
            hmac.new(signer.derive_key(key), digestmod="sha256") for key in reversed(self._secret_keys)
        ]

    def make(self, gateway: str, job_id: str, *, submission: int = 1, made_at: int | None = None) -> str:
        """Sign a token of fewer than 300 characters; raises ValueError if the names do not fit in one.

        `submission` is which submission of the job it is for. `made_at` (milliseconds) is when its life
        begins, now by default. One submission's token must be the same each time it is made: to a
        gateway, another callback URL is another request, and it returns 409 for its idempotency key.
        """
        serializer = self._serializer if made_at is None else self._made_at(lambda: made_at)
        token = serializer.dumps([gateway, job_id] if submission == 1 else [gateway, job_id, submission])
        if len(token) > MAX_TOKEN_CHARS:
            raise ValueError(f"a callback token may not exceed {MAX_TOKEN_CHARS} characters")
        return token

    def read(self, token: str, gateway: str) -> CallbackClaims:
        """Return the claims of a valid token.

        Raises BadToken, and nothing else, whatever it is given. Its reason is `missing`, `forged`,
        `foreign` (made for another gateway) or `expired`.
        """
        if not token:
            raise BadToken("missing")
        if len(token) > MAX_TOKEN_CHARS or _SHAPE.fullmatch(token) is None:
            # What no token of ours looks like, before anything is decoded.
            raise BadToken("forged")
        signed, _, signature = token.encode().rpartition(b".")
        if not self._is_signed(signed, _decoded(signature)):
            raise BadToken("forged")
        text, _, made_at = signed.partition(b".")
        try:
            payload = orjson.loads(_decoded(text))
            made_at_s = int.from_bytes(_decoded(made_at), "big")
        except ValueError:
            raise BadToken("forged") from None
        if not _one_of_ours(payload):
            raise BadToken("forged")
        if payload[0] != gateway:
            raise BadToken("foreign")
        age_s = self._clock() // 1000 - made_at_s
        if not -CLOCK_SLACK_S <= age_s <= self._max_age_s:
            raise BadToken("expired")
        return CallbackClaims(payload[1], payload[2] if len(payload) > 2 else 1)

    def _is_signed(self, signed: bytes, signature: bytes) -> bool:
        for keyed in self._keyed:
            mac = keyed.copy()
            mac.update(signed)
            if hmac.compare_digest(mac.digest(), signature):
                return True
        return False

    def _made_at(self, clock: Clock) -> _PlainSerializer:
        return _PlainSerializer(
            self._secret_keys,
            salt=SALT,
            signer=_ClockedSigner,
            signer_kwargs={"digest_method": hashlib.sha256, "clock": clock},
        )


@dataclass(frozen=True, slots=True)
class CallbackUrls:
    """Makes the signed URL on which a gateway reports a job; none without a public URL."""

    public_url: str | None
    tokens: CallbackTokens

    def make(self, job: Job) -> str | None:
        """Return the URL for one job, or None if no gateway could reach it."""
        if self.public_url is None:
            return None
        token = self.tokens.make(job.gateway, job.id, submission=job.submission, made_at=job.began_at)
        return f"{self.public_url}/callbacks/{job.gateway}/{token}"


def _decoded(text: bytes) -> bytes:
    """Decode URL-safe base64 without its padding; raise ValueError."""
    return a2b_base64(text.translate(_STANDARD) + b"==")


def _one_of_ours(payload: object) -> bool:
    if not isinstance(payload, list) or len(payload) not in {2, 3}:
        return False
    return all(isinstance(part, str) for part in payload[:2]) and all(type(n) is int for n in payload[2:])
