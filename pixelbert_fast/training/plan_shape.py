"""The shapes of a run's batches, a typical one and the largest, and what a pass over one takes."""

from __future__ import annotations

from pixelbert_fast.data.resizing import target_size
from pixelbert_fast.model import PixelBertConfig
from pixelbert_fast.model.flops import map_shape, training_flops
from pixelbert_fast.model.heads import ALL_HEADS
from pixelbert_fast.model.task_flops import head_flops, retrieval_flops
from pixelbert_fast.training import plan_memory
from pixelbert_fast.training.config import RunConfig
from pixelbert_fast.training.plan_epochs import captions_of_a_showing, images_of_a_batch
from pixelbert_fast.training.plan_model import HEADS

_PHOTO = (480, 640)
"""Height and width of what is called a typical image."""


class Shape:
    """The shapes of a batch: of a typical one, and of the largest.

    Attributes:
        typical, largest: height and width.
        captions: texts an image is read with, at most; of retrieval its own and the wrong ones, of nlvr2 one.
        learnt: how many of these are learnt from, which only in retrieval are fewer.
        words: word pieces of a text, at most.
    """

    def __init__(self, config: RunConfig, built: PixelBertConfig) -> None:
        self._config, self._built = config, built
        data, groups = config.data, config.retrieval
        sides = built.short_side, built.long_side, data.size_divisor
        self.typical = target_size(*_PHOTO, *sides)
        # A photo as long as the bound on its long side lets it be.
        self.largest = target_size(built.short_side, built.long_side, *sides)
        self.captions = self.learnt = sum(captions_of_a_showing(config))
        if config.task == "retrieval":
            self.captions = 1 + groups.negatives
            self.learnt = 1 + min(groups.hardest or groups.negatives, groups.negatives)
        self.words = data.max_text_length if self.captions else 0
        matched = captions_of_a_showing(config)[0] if not built.mlm_on_mismatched else self.captions
        words = config.task == "pretrain" and config.objectives.mlm
        asked = config.objectives.mlm_probability if words else 0.0
        # Fine-tuning reads all pixels, and of the last layer [CLS] alone.
        self._all_pixels = config.task != "pretrain" and not built.sampled_fine_tuning
        self._every_word = config.task == "pretrain" and not config.model.fast
        # Of a sequence, on average over matched ones and others; [CLS] and [SEP] are never masked.
        self.masked = asked * max(self.words - 2, 0) * matched / max(self.captions, 1)

    def images(self, size: tuple[int, int]) -> int:
        """Images of a batch of this size."""
        images, batching = images_of_a_batch(self._config), self._config.data.batching
        if batching is not None and batching.pixels is not None:
            images = min(images, batching.pixels // (size[0] * size[1]))
        return max(images, 1)

    def pixels(self, size: tuple[int, int]) -> int:
        """Pixels that a sequence reads."""
        if not self.captions:
            return 0
        places = self._places(size)
        sampled = None if self._all_pixels else self._built.sampled_pixels
        return min(sampled or places, places)

    def _places(self, size: tuple[int, int]) -> int:
        _, rows, columns = map_shape(self._built, size)
        return (rows // 2) * (columns // 2)

    def flops(self, size: tuple[int, int]) -> dict[str, int]:
        """Of one forward and backward of one process."""
        images, task = self.images(size), self._config.task
        sequences, fast = images * self.captions, self._config.model.fast
        pixels = self.pixels(size)
        if task == "retrieval":
            options = self._config.retrieval
            return retrieval_flops(
                self._built,
                image_size=size,
                images=images,
                image_pixels=self._places(size),
                sequences=sequences,
                text_length=self.words,
                pixels=pixels,
                learnt=images * self.learnt,
                learnt_text_length=self.words,
                learnt_pixels=pixels,
                kept=options.cache,
                frozen=options.freeze_backbone,
                hardest=options.hardest is not None,
                fast=fast,
            )
        found = training_flops(
            self._built,
            image_size=size,
            images=images,
            sequences=sequences,
            text_length=self.words,
            pixels=pixels,
            masked=sequences * self.words if self._every_word else round(sequences * self.masked),
            fast=fast,
        )
        if task == "pretrain":
            return found
        found = {part: 0 if part in ALL_HEADS else count for part, count in found.items()}
        if task in HEADS:
            asked = images // 2 if task == "nlvr2" else sequences
            found[HEADS[task]] = 3 * head_flops(HEADS[task], self._built, asked)
        return found

    def load(self) -> plan_memory.Load:
        """What one process holds of the largest batch."""
        options = self._config.retrieval
        groups = None
        if self._config.task == "retrieval":
            groups = plan_memory.Groups(self.learnt, options.cache, options.freeze_backbone)
        return plan_memory.Load(
            image_size=self.largest,
            captions=self.captions,
            text_length=self.words,
            pixels=self.pixels(self.largest),
            masked=self.masked,
            half=self._config.training.precision != "fp32",
            fast=self._config.model.fast,
            offload=getattr(self._config.training, "offload_optimizer", False),
            groups=groups,
        )
