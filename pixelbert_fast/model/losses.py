"""The losses of the task models, each in float32 at least, each a mean that is 0 over nothing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def wide(logits: Tensor) -> Tensor:
    """`logits` in float32 at least: a loss summed in half precision loses small terms."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def answer_loss(logits: Tensor, scores: Tensor) -> Tensor:
    """Binary cross-entropy summed over the answers, its mean over the questions that have scores.

    Args:
        logits: ``[S, A]``.
        scores: ``[S, A]`` soft scores in 0..1; a row with NaN is a question without answers and counts not.
    """
    logits = wide(logits)
    scores = scores.to(logits.dtype)
    known = ~scores.isnan().any(dim=1)
    scores = scores.masked_fill(~known[:, None], 0)
    each = F.binary_cross_entropy_with_logits(logits, scores, reduction="none").sum(dim=1)
    return each.masked_fill(~known, 0).sum() / known.sum().clamp(min=1)


def statement_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of ``[P, 2]`` against ``[P]`` labels, its mean over those that are not -100."""
    total = F.cross_entropy(wide(logits), labels, reduction="sum")
    return total / (labels != -100).sum().clamp(min=1)


def group_loss(scores: Tensor, groups: Tensor) -> Tensor:
    """Softmax cross-entropy of each group's scores, of which the first is right; the mean over the groups.

    Args:
        scores: ``[S]``.
        groups: ``[G, C]`` int64, sequences by number, -1 for none.
    """
    scores = wide(scores)
    within = scores[groups.clamp(min=0)].masked_fill(groups < 0, torch.finfo(scores.dtype).min)
    right = torch.zeros_like(groups[:, 0])
    return F.cross_entropy(within, right, reduction="sum") / max(groups.shape[0], 1)
