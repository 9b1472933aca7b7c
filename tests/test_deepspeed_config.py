"""The dictionary that DeepSpeed gets: made from our configuration alone, and what may be laid over it."""

from __future__ import annotations

import pytest

from pixelbert_fast.errors import UserError
from pixelbert_fast.training.config import RunConfig
from pixelbert_fast.training.deepspeed_config import _OURS, DeepSpeedOptions
from pixelbert_fast.training.recipes import load_config


def options(block=None, **training) -> DeepSpeedOptions:
    return DeepSpeedOptions.of(RunConfig(training={"steps": 1, **training}, deepspeed=block or {}))


def test_everything_is_said_in_one_place():
    made = options(images_per_batch=3, accumulation=4, precision="fp16", zero_stage=2).dictionary(1000)
    assert made["train_micro_batch_size_per_gpu"] == 3
    assert made["gradient_accumulation_steps"] == 4
    assert made["gradient_clipping"] == 10.0
    assert made["zero_optimization"] == {
        "stage": 2,
        "reduce_bucket_size": 1000,
        "contiguous_gradients": True,
    }
    assert made["torch_autocast"]["enabled"] and made["torch_autocast"]["dtype"] == "float16"
    assert "train_batch_size" not in made and "fp16" not in made and "bf16" not in made


def test_what_zero_offers_comes_from_the_configuration():
    made = options(
        zero_stage=3,
        offload_optimizer=True,
        overlap_comm=False,
        reduce_bucket_size=77,
        contiguous_gradients=False,
    ).dictionary(10**9)
    zero = made["zero_optimization"]
    assert zero["offload_optimizer"]["device"] == "cpu"
    assert (zero["overlap_comm"], zero["reduce_bucket_size"], zero["contiguous_gradients"]) == (
        False,
        77,
        False,
    )
    assert options(zero_stage=1).dictionary(10**9)["zero_optimization"]["reduce_bucket_size"] == 25_000_000


def test_at_stage_0_the_engine_clips_and_not_deepspeed():
    assert options().dictionary(1)["gradient_clipping"] == 0.0
    unclipped = RunConfig(training={"steps": 1, "zero_stage": 1}, optimizer={"clip_norm": None})
    # Left out, it would be 1.0.
    assert DeepSpeedOptions.of(unclipped).dictionary(1)["gradient_clipping"] == 0.0


def test_an_experts_block_is_laid_over_the_rest():
    block = {"zero_optimization": {"allgather_bucket_size": 5}, "wall_clock_breakdown": True}
    made = options(block, zero_stage=2).dictionary(10)
    assert made["zero_optimization"]["allgather_bucket_size"] == 5
    assert made["zero_optimization"]["stage"] == 2
    assert made["wall_clock_breakdown"] is True


@pytest.mark.parametrize("key", sorted(_OURS))
def test_a_block_that_says_what_ours_says_is_refused_by_name(key):
    *sections, last = key.split(".")
    block = {last: 1}
    for section in sections:
        block = {section: block}
    with pytest.raises(ValueError, match=f"deepspeed.{key} ".replace(".", r"\.")):
        options(block, zero_stage=2)


def test_the_refusal_reaches_the_user_as_one_sentence(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("training: {steps: 1}\ndeepspeed: {train_batch_size: 8, bf16: {enabled: true}}")
    with pytest.raises(UserError) as caught:
        load_config(str(recipe), [])
    told = str(caught.value)
    assert "deepspeed.train_batch_size (set training.images_per_batch and training.accumulation)" in told
    assert "deepspeed.bf16 (set training.precision=bf16)" in told
    assert len(told.splitlines()) == 1


def test_offload_needs_something_to_offload():
    with pytest.raises(ValueError, match=r"needs training\.zero_stage=1, 2 or 3"):
        options(offload_optimizer=True)
