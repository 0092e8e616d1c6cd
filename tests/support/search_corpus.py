"""Jobs to look for: prompts in many scripts and full of what queries are made of, and images of all kinds."""

# ruff: noqa: RUF001 - characters that look like others are what is tried

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from unicodedata import normalize

from storage.ledger.database import Database
from storage.ledger.ledger import Ledger
from storage.models import Job, JobError, JobRequest, JobResult, Output, Status, Withheld
from tests.support.brute_force import Made
from tests.support.ledgers import Clock, add_job, add_output

DAY = 86_400_000
FIRST = 1_794_700_800_000
"""2026-11-15, 00:00 UTC."""
LONG = "a very long prompt, " + "word after word " * 1200 + "with a needle at its end"
PNG, JPEG, WEBP, AVIF = "image/png", "image/jpeg", "image/webp", "image/avif"


@dataclass(frozen=True)
class Image:
    media_type: str = PNG
    width: int = 1024
    height: int = 1024
    size: int = 1_000_000
    seed: str | None = None


@dataclass(frozen=True)
class Shot:
    """A job to be made, `day` days after the first."""

    prompt: str
    gateway: str = "apiframe"
    model: str = "imagen-4"
    seed: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    reported: str | None = None
    """The model that the gateway reports."""
    seed_reported: str | None = None
    status: Status = Status.ARCHIVED
    code: str | None = None
    day: float = 0
    asked: int | None = None
    returned: int | None = None
    withheld: Sequence[Withheld] = ()
    images: Sequence[Image] = (Image(),)


PROMPTS: Mapping[str, str] = {
    # Latin
    "kite": "a red kite over a grey harbour",
    "kite-caps": "A RED KITE, OVER A GREEN HILL",
    "kites": "redkites and infrared light",
    "ramen": "A photorealistic bowl of ramen with steam rising, side lighting",
    "oil": "oil painting of a harbour, cartoon outlines",
    "x": "x",
    "ab": "ab",
    "spaces": "red  kite with two spaces",
    "lines": "first line\nsecond line\ttabbed",
    # Accents, composed and not
    "cafe": "cafe at night",
    "cafe-composed": normalize("NFC", "un café à Montréal"),
    "cafe-decomposed": normalize("NFD", "UN CAFÉ à montréal, l'été"),
    "street": "Straße im Schnee",
    "street-ss": "STRASSE IM REGEN",
    "istanbul": "İstanbul ve ılık ışık",
    "greek": "ΌΜΗΡΟΣ και ὁ Ἀχιλλεύς",
    "russian": "Ёлка и ёж в лесу",
    "vietnamese": "phở bò, Hà Nội buổi sáng",
    "ligature": "ﬁne ﬂowers in an oﬃce",
    "stacked": "z̸̢͝a̷l̵g̶o text",
    "turkish": "dotless ı and dotted i",
    # Chinese, Japanese, Korean
    "sushi": "寿司の写真、木の皿、自然光",
    "sushi-zh": "一盘寿司，暖色灯光，電影感",
    "ramen-ja": "ラーメン 湯気 夜の屋台",
    "ramen-half": "ﾗｰﾒﾝ ﾌﾟﾘﾝ ｶﾞﾗｽ",
    "ramen-hira": "らーめん と ぷりん",
    "cat-zh": "一只猫坐在窗边",
    "cats-zh": "兩隻貓，窗邊，16:9",
    "one": "猫",
    "quoted-ja": "看板に「寿司」と書いてある",
    "korean": "한옥 마을의 밤, 등불",
    "korean-decomposed": normalize("NFD", "한옥 위의 고양이"),
    "rare": "𠮷野家の牛丼",
    "full": "ＲＥＤ　ＫＩＴＥ　１２３％",
    "company": "㍿ダークルーム ㌔ ①",
    # Other scripts
    "thai": "แมวดำนั่งบนกำแพง น้ำตก",
    "arabic": "قطة سوداء في ضوء القمر",
    "arabic-forms": "ﻗﻄﺔ ﻻ تنام",
    "hebrew": "חתול שחור על הגג",
    "hebrew-points": "שָׁלוֹם עולם",
    "hindi": "काली बिल्ली, क़लम",
    "mixed": "English \u200fעברית\u200f و العربية 中文",
    # Emoji
    "astronaut": "👩🏽‍🚀 on the moon",
    "astronaut-plain": "👩‍🚀 in a café",
    "family": "👨‍👩‍👧‍👦 picnic",
    "flags": "🇯🇵🇫🇷 flags",
    "flags-apart": "🇫🇷 🇺🇸",
    "heart": "❤️ and ❤ and ♥",
    "thumb": "👍🏿👍",
    "one-emoji": "🦊",
    # What queries and databases are made of
    "percent": "100% cotton, 50 % off",
    "thousand": "1000 cotton balls",
    "underscore": "snake_case and c_t",
    "no-underscore": "snakeXcase and cat",
    "backslash": r"C:\art\new \% \_ \\ end",
    "stars": "what? a * b ** c [a-z] {x|y} (masterpiece:1.2)",
    "quotes": "she said \"red kite\" and 'oui', l'été",
    "curly": "she said “red kite” and ‘oui’",
    "sql": "Robert'); DROP TABLE jobs;-- /* x */",
    "operators": "fox AND hound OR cat NOT dog NEAR(a b) ^start prompt:fox",
    "keys": "seed:42 model:imagen-4 is how I ask, --ar 16:9 --v 6",
    "url": "see https://example.com/a?b=c#d and note: more",
    "controls": "bell\x07 escape\x1b[31m unit\x1fsep del\x7f \u200bzero\u200dwidth\ufeff",
    "dashes": "semi-realistic — wide–angle - plain",
    "hex": "72 65 64 726564",
    "long": LONG,
}

FACTS: Mapping[str, Mapping[str, object]] = {
    "kite": {"seed": "42", "tags": {"campaign": "spring", "a.b-c_d": "x"}, "day": 5},
    "kite-caps": {"seed": "042", "gateway": "api-in-one", "model": "imagen4", "day": 5},
    "kites": {"seed_reported": "42", "reported": "imagen-4-0606", "day": 6},
    "ramen": {
        "tags": {"campaign": "spring sale", "menu": "ramen"},
        "gateway": "api-in-one",
        "model": "imagen4",
        "images": (Image(seed="42"), Image(JPEG, 1024, 768, seed="43"), Image(WEBP, 512, 512, 50_000)),
        "day": 6.5,
    },
    "oil": {
        "model": "imagen-4-ultra",
        "reported": "imagen-4",
        "images": (Image(AVIF, 2048, 2048, 3_000_000),),
    },
    "cat-zh": {"asked": 2, "returned": 1},
    "one": {"asked": 2, "returned": 3},
    "korean": {"returned": 1, "withheld": (Withheld(0, "blocked"),)},
    "thai": {"returned": 1},
    "hindi": {"asked": 4},
    "x": {"images": (Image(JPEG), Image(PNG), Image(JPEG), Image(PNG)), "day": 2},
    "ab": {"status": Status.PARTIAL, "code": "image_expired", "images": (Image(PNG, 512, 768, 1),)},
    "spaces": {"status": Status.FAILED, "code": "no_answer", "images": (), "seed": "42"},
    "lines": {
        "status": Status.FAILED,
        "code": "generation_failed",
        "returned": 0,
        "images": (),
        "tags": {"campaign": "spring"},
    },
    "cafe": {"status": Status.RUNNING, "images": ()},
    "street": {"status": Status.QUEUED, "images": ()},
    "sushi": {
        "tags": {"campaign": "春", "quote": 'say "hi"', "menu": "sushi=good"},
        "seed": "12345678901234567890",
    },
    "sushi-zh": {
        "gateway": "api-in-one",
        "model": "我的模型",
        "seed": "種子",
        "images": (Image(WEBP), Image(WEBP)),
    },
    "rare": {"tags": {"campaign": "Spring", "мой проект": "лето", "作品": "一"}, "seed": "-1", "day": 3.5},
    "percent": {"model": 'odd "model" %_', "tags": {"p": "100%"}, "images": (Image(PNG, 1, 100_000, 1),)},
    "sql": {"model": "x'; DROP", "tags": {"sql": "'; --"}, "seed": "' OR 1=1"},
    "family": {"images": (Image(JPEG), Image(JPEG, seed="42"), Image(PNG), Image(JPEG), Image(PNG))},
    "flags": {"day": 8, "images": (Image(PNG, 1024, 768), Image(PNG, 768, 1024))},
}  # fmt: skip


def shots() -> dict[str, Shot]:
    """All jobs by name; those that nothing else is said of come two at a time in one millisecond."""
    found = {}
    for turn, (name, prompt) in enumerate(PROMPTS.items()):
        made = Shot(prompt, day=turn // 2 / 10)
        found[name] = replace(made, **FACTS.get(name, {}))  # type: ignore[arg-type]
    return found


class Archive:
    """A ledger that is filled with jobs, and what it must hold by now. No job may be claimed but by it."""

    def __init__(self, url: str, made: Mapping[str, Made] | None = None) -> None:
        self.database = Database.open(url)
        self.clock = Clock()
        self.ledger = Ledger(self.database, self.clock, lease_ms=10**12)
        self._made = dict(made or {})

    @property
    def everything(self) -> Sequence[Made]:
        return list(self._made.values())

    @property
    def made(self) -> Mapping[str, Made]:
        return dict(self._made)

    def add(self, name: str, shot: Shot) -> None:
        """Take a job in, and bring it where it is to be."""
        self.clock.now = FIRST + int(shot.day * DAY)
        request = JobRequest(
            model=shot.model, prompt=shot.prompt, seed=shot.seed, tags=shot.tags, num_images=shot.asked
        )
        job, new = add_job(self.ledger, name, shot.gateway, request)
        assert new
        (job,) = self.ledger.claim("w", 1)
        assert job.id == name
        if shot.status is not Status.QUEUED:
            job = self._sent(job, shot)
        self._made[name] = Made(self.ledger.job(name), (), len(self._made))
        for image in shot.images:
            self.add_image(name, image)

    def add_image(self, name: str, image: Image) -> None:
        made = self._made[name]
        index = len(made.outputs)
        key = f"images/{name}/{index}"
        digest = sha256(key.encode()).hexdigest()
        output = Output(
            name, index, key, digest, image.size, image.media_type, image.width, image.height,
            stored_at=self.clock.now, seed=image.seed,
        )  # fmt: skip
        add_output(self.ledger, output)
        self._made[name] = replace(made, outputs=(*made.outputs, output))

    def close(self) -> None:
        self.database.close()

    def _sent(self, job: Job, shot: Shot) -> Job:
        steps = [Status.SUBMITTING, Status.RUNNING]
        if shot.status not in {*steps, Status.FAILED}:
            steps.append(Status.READY)
        if shot.status not in steps:
            steps.append(shot.status)
        error = JobError(shot.code, "It did not work.", "gateway") if shot.code else None
        result = JobResult(
            model=shot.reported,
            seed=shot.seed_reported,
            images_returned=shot.returned,
            withheld=tuple(shot.withheld),
        )
        for step in steps:
            if step is Status.RUNNING:
                job = self.ledger.move(job, step, "w", keep_lease=True, result=result)
            else:
                job = self.ledger.move(job, step, "w", keep_lease=True, error=error)
        return job
