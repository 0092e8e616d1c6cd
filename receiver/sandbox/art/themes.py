"""What a prompt's words ask for: which palette, which scene, which colour."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping

from receiver.sandbox.art import abstracts, landscapes
from receiver.sandbox.art.canvas import Canvas
from receiver.sandbox.art.colours import PALETTES, RGB, Palette, rgb

Scene = Callable[[Canvas, Palette], None]

SCENES: Mapping[str, Scene] = {
    "hills": landscapes.hills,
    "mountains": landscapes.mountains,
    "snow": landscapes.snow,
    "forest": landscapes.forest,
    "ocean": landscapes.ocean,
    "desert": landscapes.desert,
    "city": landscapes.city,
    "night": abstracts.night,
    "planets": abstracts.planets,
    "blobs": abstracts.blobs,
    "arcs": abstracts.arcs,
    "ribbons": abstracts.ribbons,
    "bloom": abstracts.bloom,
    "table": abstracts.table,
}

_ANYTHING = ("arcs", "blobs", "bloom", "desert", "hills", "mountains", "night", "ocean", "ribbons")
"""Scenes that suit a prompt which names none."""
_DAY = "dawn golden mint ocean lavender rose citrus"

_SCENE_WORDS: Mapping[str, str] = {
    "snow": "snow snowy winter ice icy glacier frost frozen ski arctic christmas penguin 雪",
    "night": "aurora borealis northern polar オーロラ 极光",
    "planets": "space planet planets galaxy star stars moon cosmos cosmic astronaut rocket nebula "
    "saturn mars orbit 宇宙 月",
    "city": "city skyline street skyscraper building buildings urban tokyo paris london york "
    "architecture cyberpunk downtown rooftop traffic 街 城市 都市",
    "ocean": "ocean sea beach wave waves harbour harbor coast coastal lake river island boat ship "
    "sail surf lighthouse fish whale water bay kite 海 湖",
    "desert": "desert dune dunes sand sahara cactus camel canyon highway 沙漠 砂漠",
    "forest": "forest woods tree trees pine fir jungle fox deer bear owl moss cabin 森 林",
    "mountains": "mountain mountains alps peak peaks summit cliff volcano fuji himalaya eagle dragon "
    "castle 山",
    "hills": "hill hills field fields meadow valley landscape countryside village farm vineyard "
    "sheep horse train 丘",
    "bloom": "flower flowers rose roses garden blossom bloom bouquet tulip lotus orchid petal "
    "petals butterfly bee 花",
    "table": "bowl ramen soup food coffee tea cup kitchen bread cake fruit still dinner breakfast "
    "noodles product photography restaurant 拉面 ラーメン 茶",
    "ribbons": "silk music dance wind smoke hair fabric ribbon flow abstract dress fashion portrait",
    "blobs": "glass bubble bubbles liquid soft gradient balloon balloons jelly light icon logo",
    "arcs": "poster retro bauhaus geometric pattern minimal minimalist sale graphic flat rainbow "
    "sneaker mascot",
}
_PALETTE_WORDS: Mapping[str, str] = {
    "sunset": "sunset evening 夕日 夕焼け 日落",
    "dawn": "sunrise dawn morning daybreak 朝 日出",
    "golden": "golden gold warm honey amber harvest summer",
    "neon": "neon cyberpunk vaporwave synthwave electric club futuristic",
    "night": "night midnight moon moonlit stars space galaxy cosmic starry planet 夜 月",
    "dusk": "dusk twilight blue-hour evening quiet calm",
    "aurora": "aurora borealis northern polar emerald オーロラ 极光",
    "city": "city tokyo skyline downtown 城市 都市",
    "ocean": "ocean sea beach tropical summer sky 海",
    "slate": "grey gray fog foggy mist misty rain rainy storm cloudy monochrome concrete noir tidy office",
    "autumn": "autumn fall october leaf leaves maple pumpkin fox ramen coffee wood cosy cozy 秋",
    "forest": "forest jungle moss woods green spring 森",
    "snow": "snow snowy winter ice frost glacier arctic 雪",
    "desert": "desert dune dunes sand canyon clay terracotta",
    "lavender": "lavender violet purple lilac dream dreamy",
    "rose": "rose pink blossom cherry sakura love romantic flower flowers bouquet 桜 花",
    "citrus": "citrus orange lemon juice sale sunny bright fruit",
    "mint": "mint fresh teal turquoise clean studio minimal spring",
}
_COLOUR_WORDS: Mapping[str, RGB] = {
    "red": rgb("#d6373f"),
    "crimson": rgb("#b3203a"),
    "orange": rgb("#f08a34"),
    "yellow": rgb("#f4c63d"),
    "green": rgb("#3f9b63"),
    "blue": rgb("#3678c9"),
    "purple": rgb("#7d4fc4"),
    "violet": rgb("#7d4fc4"),
    "pink": rgb("#ec6f9f"),
    "teal": rgb("#1f9a97"),
    "gold": rgb("#e2ae45"),
    "silver": rgb("#b9c3cf"),
}


def choose(prompt: str, rng: random.Random) -> tuple[str, Palette]:
    """Pick a scene and a palette: what the words ask for, else whatever chance says."""
    words = re.findall(r"[\w-]+", prompt.lower())
    scene = _heard(prompt, words, _SCENE_WORDS) or rng.choice(_ANYTHING)
    name = _heard(prompt, words, _PALETTE_WORDS) or rng.choice(_suiting(scene))
    palette = PALETTES[name].varied(rng)
    named = next((_COLOUR_WORDS[word] for word in words if word in _COLOUR_WORDS), None)
    return scene, palette.with_accent(named) if named else palette


def words_for(scene: str) -> list[str]:
    """The words that call for a scene."""
    return _SCENE_WORDS[scene].split()


def _heard(prompt: str, words: list[str], table: Mapping[str, str]) -> str | None:
    for name, said in table.items():
        for cue in said.split():
            # Scripts without spaces between words are searched as text.
            if cue in words or (not cue.isascii() and cue in prompt):
                return name
    return None


def _suiting(scene: str) -> list[str]:
    suiting = {
        "snow": "snow dusk lavender dawn",
        "night": "aurora night",
        "planets": "night neon aurora",
        "city": "city neon dusk sunset",
        "ocean": "ocean sunset dawn dusk golden",
        "desert": "desert golden sunset dawn",
        "forest": "forest autumn mint dusk dawn",
        "mountains": "dusk dawn lavender snow sunset slate",
        "bloom": "rose lavender citrus mint dawn",
        "table": "autumn citrus mint rose golden",
    }
    return suiting.get(scene, f"{_DAY} sunset dusk").split()
