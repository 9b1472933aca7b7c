"""A saved model is opened whole or not at all, and transformers shows no bars of its own meanwhile."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from huggingface_hub.utils import are_progress_bars_disabled
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from pixelbert_fast import cli
from pixelbert_fast.errors import UserError
from pixelbert_fast.model import PixelBertForPreTraining, PixelBertForVisualQuestionAnswering
from pixelbert_fast.tasks import make_task
from pixelbert_fast.tasks.fine_tuned import load_fine_tuned
from pixelbert_fast.tasks.pretraining.match import match
from pixelbert_fast.tasks.quiet import quietly
from tests import vqa_sets

KIND = PixelBertForVisualQuestionAnswering


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return make_task(vqa_sets.config(vqa_sets.build(tmp_path_factory.mktemp("vqa") / "set")))


@pytest.fixture
def saved(task, tmp_path):
    """What a run would have saved."""
    task.save(task.model, tmp_path / "saved")
    return tmp_path / "saved"


def weights(folder, change):
    held = load_file(folder / "model.safetensors")
    save_file(change(held), folder / "model.safetensors", metadata={"format": "pt"})


def without(part):
    def change(held):
        kept = {name: value for name, value in held.items() if not name.startswith(part)}
        assert len(kept) < len(held)
        return kept

    return lambda folder: weights(folder, change)


def broken(folder):
    def change(held):
        held["pixelbert.pooler.dense.weight"][0, 0] = float("nan")
        return held

    weights(folder, change)


def of_two_answers(folder):
    told = json.loads((folder / "config.json").read_text())
    told |= {"id2label": {"0": "yes", "1": "no"}, "label2id": {"yes": 0, "no": 1}}
    (folder / "config.json").write_text(json.dumps(told))


def test_a_whole_one_is_opened_in_float32(saved, task):
    KIND.from_pretrained(saved).bfloat16().save_pretrained(saved)
    model, processor = load_fine_tuned(saved, KIND)
    assert not model.training and {one.dtype for one in model.parameters()} == {torch.float32}
    assert len(processor.tokenizer) == len(task.tokenizer)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (without("pixelbert.encoder.layer.1."), "they lack pixelbert.encoder.layer.1."),
        (without("answer_head.dense."), "has not learnt this task"),
        (without("answer_head."), "has not learnt this task"),
        (broken, "no numbers (in pixelbert.pooler.dense.weight)"),
        (of_two_answers, "they have another size of answer_head.classifier"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "a file of it is missing"),
        (lambda folder: (folder / "processor_config.json").unlink(), "has no processor"),
        (lambda folder: os.truncate(folder / "model.safetensors", 1000), "no checkpoint that can be used"),
    ],
)
def test_one_of_which_something_is_missing_is_refused(saved, damage, said):
    damage(saved)
    with pytest.raises(UserError) as refused:
        load_fine_tuned(saved, KIND)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_a_tokenizer_of_another_model_is_refused(saved, task, tmp_path):
    from pixelbert_fast.data.vocabulary import train_wordpiece

    other = train_wordpiece(["quite other words", "and several more of them"], 60)
    assert len(other) != len(task.tokenizer)
    other.save_pretrained(tmp_path / "other")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tmp_path / "other" / name, saved)
    with pytest.raises(UserError, match=r"the tokenizer in .* word pieces and the model"):
        load_fine_tuned(saved, KIND)


def test_matching_is_asked_of_no_model_that_has_not_learnt_it(saved):
    with pytest.raises(UserError, match="has not learnt image-text matching"):
        match(saved, vqa_sets.picture(1, (32, 48)), ["something red"])


def fail_inside():
    with quietly():
        assert not logging.is_progress_bar_enabled() and are_progress_bars_disabled()
        raise RuntimeError("inside")


@pytest.mark.parametrize("shown", [True, False])
def test_no_bars_of_transformers_are_shown_and_the_users_choice_comes_back(saved, task, shown, capfd):
    before, of_the_hub = logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    (logging.enable_progress_bar if shown else logging.disable_progress_bar)()
    level = logging.get_verbosity()
    try:
        task.save(task.model, saved)
        load_fine_tuned(saved, KIND)
        told = capfd.readouterr().err
        assert "model shards" not in told and "Loading weights" not in told
        with pytest.raises(RuntimeError, match="inside"):
            fail_inside()
        assert logging.is_progress_bar_enabled() == shown == (not are_progress_bars_disabled())
        assert logging.get_verbosity() == level
        PixelBertForPreTraining(task.model.config).save_pretrained(saved / "loud")
        assert ("model shards" in capfd.readouterr().err) == shown  # else the test above would prove nothing
    finally:
        (logging.enable_progress_bar if before else logging.disable_progress_bar)()
        assert of_the_hub == (not are_progress_bars_disabled())


@pytest.mark.parametrize("asked", ["run", "checkpoint"])
@pytest.mark.parametrize("blank", [True, False])
def test_a_twin_without_pixels_is_not_shown_pixels_unnoticed(task, tmp_path, asked, blank, capsys):
    run, data = tmp_path / "run", task._config.data.directory
    task.save(task.model, run / "checkpoint")
    (run / "run.json").write_text(json.dumps({"config": {"start": {"text_only": blank}}}))
    given = run if asked == "run" else run / "checkpoint"
    line = ["evaluate", "vqa", "--checkpoint", str(given), "--data", data, "--device", "cpu"]
    assert cli.main(line) == 0
    assert ("was trained on blank images" in capsys.readouterr().err) == blank
    assert cli.main([*line, "--text-only"]) == 0
    assert "was trained on blank images" not in capsys.readouterr().err
