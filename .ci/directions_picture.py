"""A house of floors as SVG: a box for each part, an arrow for each direction of imports, the top floor first.

An arrow to the next floor goes straight down; one that passes floors takes a lane beside the boxes, which all
arrows to one part share, in that part's colour. What nearly everything imports is a slab below all others.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, BOX, GAP, CORRIDOR = 980, 330, 40, 46
LINE, PADDING, LANE = 17, 14, 18
# Characters that a box is sure to hold, of 12 pixels' height and of 11.
CHARACTERS, SMALL_CHARACTERS = (BOX - 2 * PADDING) // 7, (BOX - 2 * PADDING) // 6
LEGEND = (
    "An arrow is an import. A grey one goes down one",
    "floor; a coloured one passes floors, to the box",
    "with a frame of its colour.",
)
PLAIN = "#7a7f87"
# Colours that stand out from white and from nearly black, as the boxes' frames and the lanes.
COLOURS = ("#8a62c9", "#2e8f62", "#b8860b", "#c24a7a", "#2f7fc1", "#c2572b", "#3d8f9a")
STYLE = """
  text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328; }
  .name { font-size: 15px; font-weight: 600; }
  .small { font-size: 11px; fill: #57606a; }
  .page { fill: #ffffff; }
  .box { fill: #f6f8fa; stroke-width: 1.6; }
  .way { fill: none; stroke: #57606a; stroke-width: 1.8; }
  .lane { fill: none; stroke-width: 1.8; }
  .head { fill: #57606a; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .small { fill: #9da7b1; }
    .page { fill: #0d1117; }
    .box { fill: #161b22; }
    .way { stroke: #9da7b1; }
    .head { fill: #9da7b1; }
  }
"""


class Part(NamedTuple):
    """A part: its floor (0: the lowest), what it is, what is in it, and the libraries it is about."""

    name: str
    floor: int
    about: str
    inside: tuple[str, ...]
    libraries: tuple[str, ...]


class Box(NamedTuple):
    """Where a part is drawn. `row` counts from the top; `side` is -1 left, 0 in the middle, 1 right."""

    part: Part
    x: int
    y: int
    height: int
    row: int
    side: int
    lines: tuple[tuple[str, str], ...]
    colour: str

    @property
    def middle(self) -> int:
        return self.x + BOX // 2

    @property
    def bottom(self) -> int:
        return self.y + self.height


def draw(parts: Sequence[Part], imports: set[tuple[str, str]]) -> str:
    """The picture.

    Args:
        parts: one of floor 0, which is the slab, and at most two on each of the others.
        imports: (importing, imported), by name.

    Raises:
        ValueError: an arrow that would not go down.
    """
    slab = next(part for part in parts if part.floor == 0)
    boxes = _placed([part for part in parts if part is not slab])
    standing = {name for name, there in imports if there == slab.name}
    rows = sorted({box.row for box in boxes.values()})
    under = {row: max(box.bottom for box in boxes.values() if box.row == row) for row in rows}
    body: list[str] = []
    lanes: dict[tuple[str, int], list[Box]] = {}
    for here, there in sorted(imports):
        if there == slab.name:
            continue
        source, target = boxes[here], boxes[there]
        if target.row <= source.row:
            raise ValueError(f"{here} imports {there}, which is not below it")
        if target.row == source.row + 1:
            body.append(_straight(source, target))
        else:
            lanes.setdefault((there, _lane_side(target, there, imports, boxes)), []).append(source)
    for number, name in enumerate(
        dict.fromkeys(name for name in boxes for there, _ in lanes if there == name)
    ):
        boxes[name] = boxes[name]._replace(colour=COLOURS[number % len(COLOURS)])
    for side in (-1, 1):
        own = sorted((boxes[name] for name, lane_side in lanes if lane_side == side), key=lambda box: box.row)
        for number, target in enumerate(own, start=1):
            body += _lane(target, lanes[target.part.name, side], side, number, under)
    for box in boxes.values():
        body += _drawn(box)
    height = max(under.values()) + CORRIDOR
    slab_lines = _slab(slab, [part.name for part in parts if part is not slab], standing)
    body.append(
        f'<rect class="box" x="30" y="{height}" width="{WIDTH - 60}" height="74" rx="8" stroke="{PLAIN}"/>'
    )
    body += [
        f'<text class="{kind}" x="{30 + PADDING}" y="{height + 24 + LINE * number}">{escape(text)}</text>'
        for number, (kind, text) in enumerate(slab_lines)
    ]
    height += 74 + 20
    body += [
        f'<text class="small" x="24" y="{30 + 15 * number}">{line}</text>'
        for number, line in enumerate(LEGEND)
    ]
    return "\n".join([*_head(height), *body, "</svg>", ""])


def _head(height: int) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
        f' height="{height}" role="img" aria-labelledby="title">',
        '<title id="title">The parts of pixelbert_fast and who imports whom: every arrow goes down.</title>',
        f"<style>{STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8"'
        ' markerUnits="userSpaceOnUse" orient="auto">',
        '<path class="head" d="M0 0.5 8 4 0 7.5z"/></marker></defs>',
        f'<rect class="page" width="{WIDTH}" height="{height}" rx="10"/>',
    ]


def _placed(parts: Sequence[Part]) -> dict[str, Box]:
    """A box for each part, in rows by floor, the highest first."""
    boxes: dict[str, Box] = {}
    y = 24
    for row, floor in enumerate(sorted({part.floor for part in parts}, reverse=True)):
        own = [part for part in parts if part.floor == floor]
        texts = [_lines(part) for part in own]
        height = 2 * PADDING + LINE * max(map(len, texts)) - 2
        for number, (part, lines) in enumerate(zip(own, texts, strict=True)):
            side = 0 if len(own) == 1 else 2 * number - 1
            x = (WIDTH - BOX) // 2 + side * (BOX + GAP) // 2
            boxes[part.name] = Box(part, x, y, height, row, side, lines, PLAIN)
        y += height + CORRIDOR
    return boxes


def _lines(part: Part) -> tuple[tuple[str, str], ...]:
    """What stands in a part's box: its name, what it is, what is in it, its libraries."""
    name = " · ".join(part.inside) if part.name == "top" else f"{part.name}/"
    lines = [("name", name), *(("", line) for line in textwrap.wrap(part.about.replace("`", ""), CHARACTERS))]
    if part.inside and part.name != "top":
        lines += [("small", line) for line in textwrap.wrap(" · ".join(part.inside), SMALL_CHARACTERS)]
    if part.libraries:
        lines += [
            ("small", line) for line in textwrap.wrap(f"with {', '.join(part.libraries)}", SMALL_CHARACTERS)
        ]
    return tuple(lines)


def _slab(slab: Part, names: Sequence[str], standing: set[str]) -> list[tuple[str, str]]:
    without = [name for name in names if name not in standing]
    all_but = f"all but {' and '.join(without)}" if without else "every part"
    return [
        ("name", slab.about),
        ("", ", ".join(f"{one}.py" if one else "" for one in slab.inside if one)),
        ("small", f"imported by {all_but}"),
    ]


def _drawn(box: Box) -> list[str]:
    lines = [
        f'<rect class="box" x="{box.x}" y="{box.y}" width="{BOX}" height="{box.height}" rx="8"'
        f' stroke="{box.colour}"/>'
    ]
    for number, (kind, text) in enumerate(box.lines):
        y = box.y + PADDING + 10 + LINE * number
        lines.append(f'<text class="{kind}" x="{box.x + PADDING}" y="{y}">{escape(text)}</text>')
    return lines


def _straight(source: Box, target: Box) -> str:
    """To the next floor, from a side of the lower edge to a side of the upper one."""
    start = source.middle + (target.side - source.side) * BOX // 5
    end = target.middle + (source.side - target.side) * BOX // 5
    middle = (source.bottom + target.y) // 2
    way = f"M{start} {source.bottom}C{start} {middle} {end} {middle} {end} {target.y}"
    return f'<path class="way" d="{way}" marker-end="url(#head)"/>'


def _lane_side(target: Box, name: str, imports: set[tuple[str, str]], boxes: dict[str, Box]) -> int:
    """Left or right: the target's own side, else the one where most of those that import it stand."""
    if target.side:
        return target.side
    sides = sum(boxes[here].side for here, there in imports if there == name)
    return 1 if sides > 0 else -1


def _lane(target: Box, sources: Sequence[Box], side: int, number: int, under: dict[int, int]) -> list[str]:
    """The lane to `target`, number 1 nearest to the boxes, with a way into it from each of `sources`."""
    edge = WIDTH // 2 + side * (BOX + GAP // 2)
    x = edge + side * LANE * number
    end = target.x if side < 0 else target.x + BOX
    y = target.y + target.height // 2
    ways = []
    for source in sorted(sources, key=lambda box: box.row):
        if source.side == -side:  # the other box of its row is in the way: below both
            start, level = source.middle + side * BOX // 3, under[source.row] + CORRIDOR // 2 + 5 * number - 8
            way = f"M{start} {source.bottom}V{level - 6}Q{start} {level} {start + 6 * side} {level}"
        else:
            start = source.x if side < 0 else source.x + BOX
            level = source.y + source.height // 2 + 9 * number - 9
            way = f"M{start} {level}"
        way += f"H{x - 8 * side}Q{x} {level} {x} {level + 8}V{y - 8}Q{x} {y} {x - 8 * side} {y}H{end}"
        ways.append(f'<path class="lane" stroke="{target.colour}" d="{way}"/>')
    tip = end - 9 if side < 0 else end + 9
    ways.append(f'<path fill="{target.colour}" d="M{tip} {y - 4}L{end} {y}L{tip} {y + 4}z"/>')
    return ways
