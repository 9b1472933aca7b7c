"""Recall of a model on a split, both ways, from the full matrix of scores."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pixelbert_fast.data.decoded import DecodedImages
from pixelbert_fast.model.pair_scores import PairScorer
from pixelbert_fast.tasks.eval_mode import eval_mode
from pixelbert_fast.tasks.protocol import Progress, percent
from pixelbert_fast.tasks.retrieval.block_store import check_room
from pixelbert_fast.tasks.retrieval.cache import Layout, VisualCache
from pixelbert_fast.tasks.retrieval.candidates import Candidates, Captions, candidates
from pixelbert_fast.tasks.retrieval.compositions import Compositions
from pixelbert_fast.tasks.retrieval.identity import pixels_signature
from pixelbert_fast.tasks.retrieval.ranks import AT, fold_figures, ranks
from pixelbert_fast.tasks.retrieval.scoring import ScoringOptions, score_matrix
from pixelbert_fast.tasks.retrieval.share import ALONE, Share

FOLD = 1000
"""Images of a fold, where a split has several times as many: COCO's 5K is reported as five 1K too."""


_COMPOSED = {"unseen": "new compositions", "apart": "of objects never together"}
_ELSEWHERE = (
    "make room, or have it elsewhere: beside --out, or without that in TMPDIR; in a run, in its output folder"
)


@dataclass(frozen=True)
class EvaluationOptions:
    """How a split is read and scored.

    Attributes:
        max_text_length: word pieces; longer texts are cut and counted.
        images_per_pass, pixels: through the backbone at once, at most; see `VisualCache.fill`.
        captions: see `candidates.Captions`.
        text_only: every image is blank.
        decoder, device: see `data.decoders.choice`.
        scoring: see `ScoringOptions`.
    """

    max_text_length: int = 40
    images_per_pass: int = 16
    pixels: int | None = None
    captions: Captions = "distinct"
    text_only: bool = False
    decoder: str | None = None
    device: torch.device | str = "cpu"
    scoring: ScoringOptions = field(default_factory=ScoringOptions)


@dataclass(frozen=True)
class Scored:
    """A matrix of scores ``[N, M]``, float32, and what its rows and columns are.

    Attributes:
        broken: how many of the images could not be decoded, and were of the mean colour.
    """

    scores: np.ndarray
    asked: Candidates
    broken: int


def scored(
    model: nn.Module,
    split,
    tokenizer,
    image_processor,
    options: EvaluationOptions,
    directory: Path,
    *,
    limit: int | None = None,
    share: Share = ALONE,
    progress: Progress | None = None,
) -> Scored:
    """Scores the texts of a split beside its images, keeping what is finished in `directory`.

    progress: called with (images done, images): half of the way stands for neither more nor less than half of
    the pairs.
    """
    asked = candidates(split, tokenizer, options.max_text_length, captions=options.captions, limit=limit)
    images = DecodedImages(
        split, image_processor, cache_megabytes=0, decoder=options.decoder, device=options.device
    )
    sizes = images.sizes(asked.rows)
    signature = pixels_signature(model, images, asked.rows, blank=options.text_only)
    # The tokens are gone when the matrix is there, and the matrix is then all that is asked for.
    layout = Layout.of("embeddings", model, sizes)
    pixels = VisualCache(directory / "pixels", layout, signature, or_else=_ELSEWHERE)
    check_room(directory / "scores", (len(asked.texts), len(asked.rows)))
    read = images.blank if options.text_only else images.pixels
    pixels.fill(
        model,
        lambda numbers: read(asked.rows[list(numbers)].tolist()),
        images_per_pass=options.images_per_pass,
        pixels=options.pixels,
        rank=share.rank,
        world=share.world,
        broken=lambda number: images.is_broken(int(asked.rows[number])),
    )
    share.wait()
    pixels.check_complete()
    with eval_mode(model):
        scores = score_matrix(
            PairScorer(model, options.scoring.precision),
            asked.texts,
            pixels,
            options=options.scoring,
            directory=directory / "scores",
            signature=signature,
            share=share,
            progress=_in_images(progress, len(asked.rows)),
        )
    return Scored(scores, asked, len(pixels.broken))


def figures(found: Scored, composed: Compositions | None = None) -> dict:
    """Recalls both ways and how many were tied; with folds of 1000 where there are several times as many.

    composed: tell the recalls of such queries apart too; what they are ranked among stays all.
    """
    total, owner = found.scores.shape[1], found.asked.image_of_text
    told = {"images": total, "texts": found.scores.shape[0], "images_of_split": found.asked.there}
    told |= {"truncated": found.asked.truncated, "broken": found.broken}
    ranked = ranks(found.scores, owner)
    told |= ranked.figures()
    if composed is not None:
        told["compositions"] = {"by": list(composed.by)}
        for name, which in (("unseen", composed.unseen), ("apart", composed.apart)):
            recalls = ranked.among(which, owner).figures() if which.any() else {}
            told["compositions"][name] = {"images": int(which.sum()), **recalls}
    if total > FOLD and total % FOLD == 0:
        told["folds"] = {
            "images": FOLD,
            "count": total // FOLD,
            **fold_figures(found.scores, found.asked.image_of_text, folds=total // FOLD),
        }
    return told


def rows(split: str, told: dict) -> list[tuple[str, str]]:
    """The table of `figures`."""
    some = f" (the first of {told['images_of_split']:,})" if told["images"] < told["images_of_split"] else ""
    found = [(f"{split}: images, texts", f"{told['images']:,}{some}, {told['texts']:,}")]
    if told["truncated"]:
        found.append((f"{split}: texts that were cut", f"{told['truncated']:,}"))
    if told["broken"]:
        found.append((f"{split}: images that cannot be decoded", f"{told['broken']:,}"))
    parts = [(told, "")]
    parts += [(told["folds"], "mean of folds, ")] if "folds" in told else []
    for name, meaning in _COMPOSED.items():
        part = told.get("compositions", {}).get(name)
        if part is not None and part["images"]:
            parts.append((part, f"{part['images']:,} {meaning}, "))
    for part, title in parts:
        for way, name in (("tr", "image to text"), ("ir", "text to image")):
            shares = " / ".join(percent(part[f"{way}_r{k}"]) for k in AT)
            found.append((f"{split}: {title}{name}, R@{'/'.join(map(str, AT))}", shares))
        if part["tr_ties"] or part["ir_ties"]:
            ties = f"{percent(part['tr_ties'])}, {percent(part['ir_ties'])}"
            found.append((f"{split}: {title}ranked behind a tie", ties))
    return found


@contextlib.contextmanager
def working_folder(kept: Path | None) -> Iterator[Path]:
    """`kept`, which stays, or a new folder of the system's that is removed in the end."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    folder = Path(tempfile.mkdtemp(prefix="retrieval-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _in_images(progress: Progress | None, images: int) -> Progress | None:
    return None if progress is None else lambda done, total: progress(done * images // max(total, 1), images)
