"""A retrieval checkpoint at work: ranked both ways on a split, or searching images by a text."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
import torch.distributed
from torch import nn

from pixelbert_fast.data.processor import PixelBertProcessor
from pixelbert_fast.data.records import BuiltSet
from pixelbert_fast.errors import UserError
from pixelbert_fast.model import PixelBertConfig, PixelBertForPreTraining
from pixelbert_fast.model.pair_scores import PairScorer, Precision
from pixelbert_fast.model.retrieval import PixelBertForImageTextRetrieval
from pixelbert_fast.tasks.fine_tuned import Evaluated, EvaluationRequest, load_fine_tuned
from pixelbert_fast.tasks.pretraining.start import check_checkpoint
from pixelbert_fast.tasks.retrieval.candidates import Captions, images_asked
from pixelbert_fast.tasks.retrieval.compositions import Compositions, compositions
from pixelbert_fast.tasks.retrieval.evaluation import (
    EvaluationOptions,
    Scored,
    figures,
    rows,
    scored,
    working_folder,
)
from pixelbert_fast.tasks.retrieval.scoring import ScoringOptions
from pixelbert_fast.tasks.retrieval.share import ALONE, PATIENCE, Share, joined
from pixelbert_fast.tasks.saved_model import checkpoint_folder, open_saved
from pixelbert_fast.tasks.whole_file import written_whole

SHOWN = 10
"""Of a query's ranking, how many go into the predictions."""
_OPTIONS = ("captions", "precision", "memory_megabytes", "keep", "compositions")


def load_ranker(
    path: str | Path, device: torch.device | str = "cpu"
) -> tuple[nn.Module, PixelBertProcessor, bool]:
    """(model in evaluation mode, its processor, whether it was fine-tuned to retrieval).

    A pre-training checkpoint ranks by its match head ("zero-shot"): see `model.pair_scores.PairScorer`.

    Raises:
        UserError: as `load_fine_tuned`, or the pre-training had no matching objective.
    """
    folder = checkpoint_folder(path)
    check_checkpoint(str(folder))
    kinds = PixelBertConfig.from_pretrained(folder).architectures or []
    if PixelBertForPreTraining.__name__ not in kinds:
        return *load_fine_tuned(folder, PixelBertForImageTextRetrieval, device), True
    model, processor, fresh = open_saved(folder, PixelBertForPreTraining)
    if "itm_head" in fresh or not model.config.itm:
        raise UserError(
            f"{folder} was pre-trained without matching (objectives.itm), so it cannot rank: fine-tune it to "
            "retrieval"
        )
    return model.to(device), processor, False


def evaluate_checkpoint(
    checkpoint: str | Path, built: BuiltSet, split: str, request: EvaluationRequest
) -> Evaluated:
    """Recall both ways of a checkpoint on a split, from the score of every text beside every image.

    With `request.out`, finished blocks are kept in `OUT.scores` beside it: the same call goes on after
    a kill; the folder is removed when all is done, or with the option keep=true left with the matrix. Under
    `torchrun` the blocks are divided among the processes, which meet in that folder.

    `request.images` are the first ones of the split, as its folds are.

    Options: captions=distinct|all, precision=fp32|bf16x2|bf16, memory_megabytes=N, keep=true|false,
    compositions=NAME[+NAME] (attributes that objects are known by: tells apart the recalls of images that
    show objects together that training did not, see `compositions`).

    Raises:
        UserError: as `load_ranker`; a split or an option that is not there; several processes without `out`.
    """
    records = built.split(split)
    options, keep = _options(request)
    if _world() > 1 and request.out is None:
        raise UserError("several processes meet in a folder beside --out: give one")
    device = _own(request.device)
    model, processor, tuned = load_ranker(checkpoint, device)
    composed = _composed(request, built, records, options.captions)
    share, leave = _share()
    kept = None if request.out is None else request.out.with_name(f"{request.out.name}.scores")
    options = replace(options, max_text_length=processor.max_text_length, device=device)
    try:
        with working_folder(kept) as folder:
            given = model, records, processor.tokenizer, processor.image_processor, options, folder
            found = scored(*given, limit=request.images, share=share, progress=request.progress)
            metrics = {"zero_shot": not tuned, "precision": options.scoring.precision}
            metrics |= {"captions": options.captions, **figures(found, composed)}
            if request.predictions is not None and share.rank == 0:
                write_predictions(request.predictions, found, records)
            share.wait()
            if kept is not None and share.rank == 0:
                shutil.rmtree(kept / "pixels" if keep else kept, ignore_errors=True)
    finally:
        leave()
    return Evaluated(metrics, rows(split, metrics))


def write_predictions(path: str | Path, found: Scored, records) -> None:
    """Lines of JSON: for each text the best images' keys, and for each image the best texts, with scores.

    Whole or not there.
    """
    keys = records["key"][:] if "key" in records.column_names else [str(n) for n in range(len(records))]
    names = [keys[int(row)] for row in found.asked.rows]
    captions = found.asked.captions
    with written_whole(path) as file:

        def line(what: str, query: str, of: np.ndarray, among: list[str], other: str) -> None:
            best = np.argsort(-of, kind="stable")[:SHOWN]
            told = [{other: among[int(one)], "score": float(of[one])} for one in best]
            file.write(json.dumps({what: query, "best": told}, ensure_ascii=False) + "\n")

        for number, own in enumerate(found.scores):
            line("text", captions[number], np.asarray(own), names, "image")
        for number, name in enumerate(names):
            line("image", name, np.asarray(found.scores[:, number]), captions, "text")


class Found(NamedTuple):
    """An image that was searched, and its score."""

    name: str
    score: float


@torch.inference_mode()
def search(
    checkpoint: str | Path,
    images: Iterable[tuple[str, Any]],
    text: str,
    *,
    images_per_batch: int = 16,
    device: torch.device | str = "cpu",
    skipped: Callable[[str, str], None] | None = None,
) -> list[Found]:
    """The images by how well `text` is true of them, best first; equal scores in the order given.

    Args:
        images: (name, what `data.images.to_rgb` reads: a path or encoded bytes); read as they come, a batch$
            at a time.
        skipped: called with (name, reason) of each image that cannot be decoded.

    Raises:
        UserError: as `load_ranker`; no text, or no image that can be read.
    """
    model, processor, _ = load_ranker(checkpoint, device)
    if not text.strip():
        raise UserError("the text is empty: give what to search for")
    ids = processor(text=text)["input_ids"]
    scorer, found = PairScorer(model), []
    words = scorer.texts(ids)
    for batch in _batched(images, processor, images_per_batch, skipped):
        names = [name for name, _ in batch]
        pixel_values, pixel_size = processor.image_processor.pad([pixels for _, pixels in batch])
        values = model.pixelbert.embed_pixels(
            torch.as_tensor(pixel_values, device=device), torch.as_tensor(pixel_size, device=device)
        ).values
        scores = scorer.scores(words, scorer.images(values))[0]
        found += [Found(*one) for one in zip(names, scores.tolist(), strict=True)]
    if not found:
        raise UserError("no image could be read there: give a folder of images, or a built data set")
    return sorted(found, key=lambda one: -one.score)


def _batched(
    images: Iterable[tuple[str, Any]],
    processor: PixelBertProcessor,
    most: int,
    skipped: Callable[[str, str], None] | None,
) -> Iterator[list[tuple[str, Any]]]:
    """Images as the processor's pixels, those of one size together: none is padded."""
    waiting: dict[tuple[int, ...], list] = {}
    held = 0
    for name, image in images:
        try:
            pixels = processor.image_processor.pixels(image)
        except UserError as error:
            if skipped is not None:
                skipped(name, str(error))
            continue
        own = waiting.setdefault(tuple(pixels.shape), [])
        own.append((name, pixels))
        held += 1
        if len(own) == most or held >= 8 * most:
            fullest = max(waiting, key=lambda size: len(waiting[size]))
            batch = waiting.pop(fullest)
            held -= len(batch)
            yield batch
    yield from waiting.values()


def _options(request: EvaluationRequest) -> tuple[EvaluationOptions, bool]:
    given: Mapping[str, Any] = request.options
    unknown = sorted(set(given) - set(_OPTIONS))
    if unknown:
        raise UserError(f"retrieval has no option {unknown[0]!r}; there are {', '.join(_OPTIONS)}")
    captions = _one_of("captions", given.get("captions", "distinct"), get_args(Captions))
    precision = _one_of("precision", given.get("precision", "fp32"), get_args(Precision))
    keep = _one_of("keep", str(given.get("keep", "false")).lower(), ("true", "false")) == "true"
    megabytes = given.get("memory_megabytes", ScoringOptions().memory_megabytes)
    try:
        megabytes = float(megabytes)
    except ValueError:
        megabytes = 0.0
    if not 0 < megabytes < float("inf"):
        raise UserError(
            f"the option memory_megabytes must be a number above 0, not {given['memory_megabytes']!r}"
        )
    options = EvaluationOptions(
        images_per_pass=request.images_per_batch,
        pixels=request.pixels,
        captions=captions,
        text_only=request.text_only,
        decoder=request.decoder,
        scoring=ScoringOptions(precision, megabytes),
    )
    return options, keep


def _composed(
    request: EvaluationRequest, built: BuiltSet, records, captions: Captions
) -> Compositions | None:
    by = request.options.get("compositions")
    if by is None:
        return None
    rows = images_asked(records, captions)[: request.images]
    return compositions(built.split("train"), records, rows, by.split("+"))


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> Any:
    if value not in known:
        raise UserError(f"the option {name} must be {' or '.join(known)}, not {value!r}")
    return value


def _world() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _own(device: torch.device | str) -> torch.device | str:
    """This process's GPU among those of a machine."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if _world() > 1 and str(device) == "cuda" else device


def _share() -> tuple[Share, Callable[[], None]]:
    """This process's share, by torchrun's variables, and what ends it."""
    if _world() == 1:
        return ALONE, lambda: None
    if torch.distributed.is_initialized():
        return joined()
    torch.distributed.init_process_group("gloo", timeout=PATIENCE)
    return joined()[0], torch.distributed.destroy_process_group
