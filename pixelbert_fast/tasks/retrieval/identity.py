"""By what it is known whether stored numbers are of the same weights, architecture and images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from pixelbert_fast.data.decoded import DecodedImages

# Of a model's configuration: what changes no score of an evaluation, or is known by the images themselves.
_WITHOUT_EFFECT = {
    "_name_or_path",
    "architectures",
    "attention_probs_dropout_prob",
    "dtype",
    "frozen_stages",
    "hidden_dropout_prob",
    "id2label",
    "initializer_range",
    "itm",
    "label2id",
    "long_side",
    "mlm",
    "mlm_on_mismatched",
    "output_attentions",
    "output_hidden_states",
    "problem_type",
    "return_dict",
    "sampled_fine_tuning",
    "sampled_pixels",
    "short_side",
    "transformers_version",
}


def pixels_signature(
    model: nn.Module,
    images: DecodedImages,
    rows: Sequence[int] | np.ndarray,
    *,
    blank: bool,
    prefixes: Sequence[str] = ("",),
) -> str:
    """SHA-256, in hex, of all that what a model makes of these images depends on.

    Args:
        blank: whether zeros are shown in their place.
        prefixes: how the names of the weights begin that count.
    """
    settings = {name: value for name, value in model.config.to_dict().items() if name not in _WITHOUT_EFFECT}
    parts = weights_signature(model, prefixes), sorted(settings.items()), blank, images.digest(rows)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def weights_signature(model: nn.Module, prefixes: Sequence[str] = ("",)) -> str:
    """SHA-256 of the weights whose names begin with one of `prefixes`, in hex."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if name.startswith(tuple(prefixes)):
            found.update(f"{name} {value.dtype} {list(value.shape)}".encode())
            flat = value.detach().cpu().contiguous().reshape(-1)
            found.update(memoryview(flat.view(torch.uint8).numpy()))
    return found.hexdigest()
