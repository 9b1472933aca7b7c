"""Memory of one process, by part, under each ZeRO stage: arithmetic alone, nothing is allocated.

Bytes a process, of P parameters, T of them trained, and n processes:

weights         4 P; from stage 1 on 4 T / n more, the piece that the optimiser updates (stage 3 gives other
                pieces away and gathers them while they are used: of this model, nearly always)
gradients       4 T; from stage 2 on 4 T / n and a bucket to reduce them from; and 4 a word embedding, since
                the word head's gradient of them waits for that of the look-up
optimizer       8 T, two moments for either algorithm; divided by n from stage 1 on; 0 if offloaded
weight copies   2 a matrix element in half precision, autocast's; in float32 with frozen norms 4 a weight of
                the backbone's, which norms are folded into
activations     `model.memory.kept_bytes` of the largest batch
pixels          the batch, and the next one on its way; of retrieval what is kept in place of pixels
reserve         CUDA's context, workspaces, fragments: RESERVE and RESERVE_SHARE, a rule of thumb
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from pixelbert_fast.model import PixelBertConfig
from pixelbert_fast.model.flops import map_shape
from pixelbert_fast.model.memory import group_bytes, kept_bytes

GIB = 2**30
STAGES = (0, 1, 2, 3)
RESERVE = int(1.0 * GIB)
RESERVE_SHARE = 0.05
BUCKET = 25_000_000
"""Gradients that are averaged at a time."""


class Parameters(NamedTuple):
    """How many numbers: all, trained, in matrices, in the backbone's convolutions, in word embeddings."""

    all: int
    trained: int
    matrices: int
    convolutions: int
    words: int


class Groups(NamedTuple):
    """Of retrieval: texts learnt from beside an image, what is kept of it, whether the backbone is frozen."""

    learnt: int
    kept: Literal["none", "c5", "embeddings"]
    frozen: bool


class Load(NamedTuple):
    """What one process holds of a batch.

    Attributes:
        image_size: height and width of the largest batch.
        captions, text_length, pixels: sequences an image, word pieces and pixels of each.
        masked: labelled word pieces of a sequence, on average.
        half: computed in half precision.
        fast: FastPixelBERT.
        offload: the optimiser's state lies in the host's memory.
        groups: of retrieval, of whose `captions` only some are learnt from.
    """

    image_size: tuple[int, int]
    captions: int
    text_length: int
    pixels: int
    masked: float
    half: bool
    fast: bool
    offload: bool = False
    groups: Groups | None = None


def activations(config: PixelBertConfig, load: Load, images: int) -> int:
    """Bytes that a forward of `images` images keeps, or holds at one time where that is more."""
    sequences = images * load.captions
    if load.groups is not None:
        return group_bytes(
            config,
            image_size=load.image_size,
            images=images,
            sequences=sequences,
            learnt=images * load.groups.learnt,
            text_length=load.text_length,
            pixels=load.pixels,
            kept=load.groups.kept,
            frozen=load.groups.frozen,
            half=load.half,
            fast=load.fast,
        )
    kept = kept_bytes(
        config,
        image_size=load.image_size,
        images=images,
        sequences=sequences,
        text_length=load.text_length,
        pixels=load.pixels,
        masked=round(sequences * load.masked),
        half=load.half,
        fast=load.fast,
    )
    return sum(kept.values())


def by_part(
    config: PixelBertConfig,
    counts: Parameters,
    load: Load,
    images: int,
    stage: int,
    world: int,
    memory: float,
) -> dict[str, int]:
    """Bytes of one of `world` processes with `images` images a batch and `memory` bytes, see above."""
    piece = 4 * counts.trained // world
    offloaded = load.offload and stage > 0
    if load.half:
        copies = 2 * counts.matrices
    else:
        copies = 4 * counts.convolutions if load.fast and config.norm == "frozen" else 0
    gradients = 4 * counts.trained if stage < 2 else piece + 4 * min(BUCKET, counts.trained)
    return {
        "weights": 4 * counts.all + (piece if stage and not offloaded else 0),
        "gradients": gradients + 4 * counts.words,
        "optimizer": 0 if offloaded else 8 * counts.trained // (world if stage else 1),
        "weight copies": copies,
        "activations": activations(config, load, images),
        "pixels": 2 * images * 4 * _of_an_image(config, load),
        "reserve": RESERVE + int(RESERVE_SHARE * memory),
    }


def _of_an_image(config: PixelBertConfig, load: Load) -> int:
    """How many numbers a batch holds of an image: its pixels, or what is kept of it."""
    kept = "none" if load.groups is None else load.groups.kept
    channels, rows, columns = map_shape(config, load.image_size)
    return {
        "none": 3 * load.image_size[0] * load.image_size[1],
        "c5": channels * rows * columns,
        "embeddings": config.hidden_size * (rows // 2) * (columns // 2),
    }[kept]


def most_images(
    config: PixelBertConfig, counts: Parameters, load: Load, stage: int, world: int, memory: float
) -> int:
    """The largest `training.images_per_batch` that fits into `memory` bytes; 0: not even one does."""

    def fits(images: int) -> bool:
        return sum(by_part(config, counts, load, images, stage, world, memory).values()) <= memory

    low, high = 0, 1
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


class Collectives(NamedTuple):
    """Bytes that go through one-way collectives (a reduce-scatter or a gather; an all-reduce is both).

    Attributes:
        beside: while passes compute, so that they can be hidden where communication overlaps.
        after: when the last backward has ended.
    """

    beside: int
    after: int


def collectives(counts: Parameters, stage: int, accumulation: int) -> Collectives:
    """Of one update under DeepSpeed, gradients and weights in float32 (tests/test_traffic.py counts them).

    Stage 0 reduces all gradients to all after the last backward; stages 1 and 2 likewise but in the last
    backward and in every one, and the owners give back the weights; stage 3 gathers the weights once a
    pass, since these models are smaller than what it keeps for the backward, and reduces to the owners
    alone. By the paper of ZeRO (arXiv 1910.02054, section 7) stages 1 and 2 reduce to the owners alone as
    well, half of it, which DeepSpeed does with `use_multi_rank_bucket_allreduce: false`; and stage 3
    gathers twice.
    """
    size = 4 * (counts.all if stage == 3 else counts.trained)
    beside, after = {0: (0, 2), 1: (2, 1), 2: (2 * accumulation, 1), 3: (2 * accumulation, 0)}[stage]
    return Collectives(beside * size, after * size)


def traffic(counts: Parameters, stage: int, world: int, accumulation: int) -> int:
    """Bytes that a process sends, and receives, in an update: its `collectives` by rings."""
    return round((world - 1) / world * sum(collectives(counts, stage, accumulation)))
