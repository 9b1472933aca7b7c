"""The pre-training task built from a run's configuration."""

import io
import json
import logging

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from PIL import Image

from pixelbert_fast import PixelBertForPreTraining, PixelBertProcessor
from pixelbert_fast.data.records import open_set, write_card
from pixelbert_fast.data.vocabulary import train_wordpiece
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks import make_task
from pixelbert_fast.tasks.protocol import unwrapped
from pixelbert_fast.training.config import RunConfig

SMALL = {"backbone_channels": 8, "hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 32}
COLOURS = ("red", "green", "blue", "white")


def record(row):
    stream = io.BytesIO()
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)
    colour = row % 4
    pixels[..., [colour] if colour < 3 else [0, 1, 2]] = 255
    Image.fromarray(pixels).save(stream, "PNG")
    captions = [f"all is {COLOURS[colour]}", f"picture {row} has a {COLOURS[colour]} ground"]
    facts = [{"ground": {"colour": COLOURS[colour]}}, {"ground": {"colour": COLOURS[colour], "number": row}}]
    return {
        "key": str(row),
        "image": stream.getvalue(),
        "height": 32,
        "width": 32,
        "captions": captions,
        "facts": [json.dumps(fact) for fact in facts],
        "scene": json.dumps({"objects": [], "ground": {"colour": COLOURS[colour], "number": row}}),
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    directory = tmp_path_factory.mktemp("grounds") / "set"
    rows = Dataset.from_list([record(row) for row in range(16)])
    DatasetDict({"train": rows, "val": rows.select(range(8))}).save_to_disk(directory)
    card = {"name": "grounds", "counts": {"train": 16, "val": 8}, "word_categories": {"colour": COLOURS}}
    write_card(directory, card)
    return directory


def config(directory, **sections):
    tree = {
        "data": {"directory": str(directory), "short_side": 32, "long_side": 64, "captions_per_image": 2},
        "model": {"overrides": SMALL},
        "training": {"images_per_batch": 8, "epochs": 1},
        "evaluation": {"splits": ["val"], "images": None},
    }
    for name, section in sections.items():
        tree[name] = {**tree.get(name, {}), **section}
    return RunConfig.model_validate(tree)


def test_it_is_built_from_the_configuration(built):
    task = make_task(config(built, objectives={"itm": False}))
    words = {word for row in range(16) for text in record(row)["captions"] for word in text.split()}
    assert words < task.tokenizer.get_vocab().keys()
    settings = task.model.config
    assert settings.vocab_size == len(task.tokenizer)
    assert (settings.short_side, settings.long_side, settings.hidden_size) == (32, 64, 32)
    assert (settings.mlm, settings.itm) == (True, False)
    assert (task.image_processor.short_side, task.image_processor.long_side) == (32, 64)


def test_every_parameter_is_in_one_group(built):
    task = make_task(config(built, model={"overrides": SMALL | {"frozen_stages": 1}}))
    groups = task.parameter_groups(task.model)
    assert all(name.startswith("pixelbert.backbone.") for name, _ in groups["backbone"])
    assert not any(".backbone." in name for name, _ in groups["transformer"])
    listed = [id(parameter) for group in groups.values() for _, parameter in group]
    trained = {id(parameter) for parameter in task.model.parameters() if parameter.requires_grad}
    assert len(listed) == len(set(listed))
    assert set(listed) == trained
    assert len(trained) < len(list(task.model.parameters()))


def test_a_few_steps_lower_the_loss_and_the_seed_decides_them(built):
    def trained():
        task = make_task(config(built))
        parameters = [
            parameter for group in task.parameter_groups(task.model).values() for _, parameter in group
        ]
        optimizer = torch.optim.AdamW(parameters, lr=3e-3)
        losses = []
        for epoch in range(12):
            for batch in task.batches(epoch, 0, 1):
                loss, scalars = task.loss(task.model, batch)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        assert scalars.keys() == {"mlm_loss", "itm_loss", "mlm_accuracy", "itm_accuracy"}
        assert not any(value.requires_grad for value in scalars.values())
        torch.testing.assert_close(loss.detach(), scalars["mlm_loss"] + scalars["itm_loss"])
        return losses

    losses = trained()
    assert len(losses) == 24
    assert sum(losses[-6:]) < 0.8 * sum(losses[:6])
    torch.rand(3)
    assert trained() == losses


def test_objectives_choose_what_batches_hold(built):
    words_only = next(
        make_task(config(built, objectives={"itm": False, "mlm_probability": 0.5})).batches(0, 0, 1)
    )
    assert words_only["matched"].all()
    assert (words_only["labels"] != -100).any()
    pairs_only = next(make_task(config(built, objectives={"mlm": False})).batches(0, 0, 1))
    assert pairs_only["matched"].tolist() == [1, 0] * 8
    assert (pairs_only["labels"] == -100).all()
    blind = next(make_task(config(built, start={"text_only": True})).batches(0, 0, 1))
    assert not blind["pixel_values"].any()


def test_what_it_saves_can_be_used_and_trained_on(built, tmp_path):
    task = make_task(config(built))
    task.save(task.model, tmp_path)
    processor = PixelBertProcessor.from_pretrained(tmp_path)
    model = PixelBertForPreTraining.from_pretrained(tmp_path).eval()
    inputs = processor(images=[record(0)["image"]], text=["all is red"], return_tensors="pt")
    outputs = [one(**inputs).itm_logits for one in (model, task.model.eval())]
    torch.testing.assert_close(*outputs)

    again = make_task(config(built, start={"checkpoint": str(tmp_path)}).model_copy(update={"seed": 9}))
    assert again.tokenizer.get_vocab() == task.tokenizer.get_vocab()
    mine, theirs = task.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_metrics_and_their_table(built):
    task = make_task(config(built))

    class Wrapped(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    assert unwrapped(Wrapped(Wrapped(task.model))) is task.model
    reports = []
    metrics = task.evaluate(Wrapped(task.model), progress=lambda *at: reports.append(at), limit=6)
    assert metrics["val"]["images"] == 6
    assert reports[-1] == (6, 6)
    rows = dict(task.summary(metrics))
    assert rows["val: matching accuracy"] == f"{100 * metrics['val']['itm_accuracy']:.1f} %"
    assert rows["val:   colour"].endswith(f"({metrics['val']['words']['colour']['items']})")
    figures = metrics["val"]
    assert task.headline({**metrics, "test": {}}) == {
        "itm_accuracy": figures["itm_accuracy"],
        "mlm_content_accuracy": figures["mlm_accuracy_content"],
        "mlm_content_accuracy_wrong_image": figures["mlm_accuracy_content_wrong_image"],
    }
    assert task.headline({}) == {}
    assert task.headlines == tuple(task.headline(metrics))
    json.dumps(metrics)


def test_captions_that_are_cut_are_reported(built, caplog):
    with caplog.at_level(logging.WARNING):
        make_task(config(built, data={**config(built).data.model_dump(), "max_text_length": 6}))
    assert "16 captions are longer than 6 word pieces" in caplog.text


def test_what_does_not_fit_is_one_sentence(built, tmp_path):
    with pytest.raises(UserError, match="there is no task 'pretrian'; did you mean pretrain"):
        make_task(config(built).model_copy(update={"task": "pretrian"}))
    with pytest.raises(UserError, match=r"data.max_text_length is 70"):
        make_task(config(built, data={**config(built).data.model_dump(), "max_text_length": 70}))
    with pytest.raises(UserError, match="no field 'hiden_size'"):
        make_task(config(built, model={"overrides": {"hiden_size": 3}}))
    with pytest.raises(UserError, match="there is no checkpoint at"):
        make_task(config(built, start={"checkpoint": "nowhere"}))
    with pytest.raises(UserError, match="there is no tokenizer at /no/where"):
        make_task(config(built, tokenizer={"path": "/no/where"}))
    with pytest.raises(UserError, match="holds no tokenizer: give a directory"):
        make_task(config(built, tokenizer={"path": str(tmp_path)}))


def test_a_path_below_a_folder_is_not_looked_for_on_the_hub(built, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="there is no tokenizer at runs/demo: that directory does not exist"):
        make_task(config(built, start={"bert": "runs/demo"}))


def test_a_slow_tokenizer_is_refused_before_training(built, tmp_path, monkeypatch):
    from transformers import AutoTokenizer, BertTokenizerFast

    monkeypatch.setattr(BertTokenizerFast, "is_fast", False)
    tokenizer = train_wordpiece(["all is red"], 100)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda path, **options: tokenizer)
    with pytest.raises(UserError, match="save a fast one"):
        make_task(config(built, tokenizer={"path": saved_tokenizer(tmp_path)}))


def test_splits_to_evaluate_are_looked_for_before_training(built, tmp_path):
    with pytest.raises(UserError, match="has no split 'tst', it has: train, val"):
        make_task(config(built, evaluation={"splits": ["val", "tst"]}))
    rows = Dataset.from_list([record(row) for row in range(4)])
    DatasetDict({"train": rows, "val": rows.select([0])}).save_to_disk(tmp_path / "set")
    write_card(tmp_path / "set", {"name": "grounds", "counts": {"train": 4, "val": 1}})
    with pytest.raises(UserError, match=r"the split 'val' of .* has 1 image and an evaluation needs 2"):
        make_task(config(tmp_path / "set"))


def saved_tokenizer(directory):
    train_wordpiece([text for row in range(16) for text in record(row)["captions"]], 500).save_pretrained(
        directory
    )
    return str(directory)


def test_a_checkpoint_of_another_architecture_is_refused(built, tmp_path):
    task = make_task(config(built))
    task.save(task.model, tmp_path / "small")
    wider = {"overrides": SMALL | {"hidden_size": 64}}
    with pytest.raises(
        UserError, match=r"another architecture: its .* is \[.*32\], this model's is \[.*64\]"
    ):
        make_task(config(built, model=wider, start={"checkpoint": str(tmp_path / "small")}))
    settings = json.loads((tmp_path / "small" / "config.json").read_text())
    (tmp_path / "small" / "config.json").write_text(json.dumps(settings | {"model_type": "bert"}))
    with pytest.raises(UserError, match="model of type 'bert', not a Pixel-BERT"):
        make_task(config(built, start={"checkpoint": str(tmp_path / "small")}))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A second set, of the same images under other words, without a split "val" and without facts."""
    directory = tmp_path_factory.mktemp("walls") / "set"
    rows = [
        {name: record(row)[name] for name in ("key", "image", "height", "width")}
        | {"captions": [f"wall {row} is {COLOURS[row % 4]}"]}
        for row in range(6)
    ]
    DatasetDict({"train": Dataset.from_list(rows), "test": Dataset.from_list(rows)}).save_to_disk(directory)
    write_card(directory, {"name": "walls", "counts": {"train": 6, "test": 6, "val": 0}})
    return directory


def test_several_sets_are_trained_on_and_each_is_evaluated(built, other):
    sets = [{"directory": str(built), "weight": 0.5}, {"directory": str(other), "weight": 2}]
    both = {"sets": sets, "epoch": "captions", "batching": {"buckets": 2, "tokens": 2 * 2 * 40}}
    task = make_task(config(built, data=both, evaluation={"splits": ["val", "test"]}))
    assert {"wall", "ground"} < task.tokenizer.get_vocab().keys()
    # 16 images with two captions each, half of them an epoch, and 6 with one, twice.
    batches = list(task.batches(0, 0, 1))
    assert sum(task.size(batch)["images"] for batch in batches) == 8 + 8 + 12
    assert max(len(batch["pixel_values"]) for batch in batches) <= 8
    assert len(batches) == task.steps_per_epoch(1) == task.steps_per_epoch(1, 0, 0)
    for batch in batches[:3]:
        loss, _ = task.loss(task.model, batch)
        assert torch.isfinite(loss)
    metrics = task.evaluate(task.model)
    # Both folders are named "set", so the whole directories tell them apart.
    assert set(metrics) == {f"{built}/val", f"{other}/test"}
    assert metrics[f"{built}/val"]["words"].keys() == {"colour"}
    assert task.headline(metrics)["itm_accuracy"] == metrics[f"{built}/val"]["itm_accuracy"]
    with pytest.raises(UserError, match=r"none of data.sets has a split 'dev'"):
        make_task(config(built, data=both, evaluation={"splits": ["dev"]}))
    with pytest.raises(UserError, match="there is no data set at /nowhere"):
        make_task(config(built, data={"sets": [*sets, {"directory": "/nowhere"}]}))


def test_an_evaluation_of_nothing_is_refused_before_training(built, tmp_path, monkeypatch):
    rows = Dataset.from_list([record(row) for row in range(5)])
    DatasetDict({"train": rows, "test": rows.select(range(1))}).save_to_disk(tmp_path / "set")
    write_card(tmp_path / "set", {"name": "grounds", "counts": {"train": 5, "test": 1}})
    sets = {"sets": [{"directory": str(built)}, {"directory": str(tmp_path / "set")}]}
    with pytest.raises(UserError, match=r"the split 'test' has less than 2 images in each of data\.sets"):
        make_task(config(built, data=sets, evaluation={"splits": ["test"]}))
    monkeypatch.chdir(built)
    sets["sets"][0]["directory"] = "."
    task = make_task(config(built, data=sets, evaluation={"splits": ["val"]}))
    assert set(task.evaluate(task.model)) == {"./val"}


def test_a_batch_that_could_not_hold_one_image_is_refused_before_training(built):
    # 32 x 32 pixels, and 2 texts of 40 word pieces at most.
    with pytest.raises(UserError, match="1023 pixels"):
        make_task(config(built, data={"batching": {"pixels": 1023}}))
    with pytest.raises(UserError, match="tokens"):
        make_task(config(built, data={"batching": {"tokens": 4}}))


def test_a_batchs_images_can_be_named_and_its_operations_counted(built):
    task = make_task(config(built))
    batch = next(iter(task.batches(0, 0, 1)))
    keys = open_set(built).split("train")["key"][:]
    rows = batch["rows"].tolist()
    assert task.keys(batch["rows"]) == [f"{keys[row]!r} (row {row})" for row in rows]
    assert len(rows) == len(batch["pixel_values"])
    assert task.flops(batch) > 0
