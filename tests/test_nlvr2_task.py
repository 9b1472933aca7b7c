"""NLVR2 as a task: a tiny run learns, goes on where it was stopped, and is scored as the field does."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from pixelbert_fast import PixelBertForNaturalLanguageVisualReasoning
from pixelbert_fast.data.records import open_set
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks import checkpoint_evaluation, make_task
from pixelbert_fast.tasks.fine_tuned import EvaluationRequest
from pixelbert_fast.tasks.nlvr2 import evaluation
from pixelbert_fast.tasks.nlvr2.checkpoint import judge_pair
from pixelbert_fast.tasks.nlvr2.official import Statement, official_accuracy
from pixelbert_fast.tasks.nlvr2.prediction_file import read_predictions
from pixelbert_fast.tasks.nlvr2.statements import Statements
from pixelbert_fast.tasks.nlvr2.task import NLVR2Task
from pixelbert_fast.training import run as runs
from pixelbert_fast.training.loop import Stopped
from pixelbert_fast.training.ranks import Ranks
from pixelbert_fast.training.recipes import load_config
from tests.toy_pairs import build, config, png, statements

# Large steps: there is little to learn, and little time.
OPTIMIZER = {"backbone": {"algorithm": "adamw", "lr": 1e-3}, "transformer": {"lr": 3e-3}}
SCHEDULE = {"kind": "cosine", "warmup_steps": 10, "floor": 0.03}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return build(tmp_path_factory.mktemp("toy") / "set")


def learning(toy, output, **training):
    options = {"images_per_batch": 32, "log_every": 10, "epochs": None, **training}
    return config(toy, output=str(output), training=options, optimizer=OPTIMIZER, schedule=SCHEDULE)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Twelve statements, which a tiny model learns by heart in seconds."""
    return build(tmp_path_factory.mktemp("few") / "set", images=4)


@pytest.fixture(scope="module")
def trained(few, tmp_path_factory):
    output = tmp_path_factory.mktemp("run")
    return runs.run(learning(few, output, steps=80), Ranks(), "plain"), output


def test_a_tiny_run_learns(trained):
    result, _ = trained
    figures = result.metrics["metrics"]["val"]
    # Either text is true of three pairs and false of three: words alone do not tell.
    assert figures["accuracy"] == figures["consistency"] == 1.0
    assert (figures["statements"], figures["sentences"], figures["images"]) == (12, 4, 4)
    assert figures["broken"] == 0
    assert result.metrics["accuracy"] == figures["accuracy"]
    told = dict(tuple(row) for row in result.metrics["summary"])
    assert told["val: accuracy of statements"].endswith("(12)")


def test_a_stopped_run_ends_as_an_uninterrupted_one(toy, tmp_path, monkeypatch):
    whole = runs.run(learning(toy, tmp_path / "one", steps=6), Ranks(), "plain")
    calls, loss = [], NLVR2Task.loss

    def stopping(self, model, batch):
        calls.append(1)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(self, model, batch)

    monkeypatch.setattr(NLVR2Task, "loss", stopping)
    with pytest.raises(Stopped):
        runs.run(learning(toy, tmp_path / "two", steps=6), Ranks(), "plain")
    resumed = runs.run(learning(toy, tmp_path / "two", steps=6), Ranks(), "plain")
    assert len(calls) == 6
    assert resumed.metrics["steps"] == whole.metrics["steps"] == 6
    one, two = (load_file(tmp_path / name / "checkpoint" / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_checkpoint_is_evaluated_as_its_run_was(few, trained, tmp_path):
    result, output = trained
    evaluate = checkpoint_evaluation("nlvr2")
    file = tmp_path / "predictions.csv"
    request = EvaluationRequest(predictions=file, images_per_batch=4)
    found = evaluate(output, open_set(few), "val", request)
    assert found.metrics == result.metrics["metrics"]["val"]
    said = read_predictions(file)
    labels = [Statement(one["identifier"], one["label"]) for one in statements("dev", images=4)]
    assert found.metrics.items() >= official_accuracy(labels, said).items()
    assert file.read_text().splitlines()[0].startswith(f"{labels[0].identifier},")


def test_a_split_without_labels_is_predicted_all_the_same(few, trained, tmp_path):
    _, output = trained
    request = EvaluationRequest(predictions=tmp_path / "test.csv")
    found = checkpoint_evaluation("nlvr2")(output, open_set(few), "test", request)
    assert (found.metrics["statements"], found.metrics["accuracy"]) == (0, None)
    assert found.rows[0] == ("test: accuracy of statements", "- (0)")
    said = read_predictions(tmp_path / "test.csv")
    # The images are train's, so what is true is known here.
    made = statements("train", images=4)
    assert said == {one["identifier"].replace("train", "test1"): one["label"] for one in made}


def test_two_images_are_asked_about(trained, tmp_path):
    _, output = trained
    for name, row in (("red", 0), ("green", 1)):
        (tmp_path / f"{name}.png").write_bytes(png(row))
    sides = tmp_path / "red.png", tmp_path / "green.png"
    asked = ["the left image is red", "the right image is red"]
    assert [p > 0.5 for p in judge_pair(output, *sides, asked)] == [True, False]
    with pytest.raises(UserError, match="empty"):
        judge_pair(output, *sides, [" "])


def judged(toy, **options):
    task = make_task(config(toy))
    own = Statements(open_set(toy).pairs("val"), task.tokenizer, 16)
    given = task.model, open_set(toy).split("val"), own, task.image_processor
    return task, own, evaluation.judge(*given, **options)


def test_batches_do_not_change_what_is_judged(toy):
    _, _, one = judged(toy, images_per_pass=2)
    task, _, other = judged(toy, images_per_pass=64)
    # Sums in another order: float32 over some hundred terms.
    assert np.abs(one.true - other.true).max() < 1e-5
    assert task.model.training
    _, _, bounded = judged(toy, images_per_pass=64, pixels=5 * 32 * 32)
    assert np.abs(one.true - bounded.true).max() < 1e-5


def test_memory_is_bounded_by_pixels(toy, monkeypatch):
    shown, forward = [], PixelBertForNaturalLanguageVisualReasoning.forward

    def watching(self, **inputs):
        shown.append(inputs["pixel_values"].shape)
        return forward(self, **inputs)

    monkeypatch.setattr(PixelBertForNaturalLanguageVisualReasoning, "forward", watching)
    judged(toy, images_per_pass=64, pixels=5 * 32 * 32)
    assert max(images * height * width for images, _, height, width in shown) <= 5 * 32 * 32


def test_a_limit_keeps_whole_sentences(toy):
    done = []
    _, own, one = judged(toy, limit=9, progress=lambda *at: done.append(at))
    sides = own.sides[one.members]
    assert one.images == len(np.unique(sides)) <= 9
    assert 0 < len(one.members) < 132
    assert one.metrics()["statements"] == len(one.members)
    assert done[-1][0] == done[-1][1]


def test_forms_are_scored_apart_where_they_are_known(tmp_path):
    scenes = runs.prepare_data
    built = load_config("nlvr2_scenes", [f"data.directory={tmp_path / 'set'}", "data.build.images=40"])
    scenes(built, Ranks())
    task = make_task(config(tmp_path / "set"))
    own = Statements(open_set(tmp_path / "set").pairs("train"), task.tokenizer, 16)
    found = evaluation.judge(task.model, open_set(tmp_path / "set").split("train"), own, task.image_processor)
    figures = found.metrics()
    right = (found.true > 0.5) == own.labels
    assert figures["accuracy"] == pytest.approx(right.mean())
    for form, share in figures["forms"].items():
        assert share == pytest.approx(right[np.array(own.forms) == form].mean())


def test_a_set_without_pairs_is_said(toy, tmp_path):
    from datasets import load_from_disk

    from pixelbert_fast.data.records import write_card

    load_from_disk(toy).save_to_disk(tmp_path / "set")
    write_card(tmp_path / "set", {"name": "toy", "counts": dict.fromkeys(("train", "val"), 12)})
    with pytest.raises(UserError, match="no split with statements about pairs 'train'"):
        make_task(config(tmp_path / "set"))
    request = EvaluationRequest(options={"edition": "first"})
    with pytest.raises(UserError, match="nlvr2 has no option 'edition'"):
        checkpoint_evaluation("nlvr2")(tmp_path, open_set(toy), "val", request)


def test_the_papers_recipes_have_the_papers_figures():
    for name, short, long in (("nlvr2_r50", None, None), ("nlvr2_x152", 600, 1000)):
        recipe = load_config(name, ())
        assert recipe.task == "nlvr2"
        assert (recipe.data.short_side, recipe.data.long_side) == (short, long)
        assert (recipe.training.pairs_per_step, recipe.training.epochs) == (128, 18)
        assert recipe.schedule.milestones == (12, 16)
        groups = recipe.optimizer
        assert (groups.backbone.algorithm, groups.backbone.lr, groups.backbone.weight_decay) == (
            "sgd",
            1e-2,
            5e-4,
        )
        assert (groups.transformer.algorithm, groups.transformer.lr) == ("adamw", 1e-4)


def test_the_table_says_that_images_could_not_be_decoded(trained, tmp_path):
    _, output = trained
    directory = build(tmp_path / "set", images=4, broken=(1,))
    found = checkpoint_evaluation("nlvr2")(output, open_set(directory), "train", EvaluationRequest())
    assert (found.metrics["broken"], found.metrics["images"]) == (1, 4)
    assert dict(found.rows)["train: images that cannot be decoded"] == "1 of 4"


def test_two_statements_of_one_name_are_refused(few, trained):
    pairs = open_set(few).pairs("val")
    twice = pairs.map(lambda row: {"identifier": "dev-1-0-0"})
    tokenizer = AutoTokenizer.from_pretrained(trained[1] / "checkpoint")
    with pytest.raises(UserError, match="are called dev-1-0-0"):
        _ = Statements(twice, tokenizer, 12).identifiers
