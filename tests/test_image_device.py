"""Images decoded where the model is: the device reaches the decoder, and no pixel comes back to the CPU.

Batches on the device "meta" stand for those of a GPU: whatever asks for their values raises.
"""

import pytest
import torch
from datasets import Dataset, DatasetDict

from pixelbert_fast.data import decoded
from pixelbert_fast.data.decoded import DecodedImages
from pixelbert_fast.data.decoders import dali
from pixelbert_fast.data.decoders.contract import Broken, DecodedBatch, sizes_tensor
from pixelbert_fast.data.processor import PixelBertImageProcessor
from pixelbert_fast.data.records import write_card
from pixelbert_fast.environment import DECODER
from pixelbert_fast.tasks import make_task
from pixelbert_fast.training import run as runs
from pixelbert_fast.training.config import RunConfig
from pixelbert_fast.training.loop import _on_device
from pixelbert_fast.training.ranks import Ranks
from tests.mutated_images import mutated
from tests.training_task import ToyTask

META = torch.device("meta")
PROCESSOR = PixelBertImageProcessor(32, 64)


class OnDevice:
    """A decoder that leaves its batches on `device`; images that are empty are broken."""

    name = "there"

    def __init__(self, normalisation, name, device):
        self.asked, self.device, self.decoded = (name, device), torch.device(device), 0

    def decode(self, encoded, sizes, dtype=torch.float32):
        assert dtype == torch.float32
        self.decoded += len(encoded)
        height, width = (max(side) for side in zip(*sizes, strict=True))
        values = torch.empty(len(sizes), height, width, 3, device=self.device).permute(0, 3, 1, 2)
        broken = tuple(Broken(place, "empty") for place, image in enumerate(encoded) if not image)
        return DecodedBatch(values, sizes_tensor(sizes), broken)


@pytest.fixture
def made(monkeypatch):
    decoders = []

    def make(*arguments):
        decoders.append(OnDevice(*arguments))
        return decoders[-1]

    monkeypatch.setattr(decoded, "make_decoder", make)
    return decoders


def split(*contents):
    rows = [{"key": str(row), "image": one, "height": 32, "width": 40} for row, one in enumerate(contents)]
    return Dataset.from_list(rows)


def test_batches_stay_where_they_were_decoded(made):
    images = DecodedImages(split(*[b"image"] * 4), PROCESSOR, decoder="dali", device="meta")
    assert made[0].asked == ("dali", "meta")
    for _ in range(2):
        rows, values, sizes = images.readable([2, 0, 3], seed=1, epoch=0)
        assert (rows.tolist(), values.device, sizes.device.type) == ([2, 0, 3], META, "cpu")
        assert sizes.tolist() == [[32, 40]] * 3
        assert values.is_contiguous(memory_format=torch.channels_last)
    assert made[0].decoded == 6, "kept as bytes on the CPU"
    assert images.pixels([1])[0].device == META


def test_another_image_stands_in_there(made):
    images = DecodedImages(split(b"image", b"", b"image"), PROCESSOR, device="meta")
    rows, values, sizes = images.readable([0, 1], seed=1, epoch=0)
    assert rows.tolist() in ([0, 0], [0, 2])
    assert (values.device, sizes.tolist()) == (META, [[32, 40]] * 2)
    assert images.broken == 1


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    directory = tmp_path_factory.mktemp("device") / "set"
    rows = [
        {
            "key": str(row),
            "image": mutated("jpeg", row),
            "height": 40,
            "width": 56,
            "captions": [f"number {row}", f"the picture {row}"],
        }
        for row in range(12)
    ]
    rows = Dataset.from_list(rows)
    DatasetDict({"train": rows, "val": rows.select(range(4))}).save_to_disk(directory)
    write_card(directory, {"name": "numbers", "counts": {"train": 12, "val": 4}})
    return directory


def run_config(directory, **data):
    return RunConfig.model_validate(
        {
            "data": {"directory": str(directory), "short_side": 32, "long_side": 64, **data},
            "model": {"overrides": {"backbone_channels": 8, "hidden_size": 32, "num_hidden_layers": 1}},
            "training": {"images_per_batch": 4, "epochs": 1},
            "evaluation": {"splits": ["val"], "images": None},
        }
    )


# The second pads images to the size of their batches.
@pytest.mark.parametrize("data", [{}, {"batching": {"buckets": 1}}, {"decoder": "dali"}], ids=str)
def test_a_task_gives_them_to_the_engine_as_they_are(made, built, data):
    task = make_task(run_config(built, **data), META)
    assert [one.asked for one in made] == [(data.get("decoder"), META)]
    batches = list(task.batches(0, 0, 1))
    assert len(batches) == 3
    for batch in batches:
        assert batch["pixel_values"].device == META
        assert all(value.device.type == "cpu" for name, value in batch.items() if name != "pixel_values")
        assert _on_device(batch, META)["pixel_values"] is batch["pixel_values"]
        assert task.size(batch)["images"] == 4


def test_an_evaluation_decodes_there_too(made, built):
    task = make_task(run_config(built), "meta")
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        task.evaluate(task.model.to("meta"))  # the first value that it needs on the CPU
    assert [one.asked for one in made] == [(None, "meta")] * 2
    assert made[1].decoded == 4


def test_a_run_tells_the_task_which_device_its_engine_uses(monkeypatch, tmp_path, built):
    asked = []

    def make(config, device):
        asked.append(device)
        return ToyTask(config)

    monkeypatch.setattr(runs, "_make_task", make)
    config = run_config(built).model_copy(update={"output": str(tmp_path / "run")})
    runs.run(config, Ranks(), "plain")
    assert asked == [runs.engines.device_of(Ranks())]


def test_the_choice_follows_the_device(monkeypatch):
    """Without a GPU: DALI's decoder itself is replaced by a recorder of what it is made with."""
    monkeypatch.delenv(DECODER.name, raising=False)
    monkeypatch.setattr(dali, "_why_not_installed", lambda: None)
    monkeypatch.setattr(dali, "DaliDecoder", lambda *arguments: OnDevice(arguments[0], "dali", arguments[1]))
    images = split(b"image", b"image")
    there = DecodedImages(images, PROCESSOR, device="cuda:1")
    assert there._decoder.asked == ("dali", torch.device("cuda:1"))
    assert DecodedImages(images, PROCESSOR)._decoder.name == "plain"
    assert DecodedImages(images, PROCESSOR, decoder="plain", device="cuda")._decoder.name == "plain"
    monkeypatch.setattr(dali, "_why_not_installed", lambda: "DALI is away.")
    assert DecodedImages(images, PROCESSOR, device="cuda")._decoder.name == "plain"
