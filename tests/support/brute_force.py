"""Search by looking at everything: what `storage.search.search` must return, found without its code.

Only `unicodedata` is used. Whoever changes what a search means changes it here as well, by hand.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from unicodedata import category, lookup, name, normalize

from storage.models import Job, Output
from storage.search.filters import SearchFilter


@dataclass(frozen=True)
class Made:
    """A job, its outputs by index, and the how manieth it was to be taken in."""

    job: Job
    outputs: tuple[Output, ...]
    turn: int


def all_outputs(wanted: SearchFilter, everything: Iterable[Made]) -> list[str]:
    """The ids of the outputs wanted: of the newest job first, and by index."""
    return [
        output.id
        for made in newest_first(everything)
        if job_fits(wanted, made.job)
        for output in made.outputs
        if output_fits(wanted, made.job, output)
    ]


def all_jobs(wanted: SearchFilter, everything: Iterable[Made]) -> list[str]:
    """The ids of the jobs wanted, newest first."""
    return [
        made.job.id
        for made in newest_first(everything)
        if job_fits(wanted, made.job) and images_fit(wanted, made)
    ]


def newest_first(everything: Iterable[Made]) -> list[Made]:
    return sorted(everything, key=lambda made: (made.job.created_at, made.turn), reverse=True)


def job_fits(wanted: SearchFilter, job: Job) -> bool:
    """Whether all holds that is asked of a job itself, its seed aside."""
    request, prompt = job.request, caseless(job.request.prompt)
    return all(
        [
            *(caseless(word) in prompt for word in wanted.words),
            *(any(caseless(word) in prompt for word in group) for group in wanted.either),
            *(caseless(word) not in prompt for word in wanted.without if caseless(word)),
            *(request.tags.get(name) == value for name, value in wanted.tags.items()),
            wanted.job in (None, job.id),
            wanted.gateway in (None, job.gateway),
            wanted.model is None or of_models({wanted.model}, job),
            wanted.status in (None, job.status),
            wanted.code is None or (job.error is not None and job.error.code == wanted.code),
            wanted.mark is None or is_short(job),
            "short" not in excluded(wanted, "is") or not is_short(job),
            wanted.since is None or job.created_at >= wanted.since,
            wanted.until is None or job.created_at < wanted.until,
            job.gateway not in excluded(wanted, "gateway"),
            job.status.value not in excluded(wanted, "status"),
            not of_models(excluded(wanted, "model"), job),
            not {f"{name}={value}" for name, value in request.tags.items()} & excluded(wanted, "tag"),
        ]
    )


def of_models(names: Iterable[str | None], job: Job) -> bool:
    """Whether a job has one of these models, in any case of the letters of ASCII."""
    mine = {job.request.model, job.result.model} - {None}
    return not {lower(name) for name in mine}.isdisjoint(map(lower, names))


def lower(name: str | None) -> str:
    return "".join(char.lower() if char.isascii() else char for char in name or "")


def is_short(job: Job) -> bool:
    """Whether fewer images came than were asked for, by number or by their places."""
    if job.result.images_returned is None:
        return False
    return job.result.images_returned < (job.request.num_images or 1) or job.result.withheld != ()


def images_fit(wanted: SearchFilter, made: Made) -> bool:
    """Whether a job has an image as wanted; if nothing is asked of images, whether its seeds are."""
    if wanted.sha256 or wanted.media_type or wanted.between or excluded(wanted, "type"):
        return any(output_fits(wanted, made.job, output) for output in made.outputs)
    return seeds_fit(wanted, made.job, made.outputs)


def output_fits(wanted: SearchFilter, job: Job, output: Output) -> bool:
    """Whether all holds that is asked of an image."""
    measured = {"width": output.width, "height": output.height, "bytes": output.bytes}
    return all(
        [
            seeds_fit(wanted, job, [output]),
            wanted.sha256 is None or output.sha256.startswith(wanted.sha256.lower()),
            wanted.media_type in (None, output.media_type),
            output.media_type not in excluded(wanted, "type"),
            *(least is None or measured[name] >= least for name, (least, _) in wanted.between.items()),
            *(most is None or measured[name] <= most for name, (_, most) in wanted.between.items()),
        ]
    )


def seeds_fit(wanted: SearchFilter, job: Job, outputs: Sequence[Output]) -> bool:
    seeds = {job.request.seed, job.result.seed, *(output.seed for output in outputs)}
    return (wanted.seed is None or wanted.seed in seeds) and not seeds & excluded(wanted, "seed")


def excluded(wanted: SearchFilter, kind: str) -> set[str | None]:
    return {value for name, value in wanted.excluded if name == kind}


LOOKS = {
    "'": (
        "LEFT SINGLE QUOTATION MARK, RIGHT SINGLE QUOTATION MARK, SINGLE LOW-9 QUOTATION MARK, "
        "SINGLE HIGH-REVERSED-9 QUOTATION MARK, PRIME, REVERSED PRIME, MODIFIER LETTER PRIME, "
        "MODIFIER LETTER TURNED COMMA, MODIFIER LETTER APOSTROPHE, MODIFIER LETTER REVERSED COMMA, "
        "ACUTE ACCENT, GRAVE ACCENT, HEBREW PUNCTUATION GERESH"
    ),
    '"': (
        "LEFT DOUBLE QUOTATION MARK, RIGHT DOUBLE QUOTATION MARK, DOUBLE LOW-9 QUOTATION MARK, "
        "DOUBLE HIGH-REVERSED-9 QUOTATION MARK, DOUBLE PRIME, REVERSED DOUBLE PRIME, "
        "REVERSED DOUBLE PRIME QUOTATION MARK, DOUBLE PRIME QUOTATION MARK, "
        "LOW DOUBLE PRIME QUOTATION MARK, MODIFIER LETTER DOUBLE PRIME, HEBREW PUNCTUATION GERSHAYIM"
    ),
    "-": (
        "HYPHEN, NON-BREAKING HYPHEN, FIGURE DASH, EN DASH, EM DASH, HORIZONTAL BAR, MINUS SIGN, "
        "HYPHEN BULLET, SMALL EM DASH"
    ),
    "/": "FRACTION SLASH, DIVISION SLASH",
    "i": "LATIN SMALL LETTER DOTLESS I",
}
PLAIN = {lookup(name): plain for plain, names in LOOKS.items() for name in names.split(", ")}
SEEN = ("ARABIC NUMBER", "ARABIC SIGN", "ARABIC FOOTNOTE", "ARABIC END", "ARABIC DISPUTED", "ARABIC POUND",
        "ARABIC PIASTRE", "SYRIAC", "KAITHI", "EGYPTIAN")  # fmt: skip
"""Format characters that are seen."""
UNSEEN = ("VARIATION SELECTOR", "HANGUL FILLER", "SEONG FILLER", "GRAPHEME JOINER", "KHMER VOWEL INHERENT")
RESERVED = frozenset(map(chr, (0x2065, *range(0xFFF0, 0xFFF9), *range(0xE0000, 0xE1000))))
"""Characters of no meaning yet, which will not be seen either."""


@lru_cache(maxsize=10_000)
def caseless(text: str) -> str:
    """The Unicode Standard, section 3.13, D146, compatibility caseless matching; and what looks the same."""
    first = plain(normalize("NFKC", normalize("NFD", plain(text)).casefold())).replace("i\u0307", "i")
    words = normalize("NFKC", first.casefold())
    return "".join(" " if blank else "".join(run) for blank, run in groupby(words, str.isspace))


def plain(text: str) -> str:
    return "".join(PLAIN.get(char, char) for char in text if not unseen(char))


def unseen(char: str) -> bool:
    called = name(char, "")
    if char in RESERVED or any(one in called for one in UNSEEN):
        return True
    return category(char) in {"Cc", "Cf"} and not char.isspace() and not called.startswith(SEEN)
