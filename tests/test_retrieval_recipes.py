"""The recipes of retrieval: the paper's figures, and what goes with what."""

from __future__ import annotations

import pytest

from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks import make_task
from pixelbert_fast.training.accumulation import with_accumulation
from pixelbert_fast.training.recipes import load_config

SIDES = {"r50": (800, 1333), "x152": (600, 1000)}


@pytest.mark.parametrize("backbone", ["r50", "x152"])
@pytest.mark.parametrize(("data", "epochs", "milestones"), [("flickr30k", 10, (6,)), ("coco", 4, (2,))])
def test_the_figures_are_the_papers(backbone, data, epochs, milestones):
    config = load_config(f"retrieval_{data}_{backbone}")
    assert config.task == "retrieval" and config.data.directory == f"data/{data}"
    assert (config.data.short_side, config.data.long_side) == SIDES[backbone]
    assert config.start.checkpoint == f"runs/pretrain_{backbone}/checkpoint"
    options = config.retrieval
    assert (options.negatives, options.hardest) == (20, 5)
    assert options.freeze_backbone and options.cache == "embeddings"
    transformer = config.optimizer.transformer
    assert (transformer.algorithm, transformer.lr, transformer.weight_decay) == ("adamw", 1e-4, 1e-2)
    assert (config.training.epochs, config.schedule.milestones) == (epochs, milestones)
    # 64 on each of 8 GPUs, on however many there are.
    for world in (1, 8):
        told = with_accumulation(config, world).training
        assert told.accumulation * told.images_per_batch * world == 512


def test_the_small_recipes_start_from_what_pre_training_left():
    for name in ("scenes", "tuxpaint"):
        config = load_config(f"retrieval_{name}")
        assert config.output == f"runs/retrieval_{name}"
        assert config.start.checkpoint.startswith("runs/") and config.start.checkpoint.endswith("/checkpoint")


def test_missing_data_is_said_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no data set at data/coco"):
        make_task(load_config("retrieval_coco_r50"))
