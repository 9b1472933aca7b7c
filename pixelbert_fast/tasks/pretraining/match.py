"""Whether captions match an image, as a pre-trained model says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pixelbert_fast.data.processor import PixelBertProcessor
from pixelbert_fast.errors import UserError
from pixelbert_fast.model import PixelBertForPreTraining
from pixelbert_fast.tasks.fine_tuned import warn_of_cut
from pixelbert_fast.tasks.saved_model import checkpoint_folder, open_saved


def match(
    checkpoint: str | Path, image: Any, captions: Sequence[str], *, device: torch.device | str = "cpu"
) -> list[float]:
    """How probable image-text matching holds it to be that each caption belongs to the image.

    Every pixel is read, and the image passes the backbone once.

    Args:
        checkpoint: of a pre-training, or the folder of the run that made it.
        image: as `data.images.to_rgb` takes it.

    Raises:
        UserError: no such checkpoint, or one that has not learnt matching; an image that cannot be read; an
            empty caption.
    """
    if not captions or not all(one.strip() for one in captions):
        raise UserError('a caption is empty: give one, as "a red star above a blue circle"')
    model, processor, learnt = load_pretrained(checkpoint)
    if not learnt:
        raise UserError(
            f"{checkpoint_folder(checkpoint)} has not learnt image-text matching: give the checkpoint of a "
            "pre-training with objectives.itm"
        )
    inputs = processor(images=image, text=list(captions)).to(device)
    warn_of_cut(processor)
    every = torch.zeros(len(captions), dtype=torch.int64, device=device)
    nothing = torch.full_like(inputs["input_ids"], _IGNORED)
    with torch.inference_mode():
        # No word is predicted, so `[CLS]` is all that the last layer computes.
        logits = model.to(device)(**inputs, image_index=every, labels=nothing).itm_logits
    return logits.float().softmax(dim=-1)[:, 1].tolist()


def load_pretrained(checkpoint: str | Path) -> tuple[PixelBertForPreTraining, PixelBertProcessor, bool]:
    """The model in evaluation mode, its processor, and whether it has learnt image-text matching.

    Raises:
        UserError: no such checkpoint, or none of a Pixel-BERT.
    """
    folder = checkpoint_folder(checkpoint)
    model, processor, fresh = open_saved(folder, PixelBertForPreTraining)
    return model, processor, model.config.itm and "itm_head" not in fresh


_IGNORED = -100
