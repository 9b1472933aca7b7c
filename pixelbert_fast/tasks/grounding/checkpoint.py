"""Does a word's attention find what it names? A checkpoint's maps against scenes whose truth is known.

Every word of every true caption that names something (`captions`, `mentions`) has a target on the grid that
the model reads (`cells`): the boxes of the objects it may be of, of which any counts; for a relation those of
both sides; for the ground what no object covers. Its maps (`tasks.attending`) are scored by layer and head,
by the mean of a layer's heads, and by attention rollout:

- *pointing*: the share of words whose map has its maximum in a cell whose centre is the target's (the
  pointing game of Zhang et al. 2016);
- *near*: the same with every cell that the target touches, whose centres lie up to half a cell outside it
  (their game has a margin too, of 15 pixels);
- *mass*: the mean share of a word's attention to pixels that lies on the target, by area;
- *other*: the share of words whose map has its maximum on another object of the image: a map that finds
  whatever stands out finds these as often;

beside *chance* (the target's share of the cells, and of the area), the *permuted* figure (the same map
against what words of the same slot of a caption name in other images: what is got by knowing only where
things usually lie), and an untrained model of the same architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pixelbert_fast.data.records import BuiltSet
from pixelbert_fast.errors import UserError
from pixelbert_fast.model import FastPixelBERT, PixelBertConfig
from pixelbert_fast.tasks.architecture import seeded
from pixelbert_fast.tasks.attending import load_any
from pixelbert_fast.tasks.fine_tuned import Evaluated, EvaluationRequest
from pixelbert_fast.tasks.grounding.captions import CaptionReader
from pixelbert_fast.tasks.grounding.figures import (
    best,
    difference,
    figures,
    of_map,
    pointing,
    together,
    weights,
)
from pixelbert_fast.tasks.grounding.measuring import Measured, ask, chosen_rows, measure
from pixelbert_fast.tasks.grounding.table import rows
from pixelbert_fast.tasks.protocol import Progress

CHOICE = "val"
"""The split whose images choose the best head, where the set has it."""
_OPTIONS = ("choose", "rollout", "seeds")


def evaluate_checkpoint(
    checkpoint: str | Path, built: BuiltSet, split: str, request: EvaluationRequest
) -> Evaluated:
    """Grounding of any checkpoint's attention on a split: see the module.

    The best layer and head of each kind of word are those furthest above the permuted figure on the images of
    another split, so that their figures here are of images that did not choose them.

    Options: choose=SPLIT (default: val; the split itself: its own images choose, and what is chosen looks
    better than it is), rollout=true|false (default true), seeds=N (untrained models, default 1).

    Raises:
        UserError: as `attending.load_any`; a split or an option that is not there; a set whose truth is not
            known; a request for predictions or another decoder, of which there are none.
    """
    choose, rollout, seeds = _options(built, request, split)
    reader = CaptionReader(built)
    model, processor = load_any(checkpoint, request.device)
    splits = [split] if choose == split else [split, choose]
    taken = {name: _taken(built, name, request.images) for name in splits}
    asked = {name: ask(taken[name], reader, processor, model) for name in splits}
    total = sum(one.images_with_words for one in asked.values()) + seeds * asked[split].images_with_words
    done = _counted(request.progress, total)

    def measured(model, name: str) -> Measured:
        return measure(
            model, taken[name], asked[name], processor, rollout=rollout, blank=request.text_only, done=done
        )

    trained = {name: measured(model, name) for name in splits}
    untrained = [measured(_untrained(model.config, seed, request.device), split) for seed in range(seeds)]
    drawn = weights(asked[split].images)
    found = _beside_untrained(trained[split], untrained, drawn)
    other = found if choose == split else figures(trained[choose], weights(asked[choose].images))
    metrics = {
        "images": asked[split].images,
        "captions": asked[split].captions,
        "left_out": {
            "untrue_captions": asked[split].untrue,
            "unread_captions": asked[split].unread,
            "cut_words": trained[split].cut,
            "words_alone_of_their_kind": trained[split].alone,
            "broken_images": trained[split].broken,
        },
        "layers": model.config.num_hidden_layers,
        "heads": model.config.num_attention_heads,
        "untrained_models": seeds,
        "chosen_on": choose,
        "chosen": {kind: _chosen(found[kind], other.get(kind)) for kind in found},
        "kinds": found,
    }
    return Evaluated(metrics, rows(split, metrics))


def _untrained(config: PixelBertConfig, seed: int, device) -> FastPixelBERT:
    with seeded(seed):
        return FastPixelBERT(config).to(device).eval()


def _beside_untrained(
    trained: Measured, untrained: Sequence[Measured], drawn: np.ndarray
) -> dict[str, dict[str, Any]]:
    """`figures.figures` with those of the untrained models, taken together, and how far it is above."""
    found, pooled = figures(trained, drawn), together(untrained)
    beside = figures(pooled, drawn)
    for kind, own in found.items():
        own["untrained"] = beside[kind]["maps"]
        for place, (one, above) in enumerate(
            zip(own["maps"], difference(trained, pooled, kind, drawn), strict=True)
        ):
            one["above_untrained"] = above
            own["untrained"][place]["pointing_by_seed"] = [pointing(each, kind)[place] for each in untrained]
    return found


def _chosen(here: dict[str, Any], there: dict[str, Any] | None) -> dict[str, Any] | None:
    """The best layer and head `there`, with their figures on both; None where such words are not there."""
    if there is None:
        return None
    found = {}
    for what, heads in (("layer", False), ("head", True)):
        place = best(there["maps"], heads=heads)
        found[what] = {"where_chosen": of_map(there["maps"], *place), "here": of_map(here["maps"], *place)}
    return found


def _taken(built: BuiltSet, name: str, limit: int | None):
    split = built.split(name)
    return split.select(chosen_rows(len(split), limit))


def _counted(progress: Progress | None, total: int) -> Callable[[], None]:
    done = 0

    def reached() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    return reached


def _options(built: BuiltSet, request: EvaluationRequest, split: str) -> tuple[str, bool, int]:
    given = request.options
    unknown = sorted(set(given) - set(_OPTIONS))
    if unknown:
        raise UserError(f"grounding has no option {unknown[0]!r}; there are {', '.join(_OPTIONS)}")
    if request.predictions is not None:
        raise UserError("grounding predicts nothing: leave out --predictions; --out has every figure")
    if request.decoder not in (None, "plain"):
        raise UserError(f"grounding reads its images one by one, not with {request.decoder}: leave it out")
    choose = given.get("choose", CHOICE if CHOICE in built.splits else split)
    rollout, seeds = str(given.get("rollout", "true")).lower(), str(given.get("seeds", 1))
    if rollout not in ("true", "false"):
        raise UserError(f"the option rollout must be true or false, not {given['rollout']!r}")
    if not seeds.isdecimal() or int(seeds) < 1:
        raise UserError(f"the option seeds must be a whole number of at least 1, not {given['seeds']!r}")
    return choose, rollout == "true", int(seeds)
