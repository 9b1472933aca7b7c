"""The contact sheet of a search: images, best first, each with its score."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pixelbert_fast.data.images import read_header
from pixelbert_fast.data.orientation import swaps_sides
from pixelbert_fast.data.summary import SizeRule
from pixelbert_fast.errors import UserError
from pixelbert_fast.model.config import PixelBertConfig
from pixelbert_fast.visualize.contact_page import page
from pixelbert_fast.visualize.contact_sheet import Sheet, Text, grid_of, thumbnail


def found_page(
    text: str,
    found: Sequence[tuple[str, float]],
    content: Callable[[str], bytes],
    rule: SizeRule,
    config: PixelBertConfig,
    about: Sequence[str],
) -> str:
    """The HTML page of a search for `text`, one self-contained file.

    Args:
        found: (name, score) of the images to be shown, best first.
        content: the encoded image of that name.
        rule, config: how the model resizes images and which windows it reads.
        about: lines about the search.
    """
    every = PixelBertConfig.from_dict({**config.to_dict(), "sampled_pixels": None})
    sheets = []
    for place, (name, score) in enumerate(found, start=1):
        encoded = content(name)
        try:
            header = read_header(encoded)
            sides = header.height, header.width
            size = sides[::-1] if swaps_sides(header.orientation) else sides
            bucket = rule.of(*size)
            sheet = Sheet(name, size, bucket, grid_of(bucket, every, 0), thumbnail(encoded))
        except UserError as error:
            sheet = Sheet(name, (0, 0), (0, 0), None, problem=str(error))
        sheet.texts = [Text(f"{place}.", f"score {score:.3f}")]
        sheets.append(sheet)
    return page(text, about, ranking(found), sheets)


def ranking(found: Sequence[tuple[str, float]]) -> list[str]:
    """The lines of a table: place, score, name."""
    return [f"{place:>4}  {score:>9.3f}  {name}" for place, (name, score) in enumerate(found, start=1)]
