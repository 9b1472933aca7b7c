"""The batches of retrieval: images, each with one text of its own and texts of other images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pixelbert_fast.data import sampler
from pixelbert_fast.data.batch_list import BatchList
from pixelbert_fast.data.captions import CaptionTexts, TokenisedCaptions, caption_column, lengths_mask
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.epochs import Epochs
from pixelbert_fast.tasks.pretraining.matching import Matcher
from pixelbert_fast.tasks.retrieval.candidates import caption_numbers
from pixelbert_fast.tasks.retrieval.visuals import Visuals

_OWN, _WRONG = 61, 62
_TRIES = 8
"""Texts drawn for each wrong one that is wanted, where many turn out to be true."""


class Texts:
    """The training texts of a split, and which of them are false of an image.

    Raises UserError for a split of fewer than two images, or with an image without captions.
    """

    def __init__(self, split, tokenizer, config):
        texts = CaptionTexts(caption_column(split))
        if len(texts) < 2:
            raise UserError("retrieval learns from other images' texts: build a set with at least 2 images")
        known = "facts" in split.column_names and "scene" in split.column_names
        facts, scenes = (split[name][:] if known else None for name in ("facts", "scene"))
        self.matcher = Matcher(texts, facts, scenes)
        self.tokenised = TokenisedCaptions(texts, tokenizer, config.data.max_text_length)
        self.own = caption_numbers(split, config.retrieval.train_captions, texts.counts)
        self._row = np.repeat(np.arange(len(texts)), [len(own) for own in self.own])
        self._number = np.concatenate(self.own)
        self._text = texts.text[texts.starts[self._row] + self._number]

    def wrong(self, row: int, count: int, stream: np.random.Generator) -> list[tuple[int, int]]:
        """(row of another image, caption): at most `count` different texts that are false of image `row`."""
        found: list[tuple[int, int]] = []
        seen: set[int] = set()
        for one in stream.integers(len(self._row), size=_TRIES * count).tolist():
            other, number, text = int(self._row[one]), int(self._number[one]), int(self._text[one])
            if other == row or text in seen or self.matcher.fits(other, number, row):
                continue
            seen.add(text)
            found.append((other, number))
            if len(found) == count:
                break
        return found


class Shown(NamedTuple):
    """What an epoch shows: int64 `[V]` each, V times an image with one of its texts."""

    row: np.ndarray
    number: np.ndarray


class RetrievalBatches(Epochs):
    """Groups of a right text and wrong ones, an image each; which texts depends on seed, epoch and showing.

    A batch holds what `Visuals.readable` gives of B images, `image_index` int32 `[S]`, `input_ids` and
    `attention_mask` int64 `[S, T]`, `groups` int64 `[B, 1 + negatives]` (-1 where there were too few wrong
    texts), `sample_keys` int64 `[S]` (epoch and showing, so that a group reads one sample of the pixels),
    `rows` int64 `[B]`. CPU tensors, but pixels are where the decoder leaves them.
    """

    def __init__(self, texts: Texts, images: Visuals, config):
        super().__init__(images, config.training.images_per_batch, config.seed)
        self._texts, self._options = texts, config.retrieval
        check = getattr(images, "check_bounds", None)
        if check is not None:
            check(texts.tokenised.longest * (1 + self._options.negatives))

    def _plan_anew(self, epoch: int) -> tuple[Shown, BatchList | None]:
        shown, listed = self._shown(epoch), None
        if getattr(self._images, "batching", None):
            ids = self._texts.tokenised
            longest = ids.lengths(shown.row, shown.number) if self._images.batching.tokens else None
            listed = self._images.listed(shown.row, epoch, longest, 1 + self._options.negatives)
        return shown, listed

    def _shown(self, epoch: int) -> Shown:
        own = self._texts.own
        if self._options.epoch == "captions":
            counts = [len(one) for one in own]
            return Shown(np.repeat(np.arange(len(own)), counts), np.concatenate(own))
        rows = np.array([row for row, one in enumerate(own) if len(one)], dtype=np.int64)
        numbers = np.empty(len(rows), dtype=np.int64)
        for place, row in enumerate(rows.tolist()):
            turn, at = divmod(epoch, len(own[row]))
            # A new order when all have been shown.
            order = sampler.random_stream(self._seed, turn, row, _OWN).permutation(own[row])
            numbers[place] = order[at]
        return Shown(rows, numbers)

    def _batch(self, members: np.ndarray, epoch: int, shown: Shown) -> dict[str, Tensor]:
        rows = shown.row[members]
        found, visual = self._images.readable(rows, epoch, lambda: shown.row)
        members = members.copy()
        for place in np.flatnonzero(found != rows):
            members[place] = np.flatnonzero(shown.row == found[place])[0]
        width = 1 + self._options.negatives
        groups = np.full((len(members), width), -1, dtype=np.int64)
        pairs: list[tuple[int, int]] = []
        for place, member in enumerate(members.tolist()):
            row = int(shown.row[member])
            stream = sampler.random_stream(self._seed, epoch, member, _WRONG)
            own = [(row, int(shown.number[member])), *self._texts.wrong(row, width - 1, stream)]
            groups[place, : len(own)] = len(pairs) + np.arange(len(own))
            pairs += own
        ids = [self._texts.tokenised.ids(*pair) for pair in pairs]
        padded = self._texts.tokenised.pad(ids)
        image = np.repeat(np.arange(len(members)), (groups >= 0).sum(axis=1))
        return {
            **visual,
            "image_index": torch.from_numpy(image.astype(np.int32)),
            "input_ids": torch.from_numpy(padded),
            "attention_mask": torch.from_numpy(lengths_mask(ids, padded.shape[1])),
            "groups": torch.from_numpy(groups),
            "sample_keys": torch.from_numpy(epoch * 2**32 + members[image]),
            "rows": torch.from_numpy(np.asarray(found, dtype=np.int64)),
        }
