"""Whether backbone weights come from training at all: what can be told from the weights themselves."""

from __future__ import annotations

import torch
from torch import nn

from ..errors import UserError
from .weights import LoadReport, Source, load_backbone


def load_trained_backbone(backbone: nn.Module, source: Source) -> LoadReport:
    """`weights.load_backbone`, for a training that must not begin with anything else than trained weights.

    Returns:
        as `load_backbone`.

    Raises:
        UserError: as `load_backbone`; or a tensor of the backbone is not in the checkpoint, or not finite, or
            every norm has the statistics that it was made with (mean 0, variance 1): training moves them.
    """
    report = load_backbone(backbone, source)
    if report.missing:
        raise UserError(
            f"{report.source} lacks {len(report.missing)} tensors of the backbone, {report.missing[0]} first:"
            " a training would begin with random ones; give weights of this very architecture"
        )
    state = backbone.state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise UserError(f"{report.source}: {name} is not finite; these weights are of no use")
    if all(bool((mean == 0).all()) for name, mean in state.items() if name.endswith("running_mean")) and all(
        bool((var == 1).all()) for name, var in state.items() if name.endswith("running_var")
    ):
        raise UserError(
            f"{report.source} was never trained: every norm of it has mean 0 and variance 1, as when it was"
            " made; give trained weights"
        )
    return report
