"""The questions an evaluation asks about the images of a split: the same ones in every evaluation."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pixelbert_fast.data.captions import TokenisedCaptions
from pixelbert_fast.data.sampler import random_stream
from pixelbert_fast.tasks.pretraining.batches import PretrainingOptions
from pixelbert_fast.tasks.pretraining.masking import IGNORED
from pixelbert_fast.tasks.pretraining.matching import Matcher
from pixelbert_fast.tasks.pretraining.words import MaskedWord, mask_words

# One seed for every evaluation, whatever the run's: figures of different runs are of the same questions.
SEED = 2004

_ORDER, _MASKS, _WORDS, _WRONG = 31, 32, 33, 34


@dataclass
class Question:
    """One sequence beside one image of a batch, and in the end whether it was answered right.

    ids, labels: int64 `[T]`; a label is what is to be predicted, -100 elsewhere. image: the image's place
    in the batch. matched: for a question about the pair, whether it matches; else None. category: for one
    about a content word. right_image: False where the caption of such a word stands beside another image
    than its own. novel: whether the image shows something held out of training; None where the split does
    not know. correct: bool, one entry for each thing asked: the pair, the word, or each of several masked
    tokens.
    """

    ids: np.ndarray
    labels: np.ndarray
    image: int
    matched: bool | None = None
    category: str | None = None
    right_image: bool = True
    novel: bool | None = None
    correct: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))


class Questions:
    """All that is asked about the images of a split, in batches of images."""

    def __init__(
        self, split, tokenizer, options: PretrainingOptions, categories: Mapping[str, Sequence[str]]
    ):
        captions = split["captions"][:]
        known = "facts" in split.column_names and "scene" in split.column_names
        scenes = split["scene"][:] if known else None
        self._matcher = Matcher(captions, split["facts"][:] if known else None, scenes)
        self._texts = TokenisedCaptions(captions, tokenizer, options.max_text_length)
        self._numbers = [range(len(own)) for own in captions]
        fewest = min(len(own) for own in captions)
        self._plan = self._matcher.plan(SEED, 0, 2 * fewest, 0.5)
        self._novel = [bool(json.loads(scene).get("novel")) for scene in scenes] if scenes else []
        self._masked: dict[int, list[MaskedWord]] = {}
        for item in mask_words(
            captions, tokenizer, options.max_text_length, categories, random_stream(SEED, _WORDS)
        ):
            self._masked.setdefault(item.row, []).append(item)
        self._special = np.array(tokenizer.all_special_ids)
        self._mask_id, self.pad_id = tokenizer.mask_token_id, self._texts.pad_id
        self._probability = options.mlm_probability or 0.15
        self.dropped = self._plan.dropped

    def about(self, rows: np.ndarray) -> list[Question]:
        asked = []
        for place, row in enumerate(rows.tolist()):
            asked += self._matches(row, place)
            asked += self._tokens(row, place)
            for item in self._masked.get(row, []):
                asked.append(Question(item.ids, item.labels, place, category=item.category))
                wrong = self._wrong_image(item, rows, place)
                asked.append(
                    Question(item.ids, item.labels, wrong, category=item.category, right_image=False)
                )
        return asked

    def _matches(self, row: int, place: int) -> list[Question]:
        # Only where some are: a split without them says nothing about them.
        novel = self._novel[row] if any(self._novel) else None
        pairs = [(row, number, True) for number in self._plan.matched[row]]
        pairs += [(other, number, False) for other, number in self._plan.mismatched[row]]
        return [
            Question(ids, np.full(len(ids), IGNORED), place, matched=matched, novel=novel)
            for ids, matched in ((self._texts.ids(a, b), matched) for a, b, matched in pairs if b >= 0)
        ]

    def _tokens(self, row: int, place: int) -> list[Question]:
        stream = random_stream(SEED, row, _MASKS)
        asked = []
        for number in self._numbers[row]:
            ids = self._texts.ids(row, number)
            chosen = (stream.random(len(ids)) < self._probability) & ~np.isin(ids, self._special)
            if chosen.any():
                labels = np.where(chosen, ids, IGNORED)
                asked.append(Question(np.where(chosen, self._mask_id, ids), labels, place))
        return asked

    def _wrong_image(self, item: MaskedWord, rows: np.ndarray, place: int) -> int:
        """Another image of the batch, one that the whole caption is not true of if there is any."""
        order = random_stream(SEED, item.row, item.number, _WRONG).permutation(len(rows))
        others = [int(other) for other in order if other != place]
        for other in others:
            if not self._matcher.fits(item.row, item.number, int(rows[other])):
                return other
        return others[0]


def image_batches(images: int, size: int) -> list[np.ndarray]:
    """Rows in batches of about `size`, at least 2: a batch's captions find their wrong images within it."""
    order = random_stream(SEED, _ORDER).permutation(images)
    return np.array_split(order, min(-(-images // max(size, 2)), images // 2))
