"""The batches of visual question answering: images, each with several of its questions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pixelbert_fast.data import sampler
from pixelbert_fast.data.batch_list import BatchList
from pixelbert_fast.data.captions import lengths_mask
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.epochs import Epochs
from pixelbert_fast.tasks.sized_images import SizedImages
from pixelbert_fast.tasks.vqa.questions import Questions

_QUESTIONS = 51


class Shown(NamedTuple):
    """What an epoch shows: V times an image with some of its questions.

    row: int64 `[V]`, the image. starts: int64 `[V + 1]`, where the numbers of its questions begin in
    `question`.
    """

    row: np.ndarray
    starts: np.ndarray
    question: np.ndarray

    def asked(self, member: int) -> np.ndarray:
        """The numbers of one showing's questions."""
        return self.question[self.starts[member] : self.starts[member + 1]]


class VqaBatches(Epochs):
    """Every question once an epoch, those of an image together, at most `data.captions_per_image` a showing.

    A batch holds `pixel_values` float32 `[B, 3, H, W]`, maybe `pixel_size` int32 `[B, 2]`, `image_index`
    int32 `[S]`, `input_ids` and `attention_mask` int64 `[S, T]`, `labels` float32 `[S, A]` (soft scores),
    `sample_keys` int64 `[S]` (epoch and question), `rows` int64 `[B]`. CPU tensors, but `pixel_values` are
    where the decoder leaves them. Which questions an image is shown with depends on seed, epoch and image
    alone. An image that cannot be decoded is replaced by another with that one's questions.

    Raises UserError where no question can be trained on, or a bound of `data.batching` is too low.
    """

    def __init__(self, questions: Questions, images: SizedImages, config):
        super().__init__(images, config.training.images_per_batch, config.seed)
        self._questions = questions
        self._most = config.data.captions_per_image
        every = np.arange(len(questions))
        self._trained = every if config.vqa.without_answer else every[questions.known]
        if not len(self._trained):
            raise UserError(
                "no question of the split has an answer of the vocabulary: there is nothing to train"
            )
        images.check_bounds(questions.texts.longest * self._most)

    @property
    def left_out(self) -> int:
        """How many questions are not trained on, because no answer to them is known."""
        return len(self._questions) - len(self._trained)

    def _plan_anew(self, epoch: int) -> tuple[Shown, BatchList | None]:
        shown, longest = self._shown(epoch), None
        if self._images.batching and self._images.batching.tokens:
            longest = np.maximum.reduceat(self._questions.lengths(shown.question), shown.starts[:-1])
        listed = self._images.listed(shown.row, epoch, longest, self._most)
        return shown, listed

    def _shown(self, epoch: int) -> Shown:
        image = self._questions.image[self._trained]
        drawn = sampler.random_stream(self._seed, epoch, _QUESTIONS).random(len(self._questions))
        order = np.lexsort((drawn[self._trained], image))
        # `_trained` is in order of images, so that sorting within images moves none to another's place.
        firsts = np.flatnonzero(np.diff(image, prepend=-1))
        counts = np.diff(firsts, append=len(image))
        showings = -(-counts // self._most)
        place = np.arange(len(image)) - np.repeat(firsts, counts)
        # As even as can be: of five questions, four at most, three and two.
        part = place * np.repeat(showings, counts) // np.repeat(counts, counts)
        begins = np.flatnonzero((np.diff(image, prepend=-1) != 0) | (np.diff(part, prepend=-1) != 0))
        return Shown(image[begins], np.append(begins, len(image)), self._trained[order])

    def _batch(self, members: np.ndarray, epoch: int, shown: Shown) -> dict[str, Tensor]:
        rows = shown.row[members]
        found, pixels = self._images.readable(rows, epoch, lambda: shown.row)
        members = members.copy()
        for place in np.flatnonzero(found != rows):
            members[place] = np.flatnonzero(shown.row == found[place])[0]
        asked = [shown.asked(member) for member in members]
        numbers = np.concatenate(asked)
        texts = [self._questions.ids(number) for number in numbers]
        ids = self._questions.texts.pad(texts)
        return {
            **pixels,
            "image_index": torch.from_numpy(
                np.repeat(np.arange(len(members), dtype=np.int32), [len(one) for one in asked])
            ),
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(lengths_mask(texts, ids.shape[1])),
            "labels": torch.from_numpy(self._questions.scores(numbers)),
            "sample_keys": torch.from_numpy(epoch * 2**32 + numbers),
            "rows": torch.from_numpy(found),
        }
