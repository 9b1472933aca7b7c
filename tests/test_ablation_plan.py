"""Which runs an ablation takes: shared, left out, chosen; and what is wrong with one, in a sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pixelbert_fast.errors import UserError
from pixelbert_fast.training.ablation.plan import Plan
from pixelbert_fast.training.ablation.progress import plan_lines
from pixelbert_fast.training.ablation.recipe import load_ablation
from pixelbert_fast.training.recipe_files import ablation_names
from pixelbert_fast.training.recipes import load_config, recipe_names

SMALL = """
seeds: [4, 5]
every: {training: {epochs: null, steps: 10}}
stages:
  objects: {recipe: demo_objects, once: true}
  pretrain: {recipe: bottom.yaml, start: {start.backbone: objects}}
  vqa: {recipe: vqa_scenes, start: {start.checkpoint: pretrain}, change: {training.steps: 7}}
rows:
  - {name: none, leave_out: [pretrain]}
  - {name: few, change: {pretrain: {model: {overrides: {sampled_pixels: 3}}}}}
  - {name: slow, change: {vqa: {optimizer: {transformer: {lr: 1e-5}}}}}
  - {name: same}
  - {name: wide, every: {model.overrides.backbone_channels: 36}}
figures:
  vqa: {stage: vqa, path: metrics.test.accuracy, chance: 10}
readings:
  - {says: few are better, claims: [{better: few, than: same, of: [vqa]}]}
"""


@pytest.fixture
def write(tmp_path):
    def write(text=SMALL, name="mine.yaml"):
        (tmp_path / "bottom.yaml").write_text("base: scenes_long\nstart: {checkpoint_recipe: null}\n")
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


@pytest.fixture
def plan(write):
    return Plan(load_ablation(write(), ["output=out"]))


def test_runs_that_are_the_same_are_one(plan):
    pretrained = {row.name: plan.at(row.name, 4, "pretrain") for row in plan.config.rows}
    assert pretrained["none"] is None
    assert pretrained["slow"] is pretrained["same"]
    assert pretrained["few"] is not pretrained["same"] is not pretrained["wide"]
    assert plan.at("slow", 4, "vqa") is not plan.at("same", 4, "vqa"), "they train otherwise"
    assert plan.at("same", 4, "pretrain") is not plan.at("same", 5, "pretrain")
    assert pretrained["same"].users == [("slow", 4), ("same", 4)]
    objects = [run for run in plan.runs if run.stage == "objects"]
    assert [run.name for run in objects] == ["shared/objects", "shared/objects-wide"]
    assert len({run.name for run in plan.runs}) == len(plan.runs)


def test_each_starts_from_its_own_rows_runs(plan):
    wide = plan.at("wide", 5, "vqa")
    assert wide.config.start.checkpoint == "out/wide/seed-5/pretrain/checkpoint"
    start = plan.at("wide", 5, "pretrain").config.start
    assert start.backbone == "out/shared/objects-wide/checkpoint/backbone.safetensors"
    # Without its pre-training a row is fine-tuned from what that would have started from.
    none = plan.at("none", 5, "vqa").config.start
    assert (none.checkpoint, none.backbone) == (None, "out/shared/objects/checkpoint/backbone.safetensors")


def test_what_is_said_nearer_to_a_run_wins(plan):
    assert plan.at("same", 4, "pretrain").config.training.steps == 10
    assert plan.at("same", 4, "vqa").config.training.steps == 7
    assert plan.at("few", 4, "pretrain").config.model.overrides == {"sampled_pixels": 3}
    assert plan.at("same", 5, "vqa").config.seed == 5
    assert plan.at("same", 5, "objects").config.seed == load_config("demo_objects").seed
    assert {run.config.data.directory for run in plan.runs} == {"data/scenes-30k", "data/scenes-objects"}


def test_every_run_comes_after_those_it_starts_from_and_seed_by_seed(plan):
    for number, run in enumerate(plan.runs):
        assert all(parent in plan.runs[:number] for parent in run.parents)
    seeds = [run.users[0][1] for run in plan.runs if not run.name.startswith("shared/")]
    assert seeds == sorted(seeds)


def test_some_are_chosen_with_what_they_start_from(plan):
    chosen = plan.chosen({"row": ["same"], "seed": ["5"], "stage": ["vqa"]})
    assert [run.name for run in chosen] == ["shared/objects", "slow/seed-5/pretrain", "same/seed-5/vqa"]
    assert plan.chosen({}) == plan.runs


def test_the_plan_is_told_in_lines(plan):
    lines = plan_lines(plan.chosen({"seed": ["4"]}), [4])
    told = " ".join(" ".join(lines).split())
    assert "few/*/pretrain 1 x 10 steps" in told
    assert "slow/*/pretrain 1 x 10 steps to do, for slow, same" in told
    # Objects twice, pre-training of three kinds, fine-tuning of five.
    assert "10 runs, 85 steps, seeds 4; to do: 10 runs, 85 steps" in told


def test_moving_the_folder_or_another_number_of_threads_make_no_other_run(write):
    given = load_ablation(write(), ["output=elsewhere", "every.training.threads=1"])
    one, other = Plan(given), Plan(load_ablation(write()))
    assert [run.described for run in one.runs] == [run.described for run in other.runs]


def test_another_ablation_may_be_its_base(write):
    write()
    rows = (
        "rows: [{name: fifty, change: {pretrain: {model: {overrides: {sampled_pixels: 50}}}}}]\nreadings: []"
    )
    config = load_ablation(write(f"base: mine.yaml\n{rows}", "other.yaml"))
    assert [row.name for row in config.rows] == ["fifty"]
    assert Plan(config).at("fifty", 4, "pretrain").config.model.overrides == {"sampled_pixels": 50}
    assert config.output == "runs/other"


@pytest.mark.parametrize(
    ("wrong", "right", "said"),
    [
        (
            "leave_out: [pretrain]",
            "leave_out: [pretrian]",
            "'pretrian', which is not a stage; did you mean 'pr",
        ),
        (
            "stage: vqa",
            "stage: vqua",
            "the figure 'vqa' is of 'vqua', which is not a stage; did you mean 'vqa'",
        ),
        ("than: same", "than: sam", "'sam', which is not a row; did you mean 'same'?"),
        ("start.checkpoint: pretrain", "start.checkpoint: vqa", "'vqa', which is not an earlier stage"),
        ("name: same", "name: few", "two rows are called 'few'"),
        ("seeds: [4, 5]", "seeds: [4, 4]", "two seeds are called '4'"),
        ("path:", "paht:", "unknown key 'figures.vqa.paht' in {file}; did you mean 'path'?"),
        ("name: same", "name: a/b", "rows.3.name = 'a/b' in {file} is wrong"),
        ("better: few, than: same", "better: few", "has either better and than"),
        (
            "better: few, than: same",
            "near_chance: [few], better: few, than: same",
            "has either better and than",
        ),
    ],
)
def test_a_mistake_is_a_sentence(write, wrong, right, said):
    assert wrong in SMALL
    file = write(SMALL.replace(wrong, right))
    with pytest.raises(UserError) as caught:
        load_ablation(file)
    assert said.format(file=file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_chance_must_be_known_where_a_reading_is_about_it(write):
    text = SMALL.replace(", chance: 10", "").replace("better: few, than: same", "near_chance: [few]")
    with pytest.raises(UserError, match=r"give figures\.vqa\.chance"):
        load_ablation(write(text))


def test_a_mistake_in_a_stages_options_names_row_and_stage(write):
    text = SMALL.replace("sampled_pixels: 3", "sampled_pixels: 3}, overides: {a: 1")
    with pytest.raises(
        UserError, match=r"'model\.overides' in the stage 'pretrain' of the row 'few'; did you"
    ):
        Plan(load_ablation(write(text)))


def test_a_recipe_is_no_ablation_and_an_ablation_no_recipe(write):
    with pytest.raises(UserError, match="pixelbert train --config demo"):
        load_ablation("demo")
    with pytest.raises(UserError, match="pixelbert ablate --config ablation_tiny"):
        load_config("ablation_tiny")
    assert ablation_names() == ["ablation_tiny"]
    assert not set(ablation_names()) & set(recipe_names())


@pytest.mark.parametrize(
    ("only", "said"),
    [
        ({"row": ["smae"]}, "did you mean 'same'"),
        ({"seed": ["9"]}, "there are 4, 5"),
        ({"rows": ["same"]}, "rows="),
    ],
)
def test_a_wrong_choice_is_a_sentence(plan, only, said):
    with pytest.raises(UserError, match=said):
        plan.chosen(only)


def test_the_documentations_example_is_one(write):
    text = (Path(__file__).resolve().parents[1] / "docs" / "ablation.md").read_text(encoding="utf-8")
    example = (
        re.search(r"```yaml\n(.*?)```", text, re.S).group(1).replace("my_pretraining.yaml", "bottom.yaml")
    )
    plan = Plan(load_ablation(write(example)))
    pixels = [
        plan.at(row.name, 0, "pretrain").config.model.overrides["sampled_pixels"] for row in plan.config.rows
    ]
    assert pixels == [50, 100, None]


def test_the_packages_own_is_the_papers():
    config = load_ablation("ablation_tiny")
    assert [row.name for row in config.rows] == ["none", "itm", "mlm", "all-pixels", "both", "larger"]
    assert len(config.seeds) == 3
    assert len(config.readings) == 5
    plan = Plan(config)
    assert not {"singles", "pretrain"} & {run.stage for run in plan.chosen({"row": ["none"]})}
    for name, mlm, itm in (("itm", False, True), ("mlm", True, False), ("both", True, True)):
        run = plan.at(name, 0, "pretrain")
        while run.stage != "words":  # what it starts from has learnt from nothing that it leaves out
            objectives = run.config.objectives
            assert (objectives.mlm, objectives.itm) == (mlm, itm)
            run = run.parents[0]
        assert run.config.start.text_only
        assert not run.config.objectives.itm
    sampled = {row.name: plan.at(row.name, 0, "pretrain") for row in config.rows[1:]}
    pixels = {name: run.config.model.overrides["sampled_pixels"] for name, run in sampled.items()}
    assert pixels == {"itm": 18, "mlm": 18, "all-pixels": None, "both": 18, "larger": 18}
    # Every row has the same budget at every stage that it has.
    steps = {}
    for run in plan.runs:
        steps.setdefault(run.stage, set()).add((run.config.training.steps, run.config.training.epochs))
    assert all(len(found) == 1 for found in steps.values())


STARTS = """
seeds: [0]
every: {training: {epochs: null, steps: 10}}
stages:
  objects: {recipe: demo_objects, once: true}
  words: {recipe: bottom.yaml, once: true}
  singles: {recipe: demo_words, start: {start.checkpoint: words, start.backbone: objects}}
  pretrain: {recipe: scenes_long, start: {start.checkpoint: singles, start.backbone: objects}}
rows:
  - {name: all}
  - {name: bare, leave_out: [objects, words, singles]}
  - {name: given, leave_out: [objects, words, singles], change: {pretrain: {start.checkpoint: somewhere}}}
  - {name: fewer, leave_out: [words, singles]}
figures: {x: {stage: pretrain, path: metrics.x}}
"""


def test_a_row_without_any_start_is_not_given_that_of_the_recipe(write):
    """`scenes_long` names a recipe to train first, which would be a stage that the row leaves out."""
    plan = Plan(load_ablation(write(STARTS)))
    assert load_config("scenes_long").start.checkpoint_recipe
    bare = plan.at("bare", 0, "pretrain").config.start
    assert (bare.checkpoint, bare.checkpoint_recipe, bare.backbone) == (None, None, None)
    given = plan.at("given", 0, "pretrain").config.start
    assert (given.checkpoint, given.checkpoint_recipe) == ("somewhere", None)
    fewer = plan.at("fewer", 0, "pretrain")
    assert [run.stage for run in fewer.parents] == ["objects"]


def test_what_a_stage_starts_from_itself_wins_over_what_it_inherits(write):
    """`wide` is the backbone of the pre-training, `objects` that of the left out stage before it."""
    text = STARTS.replace(
        "  words:", "  wide: {recipe: demo_objects, once: true, change: {seed: 7}}\n  words:", 1
    ).replace(
        "start.checkpoint: singles, start.backbone: objects",
        "start.backbone: wide, start.checkpoint: singles",
    )
    plan = Plan(load_ablation(write(text.replace("[words, singles]", "[singles]"))))
    starts = plan.at("fewer", 0, "pretrain").config.start
    assert starts.backbone.endswith("shared/wide/checkpoint/backbone.safetensors")
    assert starts.checkpoint.endswith("shared/words/checkpoint")


def test_two_starts_are_refused(write):
    text = STARTS.replace("{name: all}", "{name: all, every: {start.checkpoint: somewhere}}")
    said = "the stage 'singles' of the row 'all' has start.checkpoint = \"somewhere\", and starts from"
    with pytest.raises(UserError, match=said):
        Plan(load_ablation(write(text)))


def test_an_option_that_a_later_version_adds_makes_no_other_run(plan, write, monkeypatch):
    """What a run starts from is named in its record; its name must outlast an upgrade."""
    from pydantic import create_model

    from pixelbert_fast.training import recipes

    later = create_model("Later", __base__=recipes.RunConfig, added=(int, 3))
    monkeypatch.setattr(recipes, "RunConfig", later)
    again = Plan(load_ablation(write(), ["output=out"]))
    assert again.runs[0].described["added"] == 3
    for run, before in zip(again.runs, plan.runs, strict=True):
        assert run.described == {**before.described, "added": 3}


def test_a_stage_for_all_seeds_starts_from_none_of_one(write):
    """Its runs of the second and the third seed would lie in one folder."""
    text = SMALL.replace("{recipe: bottom.yaml,", "{recipe: bottom.yaml, once: true,").replace(
        "{recipe: demo_objects, once: true}", "{recipe: demo_objects}"
    )
    with pytest.raises(UserError, match="'pretrain' is trained once for all seeds and starts from 'objects'"):
        load_ablation(write(text))


def test_no_two_runs_share_a_folder(write):
    """The row `wide` has its own shared/objects, and a stage has the name that it would get."""
    text = SMALL.replace("  pretrain:", "  objects-wide: {recipe: demo_objects, once: true}\n  pretrain:", 1)
    names = [run.name for run in Plan(load_ablation(write(text))).runs]
    assert len(set(names)) == len(names)
