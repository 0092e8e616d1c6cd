"""What is looked for in `tests.support.search_corpus`, why, and what must be found."""

# ruff: noqa: RUF001 - characters that look like others are what is tried

from dataclasses import dataclass
from unicodedata import normalize

from tests.support.search_corpus import LONG


@dataclass(frozen=True)
class Row:
    """A query, why it is here, and what it finds, worked out by hand; None where looking at everything tells.

    A name without a number is the job's only output.
    """

    query: str
    why: str
    outputs: str | None = None
    jobs: str | None = None
    """Where jobs are found that have no output."""


KITES = "kite kite-caps quotes curly full"
CAFES = "cafe-composed cafe-decomposed astronaut-plain"

ROWS = (
    # Latin
    Row("", "nothing is asked, so everything is found"),
    Row("red kite", "all words, in any order and case, within words, full-width", f"{KITES} kites",
        f"{KITES} kites spaces"),
    Row('"red kite"', "a phrase stands there as it is", KITES, f"{KITES} spaces"),
    Row("“RED KITE”", "curly quotes", KITES, f"{KITES} spaces"),
    Row('"red  kite"', "two spaces are one", KITES, f"{KITES} spaces"),
    Row("harbour -cartoon", "without a word", "kite"),
    Row('kite -"red kite"', "without a phrase", "kites"),
    Row("until:9999-12-31", "a day that no number has room for"),
    Row("since:9999-12-31", "the same from the other side", ""),
    Row("red -red", "nothing can be both", "", ""),
    Row("x", "one character"),
    Row("ab", "two characters", "ab sql", "ab sql lines"),
    Row('"line\nsecond"', "a line break in a phrase", "", "lines"),
    Row('"LINE SECOND line tabbed"', "a phrase over a line end and a tab", "", "lines"),
    Row("needle", "far down in a long prompt", "long"),
    Row(f'"{LONG[1000:1980]}"', "a phrase as long as may be", "long"),
    Row("a b c d e f g h i j k l m n o p q r s t u v w x y z 0 1 2 3 4 5", "as many words as may be"),
    Row("a e i o y " + LONG[:120], "words of all lengths", "long"),
    # Accents
    Row("cafe", "accents are not left out", "", "cafe"),
    Row("café", "composed finds decomposed", CAFES),
    Row(normalize("NFD", "café"), "decomposed finds composed", CAFES),
    Row("CAFÉ MONTRÉAL", "accented capitals", "cafe-composed cafe-decomposed"),
    Row("strasse", "ß is ss to a caseless comparison", "street-ss", "street street-ss"),
    Row("İSTANBUL", "a capital dotted I", "istanbul"),
    Row("istanbul", "is found by a plain one", "istanbul"),
    Row("ILIK IŞIK", "so is a dotless i", "istanbul"),
    Row('"dotless i"', "and the other way round", "turkish"),
    Row("όμηρος", "a final sigma, and an accented capital", "greek"),
    Row("ομηρος", "without its accent it is not found", "", ""),
    # Chinese, Japanese, Korean
    Row("寿司", "two characters, within what has no spaces", "sushi sushi-zh.0 sushi-zh.1 quoted-ja"),
    Row("寿司　木", "a full-width space parts words", "sushi"),
    Row("「寿司」", "corner brackets are characters like others", "quoted-ja"),
    Row("ラーメン", "half-width kana", "ramen-ja ramen-half"),
    Row("ガ", "a voiced kana that was typed as two", "ramen-half"),
    Row("猫", "one character, which is not the traditional one", "cat-zh one"),
    Row("窗邊,16：9", "full-width punctuation, either way", "cats-zh"),
    Row("한옥", "syllables and single letters", "korean korean-decomposed"),
    Row("𠮷", "a character beyond the first 65536", "rare"),
    # Other scripts
    Row("แมว", "Thai, without spaces", "thai"),
    Row("قطة", "Arabic, also in its presentation forms", "arabic arabic-forms"),
    Row("חתול", "Hebrew", "hebrew"),
    Row("שלום", "points are accents", "", ""),
    # Emoji
    Row("👩🏽‍🚀", "a woman, a skin tone, a joiner and a rocket", "astronaut"),
    Row("👩", "is a part of many", "astronaut astronaut-plain family.0 family.1 family.2 family.3 family.4"),
    Row("🇵🇫", "the halves of two flags: characters are compared, not pictures", "flags.0 flags.1"),
    Row("❤", "with or without a selector behind it", "heart"),
    # What queries and databases are made of
    Row("100%", "no wildcard", "percent"),
    Row("e_c", "no wildcard of one character", "underscore"),
    Row("100% gateway:apiframe", "nor where a key leads to the job", "percent"),
    Row("cotton -100%", "nor in what must not stand there", "thousand"),
    Row("e_c gateway:apiframe", "likewise of one character", "underscore"),
    Row("case -e_c", "and without it", "no-underscore"),
    Row(r"\%", "no escape", "backslash"),
    Row("[a-z] {x|y}", "no pattern", "stars"),
    Row("(masterpiece:1.2)", "as prompts weigh words", "stars"),
    Row("'", "an apostrophe", "quotes sql cafe-decomposed curly"),
    Row('""""', "a quote", "quotes curly"),
    Row('"say ""cheese"""', "quotes in a phrase, which is nowhere", "", ""),
    Row("fox AND hound OR", "AND between words, and OR where it joins nothing", "operators"),
    Row("sushi OR 寿司 OR nothing", "one of the words", "sushi sushi-zh.0 sushi-zh.1 quoted-ja"),
    Row('"red kite" OR balloon harbour', "a phrase or a word, and another", "kite"),
    Row("ab OR ガ type:png", "beside a key, and too short for trigrams"),
    Row("steam OR ガ -cartoon gateway:api-in-one", "and without a word"),
    Row("cat* OR hou*", "the beginnings of words"),
    Row("NEAR(a ^start prompt:fox", "what the index would take for its own", "operators"),
    Row("Robert'); DROP TABLE jobs;-- /*", "what the database would", "sql"),
    Row("--ar 16:9 --v 6", "as prompts are written", "keys"),
    Row('"seed:42"', "a key in quotes is a word", "keys"),
    Row("16:9", "no key", "keys cats-zh"),
    Row("https://example.com/a?b=c#d note:", "nor these", "url"),
    Row("\x1b[31m", "a control character", "controls"),
    Row("\u200b", "what cannot be seen asks for nothing"),
    Row("-\u00ad", "nor excludes anything"),
    Row("zerowidth", "what cannot be seen parts no word", "controls"),
    Row("ze\u00adro\u2060wi\ufe0fdth", "and may be asked for with it", "controls"),
    Row("wide-angle", "dashes are alike", "dashes"),
    Row('"realistic – wide−angle ‑ plain"', "all of them", "dashes"),
    Row("726564", "what the index writes for a word", "hex"),
    # Keys
    Row("seed:42", "asked for, reported, or an image's own", "kite kites ramen.0 family.1",
        "kite kites ramen family spaces"),
    Row("kite -seed:42", "another seed, or none", "kite-caps quotes curly full"),
    Row("-seed:42 family", "nothing", "", ""),
    Row("picnic -seed:42", "the images that have another", "family.0 family.2 family.3 family.4", ""),
    Row("picnic -seed:42 type:png", "of jobs, with such an image", "family.2 family.4", "family"),
    Row("seed:12345678901234567890", "more than a number can hold", "sushi"),
    Row("seed:種子", "a seed of characters", "sushi-zh.0 sushi-zh.1"),
    Row('seed:"\' OR 1=1"', "a seed of SQL", "sql"),
    Row("model:IMAGEN-4-0606", "as reported", "kites"),
    Row("oil model:imagen-4", "as reported, though asked for otherwise", "oil"),
    Row("oil -model:Imagen-4", "and therefore not this", "", ""),
    Row("-model:imagen-4", "other models",
        "kite-caps ramen.0 ramen.1 ramen.2 sushi-zh.0 sushi-zh.1 percent sql"),
    Row('model:"ODD ""model"" %_"', "a model with quotes", "percent"),
    Row("kite gateway:api-in-one", "a gateway", "kite-caps"),
    Row("-gateway:apiframe -model:imagen4", "not one, nor the other", "sushi-zh.0 sushi-zh.1"),
    Row("tag:campaign=spring", "a tag, in this very case", "kite", "kite lines"),
    Row('tag:campaign="spring sale" tag:menu=ramen', "two tags", "ramen.0 ramen.1 ramen.2"),
    Row('tag:campaign=春 tag:menu=sushi=good tag:quote="say ""hi"""', "odd tags", "sushi"),
    Row("tag:a.b-c_d=x", "an odd name", "kite"),
    Row("seed:42 -tag:campaign=spring", "not a tag, or not its value", "kites ramen.0 family.1",
        "kites ramen family spaces"),
    Row("status:failed", "jobs without outputs", "", "lines spaces"),
    Row("status:partial", "a status", "ab"),
    Row("-status:archived", "all others", "ab", "ab spaces lines cafe street"),
    Row("is:short", "fewer images than asked for, by number or place, or none", "cat-zh korean",
        "cat-zh korean lines"),
    Row("猫 -is:short", "not so, or not known", "one"),
    Row("code:no_answer", "a job's error", "", "spaces"),
    Row("type:webp", "a type", "ramen.2 sushi-zh.0 sushi-zh.1"),
    Row("-type:png -type:jpg", "not two types", "oil ramen.2 sushi-zh.0 sushi-zh.1"),
    Row("size:1024x768", "a size, which is not one turned", "ramen.1 flags.0"),
    Row("width:<=1 height:>1000", "bounds", "percent"),
    Row("width:512..1000", "a range", "ramen.2 ab flags.1"),
    Row("bytes:<100kB", "few bytes", "ramen.2 ab percent"),
    Row("type:jpg seed:42", "one image must be both", "family.1"),
    Row("on:2026-11-20", "a day", "kite kite-caps"),
    Row("since:2026-11-20 until:2026-11-21T12:00:00Z", "not what begins at the end", "kite kite-caps kites"),
    Row("job:ramen type:png", "one job's images", "ramen.0"),
    Row("steam tag:menu=ramen gateway:api-in-one model:imagen4 seed:43 type:jpg width:>768 bytes:>=1MB "
        "on:2026-11-21 -cartoon -status:failed", "all at once", "ramen.1"),
)  # fmt: skip
