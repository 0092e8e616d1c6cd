"""Lines that nature draws: ridges, waves and curves, as points on a canvas."""

from __future__ import annotations

import math
import random
from itertools import pairwise

from receiver.sandbox.art.canvas import Point

STEPS = 180


def smooth(rng: random.Random, base: float, height: float, swings: float = 1.5) -> list[Point]:
    """A rolling line from left to right around a height: three waves of falling size."""
    waves = [(swings * rng.uniform(0.7, 1.3) * 1.9**n, rng.uniform(0, math.tau), 0.5**n) for n in range(3)]
    points = []
    for step in range(STEPS + 1):
        x = -0.02 + 1.04 * step / STEPS
        lift = sum(size * math.sin(x * speed * math.tau + phase) for speed, phase, size in waves)
        points.append((x, base - height * lift / 1.75))
    return points


def jagged(rng: random.Random, base: float, height: float, peaks: int = 4) -> list[Point]:
    """A mountain ridge: the middle of every span is moved, less with each halving."""
    heights = [rng.uniform(0.15, 1.0) if n % 2 else rng.uniform(0.0, 0.35) for n in range(peaks * 2 + 1)]
    rough = 0.16
    while len(heights) < STEPS:
        finer = [heights[0]]
        for left, right in pairwise(heights):
            finer += [(left + right) / 2 + rng.uniform(-rough, rough), right]
        heights, rough = finer, rough * 0.52
    last = len(heights) - 1
    return [(-0.02 + 1.04 * n / last, base - height * value) for n, value in enumerate(heights)]


def down(line: list[Point], to: float = 1.02) -> list[Point]:
    """Close a line into the ground below it."""
    return [*line, (line[-1][0], to), (line[0][0], to)]


def between(upper: list[Point], lower: list[Point]) -> list[Point]:
    """The area between two lines."""
    return [*upper, *reversed(lower)]


def circle(at: Point, radius: float, aspect: float, start: float = 0.0, end: float = 1.0) -> list[Point]:
    """Part of a circle, in turns, that is round on a canvas of this aspect; the radius is in short sides."""
    wide = radius / max(aspect, 1.0)
    high = radius * min(aspect, 1.0)
    turns = [start + (end - start) * step / 72 for step in range(73)]
    return [(at[0] + wide * math.cos(t * math.tau), at[1] + high * math.sin(t * math.tau)) for t in turns]


def height_at(line: list[Point], x: float) -> float:
    """How high a line is at x."""
    share = (x - line[0][0]) / (line[-1][0] - line[0][0])
    return line[min(max(round(share * (len(line) - 1)), 0), len(line) - 1)][1]
