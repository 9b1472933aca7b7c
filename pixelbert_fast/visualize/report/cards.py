"""Examples of what a model gets right and wrong, as HTML."""

from __future__ import annotations

from collections.abc import Sequence

from pixelbert_fast.tasks.examples import Example, Group
from pixelbert_fast.visualize.markup import escaped
from pixelbert_fast.visualize.report.figures import percent
from pixelbert_fast.visualize.report.pictures import Album

_EXPLAINED = (
    "Beside an image, the same one under the attention of a word (first layer, mean over its heads): light "
    "where it looks most, dark where it does not."
)


def example_cards(groups: Sequence[Group], album: Album, *, text_only: bool = False) -> str:
    """The groups; their images go into `album`. text_only: the model was shown blank images."""
    if not groups:
        return ""
    about = (
        "This model is shown blank images; those below are what others would see."
        if text_only
        else _EXPLAINED
    )
    parts = [f'<p class="faint">{escaped(about)}</p>']
    for group in groups:
        share = percent(group.wrong / group.tried) if group.tried else ""
        tried = (
            f"{group.tried} asked, {group.wrong} wrong ({share})." if group.tried else "None could be asked."
        )
        kept = [
            ("wrong", "the surest", [one for one in group.examples if not one.right]),
            ("right", "some", [one for one in group.examples if one.right]),
        ]
        shown = ", ".join(f"{which} of the {name} ones" for name, which, own in kept if own)
        tail = f" Shown: {shown}." if shown else ""
        parts.append(f"<h3>{escaped(group.title)}</h3>")
        parts.append(f'<p class="faint">{escaped(f"{group.about} {tried}{tail}")}</p>')
        cards = "".join(_card(one, album) for one in group.examples)
        parts.append(f'<div class="examples">{cards}</div>')
    return "\n".join(parts)


def _card(example: Example, album: Album) -> str:
    verdict = ("right", "\u2713 right") if example.right else ("wrong", "\u2717 wrong")
    small = len(example.pictures) > 2
    shots = "".join(album.figures(picture, small=small) for picture in example.pictures)
    said = "".join(_answer(*one) for one in example.said)
    return (
        f'<article class="example {verdict[0]}"><h4 dir="auto">{escaped(example.text)}</h4>'
        f'<div class="shots">{shots}</div>'
        + (f'<ul class="said">{said}</ul>' if said else "")
        + f'<p><span class="verdict">{verdict[1]}</span> <span class="faint" dir="auto">'
        f"the truth: {escaped(example.truth)}</span></p></article>\n"
    )


def _answer(answer: str, probability: float | None) -> str:
    share = "" if probability is None else percent(probability)
    width = 0.0 if probability is None else 100 * min(max(probability, 0.0), 1.0)
    return f'<li style="--p:{width:.1f}%"><span dir="auto">{escaped(answer)}</span><span>{share}</span></li>'
