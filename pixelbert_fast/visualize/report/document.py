"""The frame of a report: one HTML file that loads nothing, and runs nothing but a read-out of its curves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pixelbert_fast.visualize import curves
from pixelbert_fast.visualize.markup import escaped, security_policy
from pixelbert_fast.visualize.report import pictures

_STYLE = """
:root { color-scheme: light dark; --ground: #f6f6f4; --card: #fff; --ink: #1b1d20; --faint: #5b6067;
  --line: #dcdcd6; --mark: #0b63c5; --bad: #a3330a; --good: #0b6b4b; --bar: #c9d9ee; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #131518; --card: #1d2024; --ink: #e7e8ea; --faint: #9fa6ae; --line: #32373d;
    --mark: #7db4f5; --bad: #ff9c73; --good: #6fd6b0; --bar: #2f4968; }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 1rem; max-width: 84rem; background: var(--ground); color: var(--ink);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.35rem; margin: 0 0 .25rem; }
h2 { font-size: 1.1rem; margin: 1.8rem 0 .6rem; }
h3 { font-size: .95rem; margin: 1.1rem 0 .2rem; }
h4 { font-size: .9rem; margin: 0; font-weight: 600; }
p { margin: .25rem 0; }
.faint { color: var(--faint); }
nav { margin: .7rem 0; font-size: .85rem; display: flex; flex-wrap: wrap; gap: .2rem 1rem; }
a { color: var(--mark); }
.banner { border: 2px solid var(--bad); border-radius: 8px; padding: .6rem .8rem; margin: .7rem 0;
  background: var(--card); }
.tiles { display: grid; gap: .6rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 9.2rem), 1fr));
  margin: .8rem 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .5rem .7rem; }
.tile b { display: block; font-size: 1.5rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tile span { display: block; font-size: .78rem; color: var(--faint); }
.charts { display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 23rem), 1fr)); }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  width: fit-content; max-width: 100%; }
table { border-collapse: collapse; font-size: .85rem; }
th, td { text-align: left; padding: .28rem .7rem; border-top: 1px solid var(--line); vertical-align: top;
  overflow-wrap: normal; }
thead th, thead td { border-top: 0; font-weight: 600; color: var(--faint);
  overflow-wrap: break-word; }
th.n, td.n { text-align: right; font-variant-numeric: tabular-nums; }
td.n { white-space: nowrap; }
thead th.n { min-width: 4.5rem; max-width: 9rem; }
tbody th { font-weight: 400; }
tr.part th { padding-left: 1.7rem; color: var(--faint); }
td.long { overflow-wrap: anywhere; min-width: 9rem; }
.pair th, .pair td { overflow-wrap: anywhere; }
.pair th { min-width: 7rem; }
pre { margin: 0; padding: .75rem; overflow-x: auto; overflow-wrap: normal; background: var(--card);
  border: 1px solid var(--line); border-radius: 8px;
  font: 12.5px/1.5 ui-monospace, Menlo, Consolas, monospace; }
details { margin: .6rem 0; }
summary { cursor: pointer; font-size: .85rem; color: var(--mark); }
details[open] summary { margin-bottom: .4rem; }
.examples { display: grid; gap: .8rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); }
.example { background: var(--card); border: 1px solid var(--line); border-left-width: 5px;
  border-radius: 8px; padding: .6rem .7rem; min-width: 0; }
.example.right { border-left-color: var(--good); }
.example.wrong { border-left-color: var(--bad); border-left-style: double; }
.example p { font-size: .82rem; }
.verdict { font-weight: 600; }
.right .verdict { color: var(--good); }
.wrong .verdict { color: var(--bad); }
.said { list-style: none; margin: .3rem 0 0; padding: 0; font-size: .82rem; }
.said li { display: flex; justify-content: space-between; gap: .6rem; padding: .08rem .4rem;
  margin: .12rem 0; border-radius: 3px;
  background: linear-gradient(var(--bar), var(--bar)) left / var(--p, 0%) 100% no-repeat; }
.said li span:last-child { font-variant-numeric: tabular-nums; white-space: nowrap; }
@media print { nav, summary { display: none; } .example, .chart { break-inside: avoid; } }
"""

# Reads curves out at the pointer: what the marks and axes tell already, to more digits.
_SCRIPT = """
for (const svg of document.querySelectorAll("svg.plot")) {
  const [x0, x1, a, b] = svg.dataset.x.split(" ").map(Number);
  const [y0, y1, c, d] = svg.dataset.y.split(" ").map(Number);
  const log = svg.dataset.scale === "log";
  const out = svg.parentElement.querySelector("output"), cursor = svg.querySelector(".cursor");
  const lines = [...svg.querySelectorAll("g[data-name]")].map(g => ({ name: g.dataset.name,
    points: [...g.querySelector(".l").getAttribute("d").matchAll(/[ML](-?[\\d.]+) (-?[\\d.]+)/g)]
      .map(m => [Number(m[1]), Number(m[2])]) }));
  const value = y => {
    const t = (y - y0) / (y1 - y0);
    return log ? 10 ** (Math.log10(c) + t * (Math.log10(d) - Math.log10(c))) : c + t * (d - c);
  };
  const show = event => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse()).x;
    let near = null;
    for (const line of lines) for (const p of line.points)
      if (near === null || Math.abs(p[0] - at) < Math.abs(near - at)) near = p[0];
    if (near === null) return;
    cursor.setAttribute("transform", `translate(${near} 0)`);
    cursor.style.visibility = "visible";
    const said = lines.map(line => [line.name, line.points.find(p => Math.abs(p[0] - near) < 0.02)])
      .filter(one => one[1]).map(one => `${one[0]} ${Number(value(one[1][1]).toPrecision(3))}`);
    const step = Math.round(a + (near - x0) / (x1 - x0) * (b - a));
    out.textContent = `${step}: ${said.join(", ")}`;
  };
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", () => { cursor.style.visibility = "hidden"; out.textContent = ""; });
}
"""


def document(title: str, head: str, sections: Sequence[tuple[str, str]], style: str = "") -> str:
    """The whole page.

    Args:
        title: any text.
        head: HTML under the title.
        sections: (heading, HTML) of each; those without HTML are left out.
        style: further rules.
    """
    shown = [(name, content) for name, content in sections if content]
    links = "".join(f'<a href="#{_anchor(name)}">{escaped(name)}</a>' for name, _ in shown)
    body = "\n".join(
        f'<section id="{_anchor(name)}"><h2>{escaped(name)}</h2>\n{content}</section>'
        for name, content in shown
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{security_policy(_SCRIPT)}">
<link rel="icon" href="data:,">
<title>{escaped(title)}</title>
<style>{_STYLE}{curves.STYLE}{pictures.STYLE}{style}</style>
</head>
<body>
<header>
<h1 dir="auto">{escaped(title)}</h1>
{head}
</header>
<nav aria-label="Sections">{links}</nav>
<main>
{body}
</main>
<script>{_SCRIPT}</script>
</body>
</html>
"""


def pairs_table(rows: Iterable[tuple[str, object]]) -> str:
    """A table of names and values; empty for no rows."""
    lines = "".join(f'<tr><th scope="row">{escaped(a)}</th><td>{escaped(b)}</td></tr>' for a, b in rows)
    return f'<div class="scroll"><table class="pair"><tbody>{lines}</tbody></table></div>' if lines else ""


@dataclass(frozen=True)
class Line:
    """A line of a table: its name, a text for each column; `part`: of the line above it."""

    name: str
    values: Sequence[str]
    part: bool = False


def table(columns: Sequence[str], lines: Iterable[Line], *, numbers: bool = True) -> str:
    """A table with a name before each line; it scrolls by itself where it is too wide."""
    kind = "n" if numbers else "long"
    head = "".join(f'<th scope="col" class="{kind}">{escaped(name)}</th>' for name in columns)
    body = []
    for line in lines:
        values = "".join(f'<td class="{kind}">{escaped(one)}</td>' for one in line.values)
        start = '<tr class="part">' if line.part else "<tr>"
        body.append(f'{start}<th scope="row">{escaped(line.name)}</th>{values}</tr>')
    return (
        f'<div class="scroll"><table><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _anchor(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower())
