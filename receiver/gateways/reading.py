"""Read gateways' reports on jobs by their tables: places and status words, compiled once.

Places are JMESPath. A plain one, which is nearly every one, is a few look-ups here: `jobId || job_id`,
`data.output.urls`, `from_json(resultJson).resultUrls`. It takes a twentieth of the time that `jmespath` does,
and means the same; all others are given to `jmespath`, which is imported then. `from_json` is the only
function that we add: it reads the JSON in a text, and is null for what is none.
https://jmespath.org/specification.html
"""

from __future__ import annotations

import hashlib
import hmac
import re
from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

from receiver import signatures
from receiver.errors import BadSignature, MalformedCallback
from receiver.gateways import parsing, refusals, requests
from receiver.gateways.base import Completion, Gateway, State
from receiver.gateways.settings import GatewaySettings
from receiver.gateways.table import Errors, Read, Table
from storage.models import Verdict

MAX_CHARS = 512
"""Of one alternative."""
MAX_WORDS = 256
"""How many status words are remembered with what they mean."""

Find = Callable[[Any], Any]
"""Returns what stands at an expression's place in a decoded value; None if there is nothing."""

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_PLAIN = re.compile(rf"{_NAME}(?:\.{_NAME})*", re.ASCII)
_INSIDE_TEXT = re.compile(rf"from_json\(({_NAME}(?:\.{_NAME})*)\)((?:\.{_NAME})*)", re.ASCII)


class Wrong(ValueError):
    """An expression cannot be compiled; the message says why."""


def nothing(_value: Any) -> None:
    """Find nothing: what an empty expression stands for."""


def compiled(expression: str) -> Find:
    """Compile an expression; an empty one finds nothing. Raises Wrong.

    Of alternatives (`a || b`) the first counts that is not null, false or empty; 0 does count.
    """
    if not expression:
        return nothing
    ways = alternatives(expression)
    if len(ways) == 1:
        return ways[0]

    def first(value: Any) -> Any:
        for find in ways:
            found = find(value)
            if found or (found == 0 and found is not False):
                return found
        return found

    return first


def alternatives(expression: str) -> tuple[Find, ...]:
    """Compile each of an expression's alternatives: those that `||` divides, outside of anything else."""
    parts = [part.strip() for part in expression.split("||")]
    if max(map(len, parts)) > MAX_CHARS:
        raise Wrong(f"is longer than {MAX_CHARS} characters")
    if all(map(_is_plain, parts)):
        return tuple(map(_plain, parts))
    # A part may hold its own `||`, in brackets or a text; and a pipe binds less than they do.
    apart = not any("|" in part for part in parts) and all(map(_is_whole, parts))
    return tuple(map(_compiled, parts)) if apart else (_compiled(expression),)


def around(expression: str) -> tuple[Find, ...]:
    """Compile, for each of the alternatives, the place of the object around what it finds."""
    parts = [part.strip() for part in expression.split("||")]
    if len(parts) != len(alternatives(expression)):
        return (nothing,)
    return tuple(_plain(part.rpartition(".")[0] or "@") if _is_plain(part) else nothing for part in parts)


def _is_plain(text: str) -> bool:
    return text == "@" or _PLAIN.fullmatch(text) is not None or _INSIDE_TEXT.fullmatch(text) is not None


def _is_whole(text: str) -> bool:
    try:
        _compiled(text)
    except Wrong:
        return False
    return True


@cache
def _plain(text: str) -> Find:
    if text == "@":
        return lambda value: value
    if inside := _INSIDE_TEXT.fullmatch(text):
        outer, inner = _steps(inside[1]), _steps(inside[2].removeprefix("."))
        return lambda value: _walk(parsing.inside(_walk(value, outer)), inner)
    steps = _steps(text)
    if len(steps) == 1:
        name = steps[0]
        return lambda value: value.get(name) if isinstance(value, dict) else None
    return lambda value: _walk(value, steps)


def _steps(path: str) -> tuple[str, ...]:
    return tuple(path.split(".")) if path else ()


def _walk(value: Any, steps: tuple[str, ...]) -> Any:
    for step in steps:
        if not isinstance(value, dict):
            return None
        value = value.get(step)
    return value


@cache
def _compiled(text: str) -> Find:
    if _is_plain(text):
        return _plain(text)
    import jmespath
    from jmespath.exceptions import JMESPathError

    try:
        parsed = jmespath.compile(text)
    except (JMESPathError, RecursionError) as error:
        reason = "is nested too deep" if isinstance(error, RecursionError) else str(error).partition("\n")[0]
        raise Wrong(f"is no JMESPath expression: {reason}") from None
    options = _options()

    def find(value: Any) -> Any:
        try:
            return parsed.search(value, options)
        except (JMESPathError, RecursionError, ValueError, TypeError):
            # Such as a function that was given another type than it takes.
            return None

    return find


@cache
def _options() -> Any:
    from jmespath import Options
    from jmespath.functions import Functions, signature

    class Ours(Functions):  # type: ignore[misc]
        @signature({"types": []})  # type: ignore[untyped-decorator]
        def _func_from_json(self, text: Any) -> Any:
            return parsing.inside(text)

    return Options(custom_functions=Ours())


class Unfit(parsing.Unreadable):
    """The report is in none of the shapes that the table knows."""


class Words:
    """What a gateway's status words mean, in any case, with `-` and spaces for `_`."""

    def __init__(self, own: Mapping[str, State]) -> None:
        self._own = {_spelled(word): state for word, state in own.items()}
        self._known: dict[str, State | None] = {}
        self.counts = any(word.isdigit() for word in self._own)
        """Whether numbers mean something here: those that are not listed are steps on the way."""

    def state(self, word: object) -> State | None:
        """Return the state that a word or number stands for; None if it is unknown."""
        if isinstance(word, int) and not isinstance(word, bool):
            word = str(word)
        if not isinstance(word, str) or len(word) > 64:
            return None
        if word not in self._known:
            if len(self._known) >= MAX_WORDS:
                self._known.clear()
            self._known[word] = self._own.get(_spelled(word)) or parsing.state(word)
        return self._known[word]


def _spelled(word: str) -> str:
    return re.sub(r"[\s-]+", "_", word.strip()).upper()


class Reader:
    """Reads reports by one `Read` of a table."""

    def __init__(self, read: Read, words: Words, code: Code, secrets: tuple[str, ...]) -> None:
        self._read, self._words, self._code, self._secrets = read, words, code, secrets
        self._unwrap = compiled(read.unwrap) if isinstance(read.unwrap, str) else read.unwrap
        self._when = compiled(read.when) if isinstance(read.when, str) else read.when
        self._ids = alternatives(read.id) if read.id else ()
        self._outer_id = compiled(read.outer_id)
        self._statuses = alternatives(read.status) if read.status else ()
        self._images = _places_of(read.images)
        self._errors = alternatives(read.error) if read.error else ()
        self._seed, self._echoed = compiled(read.seed), compiled(read.echoed)
        self._model, self._credits = compiled(read.model), compiled(read.credits)
        self._expired = compiled(read.expired)

    def fits(self, data: Mapping[str, Any]) -> bool:
        """Return whether a report is one that this reads."""
        return not self._read.when or self._when(self._inside(data)) not in (None, False)

    def job_id(self, data: Mapping[str, Any]) -> str | None:
        """Return the gateway's id of the job; None if there is none. Raises Unreadable if it is no id."""
        return self._job_id(self._inside(data), data)

    def completion(self, data: dict[str, Any]) -> Completion:
        """Read a report. Raises Unreadable if it has no status, or contradicts itself."""
        task = self._inside(data)
        words = [find(task) for find in self._statuses]
        images = parsing.Listed()
        state = self._state(task, words)
        if state is not State.FAILED and self._code.failed(data):
            if any(map(self._words.state, words)):
                raise parsing.Unreadable("its code says that it failed, and its status does not")
            state = State.FAILED
        if state is State.SUCCEEDED:
            images = self._found(task)
            if not images.images and self._expired(task):
                state = State.EXPIRED
        return Completion(
            state=state,
            gateway_job_id=self._job_id(task, data),
            images=images.images,
            withheld=images.withheld,
            model=parsing.label(self._model(task)),
            seed=parsing.seed(self._seed(task)) if state is State.SUCCEEDED else None,
            echoed_seed=parsing.echoed_seed(self._echoed(task)) if state is State.SUCCEEDED else None,
            credits=parsing.amount(self._credits(task)),
            error=self._error(data, task, state)
            if state is not State.RUNNING and not images.images
            else None,
            reply=data,
            unread=self._unread(task, state, words, images),
        )

    def _inside(self, data: Mapping[str, Any]) -> Any:
        found = self._unwrap(data)
        return found if isinstance(found, dict) else data

    def _job_id(self, task: Any, data: Any) -> str | None:
        inside = next((found for find in self._ids if (found := parsing.name(find(task)))), None)
        return inside or parsing.name(self._outer_id(data))

    def _state(self, task: Any, words: Sequence[Any]) -> State:
        for word in words:
            if not isinstance(word, str | int | None) or isinstance(word, bool):
                raise parsing.Unreadable("its status is not a word or a number")
            if (state := self._words.state(word)) is not None:
                return state
        if any(word is not None for word in words):
            return State.RUNNING
        match self._read.silent:
            case "images":
                return State.SUCCEEDED if self._found(task).images else State.RUNNING
            case "running":
                return State.RUNNING
        raise Unfit("it has no status")

    def _found(self, task: Any) -> parsing.Listed:
        return parsing.first_images(_listed(find(task), outer, task) for find, outer in self._images)

    def _error(self, data: Any, task: Any, state: State) -> str | None:
        found = next((text for find in self._errors if _is_text(text := find(task))), None)
        if found is None and state is State.FAILED:
            words = self._code.words(data)
            found = (
                None if self._words.state(words) is State.SUCCEEDED else words
            )  # The envelope's "success".
        if found is None and state is State.FAILED:
            found = next((word for find in self._statuses if _is_text(word := find(task))), None)
        return parsing.prose(found, self._secrets)

    def _unread(self, task: Any, state: State, words: Sequence[Any], images: parsing.Listed) -> str | None:
        if state is State.SUCCEEDED and not images.images:
            return parsing.unread_image(task)
        given = [word for word in words if word is not None]
        if state is not State.RUNNING or not given or any(map(self._words.state, given)):
            return None
        if self._words.counts and str(given[0]).isdigit():
            return None
        return parsing.unknown_status(given[0])


def _places_of(images: str | Callable[[Any], Any]) -> tuple[tuple[Find, Find], ...]:
    """Return where images are, each with the place of the object around it."""
    if not isinstance(images, str):
        return ((images, nothing),)
    return tuple(zip(alternatives(images), around(images), strict=True)) if images else ()


class Code:
    """The code in the body of an answer, which may be an error whatever its status is."""

    def __init__(self, errors: Errors) -> None:
        self._find: Find = compiled(errors.code)
        self._good = frozenset(errors.good)
        self._words = alternatives(errors.words)

    def of(self, data: Mapping[str, Any]) -> int | None:
        """Return the code if it is an error; else None."""
        given = self._find(data)
        if isinstance(given, bool) or not isinstance(given, str | int):
            return None
        text = str(given)
        if not text.isascii() or not text.lstrip("-").isdigit() or len(text) > 9:
            return None
        return None if int(text) in self._good else int(text)

    def failed(self, data: Mapping[str, Any]) -> bool:
        """Return whether the code says that it failed."""
        return self.of(data) is not None

    def words(self, data: Mapping[str, Any]) -> str | None:
        """Return what the gateway says of its refusal."""
        return next((said for find in self._words if (said := refusals.said(find(data)))), None)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.strip() != ""


def _listed(value: Any, outer: Find, task: Any) -> parsing.Listed:
    if isinstance(value, dict) and not any(key in value for key in parsing.IMAGE_KEYS):
        return parsing.Listed()  # An object of other things: a longer place may lead into it.
    return parsing.images(value, outer(task))


class Reports(Gateway, ABC):
    """What a gateway tells us, verified and read by its table, which is compiled here, once."""

    table: ClassVar[Table]
    Settings: ClassVar[type[GatewaySettings]] = GatewaySettings
    """Its settings beyond those that its table asks for."""
    defaults: ClassVar[Mapping[str, Any]] = {}
    """The defaults of its settings that differ from the usual ones."""
    nameless: ClassVar[bool] = False
    """Whether reports may lack the id of the job."""

    @classmethod
    def signs_with_key(cls) -> bool:
        """Return whether callbacks are signed with the API key, so that none is verified without it."""
        return cls.table.signing is not None and cls.table.signing.by in {"api-key", "derived"}

    def __init__(self, settings: GatewaySettings, name: str | None = None) -> None:
        """Raises SettingsError if a key or secret in the settings cannot be used."""
        table = self.table
        self.name = name or table.name
        self.prefix, self._title_s = table.prefix(self.name), f"{table.title}'s"
        self.settings = settings
        self.idempotent, self.has_keys = bool(table.idempotency), bool(getattr(settings, "keys_url", None))
        self.image_hosts, self.models, self.life_s = table.image_hosts, table.models, table.life_s
        self._base_url = settings.base_url.rstrip("/")
        self._api_key = requests.usable_key(settings.key, f"{self.prefix}__API_KEY")
        self._former = [
            requests.usable_key(key, f"{self.prefix}__PREVIOUS_API_KEYS")
            for key in settings.secrets("previous_api_keys")
        ]
        self._verifier = self._make_verifier()
        self.secrets = (self._api_key, *self._former, *self._signing_secrets())
        self._code = Code(table.errors)
        self._info = refusals.GatewayInfo(
            table.title_of(self.name), self.prefix, self.secrets, self._code.words, table.errors.kinds
        )
        self._callbacks = self._readers(table.read)
        self._polls = self._readers(table.read_poll or table.read)
        parts = (place.rpartition(".") for place in table.redact)
        self._redacted = [(compiled(outer or "@"), last) for outer, _, last in parts]

    def verify(
        self, headers: Mapping[str, str], body: bytes, *, now_s: float, keys: Sequence[bytes] = ()
    ) -> Verdict:
        """Verify a callback by the scheme of the table; see `Gateway.verify`."""
        signing = self.table.signing
        if signing is None or (self._verifier is None and signing.by != "keys"):
            return Verdict.UNSUPPORTED
        try:
            if self._verifier is not None:
                signed = self._verifier.verify(headers, body, now_s, task_id=self._task_id(body))
            else:
                signed = (
                    signatures.KEY_SCHEMES[signing.scheme].verify(headers, body, now_s, keys)
                    if keys
                    else None
                )
        except BadSignature as error:
            raise BadSignature(
                f"The callback's signature is not {self._title_s}. {self._advice()}"
            ) from error
        if signed is None and signing.required:
            raise BadSignature(f"The callback has no signature, though {self._title_s} must have one.")
        if signed is None:
            return Verdict.ABSENT
        if not signed.body_covered:
            return Verdict.ORIGIN
        return Verdict.STALE if signed.stale else Verdict.VALID

    def read_callback(self, body: bytes) -> Completion:
        """Parse a callback. Raises MalformedCallback if it is not JSON or not this gateway's shape."""
        try:
            return self._named(self._read(parsing.decode(body), self._callbacks))
        except parsing.Unreadable as error:
            raise MalformedCallback(f"The callback is not one of {self._title_s}: {error}.") from error

    def job_id(self, data: dict[str, Any], readers: Sequence[Reader]) -> str | None:
        """Return the id of the job that a report is about. Raises Unreadable if it is no id."""
        return next((reader.job_id(data) for reader in readers if reader.fits(data)), None)

    def _named(self, completion: Completion) -> Completion:
        if completion.gateway_job_id is None and not self.nameless:
            raise parsing.Unreadable("it names no job")
        return completion

    def _read(self, data: dict[str, Any], readers: Sequence[Reader]) -> Completion:
        for outer, last in self._redacted:
            if isinstance(within := outer(data), dict) and last in within:
                within[last] = "[redacted]"
        for reader in readers:
            if reader.fits(data):
                return reader.completion(data)
        if self._code.failed(data):
            error = parsing.prose(self._code.words(data), self.secrets)
            return Completion(State.FAILED, self.job_id(data, readers), error=error, reply=data)
        raise parsing.Unreadable("it is in none of the shapes that are known")

    def _readers(self, reads: Sequence[Read]) -> tuple[Reader, ...]:
        own = ({**self.table.states, **read.states} for read in reads)
        return tuple(
            Reader(read, Words(states), self._code, tuple(self.secrets))
            for read, states in zip(reads, own, strict=True)
        )

    def _signing_secrets(self) -> list[str]:
        signing = self.table.signing
        if signing is None:
            return []
        match signing.by:
            case "api-key":
                return [self._api_key, *self._former]
            case "derived":
                return [derived(key) for key in (self._api_key, *self._former)]
            case "setting":
                return self.settings.secrets("webhook_secrets")
        return []

    def _make_verifier(self) -> signatures.Verifier | None:
        signing, secrets = self.table.signing, self._signing_secrets()
        if signing is None or not secrets:
            return None
        scheme = signatures.SCHEMES[signing.scheme]
        if signing.by == "setting":
            for secret in secrets:
                signatures.check_secret(scheme, secret, setting=f"{self.prefix}__WEBHOOK_SECRETS")
        return signatures.Verifier(scheme, secrets)

    def _task_id(self, body: bytes) -> str | None:
        """Return the id in a body, for a scheme that signs it and not the body."""
        signing = self.table.signing
        if (
            signing is None
            or signing.by == "keys"
            or signatures.SCHEMES[signing.scheme].content != "task_id.ts"
        ):
            return None
        try:
            return self.job_id(parsing.decode(body), self._callbacks)
        except parsing.Unreadable:
            return None

    def _advice(self) -> str:
        settings, signing = self.prefix, self.table.signing
        if signing and signing.by == "setting":
            return f"Check {settings}__WEBHOOK_SECRETS."
        if signing and signing.by == "keys":
            return f"Its keys are those of {settings}__KEYS_URL."
        return (
            f"Check {settings}__API_KEY; after a change of keys, list the old one in "
            f"{settings}__PREVIOUS_API_KEYS."
        )


def derived(api_key: str) -> str:
    """Return the secret that a gateway is told to sign with; it follows from the key, and is not stored."""
    return hmac.new(api_key.encode(), b"darkroom.callback-secret.v1", hashlib.sha256).hexdigest()
