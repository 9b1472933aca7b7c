"""Every text scored beside every image, in blocks that are divided among processes and kept as they finish.

Equal things go together, so that nothing is padded: a block's texts have one length and its images one number
of pixels. What a pair's scores share is computed once, see `model.pair_scores`; and so is a text that several
images have, since in another pass its scores would be rounded otherwise and a tie be no tie.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pixelbert_fast.model.pair_scores import PairScorer, Precision
from pixelbert_fast.tasks.protocol import Progress
from pixelbert_fast.tasks.retrieval.block_store import Block, BlockStore
from pixelbert_fast.tasks.retrieval.share import ALONE, Share


class Pixels(Protocol):
    """The tokens of images: a `VisualCache` of embeddings, or `HeldPixels`."""

    counts: np.ndarray
    """int64 ``[M]``: how many pixels each image has."""

    def values(self, images: Sequence[int] | np.ndarray) -> Tensor:
        """``[B, K, D]`` of images with equally many pixels."""
        ...


class HeldPixels:
    """Tokens held in memory: a tensor ``[K, D]`` for each image."""

    def __init__(self, tokens: Sequence[Tensor]):
        self._tokens = tokens
        self.counts = np.array([len(one) for one in tokens], dtype=np.int64)

    def values(self, images: Sequence[int] | np.ndarray) -> Tensor:
        return torch.stack([self._tokens[int(image)] for image in images])


@dataclass(frozen=True)
class ScoringOptions:
    """How a matrix is computed.

    Attributes:
        precision: what the Transformer computes in, see `pair_scores.Precision`; scores are float32.
        memory_megabytes: what a block's texts and images, and a pass's activations, may take together.
        pairs_per_block: at most; what a kill can lose, on each process.
    """

    precision: Precision = "fp32"
    memory_megabytes: float = 1024.0
    pairs_per_block: int = 4096


DEFAULTS = ScoringOptions()


def plan_blocks(
    lengths: np.ndarray, counts: np.ndarray, row_bytes: int, options: ScoringOptions
) -> list[Block]:
    """The matrix in dense blocks, those of the same images one after the other; of any number of processes.

    Args:
        lengths: int ``[N]``, word pieces of each text.
        counts: int ``[M]``, pixels of each image.
        row_bytes: what one row of a text or an image takes while it waits (see `pair_scores.Side`).
    """
    room = options.memory_megabytes * 2**20 / 4
    texts = _alike(lengths)
    blocks = []
    for columns in _alike(counts):
        fits = int(room // (row_bytes * max(int(counts[columns[0]]), 1)))
        # Square blocks read the least: as many images as texts, where both are there.
        side = max(int(options.pairs_per_block**0.5), 1)
        wide = max(min(fits, side, len(columns)), 1)
        for left in range(0, len(columns), wide):
            images = columns[left : left + wide]
            for rows in texts:
                fits = int(room // (row_bytes * max(int(lengths[rows[0]]), 1)))
                high = max(min(fits, options.pairs_per_block // len(images), len(rows)), 1)
                blocks += [Block(rows[top : top + high], images) for top in range(0, len(rows), high)]
    return blocks


def score_matrix(
    scorer: PairScorer,
    texts: Sequence[np.ndarray],
    pixels: Pixels,
    *,
    options: ScoringOptions = DEFAULTS,
    directory: str | Path | None = None,
    signature: str = "",
    share: Share = ALONE,
    progress: Progress | None = None,
) -> np.ndarray:
    """The scores of all pairs, float32 ``[N, M]``.

    Args:
        scorer: of ``options.precision``.
        texts: the word pieces of each, int64 ``[T]``, not padded.
        directory: where finished blocks are kept, and in the end the matrix, then mapped into memory;
            None: in memory only, by a single process.
        signature: of weights and images. A directory of other scores is refused.
        progress: called with (pairs done, pairs) of this process's share, a text that is there twice once.

    Raises:
        UserError: the directory holds other scores, or its disk has not room for them.
        ValueError: several processes without a directory.
    """
    if directory is None and share.world > 1:
        raise ValueError("several processes meet in a directory: give one")
    lengths = np.array([len(one) for one in texts], dtype=np.int64)
    row_bytes = 4 * scorer.width * scorer.dtype.itemsize
    first = _first_of_each(texts)
    own = np.flatnonzero(first == np.arange(len(texts)))
    planned = plan_blocks(lengths[own], pixels.counts, row_bytes, options)
    blocks = [Block(own[block.texts], block.images) for block in planned]
    shape = (len(texts), len(pixels.counts))
    store = None
    if directory is not None:
        store = BlockStore(directory, shape, _signature(signature, texts, pixels.counts, blocks, options))
        found = store.matrix()
        if found is not None:
            share.wait()
            return found
    scores = np.empty(shape, dtype=np.float32) if store is None else None
    mine = range(share.rank, len(blocks), share.world)
    total, done = sum(len(blocks[n].texts) * len(blocks[n].images) for n in mine), 0
    rows = scorer.rows_a_pass(options.memory_megabytes / 2)
    held: tuple[np.ndarray, object] | None = None
    for number in mine:
        block = blocks[number]
        if store is None or not store.finished(number):
            if held is None or held[0] is not block.images:
                held = block.images, scorer.images(pixels.values(block.images))
            ids = torch.from_numpy(np.stack([texts[text] for text in block.texts]))
            found = scorer.scores(scorer.texts(ids), held[1], rows).cpu().numpy()
            if store is None:
                scores[np.ix_(block.texts, block.images)] = found
            else:
                store.keep(number, found)
        done += len(block.texts) * len(block.images)
        if progress is not None:
            progress(done, total)
    if store is None:
        return scores[first]
    share.wait()
    if share.rank == 0:
        store.put_together(blocks, first)
    share.wait()
    return store.matrix()


def _first_of_each(texts: Sequence[np.ndarray]) -> np.ndarray:
    """int64 ``[N]``: the first text with the same word pieces as each."""
    seen: dict[bytes, int] = {}
    pieces = (np.ascontiguousarray(ids, dtype=np.int64).tobytes() for ids in texts)
    return np.array([seen.setdefault(own, number) for number, own in enumerate(pieces)], dtype=np.int64)


def _alike(numbers: np.ndarray) -> list[np.ndarray]:
    """The places of each number among `numbers`, ascending."""
    order = np.argsort(numbers, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1) if len(order) else []


def _signature(
    given: str, texts: Sequence[np.ndarray], counts: np.ndarray, blocks: list[Block], options: ScoringOptions
) -> str:
    found = hashlib.sha256(f"{given} {options.precision} {len(blocks)}".encode())
    for ids in texts:
        found.update(np.ascontiguousarray(ids, dtype=np.int64).tobytes() + b";")
    found.update(np.ascontiguousarray(counts, dtype=np.int64).tobytes())
    for block in blocks:
        found.update(f"{len(block.texts)} {len(block.images)};".encode())
    return found.hexdigest()
