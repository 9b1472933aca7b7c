"""The contracts in which data and model meet: what a batch holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, NotRequired, TypedDict

if TYPE_CHECKING:
    from torch import Tensor


class PretrainingBatch(TypedDict):
    """S sequences that read B images. All tensors are on the CPU when a task hands the batch over.

    A sequence is one caption beside one image; several sequences share an image, and with it one
    pass through the backbone.
    """

    pixel_values: Tensor
    """``[B, 3, H, W]`` float32, normalised, padded with zeros on the right and at the bottom."""
    pixel_size: NotRequired[Tensor]
    """``[B, 2]`` int32, each image's own height and width inside the padded batch. Absent where batches are
    made of one size (`data.batching`) and no image of this one is padded: the model need not ask then."""
    image_index: Tensor
    """``[S]`` int32, the image that each sequence reads."""
    input_ids: Tensor
    """``[S, T]`` int64 word pieces, some replaced for masked language modelling."""
    attention_mask: Tensor
    """``[S, T]`` int64, 1 for a word piece and 0 for padding."""
    labels: Tensor
    """``[S, T]`` int64, the original word piece where one is to be predicted, else -100."""
    matched: Tensor
    """``[S]`` int64, 1 when the caption belongs to the image, 0 when it was drawn from another."""
    sample_keys: Tensor
    """``[S]`` int64, what identifies each draw of pixels (epoch and sample number)."""
    rows: Tensor
    """``[B]`` int64, which images they are: for a task to name them; no model reads it."""


class PairBatch(TypedDict):
    """P statements about pairs among B images; an image passes the backbone once, whatever reads it."""

    pixel_values: Tensor
    """As of a `PretrainingBatch`."""
    pixel_size: NotRequired[Tensor]
    """As of a `PretrainingBatch`."""
    image_index: Tensor
    """``[P, 2]`` int32, the left and the right image of each statement."""
    input_ids: Tensor
    """``[P, T]`` int64 word pieces."""
    attention_mask: Tensor
    """``[P, T]`` int64, 1 for a word piece and 0 for padding."""
    labels: Tensor
    """``[P]`` int64, 1 where the statement is true of the pair, 0 where it is not, -100 where unknown."""
    sample_keys: Tensor
    """``[P, 2]`` int64, what identifies each draw of pixels (epoch, statement and side)."""
    rows: Tensor
    """``[B]`` int64, as of a `PretrainingBatch`."""
