"""Which data a run reads, how it becomes batches, and the word pieces of its texts: sections of `config`."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pixelbert_fast.training.section import BelowOne, Count, Section, Share


class BuildConfig(BaseModel):
    """How to build a data set that is not there yet.

    Attributes:
        name: the builder's (`pixelbert data build --help` lists them); beside it stand that builder's own
            options.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    def options(self) -> dict[str, Any]:
        """The builder's options, without its name."""
        return dict(self.model_extra or {})


class SetConfig(Section):
    """One of several built sets.

    Attributes:
        directory: as `data.directory`.
        weight: how often an epoch shows its images, 0 to 1000: 1 once, 0.5 one half of them and the next
            epoch the other, 2 twice, 0 not at all (only evaluated on).
        built_by: the words after `pixelbert data build` that make it, without `--out`: said where it is not
            there; `pixelbert plan` knows by the builder how large the published set is.
    """

    directory: str
    weight: Annotated[float, Field(ge=0.0, le=1000.0, allow_inf_nan=False)] = 1.0
    built_by: str | None = None


class BatchingConfig(Section):
    """Batches of one size each, within bounds.

    Attributes:
        buckets: sizes of batches, at most; 1 to 1000.
        aspect_change: an image is resized to its bucket's size where that multiplies or divides its aspect
            ratio by no more than 1 plus this, 0 to below 1; else it keeps its proportions and is padded.
        pixels: of a batch (height times width times images), at most; None: no bound but
            `training.images_per_batch`, which holds as well.
        tokens: of a batch's texts with their padding, at most; None: no bound.
        alike: batches of like size that come one after the other, at least 1, so that the processes of a
            step all have such; a multiple of their number is best.
    """

    buckets: Annotated[int, Field(ge=1, le=1000)] = 8
    aspect_change: BelowOne = 0.08
    pixels: Count | None = None
    tokens: Count | None = None
    alike: Count = 8


class DataConfig(Section):
    """Which images and texts, and how they become batches.

    Attributes:
        directory: a built data set; relative to the working directory.
        sets: several built sets in one pre-training run, in place of `directory`.
        epoch: what an epoch of pre-training shows (of a set of weight 1). images: each image once, its
            captions drawn without repetition until all have been shown, over as many epochs as it takes.
            captions: each image as often as it takes to show all its captions once. None: as images, by
            the rule of the first recipes, which leaves an image's last captions out where they do not come
            out even, and draws anew; with `sets` or `batching`, images.
        batching: batches of one size each; None: of images as they come, padded to the largest.
        build: how to build it on first use; None: it must be there.
        captions_per_image: texts read with one pass of an image through the backbone, at least 1.
        mismatched_share: how many of them are made not to match, 0 to 1.
        max_text_length: word pieces a text, [CLS] and [SEP] included, at least 3; longer ones are cut and
            counted.
        short_side, long_side: pixels; an image's short side becomes the one, unless its long side would pass
            the other (None: the model preset's).
        size_divisor: both sides are multiples of it; 1 leaves them as they are.
        decoder: what turns files into pixels; None: PIXELBERT_FAST_DECODER, or the best that can run.
        broken_limit: the share of an epoch's images that may be broken, 0 to 1; others are shown in their
            place. More of them end the run.
    """

    directory: str = "data/scenes"
    sets: tuple[SetConfig, ...] | None = None
    epoch: Literal["images", "captions"] | None = None
    batching: BatchingConfig | None = None
    build: BuildConfig | None = None
    captions_per_image: Count = 4
    mismatched_share: Share = 0.5
    max_text_length: Annotated[int, Field(ge=3)] = 40
    short_side: Count | None = None
    long_side: Count | None = None
    size_divisor: Count = 1
    decoder: Literal["plain", "dali"] | None = None
    broken_limit: Share = 0.01

    @property
    def directories(self) -> str | list[str]:
        """Of all sets, or of the only one."""
        return [one.directory for one in self.sets] if self.sets else self.directory

    @model_validator(mode="after")
    def _sets_or_directory(self) -> DataConfig:
        if self.sets is None:
            return self
        directories = [one.directory for one in self.sets]
        if not any(one.weight for one in self.sets):
            raise ValueError("data.sets names no set with a weight above 0")
        if len({os.path.normpath(one) for one in directories}) < len(directories):
            raise ValueError("data.sets names one directory twice; give it once, with the sum of the weights")
        if self.build is not None:
            raise ValueError("data.build builds data.directory, which data.sets replaces; give one of them")
        return self


class TokenizerConfig(Section):
    """The word pieces.

    Attributes:
        path: a saved tokenizer's directory or hub name; None: the one of what training starts from, or else
            one that is trained on captions.
        size: word pieces of one that is trained, at most.
        texts: the built set, or sets, whose training captions they are; None: the run's own.
    """

    path: str | None = None
    texts: str | tuple[str, ...] | None = None
    size: Count = 2000
