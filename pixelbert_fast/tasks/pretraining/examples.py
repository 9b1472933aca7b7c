"""Captions that a pre-trained model matches, and words that it guesses, right and wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pixelbert_fast.data.captions import lengths_mask
from pixelbert_fast.data.processor import PixelBertProcessor
from pixelbert_fast.data.records import BuiltSet, spread
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.examples import (
    BLANK,
    Example,
    ExampleRequest,
    Group,
    Picture,
    content_words,
    gathered,
    read_image,
)
from pixelbert_fast.tasks.pretraining.batches import PretrainingOptions
from pixelbert_fast.tasks.pretraining.masking import IGNORED
from pixelbert_fast.tasks.pretraining.match import load_pretrained
from pixelbert_fast.tasks.pretraining.questions import Question, Questions, image_batches

_GUESSES = 3


@dataclass(frozen=True)
class _Said:
    """What the model says of one question: the probability of a match, and of each masked piece every one."""

    match: float
    words: Tensor


def examples(checkpoint: str | Path, built: BuiltSet, split: str, request: ExampleRequest) -> list[Group]:
    """Matched and mismatched captions with the probability of a match, and masked words with the guesses.

    They are among what the evaluation asks of these images. Of an objective that the model was trained
    without there is no group.

    Raises:
        UserError: no such checkpoint or split, or fewer than two images that can be read.
    """
    model, processor, _ = load_pretrained(checkpoint)
    model = model.to(request.device)
    records = built.split(split)
    records = records.select(spread(len(records), request.images))
    listed: Mapping[str, Sequence[str]] = built.card.get("word_categories") or {}
    captions = [caption for own in records["captions"][:] for caption in own]
    categories = listed or {"word": sorted(content_words(captions))}
    known = {word.lower() for words in categories.values() for word in words}
    if len(records) < 2:
        raise UserError(f"the split {split!r} has fewer than two images to show")
    asked = Questions(
        records,
        processor.tokenizer,
        PretrainingOptions(max_text_length=processor.max_text_length),
        categories,
    )
    matches: list[Example] = []
    words: list[Example] = []
    for rows in image_batches(len(records), 8):
        if request.late and (matches or words):
            break
        for picture, questions, said in _answered(model, processor, records, rows, asked, request):
            told = list(zip(questions, said, strict=True))
            matches += [_match(picture, *one, processor) for one in told if one[0].matched is not None]
            masked = [one for one in told if one[0].category is not None]
            if len(masked) == 2:
                words.append(_word(picture, *masked[0], masked[1][1], processor))
    groups = []
    if model.config.itm:
        about = (
            "Each image with a caption of its own and one that is false of it; a match is said above 50 %."
        )
        groups.append(gathered("Does the caption match?", about, matches, model, processor, known, request))
    if model.config.mlm:
        about = "One word of a caption masked. The maps show where the masked place looked."
        groups.append(gathered("Which word is masked?", about, words, model, processor, known, request))
    return groups


def _answered(
    model: nn.Module,
    processor: PixelBertProcessor,
    records,
    rows: np.ndarray,
    asked: Questions,
    request: ExampleRequest,
) -> Iterator[tuple[Picture, list[Question], list[_Said]]]:
    """For each image of a batch: itself, one question of each kind about it, and what the model says."""
    about = _one_of_each(asked.about(rows), len(rows))
    embeddings = []
    for row in rows.tolist():
        try:
            pixels, size = read_image(records[row]["image"], processor, request)
        except UserError:
            embeddings.append(None)
            continue
        with torch.inference_mode():
            embeddings.append(model.pixelbert.embed_pixels(pixels, size))
    for place, row in enumerate(rows.tolist()):
        # A word's twin stands beside another image, that has its own embedding.
        questions = [one for one in about[place] if embeddings[one.image] is not None]
        if embeddings[place] is None or not questions:
            continue
        record = records[row]
        said = [_say(model, one, embeddings[one.image], request) for one in questions]
        yield Picture(record["image"], record["key"]), questions, said


def _one_of_each(asked: list[Question], images: int) -> list[list[Question]]:
    """By image: a caption of its own, a false one, and a masked word beside it and beside another image."""
    found: list[list[Question]] = [[] for _ in range(images)]
    kinds: list[set] = [set() for _ in range(images)]
    owner = 0
    for one in asked:
        if one.category is not None and not one.right_image:
            # The twin follows its question, whose image is the owner.
            if found[owner] and found[owner][-1].ids is one.ids:
                found[owner].append(one)
            continue
        kind = "word" if one.category is not None else one.matched
        owner = one.image
        if kind is None or kind in kinds[owner]:
            continue
        kinds[owner].add(kind)
        found[owner].append(one)
    return found


@torch.inference_mode()
def _say(model: nn.Module, question: Question, embeddings, request: ExampleRequest) -> _Said:
    device = request.device
    ids = torch.from_numpy(question.ids)[None].to(device)
    mask = torch.from_numpy(lengths_mask([question.ids], len(question.ids))).to(device)
    labels = torch.from_numpy(question.labels)[None].to(device)
    index = torch.zeros(1, dtype=torch.int64, device=device)
    outputs = model(ids, mask, pixel_embeddings=embeddings, image_index=index, labels=labels)
    match = float(outputs.itm_logits.float().softmax(dim=-1)[0, 1])
    return _Said(match, outputs.mlm_logits.float().softmax(dim=-1).cpu())


def _match(picture: Picture, question: Question, said: _Said, processor: PixelBertProcessor) -> Example:
    holds = said.match > 0.5
    return Example(
        text=processor.tokenizer.decode(question.ids, skip_special_tokens=True),
        right=holds == question.matched,
        pictures=(picture,),
        said=(("a match", said.match),),
        truth="it is of this image" if question.matched else "it is of another image",
        sure=abs(said.match - 0.5),
    )


def _word(
    picture: Picture, question: Question, said: _Said, elsewhere: _Said, processor: PixelBertProcessor
) -> Example:
    tokenizer = processor.tokenizer
    hidden = question.labels != IGNORED
    true = question.labels[hidden]
    guesses = _guesses(said, tokenizer)
    twin = _guesses(elsewhere, tokenizer)[0]
    whole = np.where(hidden, question.labels, question.ids)
    keep = ~np.isin(whole, tokenizer.all_special_ids)
    before, after = (
        tokenizer.decode(whole[keep & part]).strip()
        for part in (np.cumsum(hidden) == 0, (np.cumsum(hidden) == hidden.sum()) & ~hidden)
    )
    masks = " ".join([tokenizer.mask_token] * int(hidden.sum()))
    return Example(
        text=f"{before} {BLANK} {after}".strip(),
        right=bool((said.words.argmax(dim=-1).numpy() == true).all()),
        pictures=(picture,),
        said=(*guesses, (f"beside another image: {twin[0]}", twin[1])),
        truth=tokenizer.decode(true),
        sure=guesses[0][1] or 0.0,
        masked=f"{before} {masks} {after}".strip(),
    )


def _guesses(said: _Said, tokenizer) -> list[tuple[str, float | None]]:
    """The best guesses with their probabilities; of a word of several pieces the best of each together."""
    if len(said.words) > 1:
        best = said.words.max(dim=-1)
        return [(tokenizer.decode(best.indices), float(best.values.prod()))]
    top = said.words[0].topk(min(_GUESSES, said.words.shape[1]))
    return [
        (tokenizer.decode([piece]), value)
        for piece, value in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    ]
