"""A backbone with a classifier for each attribute of the one object it sees."""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelbert_fast.tasks.objects.batches import UNKNOWN, ObjectBatches


class ObjectNaming(nn.Module):
    """Linear classifiers on the maximum of the backbone's last map over its places.

    The maximum makes single places tell what they see, and single places are what Pixel-BERT reads; it also
    learns faster here than the mean (docs/results/pretrain-scenes.md).

    backbone: `backbone(pixel_values, pixel_size)` -> `[B, C, h, w]`, with `out_channels`.
    attributes: the values of each attribute.
    """

    def __init__(self, backbone: nn.Module, attributes: Mapping[str, Sequence[str]]):
        super().__init__()
        self.backbone = backbone
        self.attributes = {name: list(values) for name, values in attributes.items()}
        # Attribute names are a set's own and need not be names of modules.
        self.heads = nn.ModuleList(nn.Linear(backbone.out_channels, len(v)) for v in self.attributes.values())

    def forward(self, pixel_values: Tensor, pixel_size: Tensor | None = None) -> list[Tensor]:
        """Logits of each attribute, `[B, classes]`, of `[B, 3, H, W]` images of true size `[B, 2]`."""
        if pixel_size is not None and bool(
            (pixel_size == pixel_size.new_tensor(pixel_values.shape[2:])).all()
        ):
            pixel_size = None
        # The map is at least 0 everywhere and 0 in the padding, so the padding never is the maximum.
        pooled = self.backbone(pixel_values, pixel_size).amax(dim=(2, 3))
        return [head(pooled) for head in self.heads]


def naming_loss(logits: Sequence[Tensor], targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum over attributes of the mean cross-entropy, and {"accuracy": the share named right}.

    targets: int64 `[B, A]`, -100 where unknown; an attribute unknown in the whole batch counts 0.
    """
    losses = [
        F.cross_entropy(one.float(), target, ignore_index=UNKNOWN, reduction="sum")
        / (target != UNKNOWN).sum().clamp(min=1)
        for one, target in zip(logits, targets.unbind(dim=1), strict=True)
    ]
    with torch.no_grad():
        right = _right(logits, targets).sum() / (targets != UNKNOWN).sum().clamp(min=1)
    return torch.stack(losses).sum(), {"accuracy": right}


@torch.no_grad()
def evaluate_naming(
    model: nn.Module,
    batches: ObjectBatches,
    limit: int | None = None,
    images_per_pass: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Accuracy of each attribute in eval mode on the first `limit` images; training mode is put back.

    Returns {"images": ..., "accuracy": {attribute: share, None where it is never known}}.
    """
    device = next(model.parameters()).device
    images = len(batches) if limit is None else min(limit, len(batches))
    training, right, known = model.training, 0, 0
    model.eval()
    try:
        for start in range(0, images, images_per_pass):
            batch = batches.of(range(start, min(start + images_per_pass, images)))
            batch = {name: value.to(device) for name, value in batch.items()}
            logits = model(batch["pixel_values"], batch["pixel_size"])
            right = right + _right(logits, batch["targets"]).sum(dim=0)
            known = known + (batch["targets"] != UNKNOWN).sum(dim=0)
            if progress is not None:
                progress(min(start + images_per_pass, images), images)
    finally:
        model.train(training)
    shares = [r / k if k else None for r, k in zip(right.tolist(), known.tolist(), strict=True)]
    return {"images": images, "accuracy": dict(zip(model.attributes, shares, strict=True))}


def _right(logits: Sequence[Tensor], targets: Tensor) -> Tensor:
    """bool `[B, A]`: where the likeliest class is the target; an unknown target, -100, never is."""
    return torch.stack([one.argmax(dim=1) for one in logits], dim=1) == targets
