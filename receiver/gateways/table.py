"""Declare a gateway: one frozen table says what is sent to it and where its answers have what we read.

Everything is derived from it: requests, readings, polls, refusals, signatures, settings, `GET /v1/models`,
help and tests. Places in JSON are JMESPath (see `reading.py`), written as `a || b` where there are
several; texts with `{name}` in braces are filled (see `requests.py`). Nothing here holds a value of a
setting, so that the same table could be read from a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from receiver.gateways.base import State


def _none() -> Any:
    return field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Auth:
    """Where the API key goes: a header, or a parameter of the query."""

    name: str
    prefix: str = ""
    """What stands before the key in a header: `Key `."""
    style: Literal["header", "query"] = "header"


BEARER = Auth("Authorization", "Bearer ")


@dataclass(frozen=True, slots=True)
class Submit:
    """The request that submits a job."""

    path: str
    """Such as `/v1/{model}`. `{model.0}` is the model before its colon, `{model.1}` what is behind it."""
    body: Mapping[str, Any] = _none()
    """A value that is exactly `{name}` becomes that value with its type; without one its key is dropped.

    Names: `model`, `prompt`, `negative_prompt`, `aspect_ratio`, `num_images`, `seed`, `callback_url`,
    `callback_secret`, `submission_id`, `params.NAME`. Casts: `{seed:int}`, `{num_images:str}`,
    `{aspect_ratio:x}` (16x9), `{aspect_ratio:map}` (`Table.maps`; `{aspect_ratio:map.width}` of an object).
    A default: `{params.mode=fast}`."""
    params: str = ""
    """The path of the object that `params` and the fields of `Family.places` are merged into; at the top."""
    kind: Literal["json", "json-array", "multipart"] = "json"
    """How the body is sent: an object, a list with that one object, or a form."""
    method: str = "POST"
    headers: Mapping[str, str] = _none()
    query: Mapping[str, str] = _none()
    """Filled like the values of the body."""
    expect: tuple[int, ...] = ()
    """The statuses that mean success; without any, every 2xx."""


@dataclass(frozen=True, slots=True)
class Callback:
    """How a gateway is told where to report. All empty: the URL is set for the whole account."""

    body: str = ""
    """The path of the callback URL in the body, or a parameter of the query, or a header."""
    query: str = ""
    header: str = ""
    also: Mapping[str, Any] = _none()
    """Merged into the body with it, such as the events that are asked for."""


@dataclass(frozen=True, slots=True)
class Accept:
    """Where the response to a submission has what we need."""

    id: str
    poll_url: str = ""
    result: bool = True
    """Whether it may have the images already, in the shape of a poll."""
    ok: str = ""
    """What must be true of it. If not, the job was refused with the words at `error`; without any, nobody
    knows."""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """A request about a job: `{id}` is the gateway's id of it; `{model}` and its parts as in `Submit`."""

    path: str
    method: str = "GET"
    body: Mapping[str, Any] | None = None
    follow: str = ""
    """For a poll: the place of the URL, on the same host, that has the result once the job succeeded."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The gateway's own list of our jobs, newest first."""

    path: str
    cursor: str
    """The parameter of the query that has the cursor."""
    jobs: str
    next: str
    """The place of the next cursor; only of a page that has more."""
    more: str = ""
    """The place that is true if there are more; without one the next cursor says so."""


@dataclass(frozen=True, slots=True)
class Read:
    """Where a report on a job has what we read: places are looked for in what `unwrap` finds."""

    unwrap: str | Callable[[Any], Any] = ""
    """The object that all other places are in; the report itself where it is not there."""
    when: str | Callable[[Any], bool] = ""
    """The place that must be there for this reading, where a gateway has several."""
    id: str = "id"
    outer_id: str = ""
    """Where the report itself has the id, if the object that is read has none."""
    status: str = "status"
    """Of alternatives the first that is a known word counts."""
    states: Mapping[str, State] = _none()
    """Before those of the table."""
    images: str | Callable[[Any], Any] = ""
    """A link, a list of links, or of objects with one: see `parsing.images`. Of alternatives the first that
    has an image counts. Name the list and not the links in it (`images`, not `images[].url`), because places
    without an image are told by their gaps."""
    seed: str = ""
    """The seed that the gateway used. One that is only our own input sent back is `echoed`."""
    echoed: str = ""
    model: str = "model"
    error: str = "error.message || error"
    credits: str = ""
    expired: str = ""
    """True if it deleted what it made: with a success that has no images."""
    silent: Literal["", "images", "running"] = ""
    """What a report without a status means: a success if it has images, or running; else it is unreadable."""


@dataclass(frozen=True, slots=True)
class Signing:
    """How its callbacks are signed, by the name of a scheme in `receiver.signatures`."""

    scheme: str
    by: Literal["api-key", "setting", "derived", "keys"] = "setting"
    """With the API key; a secret of its own, which is a setting (`webhook_secrets`); one derived from the API
    key, which is sent along as `{callback_secret}`; or a key of the gateway's, whose other half it
    publishes."""
    required: bool = False
    """Whether a callback without a signature is refused."""
    about: str = ""
    """For the setting: where the secret is found, in a sentence."""
    keys: str = ""
    """The URL of the JWKS document with its public keys."""


@dataclass(frozen=True, slots=True)
class Errors:
    """How the gateway's refusals are read."""

    words: str = "error.message || error || message || msg || detail"
    """Where its own words are."""
    code: str = ""
    """The place of a code in the body, which may be an error whatever the HTTP status is."""
    good: tuple[int, ...] = (0, 200, 201, 202)
    never_job: frozenset[int] = frozenset({401, 402, 403, 404, 408, 425, 429, 455, 503})
    """Codes that are never about the job that a response names: our key, the rate limit, its health."""
    kinds: Mapping[int, str] = _none()
    """A status or code to its kind, where it is not the usual: `unauthorized`, `credits`, `rate-limited`,
    `refused`, `unavailable`, `unknown-job`."""


@dataclass(frozen=True, slots=True)
class Family:
    """Models of a gateway that take the same parameters."""

    models: tuple[str, ...] = ()
    places: Mapping[str, str] = _none()
    """Where our fields go in the object of `Submit.params`: our name to the gateway's, with a cast as in
    `Submit.body` (`image_size:map`). What is neither here nor in the body cannot be expressed."""
    block: str = ""
    """An object of the family's own in place of that of `Submit.params`."""
    maps: Mapping[str, Mapping[str, Any]] = _none()
    """In place of `Table.maps`, for these models."""
    choices: Mapping[str, tuple[str, ...]] = _none()
    """The gateway's keys that take only these texts."""
    seeds: tuple[int, int] | None = None
    """The least and the greatest seed, where there are bounds."""
    most_images: int | None = None
    least_prompt: int = 1
    most_prompt: int | None = None
    most_negative: int | None = None
    """The longest negative prompt, where there is a bound."""
    ratio_pattern: bool = False
    """Whether an aspect ratio must be two numbers around a colon."""
    required: tuple[str, ...] = ()
    """The keys of `params` that must be given."""
    one_image: bool = True
    """Whether a job without a count makes one image, so that asking for one is nothing to express."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """All that is known of one gateway."""

    name: str
    """In URLs, settings and the ledger: `api-in-one`."""
    title: str
    """For people: `API in One`."""
    docs: str
    base_url: str
    """Where its API is, without a path: a default, the setting `base_url` counts."""
    submit: Submit
    accept: Accept
    read: tuple[Read, ...]
    """How its callbacks are read: by the first that fits."""
    auth: Auth = BEARER
    callback: Callback | None = None
    poll: Call | None = None
    """None where nothing can be asked."""
    read_poll: tuple[Read, ...] | None = None
    """How responses to polls are read, where that differs."""
    listing: Listing | None = None
    cancel: Call | None = None
    states: Mapping[str, State] = _none()
    """Its status words, in any case, before the usual ones of `parsing.STATES`; numbers as texts."""
    signing: Signing | None = None
    errors: Errors = Errors()
    families: tuple[Family, ...] = ()
    others: Family | None = None
    """What models take that are in no family; None if that is not known: then only `params` can say it."""
    prices: Mapping[str, float] = _none()
    """Credits for one image by the gateway's price list; these models are known too."""
    maps: Mapping[str, Mapping[str, Any]] = _none()
    """For the cast `:map`: our field to what each value is there; an object of several keys is merged."""
    advice: Mapping[str, str] = _none()
    """Further names that `params` may not have, each with what to do instead."""
    idempotency: str = ""
    """The header that takes our idempotency key; empty if it has none."""
    image_hosts: tuple[str, ...] = ()
    """The hosts of its images, with their subdomains; empty where they are not known."""
    poll_hosts: tuple[str, ...] = ()
    """Further hosts, with their subdomains, that the API key may be sent to for a poll."""
    life_s: float | None = None
    """How long the links to images live, where that is known: the shorter, the sooner they are downloaded."""
    redact: tuple[str, ...] = ()
    """Places of a report, dotted, that are blanked where it is kept: secrets that it repeats."""
    terminal_only: bool = True
    """Whether callbacks come at the end only."""
    sure: Mapping[str, Literal["confirmed", "likely", "guessed"]] = _none()
    """How sure we are: of `callback`, `signature`, `life` and so on; what is not named is confirmed."""

    @cached_property
    def settings(self) -> str:
        """The prefix of its settings: `DARKROOM_GATEWAYS__API_IN_ONE`."""
        return f"DARKROOM_GATEWAYS__{self.setting.upper()}"

    @cached_property
    def setting(self) -> str:
        """Its name in Python and in the settings."""
        return self.name.replace("-", "_")

    def title_of(self, name: str) -> str:
        """Return what people know an account by: `Apiframe (second)`."""
        account = name.partition(".")[2]
        return f"{self.title} ({account})" if account else self.title

    def prefix(self, name: str) -> str:
        """Return the prefix of the settings of an account by its name: `apiframe.second` has those of
        `DARKROOM_GATEWAYS__APIFRAME__ACCOUNTS__SECOND`, and `apiframe` the gateway's own.
        """
        account = name.partition(".")[2].replace("-", "_").upper()
        return f"{self.settings}__ACCOUNTS__{account}" if account else self.settings

    @cached_property
    def by_model(self) -> Mapping[str, Family]:
        """The family of each known model."""
        return {model: family for family in self.families for model in family.models}

    @cached_property
    def models(self) -> tuple[str, ...]:
        """Every known model."""
        return tuple(dict.fromkeys([*self.by_model, *self.prices]))

    def family(self, model: str) -> Family | None:
        """Return what a model takes; None if that is not known."""
        return self.by_model.get(model, self.others)
