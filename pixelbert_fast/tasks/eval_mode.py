"""A model in evaluation mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Puts the model's training mode back at the end. Gradients are the caller's to switch off."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
