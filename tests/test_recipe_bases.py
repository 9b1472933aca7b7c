"""Recipes that change other recipes, and recipes written back as YAML."""

from __future__ import annotations

import pytest

from pixelbert_fast.errors import UserError
from pixelbert_fast.training.recipes import as_yaml, load_config, recipe_names

BOTTOM = """
output: runs/somewhere
seed: 7
data: {directory: a, build: {name: scenes, images: 9, size: 64}}
schedule: {milestones: [1, 2], gamma: 0.5}
optimizer: {backbone: {lr: 0.5, momentum: 0.8}}
training: {steps: 3}
"""


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


def complaint(*arguments) -> str:
    with pytest.raises(UserError) as caught:
        load_config(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_sections_are_merged_and_everything_else_is_replaced(write):
    write("bottom.yaml", BOTTOM)
    write("middle.yaml", "base: bottom.yaml\noptimizer: {backbone: {lr: 0.25}}\nschedule: {milestones: [4]}")
    top = write(
        "top.yaml", "base: middle.yaml\ntraining: {steps: null, epochs: 2}\ndata: {build: {images: 5}}"
    )
    config = load_config(top, ["seed=8"])
    assert config.optimizer.backbone.lr == 0.25
    assert config.optimizer.backbone.momentum == 0.8
    assert config.schedule.milestones == (4,)
    assert config.schedule.gamma == 0.5
    assert (config.training.steps, config.training.epochs) == (None, 2)
    assert config.data.build.options() == {"images": 5, "size": 64}
    assert config.seed == 8
    assert config.output == "runs/top", "two recipes must not share a folder unless told so"


def test_options_of_another_builder_are_not_inherited(write):
    write("bottom.yaml", BOTTOM)
    top = write("top.yaml", "base: bottom.yaml\ndata: {build: {name: tuxpaint, source: stamps}}")
    assert load_config(top).data.build.options() == {"source": "stamps"}


def test_a_base_is_sought_beside_the_recipe_then_here_then_in_the_package(write, tmp_path, monkeypatch):
    write("deep/beside.yaml", "training: {steps: 1}")
    write("here.yaml", "training: {steps: 2}")
    monkeypatch.chdir(tmp_path)
    assert load_config(write("deep/one.yaml", "base: beside.yaml")).training.steps == 1
    assert load_config(write("deep/two.yaml", "base: here.yaml")).training.steps == 2
    demo = load_config(write("deep/three.yaml", "base: demo\nseed: 3"))
    assert demo == load_config("demo", ["seed=3", "output=runs/three"])


@pytest.mark.parametrize("back", ["a.yaml", "./a.yaml", "deep/../a.yaml"])
def test_recipes_based_on_each_other_are_told_with_the_way(write, back):
    first = write("a.yaml", "base: deep/b.yaml")
    write("deep/b.yaml", f"base: ../{back}")
    message = complaint(first)
    assert str(first) in message
    assert "b.yaml" in message
    assert "based on itself" in message


def test_a_mistake_names_the_file_that_made_it(write):
    bottom = write("bottom.yaml", BOTTOM.replace("lr: 0.5", "lr: fast"))
    top = write("top.yaml", "base: bottom.yaml\nseed: 1")
    assert f"in {bottom} is wrong" in complaint(top)
    write("bottom.yaml", BOTTOM)
    wrong = write("wrong.yaml", "base: bottom.yaml\noptimizer: {backbone: {lrr: 1}}")
    assert f"in {wrong}; did you mean 'optimizer.backbone.lr'?" in complaint(wrong)
    missing = write("missing.yaml", "base: botom.yaml")
    assert f"the base of {missing}" in complaint(missing)
    number = write("number.yaml", "base: 3")
    assert f"base in {number}" in complaint(number)


def test_a_base_is_no_override(write):
    assert "base belongs in a recipe's file" in complaint(write("a.yaml", BOTTOM), ["base=demo"])


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_written_back_loads_again_as_the_same(name, write):
    config = load_config(name)
    assert load_config(write("again.yaml", as_yaml(config))) == config
