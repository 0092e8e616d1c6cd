"""Read gateways that an operator declares, a TOML file each, into the tables that the built-in ones have.

A file is read strictly: what is unknown, missing or cannot be compiled is an error that names file and key.
API keys and secrets never stand in it, but in the environment or files of their own.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from receiver.errors import SettingsError
from receiver.gateways import requests
from receiver.gateways.adapter import Adapter
from receiver.gateways.base import State
from receiver.gateways.reading import Wrong, compiled
from receiver.gateways.refusals import KINDS
from receiver.gateways.table import Accept, Auth, Call, Callback, Errors, Family, Read, Signing, Submit, Table
from receiver.schemas.faults import message
from receiver.settings_sources import read_secret_file
from receiver.settings_types import Hosts, Origin
from receiver.signatures import SCHEMES

MAX_FILE_BYTES = 65536
SHIPPED = Path(__file__).parent / "shipped"
"""Files for gateways that are not built in, to be copied and changed."""


def _place(text: str) -> str:
    try:
        compiled(text)
    except Wrong as error:
        raise ValueError(str(error)) from None
    return text


def _known_scheme(name: str) -> str:
    if name not in SCHEMES:
        raise ValueError(f"must be one of {', '.join(SCHEMES)}")
    return name


def _known_kinds(kinds: dict[str, str]) -> dict[str, str]:
    for code, kind in kinds.items():
        if not code.isdigit() or kind not in KINDS:
            raise ValueError(f"must lead from a number to one of {', '.join(KINDS)}")
    return kinds


Place = Annotated[str, AfterValidator(_place)]
"""Where a report has something: JMESPath with `from_json`, or nothing."""
Path_ = Annotated[str, Field(pattern=r"^/[^\s#]*$")]
Reference = Annotated[str, Field(pattern=r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$")]
"""Where a secret is: `env:NAME` or `file:/path`."""


Bounds = Annotated[list[int], Field(min_length=2, max_length=2)]
"""The fewest and the most."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class AuthPart(_Part):
    """`[auth]`: where the API key goes."""

    style: Literal["bearer", "header", "query"] = "bearer"
    name: str = Field("Authorization", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    prefix: str = Field("", pattern=r"^[\x20-\x7e]{0,32}$")

    def auth(self) -> Auth:
        """Return where the key goes, as in a table."""
        if self.style == "bearer":
            return Auth(self.name, self.prefix or "Bearer ")
        return Auth(self.name, self.prefix, self.style)


class SubmitPart(_Part):
    """`[submit]`: the request that submits a job."""

    path: Path_
    method: Literal["POST", "PUT"] = "POST"
    expect: list[int] = []
    callback: str = Field("body", pattern=r"^(body|account|(query|header):[A-Za-z0-9_-]{1,64})$")
    params: str = Field("", pattern=r"^([\w-]+(\.[\w-]+)*)?$")
    kind: Literal["json", "json-array", "multipart"] = "json"
    body: dict[str, Any]


class AcceptPart(_Part):
    """`[accept]`: what the response to a submission says."""

    id: Place
    ok: Place = ""
    error: Place = ""
    poll_url: Place = ""


class CallPart(_Part):
    """`[poll]` and `[cancel]`."""

    path: Path_
    method: Literal["GET", "POST", "PUT", "DELETE"] = "GET"
    body: dict[str, Any] | None = None
    follow: Place = ""


class ReadChanges(_Part):
    """`[read.poll]`: what polls have elsewhere."""

    unwrap: Place | None = None
    id: Place | None = None
    status: Place | None = None
    images: Place | None = None
    seed: Place | None = None
    seed_echo: Place | None = None
    model: Place | None = None
    error: Place | None = None
    credits: Place | None = None
    expired: Place | None = None

    def places(self) -> dict[str, Any]:
        """Return the places that are given, by their names in a table."""
        given = self.model_dump(exclude={"poll"}, exclude_none=True)
        return {"echoed" if name == "seed_echo" else name: place for name, place in given.items()}


class ReadPart(ReadChanges):
    """`[read]`: where reports on a job have what is read."""

    id: Place
    images: Place
    poll: ReadChanges | None = None


class StatusPart(_Part):
    """`[status]`: what status words mean; unknown ones mean that the job is running."""

    running: list[str] = []
    succeeded: list[str] = []
    failed: list[str] = []
    expired: list[str] = []

    def states(self) -> dict[str, State]:
        """Return what each word means."""
        return {word: State(name) for name, words in self.model_dump().items() for word in words}


class SignaturePart(_Part):
    """`[signature]`: how its callbacks are signed."""

    scheme: Annotated[str, AfterValidator(_known_scheme)]
    secret: Reference | None = None
    required: bool = False


class ErrorsPart(_Part):
    """`[errors]`: how its refusals are read."""

    code: Place = ""
    good: list[int] = [0, 200, 201, 202]
    kinds: Annotated[dict[str, str], AfterValidator(_known_kinds)] = {}


class PolicyPart(_Part):
    """`[policy]`: what else is known."""

    confirm: Literal["auto", "always"] = "auto"
    terminal_only: bool = True
    life_s: float | None = Field(None, gt=0)
    concurrency: int = Field(4, ge=1, le=64)
    one_image: bool = True
    limits: dict[Literal["prompt", "negative_prompt"], Bounds] = {}
    choices: dict[str, list[str]] = {}
    prices: dict[str, float] = {}
    redact: list[Annotated[str, Field(pattern=r"^[\w-]+(\.[\w-]+)*$")]] = []


class File(_Part):
    """A declared gateway, as its file has it."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{1,31}$")
    title: str = Field(min_length=1, max_length=64)
    docs: str = Field(pattern=r"^https://\S+$")
    base_url: Origin
    api_key: Reference
    image_hosts: Hosts = []
    poll_hosts: Hosts = []
    auth: AuthPart = AuthPart()
    submit: SubmitPart
    accept: AcceptPart
    poll: CallPart | None = None
    cancel: CallPart | None = None
    read: ReadPart
    status: StatusPart = StatusPart()
    no_status: Literal["succeeded-if-images", "running"] | None = None
    signature: SignaturePart | None = None
    errors: ErrorsPart = ErrorsPart()
    policy: PolicyPart = PolicyPart()
    map: dict[str, dict[str, Any]] = {}

    def table(self) -> Table:
        """Return the table that the file declares. Raises ValueError for parts that contradict each other."""
        reads = (self._read(),)
        changed = self.read.poll.places() if self.read.poll else {}
        policy, signature = self.policy, self.signature
        return Table(
            name=self.name,
            title=self.title,
            docs=self.docs,
            base_url=self.base_url,
            auth=self.auth.auth(),
            submit=self._submit(),
            callback=self._callback(),
            accept=Accept(**self.accept.model_dump()),
            read=reads,
            read_poll=(replace(reads[0], **changed),) if changed else None,
            poll=Call(**self.poll.model_dump()) if self.poll else None,
            cancel=Call(**self.cancel.model_dump()) if self.cancel else None,
            states=self.status.states(),
            signing=Signing(signature.scheme, self._signed_by(), signature.required) if signature else None,
            errors=self._errors(),
            others=self._family(),
            prices=policy.prices,
            maps=self.map,
            image_hosts=tuple(self.image_hosts),
            poll_hosts=tuple(self.poll_hosts),
            life_s=policy.life_s,
            redact=tuple(policy.redact),
            terminal_only=policy.terminal_only,
            sure={"callback": "guessed"},
        )

    def _read(self) -> Read:
        silent = {None: "", "succeeded-if-images": "images", "running": "running"}[self.no_status]
        return Read(**self.read.places(), silent=silent)  # type: ignore[arg-type]

    def _submit(self) -> Submit:
        ours = self.submit
        return Submit(ours.path, ours.body, ours.params, ours.kind, ours.method, expect=tuple(ours.expect))

    def _callback(self) -> Callback | None:
        way, _, name = self.submit.callback.partition(":")
        places = [path for path, hole in _holes(self.submit.body) if hole == "callback_url"]
        if self.signature is None and any(hole == "callback_secret" for _, hole in _holes(self.submit.body)):
            raise ValueError("[submit.body] has {callback_secret}: [signature] must say how it comes back")
        if way == "body" and len(places) != 1:
            raise ValueError("[submit.body] must have {callback_url} in one place; see submit.callback")
        if way != "body" and places:
            raise ValueError(f'[submit.body] has {{callback_url}}, though submit.callback is "{way}"')
        body = places[0] if way == "body" else ""
        return Callback(body, query=name if way == "query" else "", header=name if way == "header" else "")

    def _signed_by(self) -> Literal["setting", "derived"]:
        assert self.signature is not None
        sent = any(hole == "callback_secret" for _, hole in _holes(self.submit.body))
        return "derived" if sent and self.signature.secret is None else "setting"

    def _errors(self) -> Errors:
        usual, ours = Errors(), self.errors
        words = f"{self.accept.error} || {usual.words}" if self.accept.error else usual.words
        kinds = {int(code): kind for code, kind in ours.kinds.items()}
        return Errors(words=words, code=ours.code, good=tuple(ours.good), kinds=kinds)

    def _family(self) -> Family:
        policy = self.policy
        least, most = policy.limits.get("prompt", (1, 0))
        _, negative = policy.limits.get("negative_prompt", (0, 0))
        choices = {name: tuple(values) for name, values in policy.choices.items()}
        return Family(
            choices=choices,
            least_prompt=least,
            most_prompt=most or None,
            most_negative=negative or None,
            one_image=policy.one_image,
        )

    def settings(self, environment: Mapping[str, str]) -> dict[str, Any]:
        """Return the defaults of its settings; of secrets only those that are there.

        Raises ValueError if a file with a secret cannot be read.
        """
        found: dict[str, Any] = {"confirm": self.policy.confirm, "concurrency": self.policy.concurrency}
        if key := _secret(self.api_key, environment):
            found["api_key"] = key
        reference = self.signature.secret if self.signature else None
        if reference and (secret := _secret(reference, environment)):
            found["webhook_secrets"] = [secret]
        return found


def parse(text: str, where: str, *, taken: frozenset[str] = frozenset()) -> File:
    """Parse the text of a file. Raises SettingsError that names `where` and each key that is wrong.

    `taken` are the names that it may not have.
    """
    try:
        file = File.model_validate(tomllib.loads(text))
        file.table()
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{where} is not TOML: {error}") from None
    except ValidationError as error:
        faults = (f"  {_key(fault['loc'])}: {_sentence(fault)}" for fault in error.errors())
        raise SettingsError(f"{where} cannot be used:\n" + "\n".join(faults)) from None
    except ValueError as error:
        raise SettingsError(f"{where} cannot be used:\n  {error}") from None
    if file.name in taken:
        raise SettingsError(f"{where}: there is a gateway {file.name} already; choose another name.")
    return file


def read(path: Path, *, taken: frozenset[str] = frozenset()) -> File:
    """Read a file; see `parse`. Raises SettingsError also if it cannot be read, or is too large."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        text = content.decode()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not text in UTF-8: see its byte {error.start}.") from None
    if len(content) > MAX_FILE_BYTES:
        raise SettingsError(f"{path} has more than {MAX_FILE_BYTES} bytes, so it declares no gateway.")
    return parse(text, str(path), taken=taken)


def read_folder(folder: Path, *, taken: frozenset[str]) -> list[File]:
    """Read every `*.toml` of a folder, by name. Raises SettingsError that names file and key."""
    if not folder.is_dir():
        raise SettingsError(f"DARKROOM_GATEWAYS_DIR: {folder} is no folder. Create it, or unset the setting.")
    found: list[File] = []
    for path in sorted(folder.glob("*.toml")):
        found.append(read(path, taken=taken | {file.name for file in found}))
    return found


def adapter_of(file: File, environment: Mapping[str, str] | None = None) -> type[Adapter]:
    """Return the adapter of a declared gateway. Raises SettingsError for a secret that cannot be read."""
    try:
        given = file.settings(os.environ if environment is None else environment)
    except ValueError as error:
        raise SettingsError(f"{file.name}: {error}.") from None
    return type(
        "Declared", (Adapter,), {"__doc__": f"{file.title}.", "table": file.table(), "defaults": given}
    )


def _secret(reference: str, environment: Mapping[str, str]) -> str | None:
    way, _, name = reference.partition(":")
    return environment.get(name) or None if way == "env" else read_secret_file(name)


def _holes(body: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for key, value in body.items():
        if isinstance(value, Mapping):
            yield from _holes(value, f"{path}{key}.")
        else:
            yield from ((f"{path}{key}", name) for name, _ in requests.holes(value))


def _key(place: tuple[int | str, ...]) -> str:
    return ".".join(map(str, place)) or "the file"


def _sentence(fault: Mapping[str, Any]) -> str:
    if fault["type"] == "extra_forbidden":
        return "is unknown"
    return message(fault)
