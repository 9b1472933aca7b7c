"""Recipes and overrides: what is read, and the one sentence for each mistake."""

from __future__ import annotations

import pytest

from pixelbert_fast.errors import UserError
from pixelbert_fast.training.recipes import load_config, recipe_names

STEPS = ["training.steps=3"]


def recipe(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def complaint(*arguments) -> str:
    with pytest.raises(UserError) as caught:
        load_config(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_of_the_package_is_valid_and_writes_under_runs(name):
    assert load_config(name).output.startswith("runs/")


def test_without_arguments_the_demo_is_meant():
    assert load_config() == load_config("demo")
    assert load_config().start.checkpoint_recipe in recipe_names()


def test_defaults_are_the_papers(tmp_path):
    config = load_config(recipe(tmp_path, "training: {steps: 3}"))
    assert config.output == "runs/mine"
    assert (config.optimizer.backbone.algorithm, config.optimizer.backbone.lr) == ("sgd", 1e-2)
    assert (config.optimizer.transformer.algorithm, config.optimizer.transformer.lr) == ("adamw", 1e-4)
    assert config.optimizer.backbone.weight_decay == 5e-4
    assert config.objectives.mlm_probability == 0.15


def test_overrides_are_yaml_and_the_last_one_wins(tmp_path):
    config = load_config(
        recipe(tmp_path, "training: {steps: 3}\noptimizer: {clip_norm: 5}"),
        [
            "optimizer.backbone.lr=3e-4",
            "optimizer.clip_norm=null",
            "schedule.milestones=[1, 2.5]",
            "model.overrides.layer_norm_eps=1e-9",
            "objectives.itm=false",
            "training.steps=4",
            "training.steps=5",
        ],
    )
    assert config.optimizer.backbone.lr == 3e-4
    assert config.optimizer.clip_norm is None
    assert config.schedule.milestones == (1, 2.5)
    assert config.model.overrides == {"layer_norm_eps": 1e-9}
    assert config.objectives.itm is False
    assert config.training.steps == 5


def test_a_builder_takes_any_option(tmp_path):
    config = load_config(recipe(tmp_path, "data: {build: {name: scenes, images: 7}}"), STEPS)
    assert config.data.build.options() == {"images": 7}


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("optimizer.backbone.lrr=1", "'optimizer.backbone.lr'"),
        ("optimiser.backbone.lr=1", "'optimizer'"),
        ("momentum=0.5", "'optimizer.backbone.momentum'"),
        ("training.epoch=3", "'training.epochs'"),
    ],
)
def test_an_unknown_key_names_the_nearest_right_one(tmp_path, override, named):
    message = complaint(recipe(tmp_path, ""), [*STEPS, override])
    assert "the command line" in message
    assert message.endswith(f"did you mean {named}?")
    assert override.split("=")[0].split(".")[0] in message


def test_an_unknown_key_of_the_file_names_the_file(tmp_path):
    path = recipe(tmp_path, "training: {stepz: 3, steps: 3}")
    message = complaint(path)
    assert "'training.stepz'" in message
    assert str(path) in message
    assert "'training.steps'" in message


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.images_per_batch=many", ["training.images_per_batch = 'many'", "integer"]),
        ("training.images_per_batch=0", ["training.images_per_batch = 0", "greater than or equal to 1"]),
        ("objectives.mlm_probability=1.5", ["objectives.mlm_probability", "less than or equal to 1"]),
        ("optimizer.backbone.algorithm=lion", ["'lion'", "'sgd'", "'adamw'"]),
        ("training.zero_stage=4", ["training.zero_stage = 4", "0, 1, 2 or 3"]),
        ("training.epochs=2", ["training.epochs or training.steps must be null", "both are given"]),
        ("data.batching.pixels=0", ["data.batching.pixels = 0", "greater than or equal to 1"]),
        ("data.batching.aspect_change=1", ["data.batching.aspect_change = 1", "less than 1"]),
        ("data.sets=[{directory: a, weight: -1}]", ["data.sets.0.weight = -1", "greater than or equal to 0"]),
        ("data.sets=[{directory: a, weight: 0}]", ["names no set with a weight above 0"]),
        ("data.sets=[]", ["names no set with a weight above 0"]),
        ("data.sets=[{directory: a}, {directory: ./a}]", ["one directory twice"]),
        ("data={sets: [{directory: a}], build: {name: scenes}}", ["give one of them"]),
        ("task=vqb", ["task = 'vqb'", "'pretrain'"]),
    ],
)
def test_a_wrong_value_is_told_in_a_sentence(tmp_path, override, words):
    message = complaint(recipe(tmp_path, "training: {steps: 3}"), [override])
    for word in words:
        assert word in message


def test_two_backbones_contradict(tmp_path):
    message = complaint(recipe(tmp_path, "start: {backbone: a.pt, backbone_recipe: demo_objects}"), STEPS)
    assert "not both" in message


def test_a_length_must_be_given(tmp_path):
    assert "give either training.epochs or training.steps" in complaint(recipe(tmp_path, "seed: 1"))


@pytest.mark.parametrize("text", ["a: [1", "a: 1\na: 2", "- 1"])
def test_a_file_that_is_no_recipe_is_named(tmp_path, text):
    path = recipe(tmp_path, text)
    assert str(path) in complaint(path)


def test_a_recipe_that_is_not_there_is_told_with_the_nearest():
    assert complaint("dmo").endswith("did you mean 'demo'?")
    assert "demo_objects" in complaint("/nowhere/zzz.yaml")


@pytest.mark.parametrize("override", ["training.steps", "=3", "a..b=1", "seed.deep=1"])
def test_an_override_must_be_a_path_and_a_value(tmp_path, override):
    assert override.split("=")[0].split(".")[0] in complaint(recipe(tmp_path, "seed: 1"), [*STEPS, override])
