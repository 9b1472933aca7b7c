"""Sampling a scene: which objects, where, on what ground."""

from dataclasses import dataclass
from random import Random

from pixelbert_fast.data.scenes.lexicon import (
    COLOURS,
    GROUND_COLOURS,
    GROUND_TEXTURES,
    HELD_OUT,
    PLACES,
    SHAPES,
    SIZES,
    TEXTURES,
)
from pixelbert_fast.data.scenes.shapes import ROTATIONS, half_extent
from pixelbert_fast.data.truth import RELATION_MARGIN

# All lengths here are in pixels of a CANVAS x CANVAS image; other sizes scale them.
CANVAS = 96
OBJECT_CANVAS = 48
DIAMETERS = {"small": (21.5, 24.5), "large": (34.0, 36.5)}
# Centres keep at least 5 px from the borders between thirds, so that no place is borderline.
BANDS = ((18.0, 27.0), (37.0, 59.0), (69.0, 78.0))
BORDER = 1.0
GAP = 2.0
# No pair of objects is nearer than this factor to the margin of a relation, on either side of it.
CLEAR = 1.3
TRIES_IN_A_CELL = 8
COUNT_WEIGHTS = (0.10, 0.30, 0.35, 0.25)
SAME_SHAPE, SAME_COLOUR = 0.20, 0.15

KNOWN = tuple((shape, colour) for shape in SHAPES for colour in COLOURS if (shape, colour) not in HELD_OUT)
NOVEL = tuple(sorted(HELD_OUT))


@dataclass(frozen=True, slots=True)
class Thing:
    """An object: its attributes, and what drawing needs (lengths in pixels, rotation in degrees)."""

    attributes: dict[str, str]
    x: float
    y: float
    diameter: float
    rotation: int
    jitter: tuple[int, int, int]
    pattern: tuple[int, float]

    @property
    def box(self) -> list[float]:
        """[x0, y0, x1, y1], rounded to a hundredth of a pixel."""
        wide, high = half_extent(self.attributes["shape"], self.rotation)
        wide, high = wide * self.diameter, high * self.diameter
        return [round(v, 2) for v in (self.x - wide, self.y - high, self.x + wide, self.y + high)]


@dataclass(frozen=True, slots=True)
class Picture:
    """A whole scene ready to be drawn: `size` is the side in pixels, `grain` seeds the ground's noise."""

    size: int
    things: tuple[Thing, ...]
    ground: dict[str, str]
    jitter: tuple[int, int, int]
    grain: int
    novel: bool

    def scene(self) -> dict:
        """The scene as `truth` reads it, with "size" (pixels) and "novel" (has a held-out combination)."""
        objects = [{"attributes": thing.attributes, "box": thing.box} for thing in self.things]
        return {"objects": objects, "ground": self.ground, "size": self.size, "novel": self.novel}


def _combinations(rng: Random, number: int, novel: bool) -> list[tuple[str, str]]:
    """Shape and colour of each object; often shared, so that there is something to count."""
    chosen = [rng.choice(NOVEL if novel else KNOWN)]
    while len(chosen) < number:
        draw = rng.random()
        shape, colour = rng.choice(KNOWN)
        if draw < SAME_SHAPE:
            shape = chosen[0][0]
        elif draw < SAME_SHAPE + SAME_COLOUR:
            colour = chosen[0][1]
        if (shape, colour) not in HELD_OUT:
            chosen.append((shape, colour))
    rng.shuffle(chosen)
    return chosen


def _clear(one: Thing, other: Thing, unit: float) -> bool:
    """Whether two objects neither touch nor stand at the edge of a relation."""
    a, b = one.box, other.box
    gap = GAP * unit
    if a[0] - gap < b[2] and b[0] - gap < a[2] and a[1] - gap < b[3] and b[1] - gap < a[3]:
        return False
    for low, high in ((0, 2), (1, 3)):
        mean = (a[high] - a[low] + b[high] - b[low]) / 2
        distance = abs(a[low] + a[high] - b[low] - b[high]) / 2 / mean
        if RELATION_MARGIN / CLEAR < distance < RELATION_MARGIN * CLEAR:
            return False
    return True


def _jitter(rng: Random, amount: int) -> tuple[int, int, int]:
    return rng.randint(-amount, amount), rng.randint(-amount, amount), rng.randint(-amount, amount)


def _appearance(rng: Random, combination: tuple[str, str]) -> tuple[dict, float, int, tuple, tuple]:
    shape, colour = combination
    size = rng.choice(SIZES)
    attributes = {"shape": shape, "colour": colour, "size": size, "texture": rng.choice(TEXTURES)}
    diameter = rng.uniform(*DIAMETERS[size])
    return attributes, diameter, rng.choice(ROTATIONS), _jitter(rng, 10), (rng.randrange(4), rng.random())


def _ground(rng: Random) -> tuple[dict[str, str], tuple[int, int, int], int]:
    ground = {"colour": rng.choice(tuple(GROUND_COLOURS)), "texture": rng.choice(GROUND_TEXTURES)}
    return ground, _jitter(rng, 8), rng.getrandbits(32)


def _within(low: float, high: float, half: float, side: float) -> tuple[float, float]:
    return max(low, half + BORDER), min(high, side - half - BORDER)


def _arrange(rng: Random, looks: list, unit: float) -> tuple[Thing, ...] | None:
    """One try at placing the objects in cells of their own; None when they touch or stand in doubt."""
    things: list[Thing] = []
    cells = rng.sample(range(len(PLACES)), len(looks))
    for (attributes, diameter, rotation, jitter, pattern), cell in zip(looks, cells, strict=True):
        wide, high = half_extent(attributes["shape"], rotation)
        across = _within(*BANDS[cell % 3], wide * diameter, CANVAS)
        down = _within(*BANDS[cell // 3], high * diameter, CANVAS)
        placed = {**attributes, "place": PLACES[cell]}
        # Several tries in one cell before others are drawn: or the crowded middle would stay almost empty.
        for _ in range(TRIES_IN_A_CELL):
            x, y = rng.uniform(*across) * unit, rng.uniform(*down) * unit
            thing = Thing(placed, x, y, diameter * unit, rotation, jitter, pattern)
            if all(_clear(thing, other, unit) for other in things):
                things.append(thing)
                break
        else:
            return None
    return tuple(things)


def sample_picture(rng: Random, size: int, novel: bool) -> Picture:
    """A scene of 1 to 4 objects, `size` pixels a side; one has a held-out combination if `novel`."""
    unit = size / CANVAS
    number = rng.choices((1, 2, 3, 4), COUNT_WEIGHTS)[0]
    looks = [_appearance(rng, combination) for combination in _combinations(rng, number, novel)]
    things = None
    while things is None:
        things = _arrange(rng, looks, unit)
    return Picture(size, things, *_ground(rng), novel)


def sample_object(rng: Random, size: int, novel: bool) -> Picture:
    """One object anywhere on a ground, as many pixels as in a scene when `size` is 48."""
    unit = size / OBJECT_CANVAS
    attributes, diameter, rotation, jitter, pattern = _appearance(rng, rng.choice(NOVEL if novel else KNOWN))
    wide, high = half_extent(attributes["shape"], rotation)
    x = rng.uniform(*_within(0, OBJECT_CANVAS, wide * diameter, OBJECT_CANVAS)) * unit
    y = rng.uniform(*_within(0, OBJECT_CANVAS, high * diameter, OBJECT_CANVAS)) * unit
    thing = Thing(attributes, x, y, diameter * unit, rotation, jitter, pattern)
    return Picture(size, (thing,), *_ground(rng), novel)
