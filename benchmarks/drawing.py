"""One SVG file in light and dark: lines, texts, marks and bars that are told apart without colour."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pixelbert_fast.visualize.axes import Axis  # noqa: E402 - needs the path above
from pixelbert_fast.visualize.markup import escaped  # noqa: E402

# Of the letters used here, in parts of their size; a little too wide rather than too narrow.
LETTER = 0.56
SIZE = 12.5

STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1b1d20; --faint: #5c6168; --line: #dcdcd6;
  --ours: #0b63c5; --peer: #b3480a; --pale: #cfdff3; --grey: #8b9098; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #131518; --ink: #e7e8ea; --faint: #a2a9b1; --line: #353a40; --ours: #7db4f5;
    --peer: #ffab70; --pale: #27405f; --grey: #767c85; }
}
text { fill: var(--ink); font: 12.5px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
.title { font-size: 15px; font-weight: 600; }
.head { font-weight: 600; }
.small { font-size: 11px; }
.faint { fill: var(--faint); }
.over { paint-order: stroke; stroke: var(--ground); stroke-width: 4px; stroke-linejoin: round; }
.middle { text-anchor: middle; } .end { text-anchor: end; }
.ground { fill: var(--ground); }
.grid { stroke: var(--line); fill: none; }
.axis { stroke: var(--faint); }
.roof { stroke: var(--ink); stroke-width: 1.8; fill: none; }
.dashed { stroke-dasharray: 6 4; } .dotted { stroke-dasharray: 2 3; }
.thick { stroke: var(--ink); stroke-width: 3; fill: none; }
.thin { stroke: var(--ink); stroke-width: 1.3; fill: none; }
.lead { stroke: var(--faint); stroke-width: .8; }
.ours { fill: var(--ours); stroke: var(--ours); }
.peer { fill: var(--ground); stroke: var(--peer); stroke-width: 1.8; }
.reference { fill: var(--ground); stroke: var(--ink); stroke-width: 1.8; }
.box { stroke: var(--ink); stroke-width: 1; }
"""

# A part's look in a bar: plain, stripes, dots, crosses, and two more of stripes.
PATTERNS = (
    '<pattern id="p0" width="8" height="8" patternUnits="userSpaceOnUse">'
    '<rect width="8" height="8" fill="var(--pale)"/></pattern>',
    '<pattern id="p1" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="7" height="7" fill="var(--ground)"/>'
    '<path d="M0 0V7" stroke="var(--peer)" stroke-width="5"/></pattern>',
    '<pattern id="p2" width="8" height="8" patternUnits="userSpaceOnUse"><rect width="8" height="8" '
    'fill="var(--ground)"/><circle cx="4" cy="4" r="1.5" fill="var(--ours)"/></pattern>',
    '<pattern id="p3" width="7" height="7" patternUnits="userSpaceOnUse"><rect width="7" height="7" '
    'fill="var(--ground)"/><path d="M0 0L7 7M7 0L0 7" stroke="var(--faint)"/></pattern>',
    '<pattern id="p4" width="6" height="6" patternUnits="userSpaceOnUse"><rect width="6" height="6" '
    'fill="var(--ground)"/><path d="M0 3H6" stroke="var(--grey)" stroke-width="1.6"/></pattern>',
    '<pattern id="p5" width="6" height="6" patternUnits="userSpaceOnUse"><rect width="6" height="6" '
    'fill="var(--ground)"/><path d="M3 0V6" stroke="var(--grey)" stroke-width="1.6"/></pattern>',
)

# Around (0, 0): circle, diamond, square, triangle, pointing-down triangle, cross.
SHAPES = {
    "circle": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    "diamond": "M0 -5.4L5.4 0L0 5.4L-5.4 0z",
    "square": "M-3.7 -3.7h7.4v7.4h-7.4z",
    "triangle": "M0 -5L4.8 3.7H-4.8z",
    "down": "M0 5L4.8 -3.7H-4.8z",
    "cross": "M-4.6 -1.5h3.1v-3.1h3v3.1h3.1v3h-3.1v3.1h-3v-3.1h-3.1z",
}
OURS, OTHERS = ("diamond", "triangle", "cross", "down"), ("square", "down", "triangle", "cross")


def width_of(text: str, size: float = SIZE) -> float:
    """About how many pixels a text takes."""
    return LETTER * size * len(text)


def fitted(text: str, width: float, size: float = SIZE) -> str:
    """As much of a text as fits, with an ellipsis where that is not all."""
    most = int(width / (LETTER * size))
    return text if len(text) <= most else text[: max(most - 1, 1)].rstrip(" ,") + "…"


def wrapped(text: str, width: float, size: float = SIZE) -> list[str]:
    """A text in lines that fit."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if width_of(joined, size) <= width or not lines[-1]:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines


def close_axis(values: Sequence[float], room: float = 1.15) -> Axis:
    """A logarithmic axis that ends `room` times beyond the least and the most of values above 0.

    Raises ValueError for no values.
    """
    least, most = min(values) / room, max(values) * room
    digits = (1, 2, 5) if most / least < 3000 else (1,)
    powers = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    ticks = (digit * 10.0**power for power in powers for digit in digits)
    return Axis(least, most, tuple(tick for tick in ticks if least <= tick <= most), log=True)


def looks(rows: list[dict]) -> dict[str, tuple[str, str]]:
    """By contestant its shape and class: ours filled, others hollow; the reference a circle."""
    found: dict[str, tuple[str, str]] = {}
    free = {"ours": list(OURS), "peer": list(OTHERS)}
    for row in rows:
        who, role = row["contestant"], row["role"]
        if who in found or role not in ("reference", "ours", "peer"):
            continue
        if role == "reference":
            found[who] = ("circle", "reference")
        else:
            shapes = free[role]
            found[who] = (shapes.pop(0) if len(shapes) > 1 else shapes[0], role)
    return found


class Drawing:
    """Parts of a picture so wide, of a height that is known at its end."""

    def __init__(self, width: int, title: str) -> None:
        self.width, self.title = width, title
        self.parts: list[str] = []
        self.text(12, 24, title, "title")

    def text(self, x: float, y: float, text: str, kind: str = "") -> None:
        named = f' class="{kind}"' if kind else ""
        self.parts.append(f'<text{named} x="{short(x)}" y="{short(y)}">{escaped(text)}</text>')

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str = "grid") -> None:
        places = f'x1="{short(x1)}" y1="{short(y1)}" x2="{short(x2)}" y2="{short(y2)}"'
        self.parts.append(f'<line class="{kind}" {places}/>')

    def path(self, steps: str, kind: str) -> None:
        """Several lines of one look."""
        self.parts.append(f'<path class="{kind}" d="{steps}"/>')

    def bar(self, x: float, y: float, width: float, height: float, fill: str, said: str = "") -> None:
        """A box with a pattern (`p0` to `p5`), or of a class; `said` when it is pointed at."""
        look = f'fill="url(#{fill})" class="box"' if fill in _PATTERN_NAMES else f'class="{fill}"'
        box = f'x="{short(x)}" y="{short(y)}" width="{short(max(width, 0))}" height="{short(height)}"'
        inner = f"><title>{escaped(said)}</title></rect>" if said else "/>"
        self.parts.append(f"<rect {box} {look}{inner}")

    def mark(self, x: float, y: float, look: tuple[str, str], said: str = "") -> None:
        shape, kind = look
        inner = f"><title>{escaped(said)}</title></path>" if said else "/>"
        place = f'transform="translate({short(x)} {short(y)})"'
        self.parts.append(f'<path class="{kind}" {place} d="{SHAPES[shape]}"{inner}')

    def notes(self, y: float, text: str) -> float:
        """A caption from `y` on; where the next line would begin."""
        for line in wrapped(text, self.width - 24, 11.5):
            self.text(12, y, line, "small faint")
            y += 15
        return y

    def svg(self, height: float) -> str:
        """The whole file."""
        size = f'viewBox="0 0 {self.width} {height:.0f}" width="{self.width}" height="{height:.0f}"'
        body = "\n".join(self.parts)
        patterns = "".join(each for number, each in enumerate(PATTERNS) if f"url(#p{number})" in body)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escaped(self.title)}">\n'
            f"<title>{escaped(self.title)}</title>\n<style>{STYLE}</style>\n<defs>{patterns}</defs>\n"
            f'<rect class="ground" width="{self.width}" height="{height:.0f}"/>\n{body}\n</svg>\n'
        )


_PATTERN_NAMES = {f"p{number}" for number in range(len(PATTERNS))}


def short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
