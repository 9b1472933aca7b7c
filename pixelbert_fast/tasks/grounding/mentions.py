"""Words of a caption that name something in its image, found by reading the caption as it was written.

A caption is read whole: a *pattern* made from its fact says every character of it, so a word names what the
grammar says it names, and "left" of "left of" is never taken for that of "middle left".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

KINDS = (
    "noun",
    "category",
    "object",
    "colour",
    "size",
    "texture",
    "modifier",
    "number",
    "relation",
    "place",
    "ground",
)
"""What a word may be: the name of a kind of thing ("star", "apple"); of a whole category ("animal"); "object"
itself; a colour, size or texture of a thing; another part of its name ("soccer" of "soccer ball"); how many
there are; how two stand to each other; where one is; the ground, or a property of it."""

ATTRIBUTES = ("colour", "size", "texture", "modifier")


@dataclass(frozen=True)
class Mention:
    """A word ``caption[start:end]`` and what it names.

    Attributes:
        kind: one of KINDS.
        objects: numbers among the scene's objects, any of which counts; empty: the ground, which is what no
            object covers.
        slot: the form of the caption, the kind, and the how manieth of this kind the word is in it: words of
            one slot stand in the same place of like captions.
    """

    start: int
    end: int
    kind: str
    objects: frozenset[int]
    slot: str


@dataclass(frozen=True)
class Marked:
    """A word of a pattern: its text, kind, and the objects it names (none: the ground)."""

    word: str
    kind: str
    objects: frozenset[int] = frozenset()


Piece = str | tuple[str, ...] | Marked
"""Part of a pattern: a text, one of several texts, or a marked word."""


def listed(phrases: Sequence[Sequence[Piece]]) -> list[Piece]:
    """An enumeration: "x", "x and y", "x, y and z"."""
    pieces = list(phrases[0])
    for place, phrase in enumerate(phrases[1:], start=2):
        pieces += [" and " if place == len(phrases) else ", ", *phrase]
    return pieces


def spaced(words: Iterable[Marked]) -> list[Piece]:
    """The words with blanks between them."""
    pieces: list[Piece] = []
    for word in words:
        pieces += [" ", word] if pieces else [word]
    return pieces


def parts_of(fact: Mapping) -> tuple[str, list]:
    """The forms of what a fact says all of, as "exist ground", and the value of each."""
    parts = fact.get("all", [fact])
    return " ".join(form for part in parts for form in part), [
        value for part in parts for value in part.values()
    ]


def read(patterns: Iterator[Sequence[Piece]], caption: str, form: str) -> list[Mention] | None:
    """The mentions of `caption` by the first of the patterns that is all of it, in order; None: by none.

    form: of the caption, for the mentions' slots.
    """
    for pattern in patterns:
        marks = [piece for piece in pattern if isinstance(piece, Marked)]
        found = re.fullmatch("".join(map(_source, pattern)), caption)
        if found is None:
            continue
        mentions, seen = [], Counter()
        for number, mark in enumerate(marks, start=1):
            start, end = found.span(number)
            slot = f"{form}/{mark.kind} {seen[mark.kind]}"
            seen[mark.kind] += 1
            mentions.append(Mention(start, end, mark.kind, mark.objects, slot))
        return mentions
    return None


def _source(piece: Piece) -> str:
    if isinstance(piece, Marked):
        return f"({re.escape(piece.word)})"
    if isinstance(piece, str):
        return re.escape(piece)
    return f"(?:{'|'.join(map(re.escape, piece))})"
