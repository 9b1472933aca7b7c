"""The captions of a record whose truth is known, read: which word names which objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pixelbert_fast.data.records import BuiltSet
from pixelbert_fast.data.truth import is_true, parse
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.grounding import mentions, scenes_captions, tuxpaint_captions
from pixelbert_fast.tasks.grounding.mentions import Mention

_PATTERNS = {
    "scenes": scenes_captions.patterns,
    "scenes-objects": scenes_captions.patterns,
    "tuxpaint": tuxpaint_captions.patterns,
    "tuxpaint-objects": tuxpaint_captions.patterns,
    "tuxpaint-pairs": tuxpaint_captions.patterns,
}


class ReadCaptions(NamedTuple):
    """Of one record: (caption, mentions) of each that was read; and how many were not.

    untrue: captions whose fact does not hold of the scene; unread: those that no pattern is all of.
    """

    read: list[tuple[str, list[Mention]]]
    untrue: int
    unread: int


class CaptionReader:
    """Reads the captions of a built set.

    Raises UserError for a set whose scenes and captions are not known in logical form.
    """

    def __init__(self, built: BuiltSet):
        name = built.card.get("name")
        if name not in _PATTERNS:
            raise UserError(
                f"{built.directory} is a set of {name!r}, in which nobody knows where the named things are: "
                f"grounding can be evaluated on {', '.join(_PATTERNS)}"
            )
        self._patterns = _PATTERNS[name]

    def __call__(self, record: Mapping) -> ReadCaptions:
        """record: of a split, with `captions`, `facts` and `scene`."""
        scene = parse(record["scene"])
        found, untrue, unread = [], 0, 0
        for caption, encoded in zip(record["captions"], record["facts"], strict=True):
            fact = parse(encoded)
            if not is_true(fact, scene):
                untrue += 1
                continue
            named = mentions.read(self._patterns(fact, scene), caption, form_of(fact))
            if named is None:
                unread += 1
            else:
                found.append((caption, named))
        return ReadCaptions(found, untrue, unread)


def form_of(fact: Mapping) -> str:
    """Equal for captions built alike: "exist 2 ground", with the attributes that the descriptions name."""
    forms, values = mentions.parts_of(fact)
    told = []
    for form, value in zip(forms.split(), values, strict=True):
        told.append(form)
        if form == "exist":
            told.append(f"{len(value)} by {'+'.join(sorted({name for one in value for name in one}))}")
    return " ".join(told)
