"""The batches of pre-training: images, each with several true and false captions, some words masked."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from pixelbert_fast.data import sampler
from pixelbert_fast.data.captions import TokenisedCaptions, lengths_mask
from pixelbert_fast.data.decoded import DecodedImages
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.pretraining.masking import IGNORED, mask_tokens
from pixelbert_fast.tasks.pretraining.matching import EpochPlan, Matcher, share_out

_MASKING = 21


@dataclass(frozen=True)
class PretrainingOptions:
    """How pre-training batches are made; names and meanings as in the configuration.

    mlm_probability 0 leaves the text whole. mlm_on_mismatched keeps the labels of mismatched pairs (their
    words are masked either way, or the masks would tell the pairs apart). text_only replaces every image by
    zeros. An image that cannot be decoded is replaced by another, with that one's captions.
    """

    images_per_batch: int = 32
    captions_per_image: int = 4
    mismatched_share: float = 0.5
    max_text_length: int = 40
    mlm_probability: float = 0.15
    mlm_on_mismatched: bool = False
    text_only: bool = False
    seed: int = 0
    cache_megabytes: float = 1024
    decoder: str | None = None
    broken_limit: float = 0.01


class PretrainingBatches:
    """Batches of the `PretrainingBatch` contract over one split of a built set; CPU tensors.

    A batch depends on the split, the tokenizer, the options, and (epoch, rank, world size, step) alone;
    what is drawn for an image (captions, masked words) depends on the seed, the epoch and the image alone.
    `truncated` counts the split's captions that exceed `max_text_length`, `dropped` the mismatched pairs of
    the epoch begun last for which no false caption was found, `broken` the undecodable images met so far.
    """

    def __init__(self, split, tokenizer, image_processor, options: PretrainingOptions):
        if not len(split):
            raise UserError("the split to pre-train on is empty; build the set with more images")
        if tokenizer.mask_token_id is None:
            raise UserError("the tokenizer has no mask token, which masked language modelling needs")
        share_out(options.captions_per_image, options.mismatched_share)
        self.options = options
        self._rows = len(split)
        captions = split["captions"][:]
        known = "facts" in split.column_names and "scene" in split.column_names
        self._matcher = Matcher(
            captions, split["facts"][:] if known else None, split["scene"][:] if known else None
        )
        self._captions = TokenisedCaptions(captions, tokenizer, options.max_text_length)
        self._images = DecodedImages(
            split,
            image_processor,
            options.cache_megabytes,
            decoder=options.decoder,
            broken_limit=options.broken_limit,
        )
        self._vocab_size, self._mask_id = len(tokenizer), int(tokenizer.mask_token_id)
        self._special_ids = np.array(tokenizer.all_special_ids, dtype=np.int64)
        self.dropped = 0

    @property
    def truncated(self) -> int:
        return self._captions.truncated

    @property
    def broken(self) -> int:
        return self._images.broken

    def steps_per_epoch(self, world_size: int = 1) -> int:
        """How many batches each rank gets in an epoch."""
        return sampler.steps_per_epoch(self._rows, self.options.images_per_batch, world_size)

    def epoch(self, epoch: int, rank: int = 0, world_size: int = 1, skip: int = 0) -> Iterator[dict]:
        """The batches of one rank in one epoch, without the first `skip`, which cost nothing."""
        options = self.options
        plan = self._matcher.plan(options.seed, epoch, options.captions_per_image, options.mismatched_share)
        self.dropped = plan.dropped
        shards = sampler.batches(self._rows, options.images_per_batch, options.seed, epoch, rank, world_size)
        self._images.begin_epoch(sum(map(len, shards)))
        for rows in shards[skip:]:
            yield self._batch(rows, epoch, plan)

    def _batch(self, rows: np.ndarray, epoch: int, plan: EpochPlan) -> dict:
        options = self.options
        slots = options.captions_per_image
        if options.text_only:
            pixel_values, pixel_size = self._images.blank(rows)
        else:
            rows, pixel_values, pixel_size = self._images.readable(rows, options.seed, epoch)
        lines = [self._image_texts(int(row), epoch, plan) for row in rows]
        inputs, labels, mask, matched, kept = (np.concatenate(part) for part in zip(*lines, strict=True))
        image_index = np.repeat(np.arange(len(rows)), slots)
        # Epoch and pair, so that what the model draws for a pair depends on neither batch nor rank.
        keys = epoch * 2**32 + (rows[:, None] * slots + np.arange(slots)).reshape(-1)
        if not options.mlm_on_mismatched:
            labels[matched == 0] = IGNORED
        longest = int(mask[kept].sum(axis=1).max(initial=1))
        return {
            "pixel_values": pixel_values,
            "pixel_size": pixel_size,
            "image_index": torch.from_numpy(image_index[kept].astype(np.int32)),
            "input_ids": torch.from_numpy(inputs[kept, :longest]),
            "attention_mask": torch.from_numpy(mask[kept, :longest]),
            "labels": torch.from_numpy(labels[kept, :longest]),
            "matched": torch.from_numpy(matched[kept]),
            "sample_keys": torch.from_numpy(keys[kept]),
        }

    def _image_texts(self, row: int, epoch: int, plan: EpochPlan) -> tuple[np.ndarray, ...]:
        """(ids, labels, attention mask, matched, kept) of an image's pairs, at the full text length.

        Masks are drawn at the full length so that they do not depend on how far the batch happens to be
        padded.
        """
        pairs = [(row, number) for number in plan.matched[row]] + [
            tuple(pair) for pair in plan.mismatched[row]
        ]
        kept = np.array([number >= 0 for _, number in pairs])
        nothing = np.zeros(0, dtype=np.int64)
        texts = [self._captions.ids(*pair) if pair[1] >= 0 else nothing for pair in pairs]
        length = self.options.max_text_length
        ids = self._captions.pad(texts, length)
        inputs, labels = mask_tokens(
            ids,
            np.isin(ids, self._special_ids),
            self._vocab_size,
            self._mask_id,
            self.options.mlm_probability,
            sampler.random_stream(self.options.seed, epoch, row, _MASKING),
        )
        matched = (np.arange(len(pairs)) < plan.matched.shape[1]).astype(np.int64)
        return inputs, labels, lengths_mask(texts, length), matched, kept
