"""What retrieval keeps on disk is used for the same weights, architecture and images alone."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image

from pixelbert_fast.cli import main
from pixelbert_fast.data.records import open_set
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks import make_task
from pixelbert_fast.tasks.fine_tuned import EvaluationRequest
from pixelbert_fast.tasks.retrieval import room
from pixelbert_fast.tasks.retrieval.block_store import BlockStore
from pixelbert_fast.tasks.retrieval.cache import VisualCache
from pixelbert_fast.tasks.retrieval.checkpoint import evaluate_checkpoint
from tests.test_deepspeed_engine import launched
from tests.test_retrieval_task import batches, scenes, settings, trained  # noqa: F401  (fixtures)


def rebuilt(scenes, into, split, change):  # noqa: F811
    """A copy of the set, `change` done to every row of a split: number and row."""
    shutil.copytree(scenes, into)
    records = open_set(scenes).split(split)
    rows = [change(number, dict(row)) for number, row in enumerate(records)]
    shutil.rmtree(into / split)
    Dataset.from_list(rows, features=records.features).save_to_disk(into / split)
    return into


def mirrored(number, row):
    import io

    stream = io.BytesIO()
    Image.open(io.BytesIO(row["image"])).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(stream, "PNG")
    return row | {"image": stream.getvalue()}


class Stop(Exception):
    pass


def stopped(folder, built, out, **given):
    """An evaluation that ends with a few blocks done."""

    def stop(done, total):
        raise Stop

    request = EvaluationRequest(out=out, progress=stop, **given)
    with pytest.raises(Stop):
        evaluate_checkpoint(folder, built, "test", request)


def test_an_evaluation_does_not_go_on_with_other_pictures_of_the_same_names(scenes, trained, tmp_path):  # noqa: F811
    out, folder = tmp_path / "figures.json", trained[1]
    stopped(folder, open_set(scenes), out)
    other = rebuilt(scenes, tmp_path / "other", "test", mirrored)
    assert open_set(other).split("test")["key"][:] == open_set(scenes).split("test")["key"][:]
    with pytest.raises(UserError, match="other weights or images"):
        evaluate_checkpoint(folder, open_set(other), "test", EvaluationRequest(out=out))
    evaluate_checkpoint(folder, open_set(scenes), "test", EvaluationRequest(out=out))


@pytest.mark.parametrize(
    "change", [{"num_attention_heads": 2}, {"hidden_act": "relu"}, {"output_stride": 16}, {"short_side": 40}]
)
def test_an_evaluation_does_not_go_on_with_another_architecture_of_the_same_weights(
    scenes,  # noqa: F811
    trained,  # noqa: F811
    tmp_path,
    change,
):
    out, folder = tmp_path / "figures.json", tmp_path / "checkpoint"
    shutil.copytree(trained[1], folder)
    stopped(folder, open_set(scenes), out)
    for name in ("config.json", "processor_config.json"):
        told = json.loads((folder / name).read_text())
        for part in (told, told.get("image_processor", {})):
            part.update({key: value for key, value in change.items() if key in part})
        (folder / name).write_text(json.dumps(told))
    with pytest.raises(UserError, match="other weights or images"):
        evaluate_checkpoint(folder, open_set(scenes), "test", EvaluationRequest(out=out))


def test_a_runs_cache_is_of_its_pictures_and_architecture(scenes, tmp_path):  # noqa: F811
    """One folder for caches, as several runs may share."""
    given = {"cache": "embeddings", "cache_directory": str(tmp_path / "caches")}

    def made(directory, output, **sections):
        task = make_task(settings(directory, tmp_path / output, retrieval=given, **sections))
        return next(task.batches(0, 0, 1))["pixel_tokens"]

    first = made(scenes, "a")
    assert torch.equal(made(scenes, "b"), first)
    assert len(list((tmp_path / "caches").iterdir())) == 1
    other = rebuilt(scenes, tmp_path / "other", "train", mirrored)
    assert not torch.equal(made(other, "c"), first)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "backbone_channels": 8}
    model = {"overrides": small | {"projection_order": "pool_project"}}
    assert not torch.equal(made(scenes, "d", model=model), first)
    assert len(list((tmp_path / "caches").iterdir())) == 3


def lost(rows):
    return lambda number, row: row | {"image": b"no picture"} if number in rows else row


def test_images_that_cannot_be_decoded_are_not_learnt_from_and_are_told(scenes, trained, tmp_path):  # noqa: F811
    broken = rebuilt(scenes, tmp_path / "broken", "train", lost({3, 7}))
    asked = settings(broken, tmp_path / "run", retrieval={"cache": "embeddings"})
    with pytest.raises(UserError, match="2 of 96 images cannot be decoded"):
        make_task(asked)
    allowed = settings(
        broken,
        tmp_path / "run",
        retrieval={"cache": "embeddings"},
        data={"directory": str(broken), "short_side": 48, "long_side": 64, "broken_limit": 0.05},
    )
    for _ in range(2):  # made, and then found: both know
        task = make_task(allowed)
        assert task.broken == 2
        rows = np.concatenate([batch["rows"].numpy() for batch in task.batches(0, 0, 1)])
        assert len(rows) == 96 and not {3, 7} & set(rows.tolist())
    # A group's right text is that of the image that is shown.
    split, tokenizer = open_set(broken).split("train"), task.tokenizer
    for batch in batches(task, 30):
        for group, row in zip(batch["groups"].tolist(), batch["rows"].tolist(), strict=True):
            own = batch["input_ids"][group[0]][batch["attention_mask"][group[0]].bool()]
            assert own.tolist() in [tokenizer(text)["input_ids"] for text in split[row]["captions"]]
    shown = rebuilt(scenes, tmp_path / "shown", "test", lost({1}))
    found = evaluate_checkpoint(trained[1], open_set(shown), "test", EvaluationRequest())
    assert found.metrics["broken"] == 1
    assert ("test: images that cannot be decoded", "1") in found.rows


def test_cut_texts_are_counted_among_those_that_were_asked_for(scenes, trained, tmp_path):  # noqa: F811
    folder, built = tmp_path / "checkpoint", open_set(scenes)
    shutil.copytree(trained[1], folder)
    path = folder / "processor_config.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"max_text_length": 9}))
    split, tokenizer = built.split("test"), trained[0].tokenizer
    long = [
        [len(tokenizer(text)["input_ids"]) > 9 for text in record["captions"]] for record in list(split)[:5]
    ]
    marked = split["retrieval_caption"][:5]
    expected = {
        "distinct": sum(own[mark] for own, mark in zip(long, marked, strict=True)),
        "all": sum(map(sum, long)),
    }
    assert 0 < expected["distinct"] < expected["all"]
    for captions, count in expected.items():
        request = EvaluationRequest(images=5, options={"captions": captions})
        found = evaluate_checkpoint(folder, built, "test", request)
        assert found.metrics["truncated"] == count
        assert ("test: texts that were cut", f"{count:,}") in found.rows


def test_a_disk_too_small_for_the_scores_is_told_before_an_image_is_read(
    scenes,  # noqa: F811
    trained,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    matrix = 2 * 4 * 12 * 12
    pixels = iter([10**9])  # there is room for the pixels, which are asked for first
    monkeypatch.setattr(room, "free", lambda _: next(pixels, matrix - 1))
    monkeypatch.setattr(VisualCache, "fill", lambda *_, **__: pytest.fail("an image was read"))
    with pytest.raises(UserError, match="the scores of 12 texts and 12 images take"):
        evaluate_checkpoint(trained[1], open_set(scenes), "test", EvaluationRequest(out=tmp_path / "f.json"))


def test_two_processes_one_of_them_late_give_the_figures_of_one(scenes, trained, tmp_path):  # noqa: F811
    given = ["--checkpoint", str(trained[1]), "--data", str(scenes), "--split", "test"]
    given += ["--images-per-batch", "1", "--option", "keep=true", "--device", "cpu"]
    alone, both = tmp_path / "alone.json", tmp_path / "both.json"
    assert main(["evaluate", "retrieval", *given, "--out", str(alone)]) == 0
    done = launched(2, "evaluating_ranks.py", "evaluate", "retrieval", *given, "--out", str(both))
    assert [status for status, _, _ in done] == [0, 0], done[0][2][-2000:]
    assert "R@1/5/10" in done[0][1] and not done[1][1]
    one, two = (json.loads(path.read_text())["metrics"] for path in (alone, both))
    assert one == two
    one, two = (np.load(f"{path}.scores/scores/scores.npy") for path in (alone, both))
    np.testing.assert_array_equal(one, two)  # the same passes, whoever makes them


@pytest.mark.parametrize("kept", [True, False])
def test_ctrl_c_says_what_is_kept(scenes, trained, tmp_path, capsys, monkeypatch, kept):  # noqa: F811
    given = ["evaluate", "retrieval", "--checkpoint", str(trained[1]), "--data", str(scenes)]
    given += ["--split", "test", *(["--out", str(tmp_path / "figures.json")] if kept else [])]
    keep = BlockStore.keep

    def interrupted(*arguments):
        keep(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(BlockStore, "keep", interrupted)
    assert main(given) == 130
    told = capsys.readouterr().err
    assert ("figures.json.scores" if kept else "nothing was written") in told and "Traceback" not in told
    monkeypatch.setattr(BlockStore, "keep", keep)
    assert main(given) == 0
