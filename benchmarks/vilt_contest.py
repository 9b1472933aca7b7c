"""transformers' ViLT-B/32 as a contestant, with weights of no meaning: it reads pixels without a backbone."""

from __future__ import annotations

import torch
from model_contests import QUESTION, Case, batch
from torch import Tensor, nn

NAME = "ViLT-B/32"
PAPERS_SIZE = (384, 512)


# Of ViLT's own training, as of BERT's: transformers' configuration is of one that only reads.
DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}


def configuration(preset: str):
    """ViLT-B/32's; beside the preset "tiny" a small one, whose figures mean nothing."""
    from transformers import ViltConfig

    if preset != "tiny":
        return ViltConfig(**DROPOUT)
    small = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2}
    return ViltConfig(**small, **DROPOUT)


def reader(dtype: str, device: str, preset: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """The model and one pair for it, at its paper's size."""
    from transformers import ViltModel

    torch.manual_seed(0)
    model = ViltModel(configuration(preset)).to(device, getattr(torch, dtype)).eval()
    words = torch.tensor(QUESTION)[None]
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, *PAPERS_SIZE, generator=generator).to(getattr(torch, dtype))
    return model, {"input_ids": words.to(device), "pixel_values": image.to(device)}


def learner(case: Case, size: tuple[int, int]) -> tuple[nn.Module, dict[str, Tensor]]:
    """The model with its loss of masked words, and the pairs of `case` for it.

    Beside each text an image of `size`: it has no way to read one image with several texts.
    """
    from transformers import ViltForMaskedLM

    given = batch(case)
    torch.manual_seed(0)
    model = ViltForMaskedLM(configuration(case.preset)).to(case.device, getattr(torch, case.dtype))
    images = torch.randn(case.images, 3, *size, generator=torch.Generator().manual_seed(0))
    images = images.to(case.device, getattr(torch, case.dtype))
    return model, {
        "input_ids": given["input_ids"],
        "attention_mask": given["attention_mask"],
        "labels": given["labels"],
        "pixel_values": images[given["image_index"]],
    }
