"""Outlines of the shapes, in a unit square around the origin, y downwards."""

from functools import cache
from math import atan2, cos, pi, radians, sin

Points = tuple[tuple[float, float], ...]

# Rotations an object may have, in degrees: small enough that no shape turns into another one.
ROTATIONS = tuple(range(-15, 16, 3))


def _arc(radius: float, start: float, stop: float, steps: int, x: float = 0.0) -> list[tuple[float, float]]:
    angles = (start + (stop - start) * i / (steps - 1) for i in range(steps))
    return [(x + radius * cos(a), radius * sin(a)) for a in angles]


def _star() -> list[tuple[float, float]]:
    return [
        (r * sin(i * pi / 5), -r * cos(i * pi / 5)) for i in range(10) for r in [0.5 if i % 2 == 0 else 0.23]
    ]


def _cross() -> list[tuple[float, float]]:
    a, b = 0.17, 0.5
    quarter = [(a, -b), (a, -a), (b, -a)]
    points = []
    for turn in range(4):
        c, s = (1, 0, -1, 0)[turn], (0, 1, 0, -1)[turn]
        points += [(x * c - y * s, x * s + y * c) for x, y in quarter]
    return points


def _heart() -> list[tuple[float, float]]:
    turns = [2 * pi * i / 40 for i in range(40)]
    return [(16 * sin(t) ** 3, -13 * cos(t) + 5 * cos(2 * t) + 2 * cos(3 * t) + cos(4 * t)) for t in turns]


def _moon() -> list[tuple[float, float]]:
    # A disc of radius 0.5 bitten by one of radius `bite` whose centre lies `shift` to the right.
    shift, bite = 0.28, 0.40
    x = (0.25 - bite**2 + shift**2) / (2 * shift)
    y = (0.25 - x * x) ** 0.5
    outer, inner = atan2(y, x), atan2(y, x - shift)
    return _arc(0.5, outer, 2 * pi - outer, 28) + _arc(bite, -inner, inner - 2 * pi, 20, shift)


def _outlines() -> dict[str, tuple[list, list]]:
    disc = _arc(0.5, 0, 2 * pi, 41)
    return {
        "circle": (disc, []),
        "square": ([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)], []),
        "triangle": ([(0, -0.45), (0.5, 0.45), (-0.5, 0.45)], []),
        "star": (_star(), []),
        "cross": (_cross(), []),
        "heart": (_heart(), []),
        "ring": (disc, [(0.56 * x, 0.56 * y) for x, y in disc]),
        "moon": (_moon(), []),
    }


# Drawn a little larger or smaller than the nominal size so that they look alike in size.
_SCALE = {"square": 0.95, "star": 1.12, "triangle": 1.06, "heart": 1.04}


@cache
def outline(shape: str, rotation: int) -> tuple[Points, Points]:
    """The outline of a shape about 1 wide or high, centred on its box, and that of its hole (often empty)."""
    points, hole = _outlines()[shape]
    c, s = cos(radians(rotation)), sin(radians(rotation))

    def extent(values):
        return min(values), max(values)

    (x0, x1), (y0, y1) = extent([x for x, _ in points]), extent([y for _, y in points])
    scale = _SCALE.get(shape, 1.0) / max(x1 - x0, y1 - y0)

    def turned(some):
        moved = [((x - (x0 + x1) / 2) * scale, (y - (y0 + y1) / 2) * scale) for x, y in some]
        return [(x * c - y * s, x * s + y * c) for x, y in moved]

    points, hole = turned(points), turned(hole)
    # Rotation moves the box's centre for shapes that are not symmetric: centre again, so that a place is the
    # box's.
    (x0, x1), (y0, y1) = extent([x for x, _ in points]), extent([y for _, y in points])
    shift_x, shift_y = (x0 + x1) / 2, (y0 + y1) / 2
    return (
        tuple((x - shift_x, y - shift_y) for x, y in points),
        tuple((x - shift_x, y - shift_y) for x, y in hole),
    )


@cache
def half_extent(shape: str, rotation: int) -> tuple[float, float]:
    """Half the width and half the height of the box of a shape of size 1."""
    points, _ = outline(shape, rotation)
    return max(x for x, _ in points), max(y for _, y in points)
