"""Recipes, overrides, predictions and recorded sizes at random, and what reading them may come to."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import numpy as np
import yaml
from hypothesis import strategies as st

from pixelbert_fast.data.sizes import plan_sizes
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.vqa.prediction_file import read_predictions
from pixelbert_fast.training.recipes import as_yaml, load_config, recipe_names
from tests.fuzzed_cases import WORKED, Target, sentence
from tests.fuzzed_files import Mutated, dumped, mutated_file, mutated_tree
from tests.fuzzed_inputs import any_text

_RECIPES = {
    name: (resources.files("pixelbert_fast") / "configs" / f"{name}.yaml").read_bytes()
    for name in recipe_names()
}
_YAML = st.sampled_from([
    "&a [*a]", "&a {b: *a}", "? [a, b]\n: c", "? {a: b}\n: c",
    "!!python/object/apply:os.system ['true']", "!!binary x", "!!binary aGFsbG8=", "2024-99-99",
    "2024-01-01", "!!int 'a'", "!!float ''", "!!set {a, b}", "!!omap [a: b]", "!!timestamp x", "0b",
    "0x", "1:99:99", "9" * 5000, "0o8", "1e400", ".inf", ".nan", "-.nan", "~", "yes", "[" * 1200,
    "{a: " * 1200, "*gone", "<<: 3", "{<<: [1, 2]}", "{<<: {a: 1}}", "\t- a", "a: b: c",
    "--- a\n--- b", "%YAML 9.9\n---\na", "\x00", "\x85", "|\n x", "'", '"\\ud800"', '"\\x"', "@", "`",
    "!", "&", "!<>", "!!", "? ", "- - - -", "[a: b]", "!!bool x", "!!null x", "!!str [a]", "!!map [a]",
    "!!seq {a: b}", "!!pairs [a: b]", "{1: 2, true: 3, null: 4, 1.5: 6}", "=", "{=: a}",
])  # fmt: skip
_KEYS = st.sampled_from([
    "training.epochs", "training.steps", "training.images_per_batch", "data.directory", "data.build",
    "data.sets", "data.batching", "model.overrides", "model.preset", "task", "output",
    "evaluation.splits", "schedule", "optimizer", "optimizer.backbone.lr", "tokenizer", "deepspeed",
    "base", "", ".", "a..b", "output.x", "seed", "trainin.epoch", "data.sets.0.directory",
    "logging.wandb", "start.checkpoint", "objectives", "vqa", "retrieval.cache", "nlvr2", "x" * 9000,
])  # fmt: skip


@st.composite
def recipes(draw) -> Mutated:
    """A recipe of the package's, its tree or its bytes mutated, or a value of YAML's own kind laid in."""
    content = _RECIPES[draw(st.sampled_from(sorted(_RECIPES)))]
    kind = draw(st.integers(0, 2))
    if kind == 0:
        return draw(mutated_file(content))
    tree = yaml.safe_load(content)
    if kind == 1:  # JSON is YAML
        return draw(mutated_tree(tree, dumped))
    key = draw(st.sampled_from([*tree, "output", "model", "data", "training"]))
    return Mutated(content + f"\n{key}: {draw(_YAML)}\n".encode(), None, [f"YAML at {key}"])


overrides = st.lists(
    st.one_of(
        st.tuples(_KEYS, st.one_of(_YAML, any_text)).map("=".join),
        st.tuples(any_text, any_text).map("=".join),
        any_text,
    ),
    max_size=3,
)


def judge_recipe(case: tuple[Mutated, list[str]], folder: Path) -> str:
    """A configuration that, written down, is read as the same, or a user error."""
    recipe, changes = case
    path = folder / "recipe.yaml"
    path.write_bytes(recipe.content)
    try:
        config = load_config(path, changes)
    except UserError as error:
        return sentence(error)
    path.write_text(as_yaml(config), encoding="utf-8")
    again = load_config(path)
    assert as_yaml(again) == as_yaml(config)  # as text, where NaN equals itself
    json.dumps(config.model_dump(mode="json"))
    return WORKED


_PREDICTIONS = [{"question_id": number, "answer": f"{number} dogs"} for number in range(4)]


def judge_predictions(case: Mutated, folder: Path) -> str:
    path = folder / "predictions.json"
    path.write_bytes(case.content)
    try:
        found = read_predictions(path)
    except UserError as error:
        return sentence(error)
    assert all(isinstance(number, int) and isinstance(answer, str) for number, answer in found.items())
    return WORKED


sides = st.one_of(st.integers(1, 3000), st.sampled_from([0, -1, 1, 2**31 - 1, 89_478_485]))
plans = st.tuples(
    st.lists(st.tuples(sides, sides), max_size=30),
    st.fixed_dictionaries(
        {"short_side": st.sampled_from([1, 32, 64, 800]), "long_side": st.sampled_from([32, 64, 1333, 4000])},
        optional={
            "divisor": st.sampled_from([1, 2, 7, 32, 2000]),
            "buckets": st.integers(-1, 9),
            "aspect_change": st.sampled_from([0, 0.08, 0.5, 1, -1, float("nan")]),
            "fewest": st.integers(1, 9),
            "least_side": st.sampled_from([1, 9, 33]),
        },
    ),
)


def judge_plan(case: tuple[list, dict], folder: Path) -> str:
    """Every image has a size within its bucket and no side below the least, or a user error."""
    recorded, options = case
    sizes = np.array(recorded, dtype=np.int64).reshape(-1, 2)
    try:
        plan = plan_sizes(sizes[:, 0], sizes[:, 1], **options)
    except UserError as error:
        return sentence(error)
    held = plan.buckets[plan.bucket] if len(sizes) else plan.size
    assert len(plan.size) == len(plan.group) == len(sizes)
    assert (plan.size <= held).all() and (plan.size >= options.get("least_side", 1)).all()
    assert len(plan.buckets) <= max(options.get("buckets", 8), 1)
    assert "batches" in plan.described()
    return WORKED


TARGETS = [
    Target(
        "read a recipe",
        "a YAML file and words of a command line",
        st.tuples(recipes(), overrides),
        judge_recipe,
    ),
    Target("read predictions", "a JSON file", mutated_tree(_PREDICTIONS), judge_predictions),
    Target("plan sizes", "recorded sizes and options", plans, judge_plan),
]
