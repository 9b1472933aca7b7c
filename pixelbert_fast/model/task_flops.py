"""What the downstream tasks need beyond the encoder: their heads, and retrieval's two passes over groups."""

from __future__ import annotations

from typing import Literal

from .config import PixelBertConfig
from .flops import Lengths, forward_flops, training_flops
from .heads import ALL_HEADS

Kept = Literal["none", "c5", "embeddings"]
"""What of the images was computed before: nothing, the backbone's maps, or the pixels' tokens."""


def head_flops(head: str, config: PixelBertConfig, count: int) -> int:
    """Of a forward of a downstream task's head, by its name in its model.

    Args:
        head: ``answer_head``, ``pair_head`` or ``score_head``.
        count: of the questions, statements or pairs.

    Raises:
        KeyError: another head.
    """
    hidden = config.hidden_size
    each = {
        "answer_head": hidden * 2 * hidden + 2 * hidden * config.num_labels,
        "pair_head": 2 * hidden * 2 * hidden + 2 * hidden * 2,
        "score_head": hidden,
    }
    return 2 * count * each[head]


def retrieval_flops(
    config: PixelBertConfig,
    *,
    image_size: tuple[int, int],
    images: int,
    image_pixels: Lengths,
    sequences: int,
    text_length: Lengths,
    pixels: Lengths,
    learnt: int,
    learnt_text_length: int,
    learnt_pixels: int,
    kept: Kept = "none",
    frozen: bool = True,
    hardest: bool = True,
    fast: bool = False,
) -> dict[str, int]:
    """What one forward and backward of `PixelBertForImageTextRetrieval` over groups of texts takes, by part.

    Args:
        config, image_size, images, fast: as `flops.forward_flops`.
        image_pixels: of each image.
        sequences, text_length, pixels: of all pairs of text and image, as `flops.forward_flops`.
        learnt: how many of them are learnt from, `learnt_text_length` and `learnt_pixels` long each.
        frozen: the backbone is; projection and type vector are too where the pixels' tokens are kept.
        hardest: those that are learnt from are found by a pass without gradients over all; False: all are
            learnt from, in one pass.
    """
    given = {"image_size": image_size, "fast": fast}
    none = {"text_length": 0, "pixels": 0}
    # Tokens made for two passes, or kept, are made once an image; else each sequence asks for its own.
    once = hardest or kept != "none"
    asked = {"sequences": images if once else sequences, "pixels": image_pixels if once else pixels}
    made = forward_flops(config, **given, images=images, text_length=0, **asked)["projection"]
    count = forward_flops if frozen else training_flops
    every = {"sequences": sequences, "text_length": text_length, "pixels": pixels}
    some = {"sequences": learnt, "text_length": learnt_text_length, "pixels": learnt_pixels}
    second = training_flops(config, **given, images=0, **(some if hardest else every))
    first = forward_flops(config, **given, images=0, **every) if hardest else dict.fromkeys(second, 0)
    gradients = 1 if frozen or config.frozen_stages == 4 else 2
    found = {part: first[part] + second[part] for part in second if part not in ALL_HEADS}
    found["backbone"] = 0
    if kept == "none":
        found["backbone"] = count(config, **given, images=images, sequences=0, **none)["backbone"]
    found["projection"] = 0 if kept == "embeddings" else made * (1 + gradients)
    scored = 3 * (learnt if hardest else sequences) + (sequences if hardest else 0)
    found["score_head"] = head_flops("score_head", config, scored)
    return found
