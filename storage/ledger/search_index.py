"""Maintain the search index, in the transaction that writes what is indexed: FTS5, trigrams, terms, counts.

On SQLite prompts are found by every piece of one, two or three characters: FTS5's own trigram tokenizer finds
no word of two characters, which is most words in Chinese and Japanese. FTS5 keeps the pieces as sorted lists
of job numbers, so several words are one merge, newest first.

On PostgreSQL `pg_trgm` finds words of three characters and more in a copy of the prompts. It is a table of
its own, because each move of a job rewrites its row, and would rewrite all trigrams of its prompt too.
"""

# ruff: noqa: RUF001, RUF002 - characters that look like others are what is folded

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from string import ascii_lowercase, ascii_uppercase

from sqlalchemy import Connection, text

from storage.ledger.job_numbers import time_of
from storage.ledger.schema import GRAMS
from storage.models import Output
from storage.statements import AnyRow, Prepared

MAKE_GRAMS = (
    f"CREATE VIRTUAL TABLE {GRAMS} USING fts5"
    "(pieces, content='', columnsize=0, detail=none, tokenize='ascii')"
)
MAKE_GRAMS_OF_POSTGRESQL = (
    "CREATE EXTENSION IF NOT EXISTS pg_trgm",
    f"CREATE TABLE {GRAMS} (number BIGINT PRIMARY KEY, folded TEXT NOT NULL)",
    f"CREATE INDEX ix_{GRAMS}_folded ON {GRAMS} USING gin (folded gin_trgm_ops)",
)
MAKE_SHORT_PIECES = (
    """CREATE OR REPLACE FUNCTION short_pieces(folded text) RETURNS text[]
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
        SELECT CASE WHEN octet_length(folded) > length(folded) OR folded ~ '[0-9]' THEN (
            SELECT array_agg(DISTINCT piece) FROM (
                SELECT one, lead(one) OVER (ORDER BY place) AS next
                FROM unnest(string_to_array(folded, NULL)) WITH ORDINALITY AS each (one, place)
            ) AS pairs, LATERAL (VALUES (one), (one || next)) AS pieces (piece)
            WHERE octet_length(piece) > length(piece) OR length(piece) = 2 AND piece ~ '[0-9]'
        ) END
    $$""",
    f"CREATE INDEX ix_{GRAMS}_short_pieces ON {GRAMS} USING gin (short_pieces(folded))",
)
"""Index on PostgreSQL what is too short for `pg_trgm`: one or two characters, as most words in Chinese and
Japanese are. Of those in ASCII only two with a digit are indexed, such as `4k`; letters are everywhere."""

_ADD_FOLDED = text(f"INSERT INTO {GRAMS} (number, folded) VALUES (:number, :folded)")  # noqa: S608 - our name
_ADD_GRAMS = text(f"INSERT INTO {GRAMS} (rowid, pieces) VALUES (:number, :pieces)")  # noqa: S608 - our name

_ADD_TERM = Prepared(text("INSERT INTO terms (term, number) VALUES (:term, :number) ON CONFLICT DO NOTHING"))
_COUNT = Prepared(
    text(
        "INSERT INTO tallies (facet, value, outputs) VALUES (:facet, :value, :more) "
        "ON CONFLICT (facet, value) DO UPDATE SET outputs = tallies.outputs + excluded.outputs"
    )
)

INDEX_WORDS = text(
    f"INSERT INTO {GRAMS} (number, folded) "  # noqa: S608 - our name
    "SELECT number, prompt_folded FROM jobs WHERE number BETWEEN :first AND :last"
)
"""Indexes the prompts of jobs that were copied to PostgreSQL, from one number to another."""

WRONG_WORDS = text(
    f"SELECT number FROM jobs FULL JOIN {GRAMS} USING (number) "  # noqa: S608 - our name
    "WHERE prompt_folded IS DISTINCT FROM folded ORDER BY number LIMIT 1"
)
"""Selects the number of a job on PostgreSQL whose prompt is not indexed right; no row if all are."""

IS_SHORT = "is:short"
"""The term of a job whose gateway returned fewer images than it was asked for, at least at first."""

HAS_IMAGE = "has:image"
"""The term of every job that has an output, so that searches for images skip all others."""

_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)

MOST_PIECES = 24
"""About how many pieces of one long word are looked up."""

_PLAIN = {
    "'": "‘’‚‛′‵ʹʻʼʽ´`׳",
    '"': "“”„‟″‶〝〞〟ʺ״",
    "-": "‐‑‒–—―−⁃﹘",
    "/": "⁄∕",
    "i": "ı",
}
"""Characters that look like a plain one; halves, such as ½, have the slash."""
_INVISIBLE = (
    *((0x00, 0x08), (0x0E, 0x1B), (0x7F, 0x84), (0x86, 0x9F), (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C)),
    *((0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x200B, 0x200F), (0x202A, 0x202E)),
    *((0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0)),
    *((0xFFF0, 0xFFFB), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF)),
)
"""Control characters that are no space, and Unicode's Default_Ignorable_Code_Point, which its own caseless
match of identifiers leaves out too: https://www.unicode.org/reports/tr31/#NFKC_Modifications"""
_ALIKE = {sign: plain for plain, signs in _PLAIN.items() for sign in signs}
_ODD = re.compile(f"[{''.join(_ALIKE)}{''.join(f'{chr(first)}-{chr(last)}' for first, last in _INVISIBLE)}]")
_SPACES = re.compile(r"\s+")


def index_job(connection: Connection, job: AnyRow, pieces: str) -> None:
    """Index a job's request; `job` is its row, which was just inserted, `pieces` are of `pieces_of`."""
    if connection.dialect.name == "sqlite":
        connection.execute(_ADD_GRAMS, {"number": job["number"], "pieces": pieces})
    else:
        connection.execute(_ADD_FOLDED, {"number": job["number"], "folded": job["prompt_folded"]})
    asked = [("gateway", job["gateway"]), ("model", job["model"]), ("seed", job["seed"])]
    tags = (("tag", f"{name}={value}") for name, value in job["tags"].items())
    _add(connection, job["number"], (*asked, *tags))


def index_result(connection: Connection, job: AnyRow) -> None:
    """Index what a job's gateway reported, where that differs from the request."""
    reported = [("model", job["result_model"], job["model"]), ("seed", job["result_seed"], job["seed"])]
    _add(connection, job["number"], ((kind, value) for kind, value, asked in reported if value != asked))


def index_short(connection: Connection, number: int) -> None:
    """Index that a job's gateway returned fewer images than it was asked for."""
    _ADD_TERM.run(connection, {"term": IS_SHORT, "number": number})


def index_output(connection: Connection, job: AnyRow, output: Output) -> None:
    """Index an image that was just inserted or replaced; `job` is the row of its job."""
    size = f"{output.width}x{output.height}"
    kinds = (("has", "image"), ("seed", output.seed), ("type", output.media_type), ("size", size))
    _add(connection, job["number"], kinds)


def facets_of(job: AnyRow) -> list[tuple[str, str]]:
    """Return under which facets an output of a job is counted, as facet and value."""
    return [
        ("gateway", job["gateway"]),
        ("model", job["result_model"] or job["model"]),
        ("day", day(job["number"])),
        *(("tag", f"{name}={value}") for name, value in job["tags"].items()),
    ]


def count_outputs(connection: Connection, tallies: Mapping[tuple[str, str], int]) -> None:
    """Count so many more outputs under each facet; last in a transaction, for others wait for it."""
    # Always in one order, so that two transactions can never deadlock.
    ordered = sorted(tallies.items())
    rows = [{"facet": facet, "value": value, "more": more} for (facet, value), more in ordered]
    _COUNT.run_each(connection, rows)


def term(kind: str, value: str) -> str:
    """Return an index term; `kind` is gateway, model, seed, tag (`name=value`), type, size or has."""
    return f"{kind}:{lower(value) if kind == 'model' else value}"


def lower(model: str) -> str:
    """Return a model's name with ASCII letters in lower case: others, databases fold each in its own way."""
    return model.translate(_LOWER)


def day(number: int) -> str:
    """Return the day, in UTC, on which the job with this number was accepted: `2026-11-22`."""
    return datetime.fromtimestamp(time_of(number) / 1000, tz=UTC).date().isoformat()


def fold(text: str) -> str:
    """Return a text as it is searched, in which what looks the same is the same.

    Case, width and the composition of accents do not count; accents themselves do. That is Unicode's caseless
    compatibility match (section 3.13, D146). Typographic quotes and dashes are plain ones, I, İ, i and ı are
    one letter, invisible characters are left out, and any white space, also a line end, is one space.
    """
    once = unicodedata.normalize("NFKC", unicodedata.normalize("NFD", _plain(text)).casefold())
    # What folding brought up, as a half its slash and İ an i with a second dot.
    plain = _plain(once).replace("i\u0307", "i")
    return _SPACES.sub(" ", unicodedata.normalize("NFKC", plain.casefold()))


def _plain(text: str) -> str:
    return _ODD.sub(lambda found: _ALIKE.get(found[0], ""), text)


def is_piece(word: str) -> bool:
    """Return whether a folded word is indexed as a whole on PostgreSQL, by `MAKE_SHORT_PIECES`."""
    return len(word) <= 2 and (not word.isascii() or (len(word) == 2 and any(map(_is_digit, word))))


def _is_digit(character: str) -> bool:
    return "0" <= character <= "9"


def pieces_of(folded: str) -> str:
    """Return all pieces of a folded prompt, each once, as words for FTS5."""
    shorter = {folded[n : n + size] for size in (1, 2) for n in range(len(folded) - size + 1)}
    return " ".join(sorted(_word(piece) for piece in shorter | set(_threes(folded))))


def lookup(groups: Iterable[Sequence[str]]) -> str:
    """Return the FTS5 query for every prompt with a folded word of each group, and perhaps some more."""
    found = (" OR ".join(f"({' '.join(_cover(word))})" for word in group) for group in groups)
    return " AND ".join(f"({one})" for one in dict.fromkeys(found))


def _cover(folded: str) -> Iterator[str]:
    """Return the pieces that cover a word, as words for FTS5.

    Each more would be one more list to merge, and hits are compared with the whole word anyway.
    """
    threes = list(_threes(folded)) if len(folded) > 2 else [folded]
    step = max(3, -(-len(threes) // MOST_PIECES))
    return map(_word, dict.fromkeys([*threes[::step], threes[-1]]))


def _threes(folded: str) -> Iterator[str]:
    return (folded[n : n + 3] for n in range(len(folded) - 2))


def _word(piece: str) -> str:
    # In hexadecimal, so that the tokenizer treats a space and a quote like a letter.
    return piece.encode("utf-8", "surrogatepass").hex()


def _add(connection: Connection, number: int, found_by: Iterable[tuple[str, str | None]]) -> None:
    if rows := [{"term": term(kind, value), "number": number} for kind, value in found_by if value]:
        _ADD_TERM.run_each(connection, rows)
