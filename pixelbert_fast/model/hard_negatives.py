"""Which wrong pairs a retrieval model learns from: the few that it takes for right the most."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def hardest_of(scores: Tensor, groups: Tensor, count: int) -> Tensor:
    """``[G, 1 + min(count, C - 1)]``: of each group its first and the `count` others with the highest scores.

    Args:
        scores: ``[S]``.
        groups: ``[G, C]`` int64, sequences by number, -1 for none, which comes last. Of equal scores the
            earlier comes first.
    """
    others = groups[:, 1:]
    lowest = torch.finfo(scores.dtype).min
    of_others = scores[others.clamp(min=0)].masked_fill(others < 0, lowest)
    order = of_others.sort(dim=1, descending=True, stable=True).indices[:, :count]
    return torch.cat([groups[:, :1], others.gather(1, order)], dim=1)


def renumbered(groups: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(numbers ``[S']`` ascending of the sequences that `groups` name, `groups` by their places among them).

    Args:
        count: how many sequences there are.
    """
    named = torch.zeros(count, dtype=torch.bool, device=groups.device)
    named[groups[groups >= 0]] = True
    place = named.cumsum(0) - 1
    return named.nonzero()[:, 0], torch.where(groups < 0, -1, place[groups.clamp(min=0)])


@contextmanager
def without_dropout(pixelbert: nn.Module) -> Iterator[None]:
    """Evaluation mode of what follows the pixels' tokens; the backbone, and which pixels are read, as before.

    Gradient checkpointing does nothing meanwhile.
    """
    parts = [one for part in (pixelbert.embeddings, pixelbert.encoder, pixelbert.pooler)
             for one in part.modules()]  # fmt: skip
    training = [one.training for one in parts]
    try:
        for one in parts:
            one.training = False
        yield
    finally:
        for one, before in zip(parts, training, strict=True):
            one.training = before
