"""Texts that find their image first, and texts that do not, with the five images that they find."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from pixelbert_fast.data.records import BuiltSet, spread
from pixelbert_fast.errors import UserError
from pixelbert_fast.model.pair_scores import PairScorer
from pixelbert_fast.tasks.examples import (
    Example,
    ExampleRequest,
    Group,
    Picture,
    gathered,
    known_words,
    read_image,
)
from pixelbert_fast.tasks.retrieval.candidates import candidates
from pixelbert_fast.tasks.retrieval.checkpoint import load_ranker

_SHOWN = 5


def examples(checkpoint: str | Path, built: BuiltSet, split: str, request: ExampleRequest) -> list[Group]:
    """Queries with the images they find among the first ones of the split, four times `request.images`.

    Raises:
        UserError: as `load_ranker`; a split that is missing or has no captions to rank by.
    """
    records = built.split(split)
    model, processor, _ = load_ranker(checkpoint, request.device)
    asked = candidates(records, processor.tokenizer, processor.max_text_length, limit=4 * request.images)
    known = known_words(built, asked.captions)
    scorer = PairScorer(model)
    alike: dict[int, list] = {}
    shown: list[int] = []
    for number, row in enumerate(asked.rows.tolist()):
        try:
            pixels, size = read_image(records[row]["image"], processor, request)
        except UserError:
            continue
        with torch.inference_mode():
            values = model.pixelbert.embed_pixels(pixels, size).values
        alike.setdefault(values.shape[1], []).append((len(shown), values))
        shown.append(number)
        if request.late and len(shown) > _SHOWN:
            break
    if len(shown) < 2:
        raise UserError(f"the split {split!r} has fewer than two images that can be ranked")
    # Those with as many pixels are scored together.
    order = torch.tensor([place for own in alike.values() for place, _ in own])
    sides = [scorer.images(torch.cat([values for _, values in own])) for own in alike.values()]
    texts = [place for place, image in enumerate(asked.image_of_text.tolist()) if image in set(shown)]

    def found() -> Iterator[Example]:
        for place in (texts[one] for one in spread(len(texts), request.images)):
            words = scorer.texts(torch.from_numpy(asked.texts[place])[None])
            scores = torch.empty(len(shown))
            scores[order] = torch.cat([scorer.scores(words, side)[0] for side in sides]).cpu()
            own = shown.index(int(asked.image_of_text[place]))
            best = scores.argsort(descending=True, stable=True).tolist()
            # Behind a tie, as the figures count it.
            rank = int((scores >= scores[own]).sum())
            pictures = tuple(
                _picture(records[int(asked.rows[shown[one]])], float(scores[one]), one == own)
                for one in best[:_SHOWN]
            )
            yield Example(
                text=asked.captions[place],
                right=rank == 1,
                pictures=pictures,
                said=(),
                truth=f"its image comes {_ordinal(rank)} of {len(shown)}",
                sure=float(scores[best[0]] - scores[own]),
            )
            if request.late:
                return

    about = (
        f"The first {_SHOWN} images that a text finds among {len(shown)}; the one it belongs to is framed."
    )
    return [gathered("Which image is meant?", about, found(), model, processor, known, request)]


def _picture(record: Mapping, score: float, own: bool) -> Picture:
    return Picture(record["image"], record["key"], f"{score:.2f}", own)


def _ordinal(number: int) -> str:
    words = {1: "first", 2: "second", 3: "third"}
    endings = {1: "st", 2: "nd", 3: "rd"}
    teens = number % 100 in (11, 12, 13)
    return words.get(number, f"{number}{'th' if teens else endings.get(number % 10, 'th')}")
