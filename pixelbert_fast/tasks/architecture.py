"""The model configuration, the image processor and the seeded start that a run's configuration describes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pixelbert_fast.data.processor import PixelBertImageProcessor
from pixelbert_fast.data.records import BuiltSet
from pixelbert_fast.errors import UserError
from pixelbert_fast.model import PixelBertConfig


def model_config(config, **fields) -> PixelBertConfig:
    """The preset of `config.model` with `fields`, the image sides of `config.data` and the overrides on top.

    Raises UserError for what PixelBertConfig refuses.
    """
    sides = {"short_side": config.data.short_side, "long_side": config.data.long_side}
    given = {name: side for name, side in sides.items() if side is not None}
    try:
        return PixelBertConfig.preset(config.model.preset, **{**fields, **given, **config.model.overrides})
    except (ValueError, TypeError) as error:
        raise UserError(f"model: {error}") from error


def image_processor(config, built: PixelBertConfig) -> PixelBertImageProcessor:
    """The image processor of a model's sizes, with `config.data`'s divisor.

    It makes no image too small for the model: a very narrow one would else end the run. Raises UserError
    where the sizes themselves are too small.
    """
    return PixelBertImageProcessor(
        short_side=built.short_side,
        long_side=built.long_side,
        size_divisor=config.data.size_divisor,
        # Every layer of the backbone rounds up: so many pixels give the two rows of one pooled place.
        least_side=built.output_stride + 1,
    )


def evaluation_splits(built: BuiltSet, config, least: int = 1) -> dict:
    """The splits of `config.evaluation` by name: opened before training, so that a wrong one is told then.

    Raises UserError for a split that is missing or holds fewer than `least` images.
    """
    splits = {name: built.split(name) for name in config.evaluation.splits}
    for name, split in splits.items():
        if len(split) < least:
            raise UserError(
                f"the split {name!r} of {built.directory} has {len(split)} image and an evaluation "
                f"needs {least}: build the set with more images, or leave it out of evaluation.splits"
            )
    return splits


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random initial weights that depend on `seed` alone; torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
