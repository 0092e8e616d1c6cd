import base64
import hashlib
import hmac
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from receiver.errors import BadSignature, SettingsError
from receiver.signatures import (
    APIFRAME_V1,
    APIFRAME_V2,
    BFL,
    BRIA,
    FREEPIK,
    KIE,
    LEGNEXT,
    LEONARDO,
    PIAPI,
    SCHEMES,
    STANDARD,
    WAVESPEED,
    Scheme,
    Signed,
    Verifier,
    check_secret,
)

NOW_S = 1_763_769_600
BODY_A = b'{"event":"completed","jobId":"b2c3d4e5-f6a7-4901-8bcd-ef2345678901","status":"COMPLETED"}'
BODY_B = b'{"hello":"world"}'
WHSEC = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
NAMED = {"webhook-id": "msg_0001", "webhook-timestamp": str(NOW_S)}
BRIA_NAMED = {f"bria-{name}": value for name, value in NAMED.items()}
APIFRAME_RAW = "4930cbb0639f96494890290fd96005e37e48fe62ea9dc0b81425090c0a1075e1"
APIFRAME_HEX = "d32280916619e47c172bde2e7b70939fcbd792082ff279a7bf40e16ddd608e4a"
WAVESPEED_HEX = "5008d878bbf29df04573e2856087be71e0e470f40a482fe1a3362f28d3fb7ba9"
BFL_HEX = "0a522177f3617305e438b5d692190e6bbc141eafc56dba43eea67a753f05990f"
LEGNEXT_HEX = "456523cefcc43ef9910403f30efef98b6ff5c1400f07b5b3e962c75076fedd0a"
LEGNEXT_DATED = "79a27421702e75c56b1122cbcdd4bbf41759a63056fcae1dc60c3089794638cd"
TOKEN = "a-token-of-32-characters-or-more"


@dataclass(frozen=True)
class Vector:
    """A signed callback, and what is to be read from it."""

    scheme: Scheme
    secret: str
    signature: str
    body: bytes
    signed: Signed
    named: Mapping[str, str] = field(default_factory=lambda: NAMED)
    task_id: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {**self.named, self.scheme.header: self.signature}

    def verify(self, **changes: Any) -> Signed | None:
        given = {"headers": self.headers, "body": self.body, "now_s": NOW_S, "task_id": self.task_id}
        secrets = changes.pop("secrets", [self.secret])
        return Verifier(self.scheme, secrets).verify(**{**given, **changes})


WHOLE = Signed(0, 0, body_covered=True, timestamp=NOW_S, message_id="msg_0001")
UNTIMED = Signed(0, 0, body_covered=True)
ORIGIN = Signed(0, 0, body_covered=False)
VECTORS = {
    "apiframe-raw": Vector(APIFRAME_V2, "afk_test_key", f"sha256={APIFRAME_RAW}", BODY_A, UNTIMED, {}),
    "apiframe-hex": Vector(
        APIFRAME_V2, "afk_test_key", APIFRAME_HEX, BODY_A, replace(UNTIMED, key_form=1), {}
    ),
    "standard": Vector(STANDARD, WHSEC, "v1,5e4R2G62YW32BHnkifg2A2ApytfQdQ5uIXNpjtnpbvk=", BODY_B, WHOLE),
    "wavespeed": Vector(WAVESPEED, WHSEC, f"v3,{WAVESPEED_HEX}", BODY_B, WHOLE),
    "freepik": Vector(
        FREEPIK, "fpk_test_secret", "v1,/IkGV7wI0ScpLYfAbktL8v+15JMO52eKdcL1hk8gAwo=", BODY_B, WHOLE
    ),
    "bfl": Vector(BFL, "bfl_secret", f"sha256={BFL_HEX}", BODY_B, UNTIMED, {}),
    "bria": Vector(
        BRIA, "bria_token", "v1=WEZErym7I6Oe69k3yjN5uPGKux2P84kEoTDL+Os0X8Q=", BODY_B, WHOLE, BRIA_NAMED
    ),
    "kie": Vector(
        *(KIE, "kie_test_hmac_key", "02+8lHh/5gw7/L3/8sgEJJcDTElwsJqIX6b4vcGbFm4=", BODY_B),
        *(replace(ORIGIN, timestamp=NOW_S), {"x-webhook-timestamp": str(NOW_S)}, "task_abc123"),
    ),
    "legnext": Vector(LEGNEXT, "legnext_secret_0001", LEGNEXT_HEX, BODY_B, UNTIMED, {}),
    "legnext-dated": Vector(
        *(LEGNEXT, "legnext_secret_0001", LEGNEXT_DATED, BODY_B, replace(UNTIMED, timestamp=NOW_S)),
        {"x-legnext-timestamp": str(NOW_S)},
    ),
    "freepik-decoded": Vector(
        *(FREEPIK, WHSEC.removeprefix("whsec_"), "v1,5e4R2G62YW32BHnkifg2A2ApytfQdQ5uIXNpjtnpbvk="),
        *(BODY_B, replace(WHOLE, key_form=1)),
    ),
    "apiframe-v1": Vector(APIFRAME_V1, TOKEN, TOKEN, BODY_B, ORIGIN, {}),
    "piapi": Vector(PIAPI, TOKEN, TOKEN, BODY_B, ORIGIN, {}),
    "leonardo": Vector(LEONARDO, TOKEN, f"Bearer {TOKEN}", BODY_B, ORIGIN, {}),
}
each_vector = pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS.keys())
each_scheme = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES.keys())
timed = pytest.mark.parametrize("vector", [v for v in VECTORS.values() if v.signed.timestamp is not None])


@each_vector
def test_a_known_signature_fits(vector: Vector) -> None:
    assert vector.verify() == vector.signed
    check_secret(vector.scheme, vector.secret)
    assert {known.scheme.name for known in VECTORS.values()} == set(SCHEMES), "every scheme has one"


@each_vector
def test_an_absent_signature_is_no_signature(vector: Vector) -> None:
    assert vector.verify(headers=vector.named) is None
    assert vector.verify(headers={}) is None


@each_vector
def test_keys_rotate(vector: Vector) -> None:
    other = base64.b64encode(b"another secret, 32 bytes of it..").decode()
    assert vector.verify(secrets=[other, vector.secret, vector.secret]) == replace(vector.signed, key_index=1)
    for secrets in ([other], []):
        with pytest.raises(BadSignature):
            vector.verify(secrets=secrets)


@each_vector
def test_only_what_covers_the_body_refuses_another(vector: Vector) -> None:
    for body in (vector.body + b" ", vector.body[:-1], b"\xff"):
        if not vector.signed.body_covered:
            assert vector.verify(body=body) == vector.signed
            assert not vector.signed.proves_body
            continue
        with pytest.raises(BadSignature):
            vector.verify(body=body)


@pytest.mark.parametrize(
    ("task_id", "reason"),
    [("task_abc124", "not fit"), ("\ud800", "not fit"), ("", "no task"), (None, "no task")],
)
def test_kie_signs_for_one_task_only(task_id: str | None, reason: str) -> None:
    with pytest.raises(BadSignature, match=reason):
        VECTORS["kie"].verify(task_id=task_id)


@timed
@pytest.mark.parametrize(
    ("ahead_s", "stale"),
    [(0, False), (300, False), (-300, False), (301, True), (-301, True), (10**10, True), (math.nan, True)],
)
def test_a_signature_of_another_time_is_stale(vector: Vector, ahead_s: float, stale: bool) -> None:
    signed = vector.verify(now_s=NOW_S + ahead_s)
    assert signed == replace(vector.signed, stale=stale)
    assert signed is not None
    assert signed.proves_body == (vector.signed.body_covered and not stale)


@timed
def test_another_time_does_not_fit(vector: Vector) -> None:
    for text in (str(NOW_S + 1), f"0{NOW_S}"):
        with pytest.raises(BadSignature, match="does not fit"):
            vector.verify(headers={**vector.headers, vector.scheme.time_header: text})


@timed
@pytest.mark.parametrize(
    "text", ["", "soon", "-1", "+1", "1e9", "1763769600.0", "1_763_769_600", "١٧٦٣", "9" * 5000, "nan", "²"]
)
def test_a_time_that_is_none_is_refused(vector: Vector, text: str) -> None:
    headers = {**vector.headers, vector.scheme.time_header: text}
    with pytest.raises(BadSignature, match=vector.scheme.time_header):
        vector.verify(headers=headers)


@pytest.mark.parametrize("name", ["standard", "freepik", "wavespeed", "bria"])
@pytest.mark.parametrize("text", [None, "", "msg 1", "msg.1", "é", "\ud800", "m" * 257, "a\nb", "msg_0001\n"])
def test_an_id_that_is_none_is_refused(name: str, text: str | None) -> None:
    vector = VECTORS[name]
    headers = {k: v for k, v in vector.headers.items() if k != vector.scheme.id_header}
    with pytest.raises(BadSignature, match=vector.scheme.id_header):
        vector.verify(headers=headers if text is None else {**headers, vector.scheme.id_header: text})


@pytest.mark.parametrize(
    ("name", "signatures"),
    [
        ("standard", "v1,AAAA {}"),
        ("standard", "{} v1,AAAA"),
        ("standard", "v1a,AAAA v2,x v1 ,, {}  "),
        ("freepik", "v1,AAAA {}"),
        ("wavespeed", "v3,00 v1,00 {}"),
        ("bria", "v1=AAAA,{}"),
        ("bria", " v0=AAAA , {} ,"),
        ("apiframe-raw", " {}\t"),
        *((name, VECTORS[name].signature.upper()) for name in ("apiframe-raw", "bfl", "wavespeed")),
    ],
)
def test_one_signature_among_several_is_enough(name: str, signatures: str) -> None:
    vector = VECTORS[name]
    headers = {**vector.headers, vector.scheme.header: signatures.format(vector.signature)}
    assert vector.verify(headers=headers) == vector.signed


@each_vector
@pytest.mark.parametrize(
    "shape", ["", " ", "{}x", "é{}", "v9{}", "x={}", "{}é", "\ud800{}", "{}" + " " * 4096 + "x"]
)
def test_a_changed_signature_is_refused(vector: Vector, shape: str) -> None:
    for signature in (shape.format(vector.signature), vector.signature[:-1]):
        with pytest.raises(BadSignature):
            vector.verify(headers={**vector.headers, vector.scheme.header: signature})


@pytest.mark.parametrize("header", [TOKEN, f"Basic {TOKEN}", "Bearer", "Bearer ", f"Bearer {TOKEN.upper()}"])
def test_a_token_must_be_the_very_same_and_of_its_kind(header: str) -> None:
    with pytest.raises(BadSignature):
        VECTORS["leonardo"].verify(headers={"authorization": header})


@each_scheme
@pytest.mark.parametrize(
    "secret", ["", " ", "\n", "secret-with-é-in-it-so-no-use", "\ud800" * 32, "a b" * 20]
)
def test_no_scheme_takes_a_secret_that_is_none(scheme: Scheme, secret: str) -> None:
    with pytest.raises(SettingsError, match=r"^DARKROOM_SOME_SECRET (has spaces|is too short)") as caught:
        check_secret(scheme, secret, setting="DARKROOM_SOME_SECRET")
    assert not secret.strip() or secret not in str(caught.value)


@pytest.mark.parametrize(
    ("scheme", "secret", "reason"),
    [
        (STANDARD, "whsec_", "24 bytes"),
        (STANDARD, "whsec_" + "A" * 31, "24 bytes"),
        (STANDARD, "whsec_" + "A" * 33, "base64"),
        (STANDARD, "whsec_" + "_-" * 16, "base64"),
        (STANDARD, f"prod_{WHSEC}", "base64"),
        (STANDARD, WHSEC.replace("AAEC", "AA=EC"), "base64"),
        (STANDARD, WHSEC.replace("whsec_", "whsk_"), "key pair"),
        (STANDARD, WHSEC.replace("whsec_", "whpk_"), "key pair"),
        (STANDARD, f"{WHSEC}\n", "spaces"),
        (WAVESPEED, "whsec_1234567", "8 bytes"),
        *((scheme, "1234567", "8 bytes") for scheme in (FREEPIK, BRIA, BFL, KIE)),
        *((scheme, "x" * 15, "16 bytes") for scheme in (LEONARDO, PIAPI)),
    ],
)
def test_a_half_secret_is_refused_with_the_reason(scheme: Scheme, secret: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason) as caught:
        check_secret(scheme, secret)
    assert scheme.name in str(caught.value)
    assert secret.removeprefix("whsec_") not in str(caught.value) or secret == "whsec_"


def test_a_standard_secret_needs_no_prefix_or_padding() -> None:
    vector = VECTORS["standard"]
    for secret in (WHSEC.removeprefix("whsec_"), WHSEC.rstrip("="), WHSEC + "="):
        assert vector.verify(secrets=[secret]) == vector.signed


def test_secrets_that_would_not_protect_never_verify() -> None:
    headers = {"x-bfl-signature": f"sha256={hmac.new(b'', BODY_B, hashlib.sha256).hexdigest()}"}
    with pytest.raises(SettingsError):
        Verifier(BFL, [""]).verify(headers, BODY_B, NOW_S)
    with pytest.raises(TypeError, match="list"):
        Verifier(BFL, "bfl_secret").verify(headers, BODY_B, NOW_S)


PLAIN = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=24, max_size=60)
BASE64 = st.binary(min_size=24, max_size=64).map(lambda key: "whsec_" + base64.b64encode(key).decode())
HEADER = st.one_of(
    st.text(),
    st.text(st.characters(min_codepoint=0, max_codepoint=0xFF)),
    st.sampled_from(["v1,", "v3,", "v1=", "sha256=", "Bearer ", "v1,,", "v1=, ", ""]).flatmap(
        lambda prefix: st.text("abcdef0123456789+/= ,").map(prefix.__add__)
    ),
)


def sound(scheme: Scheme, secret: str) -> bool:
    with suppress(SettingsError):
        check_secret(scheme, secret)
        return True
    return False


@each_scheme
@settings(deadline=None)
@given(
    secrets=st.lists(st.one_of(st.text(), PLAIN, BASE64), max_size=3),
    named=st.tuples(HEADER | st.just("msg_0001"), HEADER | st.integers().map(str) | st.just(str(NOW_S))),
    header=HEADER,
    body=st.binary(),
    now_s=st.floats(),
    task_id=st.none() | st.text(),
)
@example([WHSEC], ("\ud800", "\ud800"), "\ud800", b"\xff", math.inf, "\ud800")
@example([WHSEC], ("msg_0001", str(NOW_S)), "v1," * 1_000_000, b"", 0.0, "x")
@example([WHSEC], ("msg_0001", str(NOW_S)), "v1,AAAA v3,00", b"\xff\xfe", -math.inf, "\udcff")
def test_any_input_is_a_bad_signature_and_nothing_else(
    scheme: Scheme, secrets: list[str], named: tuple[str, str], header: str, body: bytes, now_s: float,
    task_id: str | None,
) -> None:  # fmt: skip
    headers = {scheme.id_header: named[0], scheme.time_header: named[1], scheme.header: header}
    usable = [secret for secret in secrets if sound(scheme, secret)]
    with suppress(BadSignature):
        signed = Verifier(scheme, usable).verify(headers, body, now_s, task_id=task_id)
        # Only who knows the secret gets through.
        assert signed is not None
        assert usable[signed.key_index] in header
