"""Search answers what looking at everything finds, in the same order, on pages that fit together."""

import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol
from unicodedata import normalize

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from receiver.query.language import read_query_text
from storage.errors import NotFound
from storage.ledger.search_index import fold
from storage.models import Status, rfc3339
from storage.paging import Page
from storage.search.facets import FacetCount, Facets
from storage.search.filters import SearchFilter
from storage.search.search import Search
from tests.support.brute_force import Made, all_jobs, all_outputs, caseless, job_fits
from tests.support.postgres import Postgres
from tests.support.search_corpus import DAY, FIRST, JPEG, PNG, PROMPTS, WEBP, Archive, Image, Shot, shots
from tests.support.search_queries import ROWS, Row

NOW = FIRST + 10 * DAY
MOST = 500

# Without the phase that explains: it runs a failing example hundreds of times more.
QUIET = settings(
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


class Place(Protocol):
    """Where ledgers lie that are copies of each other: makes, copies (while it is closed) and drops one."""

    def make(self) -> str: ...
    def copy(self, url: str) -> str: ...
    def drop(self, url: str) -> None: ...


@dataclass(frozen=True)
class Files:
    folder: Path

    def make(self) -> str:
        return f"sqlite:///{self.folder / uuid.uuid4().hex}.sqlite3"

    def copy(self, url: str) -> str:
        other = self.make()
        shutil.copyfile(url.removeprefix("sqlite:///"), other.removeprefix("sqlite:///"))
        return other

    def drop(self, url: str) -> None:
        Path(url.removeprefix("sqlite:///")).unlink()


@dataclass(frozen=True)
class Databases:
    server: Postgres

    def make(self) -> str:
        return self.server.url(self.server.create())

    def copy(self, url: str) -> str:
        return self.server.url(self.server.create(url.rpartition("/")[2]))

    def drop(self, url: str) -> None:
        self.server.drop(url.rpartition("/")[2])


@dataclass(frozen=True)
class Filled:
    """Where the corpus lies, and what it holds."""

    place: Place
    url: str
    made: Mapping[str, Made]

    @contextmanager
    def copy(self) -> Iterator[Archive]:
        """A copy that may be added to."""
        url = self.place.copy(self.url)
        archive = Archive(url, self.made)
        try:
            yield archive
        finally:
            archive.close()
            self.place.drop(url)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    if request.param == "sqlite":
        return Files(tmp_path_factory.mktemp("search"))
    return Databases(request.getfixturevalue("postgres"))


@pytest.fixture(scope="module")
def filled(place: Place) -> Filled:
    archive = Archive(url := place.make())
    for name, shot in shots().items():
        archive.add(name, shot)
    archive.close()
    return Filled(place, url, archive.made)


@pytest.fixture(scope="module")
def empty(place: Place) -> Filled:
    Archive(url := place.make()).close()
    return Filled(place, url, {})


@pytest.fixture(scope="module")
def corpus(filled: Filled) -> Iterator[Archive]:
    with filled.copy() as archive:
        yield archive


def walk(page: Callable[[str | None], Page[Any]], between: Callable[[], None] = lambda: None) -> list[str]:
    """The ids on all pages; `between` is called after each."""
    found: list[str] = []
    cursor = None
    while True:
        got = page(cursor)
        ids = [row.output.id if hasattr(row, "output") else row.id for row in got.rows]
        found += ids
        if got.next_cursor is None:
            return found
        assert got.next_cursor == ids[-1]
        cursor = got.next_cursor
        between()


def outputs(archive: Archive, wanted: SearchFilter, limit: int = MOST) -> list[str]:
    search = Search(archive.database)
    return walk(lambda cursor: search.outputs(wanted, limit=limit, cursor=cursor))


def jobs(archive: Archive, wanted: SearchFilter, limit: int = MOST) -> list[str]:
    search = Search(archive.database)
    return walk(lambda cursor: search.jobs(wanted, limit=limit, cursor=cursor))


def check(archive: Archive, wanted: SearchFilter, limit: int = MOST) -> None:
    """Search and looking at everything find the same, in the same order."""
    assert outputs(archive, wanted, limit) == all_outputs(wanted, archive.everything)
    assert jobs(archive, wanted, limit) == all_jobs(wanted, archive.everything)


def names(told: str) -> set[str]:
    return {name if "." in name else f"{name}.0" for name in told.split()}


# --- the table --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS, ids=[row.why for row in ROWS])
def test_each_query_finds_what_it_must(corpus: Archive, row: Row) -> None:
    wanted = read_query_text(row.query, NOW)
    check(corpus, wanted)
    if row.outputs is not None:
        assert set(outputs(corpus, wanted)) == names(row.outputs)
        having = {name.rpartition(".")[0] for name in names(row.outputs)}
        assert set(jobs(corpus, wanted)) == (having if row.jobs is None else set(row.jobs.split()))


def test_a_digest_finds_its_image_by_any_beginning(corpus: Archive) -> None:
    for made in corpus.everything:
        for output in made.outputs:
            for length in (4, 9, 64):
                wanted = read_query_text(f"sha256:{output.sha256[:length].upper()}", NOW)
                check(corpus, wanted)
                assert output.id in outputs(corpus, wanted)


def test_texts_are_compared_as_unicode_says() -> None:
    # All characters that there are, each among others, so that what joins or moves is tried as well.
    for code in (*range(1, 0xD800), *range(0xE000, 0x32000), *range(0xE0000, 0xE0200)):
        for text in (chr(code), f"e{chr(code)}\u0301a"):
            assert fold(text) == caseless(text)


# --- anything ---------------------------------------------------------------------------------------------


def wide(text: str) -> str:
    return "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text)


DISGUISES: tuple[Callable[[str], str], ...] = (
    lambda text: text,
    str.upper,
    str.lower,
    str.swapcase,
    wide,
    lambda text: normalize("NFD", text),
    lambda text: normalize("NFC", text),
    lambda text: normalize("NFKD", text),
)
ODD = "aAbB %_\\*?'\"^()-:.,\n\t\x01寿司ｶﾞが猫éÉßſıİΣς한ﾟ\u0301\u0338\u3099\u200d👩🏽🚀🇯🇵🇫ﬁ①㍿𠮷"  # noqa: RUF001 - meant
CHARACTERS = st.sampled_from(ODD) | st.characters(codec="utf-8", exclude_characters="\x00")


@st.composite
def pieces(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> str:
    """A part of a text, written otherwise."""
    text = draw(texts)
    start = draw(st.integers(0, len(text) - 1))
    piece = text[start : start + draw(st.integers(1, 8))]
    return draw(st.sampled_from(DISGUISES))(piece)


def words(texts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return pieces(texts) | st.text(CHARACTERS, min_size=1, max_size=4)


def one_of(key: Callable[[Shot], Any]) -> st.SearchStrategy[Any]:
    return st.sampled_from(sorted({key(shot) for shot in shots().values()} - {None}))


PROMPT = st.sampled_from(sorted(PROMPTS.values()))
TAGS = sorted({tag for shot in shots().values() for tag in shot.tags.items()})
NUMBER = st.none() | st.sampled_from([0, 1, 2, 512, 768, 1024, 2048, 50_000, 1_000_000, 3_000_000])
TIME = st.integers(0, 90).map(lambda tenth: FIRST + tenth * DAY // 10)
EXCLUDED = st.one_of(
    st.tuples(st.just("gateway"), st.sampled_from(["apiframe", "api-in-one", "other"])),
    st.tuples(st.just("model"), st.sampled_from(["imagen-4", "imagen4", "imagen-4-0606", "other"])),
    st.tuples(st.just("seed"), st.sampled_from(["42", "43", "-1", "other"])),
    st.tuples(st.just("status"), st.sampled_from([status.value for status in Status])),
    st.tuples(st.just("type"), st.sampled_from([PNG, JPEG, WEBP])),
    st.tuples(st.just("tag"), st.sampled_from(["=".join(tag) for tag in TAGS])),
)
FEW_WORDS = st.lists(words(PROMPT), max_size=3).map(tuple)
FIELDS: Mapping[str, st.SearchStrategy[Any]] = {
    "job": st.sampled_from(["ramen", "family", "lines", "nobody"]),
    "gateway": one_of(lambda shot: shot.gateway),
    "model": one_of(lambda shot: shot.model) | one_of(lambda shot: shot.reported),
    "seed": one_of(lambda shot: shot.seed),
    "words": FEW_WORDS,
    "without": FEW_WORDS,
    "status": st.sampled_from(Status),
    "code": one_of(lambda shot: shot.code),
    "since": TIME,
    "until": TIME,
    "tags": st.lists(st.sampled_from(TAGS), max_size=2).map(dict),
    "media_type": st.sampled_from([PNG, JPEG, WEBP]),
    "between": st.dictionaries(
        st.sampled_from(["width", "height", "bytes"]), st.tuples(NUMBER, NUMBER).filter(any), max_size=2
    ),
    "excluded": st.lists(EXCLUDED, max_size=2).map(tuple),
}


@st.composite
def questions(draw: st.DrawFn) -> SearchFilter:
    """A few conditions at once: most questions with all of them find nothing."""
    names = draw(st.sets(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=3))
    return SearchFilter(**{name: draw(FIELDS[name]) for name in sorted(names)})


@pytest.mark.exhaustive("postgresql")
@QUIET
@given(wanted=questions(), limit=st.sampled_from([1, 2, 3, 7, *[MOST] * 6]))
@example(wanted=SearchFilter(media_type=JPEG), limit=1)
def test_any_question_is_answered_as_by_brute_force(
    corpus: Archive, wanted: SearchFilter, limit: int
) -> None:
    check(corpus, wanted, limit)


MADE_UP = st.lists(st.text(CHARACTERS, min_size=1, max_size=40), min_size=1, max_size=4)


@pytest.mark.exhaustive("postgresql")
@settings(QUIET, max_examples=25)
@given(st.data())
def test_any_prompt_is_found_by_its_parts(empty: Filled, data: st.DataObject) -> None:
    prompts = data.draw(MADE_UP)
    with empty.copy() as archive:
        for number, prompt in enumerate(prompts):
            archive.add(f"job-{number}", Shot(prompt, status=Status.QUEUED, day=number // 2))
        check(archive, SearchFilter())
        for prompt in prompts:
            assert all_jobs(SearchFilter(words=(prompt,)), archive.everything)
            check(archive, SearchFilter(words=(prompt,)))
        for _ in range(4):
            asked = tuple(data.draw(st.lists(words(st.sampled_from(prompts)), min_size=1, max_size=2)))
            check(archive, SearchFilter(words=asked))
            check(archive, SearchFilter(without=asked))


# --- pages, while more arrives ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Arrival:
    """What comes between two pages: a new job, or one more image of an older one."""

    shot: Shot | None
    of: str = ""
    image: Image = Image()  # noqa: RUF009 - frozen


NEW = st.builds(Shot, prompt=PROMPT, day=st.sampled_from([8, 9, 9.5]), seed=st.sampled_from([None, "42"]))
LATER = st.builds(
    Arrival,
    st.none(),
    st.sampled_from(["cafe", "street", "ab", "kite", "ramen", "company"]),
    st.builds(Image, st.sampled_from([PNG, JPEG]), seed=st.sampled_from([None, "42"])),
)
ARRIVALS = st.lists(LATER | NEW.map(Arrival), max_size=6)
PAGED = st.sampled_from(
    [
        *(SearchFilter(words=words) for words in ((), ("a",), ("re",), ("red",), ("寿司",))),
        SearchFilter(seed="42"),
        SearchFilter(media_type=JPEG),
        SearchFilter(gateway="apiframe", media_type=PNG),
        SearchFilter(excluded=(("type", PNG),)),
    ]
)


def arrive(archive: Archive, arrivals: Iterator[Arrival]) -> None:
    coming = next(arrivals, None)
    if coming is None:
        return
    if coming.shot is None:
        archive.add_image(coming.of, coming.image)
    else:
        archive.add(f"new-{len(archive.everything)}", replace(coming.shot, status=Status.QUEUED))


def in_order(found: list[str], whole: list[str]) -> bool:
    """Whether what was found stands in a list in this order, each once."""
    rest = iter(whole)
    return all(one in rest for one in found)


@pytest.mark.exhaustive("postgresql")
@settings(QUIET, max_examples=30)
@given(wanted=PAGED, limit=st.integers(1, 7), arrivals=ARRIVALS)
@example(wanted=SearchFilter(media_type=JPEG), limit=1, arrivals=[Arrival(None, "kite", Image(JPEG))])
@example(
    wanted=SearchFilter(),
    limit=1,
    arrivals=[Arrival(Shot("red", day=9)), Arrival(None, "cafe"), Arrival(None, "ab")],
)
def test_pages_skip_and_repeat_nothing(
    filled: Filled, wanted: SearchFilter, limit: int, arrivals: list[Arrival]
) -> None:
    for of_outputs in (True, False):
        with filled.copy() as archive:
            search, coming = Search(archive.database), iter(arrivals)
            page: Callable[..., Page[Any]] = search.outputs if of_outputs else search.jobs
            everything = all_outputs if of_outputs else all_jobs
            before = everything(wanted, archive.everything)
            found = walk(
                lambda cursor: page(wanted, limit=limit, cursor=cursor),  # noqa: B023 - called at once
                lambda: arrive(archive, coming),  # noqa: B023 - likewise
            )
            after = everything(wanted, archive.everything)
        assert len(set(found)) == len(found)
        assert set(before) <= set(found) <= set(after)
        assert in_order(found, after)


@pytest.mark.parametrize("index", [0, 1])
def test_a_page_may_end_inside_a_job(empty: Filled, index: int) -> None:
    # The job goes on after the page, but nothing more of it is wanted: the next page begins with another job.
    images = [Image(JPEG if n == index else PNG, seed="42" if n == index else None) for n in range(3)]
    with empty.copy() as archive:
        for number in range(4):
            shot = Shot("x", images=images, day=number, status=Status.QUEUED)
            archive.add(f"job-{number}", shot)
        for wanted in (
            SearchFilter(media_type=JPEG),
            SearchFilter(excluded=(("type", PNG),)),
            SearchFilter(seed="42"),
            SearchFilter(words=("x",), seed="42"),
        ):
            for limit in (1, 2, 3):
                assert outputs(archive, wanted, limit) == [f"job-{n}.{index}" for n in (3, 2, 1, 0)]


def test_a_page_after_nothing_is_refused(corpus: Archive) -> None:
    search = Search(corpus.database)
    with pytest.raises(NotFound):
        search.jobs(SearchFilter(), limit=1, cursor="nobody")
    with pytest.raises(NotFound):
        search.outputs(SearchFilter(), limit=1, cursor="nobody.0")
    with pytest.raises(ValueError, match="not an id with a number"):
        search.outputs(SearchFilter(), limit=1, cursor="kite")


# --- counts -----------------------------------------------------------------------------------------------


def counted(wanted: SearchFilter, everything: list[Made]) -> dict[str, Counter[str]]:
    """Counts by facet, by looking at everything."""
    ids = set(all_outputs(wanted, everything))
    found: dict[str, Counter[str]] = {name: Counter() for name in ("gateway", "model", "day", "tag")}
    for made in everything:
        if number := sum(output.id in ids for output in made.outputs):
            assert job_fits(wanted, made.job)
            found["gateway"][made.job.gateway] += number
            found["day"][rfc3339(made.job.created_at)[:10]] += number
            found["model"][made.job.result.model or made.job.request.model] += number
            for tag in made.job.request.tags.items():
                found["tag"]["=".join(tag)] += number
    return found


@pytest.mark.parametrize("row", ROWS[::3], ids=[row.why for row in ROWS[::3]])
def test_facets_count_what_is_found(corpus: Archive, row: Row) -> None:
    wanted = read_query_text(row.query, NOW)
    facets = Facets(corpus.database).read(wanted)
    expected = counted(wanted, list(corpus.everything))
    assert facets.complete
    assert facets.counted == expected["gateway"].total()
    for name, counts in expected.items():
        values: list[FacetCount] = list(getattr(facets, name))
        assert {one.value: one.outputs for one in values} == counts
        keys = [one.value if name == "day" else one.outputs for one in values]
        assert keys == sorted(keys, reverse=True)
