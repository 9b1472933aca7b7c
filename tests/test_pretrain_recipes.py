"""The recipes of the paper: its figures, what they say where something is missing, a run of their shape."""

from __future__ import annotations

import json

import pytest
import torch

from pixelbert_fast import PixelBertConfig
from pixelbert_fast.data.build import build_set, make_builder
from pixelbert_fast.errors import UserError
from pixelbert_fast.model.backbone import ResNet
from pixelbert_fast.tasks import make_task
from pixelbert_fast.training.ranks import Ranks
from pixelbert_fast.training.recipes import load_config
from pixelbert_fast.training.run import run


@pytest.mark.parametrize("name", ["pretrain_r50", "pretrain_x152"])
def test_the_figures_are_the_papers(name):
    config = load_config(name)
    sides = {"pretrain_r50": (800, 1333), "pretrain_x152": (600, 1000)}[name]
    assert (config.data.short_side, config.data.long_side) == sides
    assert config.model.overrides["sampled_pixels"] == 100
    assert (config.training.epochs, config.schedule.milestones, config.schedule.gamma) == (40, (25, 35), 0.1)
    backbone, transformer = config.optimizer.backbone, config.optimizer.transformer
    assert (backbone.algorithm, backbone.lr, backbone.weight_decay, backbone.momentum) == (
        "sgd",
        1e-2,
        5e-4,
        0.9,
    )
    assert (transformer.algorithm, transformer.lr, transformer.weight_decay) == ("adamw", 1e-4, 1e-2)
    assert (config.schedule.warmup_steps, config.schedule.warmup_start) == (1000, pytest.approx(1 / 3))
    assert config.optimizer.clip_norm == 10
    assert config.training.pairs_per_step == 4096
    assert (config.objectives.mlm_probability, config.data.mismatched_share) == (0.15, 0.5)
    assert [one.directory for one in config.data.sets] == ["data/coco", "data/visual-genome"]


@pytest.mark.parametrize("name", ["pretrain_r50", "pretrain_x152_80gb"])
def test_missing_data_names_the_command_that_builds_it(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        make_task(load_config(name))
    command = "`pixelbert data build coco --images coco --annotations dataset_coco.json --out data/coco`"
    assert str(caught.value) == f"there is no data set at data/coco: build it with {command}"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Two sets of scenes where the recipes expect theirs, and the overrides that make the rest small."""
    folder = tmp_path_factory.mktemp("small")
    for name, seed in (("coco", 0), ("visual-genome", 1)):
        build_set(make_builder("scenes", images=80, seed=seed, size=64), folder / "data" / name, workers=1)
    overrides = {
        "model.preset": "tiny",
        "model.overrides.sampled_pixels": 8,
        "model.overrides.backbone_channels": 8,
        "data.short_side": 64,
        "data.long_side": 96,
        "start.bert": "null",
        "tokenizer.size": 200,
        "training.epochs": "null",
        "training.steps": 3,
        "training.images_per_batch": 2,
        "training.pairs_per_step": 16,
        "training.precision": "fp32",
        "evaluation.images": 10,
    }
    return folder, [f"{key}={value}" for key, value in overrides.items()]


def backbone(folder, name, *, trained):
    made = ResNet(PixelBertConfig.preset("tiny", backbone_channels=8)).train()
    if trained:
        made(torch.randn(2, 3, 64, 64))
    torch.save(made.state_dict(), folder / name)
    return f"start.backbone={name}"


def test_a_run_of_the_recipes_shape_trains(small, tmp_path, monkeypatch):
    folder, overrides = small
    monkeypatch.chdir(folder)
    start = backbone(folder, "trained.pth", trained=True)
    config = load_config("pretrain_r50", [*overrides, start, f"output={tmp_path / 'run'}"])
    before = torch.load(folder / "trained.pth", weights_only=True)["layer1.0.conv1.weight"]
    result = run(config, Ranks(), "plain")
    assert result.metrics["steps"] == 3
    # Two passes of two images with four texts each make the sixteen pairs; a pair may be left out.
    assert 3 * 16 * 0.75 <= result.metrics["pairs"] <= 3 * 16
    assert set(result.metrics["metrics"]) == {"coco/val", "visual-genome/val"}
    written = json.loads((tmp_path / "run" / "run.json").read_text())["config"]["training"]
    assert (written["pairs_per_step"], written["accumulation"]) == (16, 1), "what the user wrote is kept"
    from pixelbert_fast import PixelBertForPreTraining

    trained = PixelBertForPreTraining.from_pretrained(result.metrics["checkpoint"])
    assert not torch.equal(trained.pixelbert.backbone.layer1[0].conv1.weight, before)
    assert trained.config.norm == "frozen"
    # The same configuration shows the finished run again: what was resolved makes no difference.
    assert run(config, Ranks(), "plain").before


def test_a_start_without_training_is_refused(small, monkeypatch):
    folder, overrides = small
    monkeypatch.chdir(folder)
    start = backbone(folder, "new.pth", trained=False)
    with pytest.raises(UserError, match=r"new\.pth was never trained"):
        make_task(load_config("pretrain_x152", [*overrides, start]))
    with pytest.raises(UserError, match=r"weights weights/resnext152_32x4d\.pth are missing"):
        make_task(load_config("pretrain_x152", overrides))
