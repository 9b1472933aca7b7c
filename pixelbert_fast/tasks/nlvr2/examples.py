"""Statements about pairs of images that a fine-tuned model judges right and wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from pixelbert_fast.data.records import BuiltSet, spread
from pixelbert_fast.errors import UserError
from pixelbert_fast.model import PixelBertForNaturalLanguageVisualReasoning
from pixelbert_fast.tasks.examples import (
    Example,
    ExampleRequest,
    Group,
    Picture,
    gathered,
    known_words,
    read_image,
)
from pixelbert_fast.tasks.fine_tuned import load_fine_tuned


def examples(checkpoint: str | Path, built: BuiltSet, split: str, request: ExampleRequest) -> list[Group]:
    """Statements with both images and the probability that they are true.

    Raises:
        UserError: as `load_fine_tuned`; the split is missing, or no statement of it has a label.
    """
    records, pairs = built.split(split), built.pairs(split)
    model, processor = load_fine_tuned(checkpoint, PixelBertForNaturalLanguageVisualReasoning, request.device)
    # Two images a pair, of which the sets here share some.
    pairs = pairs.select(spread(len(pairs), 2 * request.images))
    known = known_words(built, pairs["statement"][:])

    def found() -> Iterator[Example]:
        for pair in pairs:
            if pair["label"] is None:
                continue
            sides = [records[pair[side]] for side in ("left", "right")]
            try:
                read = [read_image(side["image"], processor, request) for side in sides]
            except UserError:
                continue
            true = _true(model, processor, read, pair["statement"], request)
            pictures = tuple(
                Picture(side["image"], side["key"], note)
                for side, note in zip(sides, ("left", "right"), strict=True)
            )
            label = bool(pair["label"])
            yield Example(
                text=pair["statement"],
                right=(true > 0.5) == label,
                pictures=pictures,
                said=(("true", true),),
                truth="it is true" if label else "it is false",
                sure=abs(true - 0.5),
            )
            if request.late:
                return

    about = "A statement about two images; true is said above 50 %."
    group = gathered("Is the statement true?", about, found(), model, processor, known, request)
    if not group.tried:
        raise UserError(f"the split {split!r} has no statements whose truth is public to show")
    return [group]


@torch.inference_mode()
def _true(model, processor, read, statement: str, request: ExampleRequest) -> float:
    sizes = torch.cat([size for _, size in read])
    height, width = sizes.amax(dim=0).tolist()
    values = torch.zeros(2, 3, height, width, device=request.device)
    for place, (pixels, _) in enumerate(read):
        values[place, :, : pixels.shape[-2], : pixels.shape[-1]] = pixels[0]
    encoded = processor(text=[statement]).to(request.device)
    sides = torch.tensor([[0, 1]], device=request.device)
    logits = model(**encoded, pixel_values=values, pixel_size=sizes, image_index=sides).logits
    return float(logits.float().softmax(dim=-1)[0, 1])
