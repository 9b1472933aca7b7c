"""The HTML of a contact sheet: one file without scripts or links, every text in it escaped."""

from __future__ import annotations

from collections.abc import Sequence

from pixelbert_fast.visualize.contact_sheet import Grid, Sheet, Text
from pixelbert_fast.visualize.markup import escaped, security_policy

_STYLE = """
:root { color-scheme: light dark; --ground: #f6f6f4; --card: #fff; --ink: #1b1d20; --faint: #61666d;
  --line: #dcdcd6; --mark: #0b63c5; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #131518; --card: #1d2024; --ink: #e7e8ea; --faint: #9aa1a9; --line: #32373d;
    --mark: #7db4f5; }
}
* { box-sizing: border-box; }
body { margin: 0; padding: 1rem; background: var(--ground); color: var(--ink);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: anywhere; }
header { max-width: 60rem; margin-bottom: 1rem; }
h1 { font-size: 1.25rem; margin: 0 0 .25rem; }
p { margin: .25rem 0; color: var(--faint); }
pre { margin: .75rem 0; padding: .75rem; overflow-x: auto; overflow-wrap: normal; background: var(--card);
  border: 1px solid var(--line); border-radius: 8px;
  font: 12.5px/1.5 ui-monospace, Menlo, Consolas, monospace; }
label { cursor: pointer; }
main { display: grid; gap: 1rem; margin-top: .75rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); }
article { background: var(--card); border: 1px solid var(--line); border-radius: 8px; overflow: hidden;
  min-width: 0; }
figure { position: relative; margin: 0; background: var(--line); }
figure img { display: block; width: 100%; height: auto; }
figure svg { position: absolute; inset: 0; width: 100%; height: 100%; display: none; }
#places:checked ~ main svg { display: block; }
.skipped { fill: #000; fill-opacity: .5; fill-rule: evenodd; }
.read { fill: none; stroke: #fff; stroke-opacity: .65; stroke-width: 1; vector-effect: non-scaling-stroke; }
.problem { padding: 2rem 1rem; text-align: center; color: var(--faint); }
.about { padding: .6rem .8rem .8rem; }
h2 { font-size: .85rem; margin: 0; font-weight: 600; }
.about p { font-size: .8rem; }
ul { margin: .5rem 0 0; padding-left: 1.1rem; }
li { margin: .2rem 0; }
.note { color: var(--mark); font-weight: 600; }
"""


def page(title: str, about: Sequence[str], table: Sequence[str], sheets: Sequence[Sheet]) -> str:
    """The whole page: its title, lines about what is shown, a table as preformatted text, and the images."""
    lines = "\n".join(f"<p>{escaped(line)}</p>" for line in about)
    figures = "\n".join(escaped(line) for line in table)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{security_policy()}">
<title>{escaped(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>{escaped(title)}</h1>
{lines}
<pre>{figures}</pre>
</header>
<input type="checkbox" id="places" checked> <label for="places">Show the places read</label>
<main>
{"".join(map(_article, sheets))}</main>
</body>
</html>
"""


def _article(sheet: Sheet) -> str:
    height, width = sheet.size
    sizes = f"{height} x {width}, resized to {sheet.bucket[0]} x {sheet.bucket[1]}"
    if sheet.grid is None:
        sizes += ", too small to give a pixel"
    else:
        total = sheet.grid.rows * sheet.grid.columns
        sizes += f", {len(sheet.grid.places)} of {sheet.grid.rows} x {sheet.grid.columns} = {total} places"
    texts = "".join(map(_item, sheet.texts))
    if sheet.more:
        texts += f"<li>and {sheet.more:,} more</li>\n"
    return f"""<article>
{_figure(sheet)}
<div class="about">
<h2 dir="auto">{escaped(sheet.key)}</h2>
<p>{escaped(sizes)}</p>
{f"<ul>{texts}</ul>" if texts else ""}
</div>
</article>
"""


def _figure(sheet: Sheet) -> str:
    if not sheet.uri:
        return f'<div class="problem">{escaped(sheet.problem)}</div>'
    overlay = _overlay(sheet.grid, sheet.bucket) if sheet.grid else ""
    return f'<figure><img src="{sheet.uri}" alt="{escaped(sheet.key)}" loading="lazy">{overlay}</figure>'


def _overlay(grid: Grid, bucket: tuple[int, int]) -> str:
    """In pixels of the resized image: the windows read are framed, all the rest is darkened."""
    height, width = bucket
    read = _squares(grid.places, grid)
    return (
        f'<svg viewBox="0 0 {width} {height}" preserveAspectRatio="none" aria-hidden="true">'
        f'<path class="skipped" d="M0 0h{width}v{height}h-{width}z{read}"/>'
        f'<path class="read" d="{read}"/></svg>'
    )


def _squares(places: Sequence[int], grid: Grid) -> str:
    side = grid.side
    corners = (divmod(place, grid.columns) for place in places)
    return "".join(f"M{column * side} {row * side}h{side}v{side}h-{side}z" for row, column in corners)


def _item(text: Text) -> str:
    note = f' <span class="note" dir="auto">{escaped(text.note)}</span>' if text.note else ""
    return f'<li><span dir="auto">{escaped(text.text)}</span>{note}</li>\n'
