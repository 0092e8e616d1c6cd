"""Parse the query language into a SearchFilter: for the API's `q`, the command line and the gallery.

    red kite "grey harbour" -cartoon model:imagen-4 tag:campaign=spring since:7d width:>=1024

All conditions must hold, but for words that `OR` joins. Text without a known key before its colon is searched
for in the prompt, so that prompts can be pasted: `16:9`, `https://...`, `--ar` and `*` are plain words. The
operators `OR`, `AND` and `*` behind a word never find less than the same words as they stand. `GUIDE` has an
example of everything; `receiver.query.hints` says what may be mistyped.
"""

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from itertools import chain
from typing import Any

from receiver.errors import InvalidRequest
from receiver.query import values
from receiver.query.tokenizer import Item, plain_or_quoted, split
from storage.ledger.search_index import fold
from storage.models import Status
from storage.search.filters import SearchFilter

MAX_CHARS = 1000
MAX_WORDS = 32
MAX_FOLDED = 2_000
"""Longest word after folding: some single characters fold to whole phrases."""
_BEGINNING = re.compile(r"[^*]*\w\*")
IN_QUOTES = "to search for the words themselves, put them in quotes"


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the language. `accepts` ends the sentence "it takes ..."; `asks` are the filter's fields."""

    read: values.Parser
    accepts: str
    asks: Set[str]
    excludes: bool = False
    """Whether `-key:value` is allowed."""


_BOUNDS = "1024, >=1024, <1024 or 512..1024"

KEYS: Mapping[str, Key] = {
    "seed": Key(values.exactly("seed"), "a seed, such as 42", {"seed"}, excludes=True),
    "model": Key(values.exactly("model"), "a model, such as imagen-4", {"model"}, excludes=True),
    "gateway": Key(values.name("gateway"), "a gateway, such as apiframe", {"gateway"}, excludes=True),
    "tag": Key(values.tag, "name=value", {"tags"}, excludes=True),
    "status": Key(values.status, ", ".join(Status), {"status"}, excludes=True),
    "is": Key(values.mark, "short", {"mark"}, excludes=True),
    "type": Key(values.media_type, ", ".join(values.MEDIA_TYPES), {"media_type"}, excludes=True),
    "size": Key(values.size, "width x height, such as 1024x768", {"width", "height"}),
    "width": Key(values.number("width"), _BOUNDS, {"width"}),
    "height": Key(values.number("height"), _BOUNDS, {"height"}),
    "bytes": Key(values.number("bytes", units=True), "500000, >=1MB, <64KiB or 1MB..5MB", {"bytes"}),
    "since": Key(values.moment("since"), "7d, 12h, 2026-11-22 or 2026-11-22T10:00:00Z", {"since"}),
    "until": Key(values.moment("until"), "7d, 12h, 2026-11-22 or 2026-11-22T10:00:00Z", {"until"}),
    "on": Key(values.day, "a day, such as 2026-11-22", {"since", "until"}),
    "sha256": Key(values.digest, "4 to 64 hexadecimal digits", {"sha256"}),
    "sha": Key(values.digest, "4 to 64 hexadecimal digits", {"sha256"}),
    "job": Key(values.exactly("job"), "the id of a job", {"job"}),
    "code": Key(values.exactly("code"), "the code of a job's error, such as no_answer", {"code"}),
}

GUIDE: Sequence[tuple[str, str]] = (
    ("red kite", "both words are in the prompt: in any case, script or width, also within a word"),
    ('"red kite"', "this phrase is in the prompt, also over a line end; in quotes `seed:1` is a plain word"),
    ("kite OR balloon", "one of both words, or both; `OR` in capitals, between words or phrases"),
    ("ram*", "words that begin so; as words are also found within words, `ram` finds the same"),
    ('-cartoon -"oil painting"', "neither is in the prompt"),
    ("model:imagen-4", "the model, as requested or as reported, in any case"),
    ("seed:42", "the seed, as requested or as reported"),
    ("gateway:apiframe", "the gateway"),
    ('tag:campaign="spring sale"', "a tag and its value; several tags are possible"),
    ('tag:"my project"=menu', "a tag whose name has a space"),
    ("status:archived", "the job's status"),
    ("is:short", "jobs for which the gateway returned fewer images than requested, and their images"),
    ("code:no_answer", "the code of the job's error"),
    ("job:01a201ee-8cc4-7255-b42d-d6cf39ac8954", "the outputs of that job"),
    ("type:png", "PNG, or another type, such as `jpg`, `webp`, `avif` or `heic`"),
    ("size:1024x768", "exactly that wide and high"),
    ("width:>=1024 height:512..1024", "bounds, included; also `<`, `<=`, `>` and plain `width:1024`"),
    ("bytes:<1.5MB", "the size of the file; kB and MB are 1000 and 1000000, KiB and MiB 1024 and 1048576"),
    ("since:7d until:12h", "when the job was created: how long ago, a date, or an RFC 3339 time"),
    ("on:2026-11-22", "created on that day, UTC"),
    ("sha256:1017830d", "the digest of the image, or its beginning; also `sha:`"),
    ("-model:imagen-4 -tag:campaign=menu", "not that; also for `gateway`, `is`, `seed`, `status` and `type`"),
)
"""Examples of everything in the language, and what each means."""


def read_query_text(text: str, now: int) -> SearchFilter:
    """Parse a query text; `now`, in milliseconds, is what `7d` counts from.

    A quote that is not closed reaches to the end. Raises InvalidRequest with a fault for each key that has an
    invalid value or comes twice, and for too many characters or words.
    """
    if len(text) > MAX_CHARS:
        raise _invalid([f"may have {MAX_CHARS} characters at most"])
    parse = _Parse(now)
    for group in _groups(list(split(text, KEYS))):
        if len(group) > 1:
            parse.take_one_of(group)
        else:
            parse.take(group[0])
    return parse.result()


def joins(items: Sequence[Item], at: int) -> bool:
    """Return whether the item at a place is `OR` or `AND` between two words."""
    return (
        items[at].source in ("OR", "AND")
        and 0 < at < len(items) - 1
        and all(one.key is None and not one.minus and one.text for one in (items[at - 1], items[at + 1]))
    )


def with_key(text: str, key: str, value: str) -> str:
    """Return a query text with this value of a key instead of any other; of a tag it is `name=value`.

    Conflicting keys are removed: `since` and `until` for `on`, `width` for `size`, and the reverse. Other
    tags stay. `value` must be valid for the key.
    """
    kept = [item.source for item in split(text, KEYS) if not _conflicts(item, key, value)]
    if key == "tag":
        name, _, rest = value.partition("=")
        return " ".join([*kept, f"tag:{plain_or_quoted(name)}={plain_or_quoted(rest)}"])
    return " ".join([*kept, f"{key}:{plain_or_quoted(value)}"])


def combined(asked: SearchFilter, given: SearchFilter) -> SearchFilter:
    """Combine the filter of a query text with that of the other parameters.

    Raises InvalidRequest with a fault for each parameter whose condition the query text has as well.
    """
    changes: dict[str, Any] = {}
    twice: list[str] = []
    for field in fields(SearchFilter):
        mine, theirs = getattr(asked, field.name), getattr(given, field.name)
        if isinstance(mine, Mapping):
            prefix = "tag." if field.name == "tags" else ""
            twice += [f"{prefix}{name}" for name in theirs if name in mine]
            changes[field.name] = {**mine, **theirs}
        elif theirs not in (None, ()):
            if mine not in (None, ()):
                twice.append(field.name)
            changes[field.name] = theirs
    if twice:
        raise InvalidRequest([{"field": name, "message": "is in q as well; give one"} for name in twice])
    return replace(asked, **changes)


class _Parse:
    """The parsed part of a query text, and its faults."""

    def __init__(self, now: int) -> None:
        self._now = now
        self._count = 0
        self._words: dict[str, None] = {}
        self._either: dict[tuple[str, ...], None] = {}
        self._without: dict[str, None] = {}
        self._slots: values.Slots = {}
        self._by: dict[tuple[str, ...], str] = {}
        self._excluded: dict[tuple[str, str], None] = {}
        self._faults: list[str] = []

    def take(self, item: Item) -> None:
        """Add the next item."""
        if item.key is None:
            if item.text:
                self._count += 1
                (self._without if item.minus else self._words)[_word(item)] = None
            return
        key = KEYS[item.key]
        try:
            slots = key.read(item.text, self._now)
        except ValueError:
            given = f"not {item.text[:60]!r}" if item.text else "and was given nothing"
            near = get_close_matches(item.text.casefold(), key.accepts.split(", "), 1)
            meant = f"; did you mean {near[0]}" if near else ""
            self._faults.append(f"{item.key} takes {key.accepts}, {given}{meant}; {IN_QUOTES}")
            return
        if not item.minus:
            self._want(item, slots)
        elif key.excludes:
            self._excluded |= {(item.key, _plain(slot, value)): None for slot, value in slots.items()}
        else:
            can = ", ".join(name for name, key in KEYS.items() if key.excludes)
            self._faults.append(f"{item.key} cannot be excluded, as {can} can; {IN_QUOTES}")

    def take_one_of(self, group: Sequence[Item]) -> None:
        """Add words of which one must be there."""
        self._count += len(group)
        words = tuple(dict.fromkeys(map(_word, group)))
        if len(words) > 1:
            self._either[words] = None
        else:
            self._words[words[0]] = None

    def result(self) -> SearchFilter:
        """Return the filter. Raises InvalidRequest if there are faults."""
        if self._count > MAX_WORDS:
            self._faults.append(f"may have {MAX_WORDS} words at most")
        if any(
            len(fold(word)) > MAX_FOLDED for word in (*self._words, *self._without, *chain(*self._either))
        ):
            self._faults.append("has a word that is too long")
        if self._faults:
            raise _invalid(self._faults)
        whole: dict[str, Any] = {slot[0]: value for slot, value in self._slots.items() if len(slot) == 1}
        for field, *names in self._slots:
            if names:
                whole.setdefault(field, {})[names[0]] = self._slots[field, names[0]]
        words, without, excluded = tuple(self._words), tuple(self._without), tuple(self._excluded)
        either = tuple(self._either)
        return SearchFilter(**whole, words=words, either=either, without=without, excluded=excluded)

    def _want(self, item: Item, slots: values.Slots) -> None:
        if earlier := next((self._by[slot] for slot in slots if slot in self._by), None):
            self._faults.append(f"{earlier[:60]} and {item.source[:60]} mean the same; give one")
            return
        self._slots |= slots
        self._by |= dict.fromkeys(slots, item.source)


def _groups(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Yield each item, those that `OR` joins together, without the operators between words."""
    group: list[Item] = []
    joined = False
    for at, item in enumerate(items):
        if joins(items, at) and not joined:
            joined = True
            if item.source == "AND":
                yield group
                group = []
            continue
        if group and not joined:
            yield group
            group = []
        group.append(item)
        joined = False
    if group:
        yield group


def _word(item: Item) -> str:
    """Return the text of a word or phrase, without the `*` behind an unquoted word."""
    bare = item.source[item.minus :] == item.text and _BEGINNING.fullmatch(item.text)
    return item.text[:-1] if bare else item.text


def _conflicts(item: Item, key: str, value: str) -> bool:
    if item.key is None or KEYS[item.key].asks.isdisjoint(KEYS[key].asks):
        return False
    if item.minus:
        return item.text == value
    return key != "tag" or _tag_name(item.text) == _tag_name(value)


def _tag_name(text: str) -> str:
    return text.replace("＝", "=", 1).partition("=")[0]  # noqa: RUF001 - the full-width one


def _plain(slot: tuple[str, ...], value: Any) -> str:
    return f"{slot[1]}={value}" if slot[0] == "tags" else str(value)


def _invalid(messages: Sequence[str]) -> InvalidRequest:
    return InvalidRequest([{"field": "q", "message": message} for message in messages])
