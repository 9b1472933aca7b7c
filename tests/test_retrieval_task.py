"""Retrieval end to end on made scenes: groups, batches, training from cache or images, recall, search."""

from __future__ import annotations

import json
from itertools import islice

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pixelbert_fast.cli import app
from pixelbert_fast.data.build import build_set, make_builder
from pixelbert_fast.data.records import open_set
from pixelbert_fast.data.truth import is_true, parse
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks import make_task
from pixelbert_fast.tasks.fine_tuned import EvaluationRequest
from pixelbert_fast.tasks.retrieval.checkpoint import evaluate_checkpoint
from pixelbert_fast.training.config import RunConfig

# Sums in float32 in another order, some layers deep.
CLOSE = {"atol": 2e-5, "rtol": 2e-5}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    directory = tmp_path_factory.mktemp("scenes") / "set"
    build_set(make_builder("scenes", images=120, seed=1, size=48), directory)
    return directory


def settings(scenes, output, **sections):
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "backbone_channels": 8}
    tree = {
        "task": "retrieval",
        "output": str(output),
        "data": {"directory": str(scenes), "short_side": 48, "long_side": 64},
        "tokenizer": {"size": 300},
        "model": {"preset": "tiny", "overrides": small},
        "training": {"images_per_batch": 4, "steps": 2},
        "evaluation": {"splits": ["test"], "images": 10},
        "retrieval": {"negatives": 6, "hardest": 2, "cache": "none"},
    }
    for name, section in sections.items():
        tree[name] = {**tree.get(name, {}), **section}
    return RunConfig(**tree)


def batches(task, count=2, epoch=0):
    return list(islice(task.batches(epoch, 0, 1), count))


def test_a_group_is_a_right_text_and_different_false_ones(scenes, tmp_path):
    task = make_task(settings(scenes, tmp_path))
    split = open_set(scenes).split("train")
    facts = {}
    for row in split:
        for caption, fact in zip(row["captions"], row["facts"], strict=True):
            facts[task.tokenizer.decode(task.tokenizer(caption)["input_ids"])] = parse(fact)
    for batch in batches(task, 4):
        assert batch["groups"].shape == (4, 7)
        for group, row in zip(batch["groups"].tolist(), batch["rows"].tolist(), strict=True):
            scene = parse(split[row]["scene"])
            assert group[0] >= 0
            said = []
            for number in (one for one in group if one >= 0):
                length = int(batch["attention_mask"][number].sum())
                said.append(task.tokenizer.decode(batch["input_ids"][number][:length]))
                assert int(batch["rows"][batch["image_index"][number]]) == row
            truths = [is_true(facts[text], scene) for text in said]
            assert truths == [True] + [False] * (len(said) - 1)
            assert len(set(said)) == len(said)


def test_batches_are_a_function_of_seed_epoch_and_place(scenes, tmp_path):
    first, second = (make_task(settings(scenes, tmp_path)) for _ in range(2))
    whole = list(first.batches(1, 0, 1))
    assert len(whole) == first.steps_per_epoch(1)
    for one, other in zip(whole[3:], second.batches(1, 0, 1, skip=3), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    shares = [list(first.batches(1, rank, 2)) for rank in range(2)]
    turns = [shares[number % 2][number // 2] for number in range(len(whole))]
    for one, other in zip(whole, turns, strict=True):
        assert torch.equal(one["input_ids"], other["input_ids"])


def test_epochs_show_an_images_texts_in_turn_or_each_once(scenes, tmp_path):
    task = make_task(settings(scenes, tmp_path))
    numbers = np.stack([task._batches._shown(epoch).number for epoch in range(5)])
    assert (np.sort(numbers, axis=0) == np.arange(5)[:, None]).all()
    every = make_task(settings(scenes, tmp_path, retrieval={"epoch": "captions"}))
    assert every.steps_per_epoch(1) == -(-5 * len(open_set(scenes).split("train")) // 4)
    marked = make_task(settings(scenes, tmp_path, retrieval={"train_captions": "distinct"}))
    shown = marked._batches._shown(0)
    assert shown.number.tolist() == open_set(scenes).split("train")["retrieval_caption"][:]


def test_training_from_either_cache_is_training_from_the_images(scenes, tmp_path):
    losses, gradients = {}, {}
    for kind in ("none", "embeddings", "c5"):
        task = make_task(settings(scenes, tmp_path / kind, retrieval={"cache": kind}))
        task.model.train()
        found = [task.loss(task.model, batch) for batch in batches(task)]
        sum(loss for loss, _ in found).backward()
        losses[kind] = torch.stack([loss.detach() for loss, _ in found])
        gradients[kind] = {n: p.grad for n, p in task.model.named_parameters() if p.grad is not None}
        assert not any(name.startswith("pixelbert.backbone.") for name in gradients[kind])
        groups = task.parameter_groups(task.model)
        assert not groups["backbone"] and {n for n, _ in groups["transformer"]} >= set(gradients[kind])
    projection = {n for n in gradients["c5"] if "pixel_" in n}
    assert projection == {
        "pixelbert.pixel_projection.weight",
        "pixelbert.pixel_projection.bias",
        "pixelbert.pixel_type_embedding",
    }
    assert set(gradients["c5"]) - set(gradients["embeddings"]) == projection
    for kind in ("embeddings", "c5"):
        torch.testing.assert_close(losses[kind], losses["none"], **CLOSE)
        for name, value in gradients[kind].items():
            torch.testing.assert_close(value, gradients["none"][name], atol=1e-4, rtol=1e-3, msg=name)


def test_a_cache_is_made_once_and_a_trained_backbone_has_none(scenes, tmp_path, monkeypatch):
    from pixelbert_fast.tasks.retrieval.cache import VisualCache

    asked = settings(scenes, tmp_path, retrieval={"cache": "embeddings"})
    make_task(asked)
    monkeypatch.setattr(VisualCache, "fill", lambda *_, **__: pytest.fail("made again"))
    make_task(asked)
    with pytest.raises(ValueError, match="freeze_backbone"):
        settings(scenes, tmp_path, retrieval={"cache": "c5", "freeze_backbone": False})
    free = make_task(settings(scenes, tmp_path, retrieval={"freeze_backbone": False}))
    assert free.parameter_groups(free.model)["backbone"]
    loss, scalars = free.loss(free.model.train(), batches(free, 1)[0])
    loss.backward()
    assert free.model.pixelbert.backbone.conv1.weight.grad.abs().sum() > 0
    assert 0 <= float(scalars["right_first"]) <= 1
    assert free.flops(batches(free, 1)[0]) > make_task(asked).flops(batches(make_task(asked), 1)[0])


@pytest.fixture(scope="module")
def trained(scenes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("retrieval") / "checkpoint"
    task = make_task(settings(scenes, folder.parent))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in task.model.pixelbert.encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    task.save(task.model, folder)
    return task, folder


def brute_force(task, split):
    """Recall at 1, 5, 10 both ways, by one forward a pair and a sort."""
    model, records = task.model.eval(), [split[row] for row in range(len(split))]
    texts = [record["captions"][record["retrieval_caption"]] for record in records]
    scores = np.empty((len(texts), len(records)))
    with torch.no_grad():
        for column, record in enumerate(records):
            pixels = task.image_processor([record["image"]])
            for row, text in enumerate(texts):
                ids = torch.tensor([task.tokenizer(text)["input_ids"]])
                scores[row, column] = model(ids, None, pixels["pixel_values"]).scores[0]
    ways = {"ir": scores, "tr": scores.T}
    return scores, {
        f"{way}_r{k}": float(np.mean([number in np.argsort(-own)[:k] for number, own in enumerate(matrix)]))
        for way, matrix in ways.items()
        for k in (1, 5, 10)
    }


def test_recall_of_a_checkpoint_is_that_of_a_sort_of_single_forwards(scenes, trained, tmp_path):
    task, folder = trained
    built = open_set(scenes)
    scores, expected = brute_force(task, built.split("test"))
    seen = []
    request = EvaluationRequest(
        out=tmp_path / "figures.json",
        predictions=tmp_path / "predictions.jsonl",
        progress=lambda *at: seen.append(at),
        options={"keep": "true"},
    )
    found = evaluate_checkpoint(folder, built, "test", request)
    assert {name: found.metrics[name] for name in expected} == expected
    assert found.metrics["zero_shot"] is False and found.metrics["images"] == len(built.split("test"))
    kept = np.load(tmp_path / "figures.json.scores" / "scores" / "scores.npy")
    np.testing.assert_allclose(kept, scores, atol=2e-5)
    assert seen[-1] == (12, 12)
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 24 and [sorted(one) for one in lines[::12]] == [["best", "text"], ["best", "image"]]
    best = built.split("test")["key"][int(scores[0].argmax())]
    assert lines[0]["best"][0]["image"] == best
    # The task's own evaluation is of the first images.
    limited = task.evaluate(task.model, limit=5)["test"]
    few = scores[:5, :5]
    assert limited["ir_r1"] == np.mean(few.argmax(1) == np.arange(5))
    assert task.headlines == ("tr_r1", "ir_r1")
    assert task.headline({"test": limited}) == {"tr_r1": limited["tr_r1"], "ir_r1": limited["ir_r1"]}
    assert any("R@1/5/10" in name for name, _ in task.summary({"test": limited}))
    assert not list((folder.parent / "evaluation").glob("*"))


def test_a_runs_evaluation_that_was_stopped_goes_on(scenes, tmp_path, monkeypatch):
    from pixelbert_fast.tasks.retrieval.block_store import BlockStore

    task = make_task(settings(scenes, tmp_path))
    expected = task.evaluate(task.model)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        task.evaluate(task.model, progress=stop)
    kept, keep = [], BlockStore.keep
    monkeypatch.setattr(BlockStore, "keep", lambda *given: kept.append(given[1]) or keep(*given))
    assert task.evaluate(task.model) == expected
    assert kept and 0 not in kept
    with pytest.raises(KeyboardInterrupt):
        task.evaluate(task.model, progress=stop)
    with torch.no_grad():
        task.model.score_head.bias += 1
    kept.clear()
    assert task.evaluate(task.model) == expected
    assert 0 in kept  # the blocks of other weights are of no use


def test_all_captions_are_ranked_where_asked_for(scenes, trained):
    request = EvaluationRequest(options={"captions": "all"})
    metrics = evaluate_checkpoint(trained[1], open_set(scenes), "test", request).metrics
    assert metrics["texts"] == 5 * metrics["images"] == 60
    for wrong in ({"captions": "some"}, {"memory_megabytes": "much"}, {"colour": "red"}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            evaluate_checkpoint(trained[1], open_set(scenes), "test", EvaluationRequest(options=wrong))


def test_search_ranks_a_folders_images_and_a_built_sets(scenes, trained, tmp_path):
    task, folder = trained
    split = open_set(scenes).split("test")
    (tmp_path / "below").mkdir()
    for row in range(4):
        place = tmp_path / ("below" if row % 2 else "") / f"{row}.jpg"
        place.write_bytes(split[row]["image"])
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("no image either")
    text = split[2]["captions"][0]
    ids = torch.tensor([task.tokenizer(text)["input_ids"]])
    with torch.no_grad():
        scores = [
            float(
                task.model.eval()(
                    ids, None, task.image_processor([split[row]["image"]])["pixel_values"]
                ).scores
            )
            for row in range(4)
        ]
    given = ["search", str(tmp_path), text, "--checkpoint", str(folder), "--json"]
    result = CliRunner().invoke(app, [*given, "--out", str(tmp_path / "sheet" / "found.html"), "--top", "3"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout.splitlines()[-1])
    names = ["0.jpg", "below/1.jpg", "2.jpg", "below/3.jpg"]
    assert [one["image"] for one in found] == [names[row] for row in np.argsort(scores)[::-1][:3]]
    assert found[0]["score"] == pytest.approx(max(scores), abs=2e-5)
    assert "broken.png" in result.stderr
    page = (tmp_path / "sheet" / "found.html").read_text()
    assert page.count("<article>") == 3 and page.count("data:image/jpeg") == 3 and text in page
    result = CliRunner().invoke(
        app, ["search", str(scenes), text, "--checkpoint", str(folder), "--images", "5", "--json"]
    )
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout.splitlines()[-1])) == 5


def test_search_says_what_is_missing(trained, tmp_path):
    for arguments, said in (
        ([str(tmp_path / "nowhere"), "a"], "no folder"),
        ([str(tmp_path), "a"], "no image"),
    ):
        result = CliRunner().invoke(app, ["search", *arguments, "--checkpoint", str(trained[1])])
        assert result.exit_code != 0
        assert said in str(result.exception) + result.output
