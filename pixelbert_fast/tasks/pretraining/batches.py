"""The batches of pre-training: images, each with several true and false captions, some words masked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pixelbert_fast.data import sampler
from pixelbert_fast.data.batch_list import Batching, BatchList, check_bounds, list_batches
from pixelbert_fast.data.captions import lengths_mask
from pixelbert_fast.data.decoded import DecodedImages
from pixelbert_fast.data.sizes import SizePlan, plan_sizes
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.epochs import Epochs
from pixelbert_fast.tasks.pretraining.masking import IGNORED, mask_tokens
from pixelbert_fast.tasks.pretraining.matching import share_out
from pixelbert_fast.tasks.pretraining.material import Epoch, Material, Part, Shown

_MASKING = 21


@dataclass(frozen=True)
class PretrainingOptions:
    """How pre-training batches are made; names and meanings as in the configuration.

    mlm_probability 0 leaves the text whole. mlm_on_mismatched keeps the labels of mismatched pairs (their
    words are masked either way, or the masks would tell the pairs apart). text_only replaces every image by
    zeros. epoch: what an epoch shows, see `Material.shown`; with batching, None is "images". batching:
    batches of one size each; None: of images as they come, padded to the largest. decoder, device: see
    `DecodedImages`. An image that cannot be decoded is replaced by another that the epoch shows, with that
    one's captions.
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
    epoch: Epoch | None = None
    batching: Batching | None = None
    decoder: str | None = None
    device: torch.device | str = "cpu"
    broken_limit: float = 0.01


class PretrainingBatches(Epochs):
    """Batches of the `PretrainingBatch` contract over one split of a built set, or several.

    CPU tensors, but `pixel_values` are where the decoder leaves them.

    A batch depends on the splits, the tokenizer, the options, and (epoch, rank, world size, step) alone;
    what is drawn for an image (captions, masked words) depends on the seed, the epoch and the image alone.
    `truncated` counts the captions that exceed `max_text_length`, `dropped` the mismatched pairs of the epoch
    begun last for which no false caption was found, `broken` the undecodable images met so far.
    """

    def __init__(self, splits, tokenizer, image_processor, options: PretrainingOptions):
        """splits: one split, or a sequence of `Part`."""
        if tokenizer.mask_token_id is None:
            raise UserError("the tokenizer has no mask token, which masked language modelling needs")
        share_out(options.captions_per_image, options.mismatched_share)
        several = isinstance(splits, Sequence) and all(isinstance(one, Part) for one in splits)
        parts = splits if several else [Part(splits)]
        self.options = options
        self._material = Material(parts, tokenizer, options.max_text_length)
        self._sizes = None
        if options.batching:
            self._sizes = plan_sizes(
                *self._material.sizes(),
                image_processor.short_side,
                image_processor.long_side,
                image_processor.size_divisor,
                buckets=options.batching.buckets,
                aspect_change=options.batching.aspect_change,
                fewest=options.images_per_batch,
                least_side=image_processor.least_side,
            )
            # Of all that any epoch may show, so that none ends a run later.
            largest = int(self._sizes.buckets.astype(np.int64).prod(axis=1).max())
            longest = self._material.captions.longest * options.captions_per_image
            check_bounds(options.batching, largest, longest)
        images = DecodedImages(
            self._material.images(["image", "height", "width"], ["key"]),
            image_processor,
            options.cache_megabytes,
            self._sizes,
            decoder=options.decoder,
            device=options.device,
            broken_limit=options.broken_limit,
        )
        super().__init__(images, options.images_per_batch, options.seed)
        self._vocab_size, self._mask_id = len(tokenizer), int(tokenizer.mask_token_id)
        self._special_ids = np.array(tokenizer.all_special_ids, dtype=np.int64)
        self.dropped = 0

    @property
    def truncated(self) -> int:
        return self._material.captions.truncated

    @property
    def sizes(self) -> SizePlan | None:
        """The size plan of `options.batching`."""
        return self._sizes

    def epoch(
        self, epoch: int, rank: int = 0, world_size: int = 1, skip: int = 0, start: int = 0
    ) -> Iterator[dict]:
        """As `Epochs.epoch`, which says what the arguments are."""
        self.dropped = self._plan(epoch)[0].plan.dropped
        yield from super().epoch(epoch, rank, world_size, skip, start)

    def _plan_anew(self, epoch: int) -> tuple[Shown, BatchList | None]:
        options, listed = self.options, None
        shares = options.captions_per_image, options.mismatched_share
        # The first rule keeps images without a pair, and one of them could be a whole batch.
        kind = options.epoch or ("images" if options.batching else None)
        shown = self._material.shown(options.seed, epoch, *shares, kind)
        if self._sizes is not None:
            if options.batching.tokens:
                shown = shown._replace(longest=self._material.longest(shown))
            listed = list_batches(
                self._sizes.group[shown.row],
                np.repeat(self._sizes.buckets.astype(np.int64).prod(axis=1), 2),
                options.images_per_batch,
                options.batching,
                options.seed,
                epoch,
                shown.longest,
                options.captions_per_image,
            )
        return shown, listed

    def _batch(self, members: np.ndarray, epoch: int, shown: Shown) -> dict:
        """members: which of what the epoch shows."""
        options = self.options
        members, pixels = self._pixels(members, epoch, shown)
        slots = options.captions_per_image
        lines = [self._image_texts(int(one), epoch, shown) for one in members]
        inputs, labels, mask, matched, kept = (np.concatenate(part) for part in zip(*lines, strict=True))
        image_index = np.repeat(np.arange(len(members)), slots)
        # Epoch and pair, so that what the model draws for a pair depends on neither batch nor rank.
        keys = epoch * 2**32 + (members[:, None] * slots + np.arange(slots)).reshape(-1)
        if not options.mlm_on_mismatched:
            labels[matched == 0] = IGNORED
        longest = int(mask[kept].sum(axis=1).max(initial=1))
        return {
            **pixels,
            "image_index": torch.from_numpy(image_index[kept].astype(np.int32)),
            "input_ids": torch.from_numpy(inputs[kept, :longest]),
            "attention_mask": torch.from_numpy(mask[kept, :longest]),
            "labels": torch.from_numpy(labels[kept, :longest]),
            "matched": torch.from_numpy(matched[kept]),
            "sample_keys": torch.from_numpy(keys[kept]),
            "rows": torch.from_numpy(shown.row[members]),
        }

    def _pixels(self, members: np.ndarray, epoch: int, shown: Shown) -> tuple[np.ndarray, dict]:
        """(members, others in the place of those whose image is broken; what the batch holds of images)."""
        rows = shown.row[members]
        if self.options.text_only:
            pixel_values, pixel_size = self._images.blank(rows)
        else:

            def fit() -> np.ndarray:
                if shown.longest is None:
                    return np.arange(len(shown.row))
                # Longer texts might lead beyond the bound on tokens.
                return np.flatnonzero(shown.longest <= shown.longest[members].max())

            found, pixel_values, pixel_size = self._images.readable(
                rows, self.options.seed, epoch, lambda: shown.row[fit()]
            )
            replaced = np.flatnonzero(found != rows)
            if len(replaced):
                others, members = fit(), members.copy()
                for place in replaced:
                    members[place] = others[np.flatnonzero(shown.row[others] == found[place])[0]]
        return members, self._sized(int(rows[0]), pixel_values, pixel_size)

    def _sized(self, row: int, pixel_values: Tensor, pixel_size: Tensor) -> dict[str, Tensor]:
        """Padded to the size of the batches that image `row` comes in."""
        if self._sizes is None:
            return {"pixel_values": pixel_values, "pixel_size": pixel_size}
        # Only where no image of the group can be decoded, one of another may be larger.
        height, width = map(max, self._sizes.canvas(row), pixel_values.shape[2:])
        missing = (0, width - pixel_values.shape[3], 0, height - pixel_values.shape[2])
        pixel_values = torch.nn.functional.pad(pixel_values, missing) if any(missing) else pixel_values
        if (pixel_size == torch.tensor([height, width])).all():
            return {"pixel_values": pixel_values}
        return {"pixel_values": pixel_values, "pixel_size": pixel_size}

    def _image_texts(self, member: int, epoch: int, shown: Shown) -> tuple[np.ndarray, ...]:
        """(ids, labels, attention mask, matched, kept) of a shown image's pairs, at the full text length.

        Masks are drawn at the full length so that they do not depend on how far the batch happens to be
        padded.
        """
        row, plan = shown.row[member], shown.plan
        pairs = [(row, number) for number in plan.matched[member]] + [
            tuple(pair) for pair in plan.mismatched[member]
        ]
        kept = np.array([number >= 0 for _, number in pairs])
        nothing = np.zeros(0, dtype=np.int64)
        texts = [self._material.captions.ids(*pair) if pair[1] >= 0 else nothing for pair in pairs]
        length = self.options.max_text_length
        ids = self._material.captions.pad(texts, length)
        inputs, labels = mask_tokens(
            ids,
            np.isin(ids, self._special_ids),
            self._vocab_size,
            self._mask_id,
            self.options.mlm_probability,
            sampler.random_stream(self.options.seed, epoch, member, _MASKING),
        )
        matched = (np.arange(len(pairs)) < plan.matched.shape[1]).astype(np.int64)
        return inputs, labels, lengths_mask(texts, length), matched, kept
