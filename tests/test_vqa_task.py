"""The VQA task end to end: learning, resuming, the official accuracy, predictions, the command line."""

import itertools
import json
import os
import signal

import pytest
import torch

from pixelbert_fast import cli
from pixelbert_fast.data.records import open_set
from pixelbert_fast.errors import UserError
from pixelbert_fast.model import PixelBertForPreTraining
from pixelbert_fast.tasks import checkpoint_evaluation, make_task
from pixelbert_fast.tasks.fine_tuned import EvaluationRequest
from pixelbert_fast.tasks.vqa.checkpoint import ask
from pixelbert_fast.tasks.vqa.evaluation import EvaluationOptions, accuracies, answers
from pixelbert_fast.tasks.vqa.official import asked_of, official_accuracy
from pixelbert_fast.tasks.vqa.prediction_file import read_predictions
from pixelbert_fast.training import run as runs
from pixelbert_fast.training.loop import Stopped
from pixelbert_fast.training.ranks import Ranks
from tests import vqa_sets

FAST = {"algorithm": "adamw", "lr": 3e-3, "weight_decay": 0.0}
LEARNING = {
    "optimizer": {"backbone": FAST, "transformer": FAST},
    "training": {"epochs": None, "steps": 160, "images_per_batch": 8, "engine": "plain"},
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return vqa_sets.build(tmp_path_factory.mktemp("vqa") / "set")


@pytest.fixture(scope="module")
def learnt(directory, tmp_path_factory):
    """A run that has learnt the set."""
    out = tmp_path_factory.mktemp("runs") / "learnt"
    return runs.run(vqa_sets.config(directory, output=str(out), **LEARNING), Ranks(), "plain")


def evaluate(checkpoint, directory, split="val", **request):
    work = checkpoint_evaluation("vqa")
    return work(checkpoint, open_set(directory), split, EvaluationRequest(**request))


def test_a_small_run_learns_the_set(learnt):
    figures = learnt.metrics["metrics"]["val"]
    # Who sees no image is right about a third of the colours and half of the sides.
    assert figures["by_answer_type"]["colour"]["accuracy"] >= 0.9
    assert figures["by_answer_type"]["where"]["accuracy"] >= 0.9
    # The open question's answer is not in the vocabulary.
    assert figures["by_answer_type"]["other"]["accuracy"] == 0
    assert figures["answerable"] == 36 and figures["broken"] == 0
    assert learnt.metrics["vqa_accuracy"] == figures["accuracy"] > 0.8
    assert figures["asked"] == figures["questions"] == 40
    assert figures["by_answer"]["somebody"] == {"questions": 4, "accuracy": 0.0}


def test_the_accuracy_of_a_run_is_the_official_function_of_its_predictions(learnt, tmp_path):
    directory = vqa_sets.build(tmp_path / "ten", annotators=10)
    found = evaluate(learnt.folder.path, directory, predictions=tmp_path / "val.json")
    predictions = read_predictions(tmp_path / "val.json")
    asked = [one for record in open_set(directory).split("val") for one in asked_of(record)]
    official = official_accuracy(asked, predictions)
    assert {name: found.metrics[name] for name in official} == official
    assert 0.8 < official["accuracy"] < 1
    # With ten annotators there is no one right answer to sort by.
    assert "by_answer" not in found.metrics
    first = evaluate(learnt.folder.path, directory, options={"edition": "first"})
    assert first.metrics["accuracy"] == official_accuracy(asked, predictions, edition="first")["accuracy"]


def test_batches_of_an_evaluation_change_no_answer(learnt, directory):
    task = make_task(vqa_sets.config(directory, start={"checkpoint": str(learnt.folder.checkpoint)}))
    mixed = vqa_sets.IMAGES, open_set(directory).split("train")

    def given(**options):
        made = EvaluationOptions(max_text_length=12, **options)
        split = mixed[1]
        return {
            one.id: one.answer
            for one in answers(task.model, split, task.tokenizer, task.image_processor, made)
        }

    alone = given(images_per_batch=1, sequences_per_pass=1)
    assert alone == given(images_per_batch=7, sequences_per_pass=3) == given(pixels=3 * 32 * 48)
    assert len(alone) == sum(len(vqa_sets.questions(row)) for row in range(mixed[0]))


def test_an_image_passes_through_the_backbone_once(learnt, directory, monkeypatch):
    task = make_task(vqa_sets.config(directory, start={"checkpoint": str(learnt.folder.checkpoint)}))
    embedded, whole = [], task.model.pixelbert.embed_pixels

    def counted(pixel_values, pixel_size=None):
        embedded.append(len(pixel_values))
        return whole(pixel_values, pixel_size)

    monkeypatch.setattr(task.model.pixelbert, "embed_pixels", counted)
    reached = []
    metrics = task.evaluate(task.model, progress=lambda *at: reached.append(at))
    assert sum(embedded) == 12
    assert reached[-1] == (12, 12)
    assert task.headline(metrics)["vqa_accuracy"] > 0.8
    assert task.headlines == tuple(task.headline(metrics))
    assert task.model.training


def test_a_resumed_run_ends_with_the_same_weights(directory, tmp_path, monkeypatch):
    def run(folder, stop=None):
        # Statistics of the process's own generator play no part: dropout is 0 in the tiny model.
        told = vqa_sets.config(
            directory, output=str(folder), training={"epochs": None, "steps": 6, "log_samples": True}
        )
        made, calls = runs._make_task, []

        def stopping(config, device):
            task = make_task(config, device)
            loss = task.loss

            def counted(*arguments):
                calls.append(1)
                if len(calls) == stop:
                    os.kill(os.getpid(), signal.SIGTERM)
                return loss(*arguments)

            task.loss = counted
            return task

        monkeypatch.setattr(runs, "_make_task", stopping)
        try:
            return runs.run(told, Ranks(), "plain")
        finally:
            monkeypatch.setattr(runs, "_make_task", made)

    whole = run(tmp_path / "whole")
    with pytest.raises(Stopped):
        run(tmp_path / "parts", stop=3)
    parts = run(tmp_path / "parts")
    one, two = ((result.folder.checkpoint / "model.safetensors").read_bytes() for result in (whole, parts))
    assert one == two
    seen = [(result.folder.samples / "rank-0.jsonl").read_text(encoding="utf-8") for result in (whole, parts)]
    assert seen[0] == seen[1]


def test_fine_tuning_starts_from_a_pre_training(directory, learnt, tmp_path):
    source = make_task(vqa_sets.config(directory))
    torch.manual_seed(3)
    pretrained = PixelBertForPreTraining(source.model.config)
    pretrained.save_pretrained(tmp_path / "pretrained")
    source.tokenizer.save_pretrained(tmp_path / "pretrained")
    start = {"checkpoint": str(tmp_path / "pretrained")}
    task = make_task(vqa_sets.config(directory, start=start))
    for name, value in pretrained.pixelbert.state_dict().items():
        assert torch.equal(task.model.pixelbert.state_dict()[name], value), name
    assert task.model.config.id2label == dict(enumerate(vqa_sets.ANSWERS_TOLD))
    # An earlier fine-tuning keeps its head where the answers are the same, and only there.
    head = {"start": {"checkpoint": str(learnt.folder.checkpoint)}}
    kept = make_task(vqa_sets.config(directory, **head)).model.answer_head.state_dict()
    saved = learnt.folder.checkpoint
    again = make_task(vqa_sets.config(directory, **head, seed=7)).model.answer_head.state_dict()
    assert all(torch.equal(kept[name], again[name]) for name in kept), saved
    with pytest.raises(UserError, match="of another architecture"):
        make_task(vqa_sets.config(directory, start=start, model={"overrides": {"num_hidden_layers": 4}}))


def test_a_head_that_was_never_trained_is_refused(directory, tmp_path):
    task = make_task(vqa_sets.config(directory))
    task.save(PixelBertForPreTraining(task.model.config), tmp_path / "pretrained")
    with pytest.raises(UserError, match="PixelBertForPreTraining, which has not learnt this task"):
        evaluate(tmp_path / "pretrained", directory)
    with pytest.raises(UserError, match="no checkpoint at"):
        evaluate(tmp_path / "nowhere", directory)


def test_evaluate_from_the_command_line(learnt, directory, tmp_path, capsys):
    out, sent = tmp_path / "scores" / "val.json", tmp_path / "sent.json"
    line = ["evaluate", "vqa", "--checkpoint", str(learnt.folder.path), "--data", str(directory)]
    assert cli.main([*line, "--out", str(out), "--device", "cpu"]) == 0
    shown = capsys.readouterr()
    told = json.loads(out.read_text(encoding="utf-8"))
    assert told["metrics"]["accuracy"] == learnt.metrics["vqa_accuracy"]
    assert f"{100 * told['metrics']['accuracy']:.1f} %" in shown.out and str(out) in shown.out
    assert "image" in shown.err  # the bar
    # A split without public answers: predictions for the server, and no accuracy.
    assert cli.main([*line, "--split", "test", "--predictions", str(sent), "--device", "cpu"]) == 0
    entries = json.loads(sent.read_text(encoding="utf-8"))
    expected = {1000 * row + n for row in range(6) for n in range(len(vqa_sets.questions(row)))}
    assert {entry["question_id"] for entry in entries} == expected
    assert {entry["answer"] for entry in entries} <= set(vqa_sets.ANSWERS_TOLD)
    assert "accuracy                                 -" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"task": "vqaa"}, "did you mean vqa?"),
        ({"--split": "dev"}, "no split 'dev'"),
        ({"--option": "edition=third"}, "edition is 'third'"),
        ({"--option": "colour=red"}, "no option 'colour'"),
        ({"--option": "edition"}, "not NAME=VALUE"),
        ({"--device": "tpu9"}, "--device tpu9 cannot be used"),
        ({"--data": "nowhere"}, "no data set at nowhere"),
        ({"--out": "."}, "is a folder"),
    ],
)
def test_mistakes_of_evaluate_are_one_sentence(learnt, directory, changed, said, capsys):
    line = {"--checkpoint": str(learnt.folder.path), "--data": str(directory), "--device": "cpu", **changed}
    task = line.pop("task", "vqa")
    assert cli.main(["evaluate", task, *(word for pair in line.items() for word in pair)]) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_predict_vqa_from_the_command_line(learnt, tmp_path, capsys):
    image = tmp_path / "picture.png"
    image.write_bytes(vqa_sets.picture(1, (32, 48)))
    line = ["predict", "vqa", str(image), "what colour is it?", "--checkpoint", str(learnt.folder.path)]
    assert cli.main([*line, "--top", "3", "--json", "--device", "cpu"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found[0]["answer"] == "green"
    assert len(found) == 3
    assert 0.5 < found[0]["probability"] <= 1 and found[0]["probability"] >= found[1]["probability"]
    assert cli.main([*line, "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith("green")
    (tmp_path / "no.png").write_bytes(b"none")
    for changed, said in (
        ({2: str(tmp_path / "no.png")}, "no.png"),
        ({2: str(tmp_path / "missing.png")}, "missing.png"),
        ({3: " "}, "the question is empty"),
        ({5: str(tmp_path)}, "no checkpoint at"),
        ({5: str(learnt.folder.path.parent)}, "give the folder that a finished run wrote"),
    ):
        wrong = [changed.get(place, word) for place, word in enumerate(line)]
        assert cli.main([*wrong, "--device", "cpu"]) == 2, wrong
        assert said in capsys.readouterr().err


def test_a_question_that_is_cut_is_answered_with_a_warning(learnt, tmp_path, caplog):
    picture = vqa_sets.picture(1, (32, 48))
    ask(learnt.folder.path, picture, "what colour is it?")
    assert not caplog.records
    ask(learnt.folder.path, picture, "what colour is it? " * 9)
    assert ["1 of the texts is longer than the 12" in one.getMessage() for one in caplog.records] == [True]


def test_what_is_refused_shows_no_bar(learnt, directory, tmp_path, capsys):
    (tmp_path / "run.json").write_text("{}")
    line = ["evaluate", "vqa", "--checkpoint", str(tmp_path), "--data", str(directory), "--device", "cpu"]
    assert cli.main(line) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"pixelbert export {tmp_path} --out DIR" in error


def test_answers_come_with_the_scores_of_the_model(learnt, tmp_path):
    image = tmp_path / "picture.png"
    image.write_bytes(vqa_sets.picture(3, (32, 48)))
    found = ask(learnt.folder.path, str(image), "where is it?", top=99)
    assert len(found) == len(vqa_sets.ANSWERS_TOLD)
    assert found[0][0] == "right"


def test_figures_of_nothing_are_none():
    assert accuracies([])["accuracy"] is None


def test_an_evaluation_says_which_questions_it_could_not_see_or_answer(learnt, tmp_path):
    directory = vqa_sets.build(tmp_path / "set", broken=(1, 6))
    found = evaluate(learnt.folder.path, directory, split="train")
    assert found.metrics["broken"] == 2 + 6
    # To one question of every third image nobody gave an answer that the model has.
    assert found.metrics["answerable"] == found.metrics["questions"] - vqa_sets.IMAGES // 3
    assert dict(found.rows)["  about images that cannot be decoded"] == "8"


def test_reading_answers_leaves_gradients_to_the_reader(learnt, directory):
    task = make_task(vqa_sets.config(directory, start={"checkpoint": str(learnt.folder.checkpoint)}))
    split = open_set(directory).split("val")
    given = answers(task.model, split, task.tokenizer, task.image_processor, EvaluationOptions())
    next(given)
    assert torch.is_grad_enabled()
    given.close()
    assert task.model.training


@pytest.mark.parametrize("task", ["vqa", "nlvr2"])
def test_several_processes_do_not_write_one_file(task, learnt, directory, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    line = ["evaluate", task, "--checkpoint", str(learnt.folder.path), "--data", str(directory)]
    assert cli.main([*line, "--device", "cpu", "--predictions", str(tmp_path / "sent")]) == 2
    assert f"{task} is evaluated by one process" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_metrics_do_not_replace_predictions(learnt, directory, tmp_path, capsys):
    line = ["evaluate", "vqa", "--checkpoint", str(learnt.folder.path), "--data", str(directory)]
    told = ["--out", str(tmp_path / "found.json"), "--predictions", f"{tmp_path}/./found.json"]
    assert cli.main([*line, *told]) == 2
    assert "give each a file of its own" in capsys.readouterr().err


def test_ctrl_c_stops_an_evaluation_and_leaves_no_half_file(learnt, directory, tmp_path, monkeypatch, capsys):
    from pixelbert_fast.tasks.vqa import checkpoint

    def stopped(*arguments, **options):
        yield from itertools.islice(answers(*arguments, **options), 3)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "answers", stopped)
    line = ["evaluate", "vqa", "--checkpoint", str(learnt.folder.path), "--data", str(directory)]
    assert cli.main([*line, "--device", "cpu", "--predictions", str(tmp_path / "sent.json")]) == 130
    error = capsys.readouterr().err
    assert "Traceback" not in error
    last = error.splitlines()[-1]
    assert last.startswith("pixelbert: stopped; nothing was written; run the same command again")
    assert not list(tmp_path.iterdir())
