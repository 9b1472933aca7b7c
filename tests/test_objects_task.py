"""Naming single objects: targets, loss, accuracy, and a backbone that others can start from."""

import io
import json

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from pixelbert_fast.data.processor import PixelBertImageProcessor
from pixelbert_fast.data.records import write_card
from pixelbert_fast.errors import UserError
from pixelbert_fast.model import PixelBertConfig
from pixelbert_fast.model.backbone import ResNet
from pixelbert_fast.model.weights import load_backbone
from pixelbert_fast.tasks import make_task
from pixelbert_fast.tasks.objects.batches import ObjectBatches
from pixelbert_fast.tasks.objects.naming import ObjectNaming, evaluate_naming, naming_loss
from pixelbert_fast.training.config import RunConfig

ATTRIBUTES = {"colour": ["red", "green", "blue"], "place": ["left", "right"]}
PROCESSOR = PixelBertImageProcessor(short_side=32, long_side=64)
IMAGES = 24


def record(row, width=32):
    """A coloured half of a black image; every sixth has no known place."""
    pixels = np.zeros((32, width, 3), dtype=np.uint8)
    place = row // 3 % 2
    pixels[:, place * width // 2 : (place + 1) * width // 2, row % 3] = 255
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    look = {"colour": ATTRIBUTES["colour"][row % 3], "place": ATTRIBUTES["place"][place]}
    if row % 6 == 5:
        del look["place"]
    scene = {"objects": [{"attributes": look, "box": [0, 0, width, 32]}], "ground": {}}
    caption = f"something {look['colour']}"
    return {
        "key": str(row),
        "image": stream.getvalue(),
        "height": 32,
        "width": width,
        "captions": [caption],
        "facts": [json.dumps({"exist": [look]})],
        "scene": json.dumps(scene),
    }


@pytest.fixture(scope="module")
def split():
    return Dataset.from_list([record(row) for row in range(IMAGES)])


@pytest.fixture(scope="module")
def built(split, tmp_path_factory):
    directory = tmp_path_factory.mktemp("objects") / "set"
    DatasetDict({"train": split, "val": split.select(range(12))}).save_to_disk(directory)
    write_card(
        directory, {"name": "halves", "counts": {"train": IMAGES, "val": 12}, "attributes": ATTRIBUTES}
    )
    return directory


def config(directory, **sections):
    return RunConfig.model_validate(
        {
            "task": "objects",
            "data": {"directory": str(directory), "short_side": 32, "long_side": 64},
            "model": {"overrides": {"backbone_channels": 8}},
            "training": {"images_per_batch": 8, "epochs": 1},
            "evaluation": {"splits": ["val"]},
            **sections,
        }
    )


class Plain(nn.Module):
    """A backbone whose map is the image itself."""

    out_channels = 3

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, pixel_values, pixel_size=None):
        return pixel_values * self.weight


def test_targets_are_the_classes_and_unknown_ones_are_marked(split):
    batch = ObjectBatches(split, PROCESSOR, ATTRIBUTES).of(range(6))
    assert batch["targets"].tolist() == [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, -100]]
    assert batch["pixel_values"].shape == (6, 3, 32, 32)
    assert batch["pixel_size"].tolist() == [[32, 32]] * 6


def test_an_epoch_shows_every_object_once(split):
    batches = ObjectBatches(split, PROCESSOR, ATTRIBUTES, images_per_batch=8, seed=1)
    epoch = list(batches.epoch(0))
    assert len(epoch) == batches.steps_per_epoch() == 3
    shown = torch.cat([batch["targets"] for batch in epoch])
    expected = batches.of(range(IMAGES))["targets"]
    assert sorted(shown.tolist()) == sorted(expected.tolist())
    assert torch.equal(next(batches.epoch(0, skip=2))["targets"], epoch[2]["targets"])
    assert not torch.equal(torch.cat([batch["targets"] for batch in batches.epoch(1)]), shown)


def test_the_maximum_leaves_out_the_padding():
    model = ObjectNaming(Plain(), ATTRIBUTES)
    small = torch.rand(1, 3, 4, 6)
    padded = torch.zeros(2, 3, 8, 8)
    padded[0, :, :4, :6] = small
    sizes = torch.tensor([[4, 6], [8, 8]], dtype=torch.int32)
    expected = [head(small.amax(dim=(2, 3))) for head in model.heads]
    for maximum, alone, among in zip(expected, model(small), model(padded, sizes), strict=True):
        torch.testing.assert_close(alone, maximum)
        torch.testing.assert_close(among[:1], maximum)


def test_the_loss_is_the_sum_of_the_attributes_mean_cross_entropies():
    logits = [torch.randn(3, 3), torch.randn(3, 2)]
    targets = torch.tensor([[0, 1], [2, -100], [1, -100]])
    loss, scalars = naming_loss(logits, targets)
    whole = nn.functional.cross_entropy(logits[0], targets[:, 0])
    torch.testing.assert_close(loss, whole + nn.functional.cross_entropy(logits[1][:1], targets[:1, 1]))
    right = sum(int(one.argmax(1)[i] == targets[i, a]) for a, one in enumerate(logits) for i in range(3))
    torch.testing.assert_close(scalars["accuracy"], torch.tensor(right / 4))
    nothing, _ = naming_loss(logits, torch.full((3, 2), -100))
    assert nothing == 0


def test_accuracy_counts_what_is_known(split):
    batches = ObjectBatches(split, PROCESSOR, ATTRIBUTES)

    class Colours(ObjectNaming):
        """Tells colours by the strongest channel and calls every place left."""

        def forward(self, pixel_values, pixel_size=None):
            assert not self.training
            return [pixel_values.sum(dim=(2, 3)), torch.tensor([[1.0, 0.0]]).expand(len(pixel_values), 2)]

    model, reports = Colours(Plain(), ATTRIBUTES).train(), []
    figures = evaluate_naming(
        model, batches, images_per_pass=7, progress=lambda done, of: reports.append((done, of))
    )
    # 12 of 24 are left, 4 of the 12 right ones do not say so.
    assert figures == {"images": 24, "accuracy": {"colour": 1.0, "place": pytest.approx(12 / 20)}}
    assert model.training
    assert reports == [(7, 24), (14, 24), (21, 24), (24, 24)]
    assert evaluate_naming(model, batches, limit=3)["images"] == 3


def test_the_task_learns_and_saves_a_backbone_to_start_from(built, tmp_path):
    task = make_task(config(built))
    before = task.evaluate(task.model)["val"]["accuracy"]
    groups = task.parameter_groups(task.model)
    assert {name.split(".")[0] for name, _ in groups["backbone"]} == {"backbone"}
    assert {name.split(".")[0] for name, _ in groups["transformer"]} == {"heads"}
    parameters = [parameter for group in groups.values() for _, parameter in group]
    assert len(parameters) == len(list(task.model.parameters()))

    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    for epoch in range(10):
        for batch in task.batches(epoch, 0, 1):
            assert task.size(batch) == {"images": 8, "pairs": 8}
            loss, _ = task.loss(task.model, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    metrics = task.evaluate(task.model)
    assert metrics["val"]["accuracy"]["colour"] == 1.0 > before["colour"]
    assert task.summary(metrics)[0] == ("val: colour", "100.0 %")
    assert task.headline(metrics)["colour_accuracy"] == 1.0
    assert task.headlines == tuple(task.headline(metrics))
    assert task.headline({}) == {}

    task.save(task.model, tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "attributes.json").read_text()) == {"attributes": ATTRIBUTES}
    saved = load_file(tmp_path / "saved" / "backbone.safetensors")
    assert {"conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight"} <= saved.keys()
    fresh = ResNet(PixelBertConfig.preset("tiny", backbone_channels=8))
    report = load_backbone(fresh, tmp_path / "saved" / "backbone.safetensors")
    assert not report.missing
    assert not report.unexpected
    assert all(torch.equal(value, saved[name]) for name, value in fresh.state_dict().items())


def test_the_same_seed_starts_from_the_same_weights(built):
    torch.manual_seed(1)
    first = make_task(config(built, seed=4)).model.state_dict()
    torch.manual_seed(2)
    drawn = torch.rand(2)
    torch.manual_seed(2)
    again = make_task(config(built, seed=4)).model.state_dict()
    assert torch.equal(torch.rand(2), drawn)
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = make_task(config(built, seed=5)).model.state_dict()
    assert not torch.equal(first["backbone.conv1.weight"], other["backbone.conv1.weight"])


def test_sets_of_something_else_are_refused(split, tmp_path):
    with pytest.raises(UserError, match="says what its images show"):
        ObjectBatches(split.remove_columns("scene"), PROCESSOR, ATTRIBUTES)
    with pytest.raises(UserError, match="empty"):
        ObjectBatches(split.select([]), PROCESSOR, ATTRIBUTES)
    several = split.map(lambda row: {"scene": json.dumps({"objects": [{}, {}]})})
    with pytest.raises(UserError, match="image 0 shows 2 objects"):
        ObjectBatches(several, PROCESSOR, ATTRIBUTES)
    DatasetDict({"train": split}).save_to_disk(tmp_path / "set")
    write_card(tmp_path / "set", {"name": "halves", "counts": {"train": IMAGES}})
    with pytest.raises(UserError, match="does not list what its objects can be"):
        make_task(config(tmp_path / "set"))


def test_splits_to_evaluate_are_looked_for_before_training(built):
    with pytest.raises(UserError, match="has no split 'test', it has: train, val"):
        make_task(config(built, evaluation={"splits": ["val", "test"]}))


def test_a_batchs_images_can_be_named_and_its_operations_counted(built):
    task = make_task(config(built))
    batch = next(iter(task.batches(0, 0, 1)))
    rows = batch["rows"].tolist()
    assert len(set(rows)) == len(rows) == len(batch["pixel_values"])
    for row, name in zip(rows, task.keys(batch["rows"]), strict=True):
        assert name.endswith((f"row {row}", f"(row {row})"))
    one = {**batch, "pixel_values": batch["pixel_values"][:1]}
    assert task.flops(batch) == len(rows) * task.flops(one) > 0
