"""Weights that a training must not begin with."""

from __future__ import annotations

import pytest
import torch

from pixelbert_fast import PixelBertConfig
from pixelbert_fast.errors import UserError
from pixelbert_fast.model.backbone import ResNet
from pixelbert_fast.model.trained import load_trained_backbone

SMALL = {"backbone_channels": 16, "backbone_depths": [1, 1, 1, 1]}


def backbone(name="resnext152_32x4d", **fields):
    return ResNet(PixelBertConfig(backbone=name, **SMALL, **fields))


def trained(name="resnext152_32x4d"):
    """The state of a backbone that has seen a batch."""
    made = backbone(name).train()
    made(torch.randn(2, 3, 64, 64))
    return made.state_dict()


@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_trained_weights_are_taken_whatever_the_norm(norm, tmp_path):
    torch.save(trained(), tmp_path / "weights.pth")
    into = backbone(norm=norm)
    assert not load_trained_backbone(into, str(tmp_path / "weights.pth")).missing
    assert torch.equal(into.state_dict()["layer4.0.bn3.running_mean"], trained_mean(tmp_path))


def trained_mean(folder):
    return torch.load(folder / "weights.pth", weights_only=True)["layer4.0.bn3.running_mean"]


def test_weights_that_no_training_made_are_refused():
    with pytest.raises(UserError, match="was never trained: every norm of it has mean 0 and variance 1"):
        load_trained_backbone(backbone(), backbone().state_dict())


def test_weights_without_some_of_the_backbone_are_refused():
    state = trained()
    del state["layer3.0.conv2.weight"]
    with pytest.raises(UserError, match=r"lacks 1 tensors .*layer3\.0\.conv2\.weight first"):
        load_trained_backbone(backbone(), state)


def test_weights_that_are_not_finite_are_refused():
    state = trained()
    state["layer2.0.conv1.weight"][0, 0] = float("nan")
    with pytest.raises(UserError, match=r"layer2\.0\.conv1\.weight is not finite"):
        load_trained_backbone(backbone(), state)


def test_another_architecture_is_told_by_its_shapes():
    with pytest.raises(UserError, match=r"has shape .* where this model's"):
        load_trained_backbone(backbone(), trained("resnet50"))


def test_a_missing_file_is_named():
    with pytest.raises(UserError, match=r"weights weights/resnext152_32x4d\.pth are missing"):
        load_trained_backbone(backbone(), "weights/resnext152_32x4d.pth")
