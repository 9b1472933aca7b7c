"""What the blocks of the documentation name and a reader has, in small: pictures, runs, sets, weights."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import torch
from datasets import Dataset, DatasetDict
from PIL import Image
from transformers import BertConfig, BertModel

from pixelbert_fast import (
    PixelBERT,
    PixelBertConfig,
    PixelBertForNaturalLanguageVisualReasoning,
    PixelBertProcessor,
    pretrained,
)
from pixelbert_fast.data.records import write_card
from tests import toy_pairs, vqa_sets

_NAMED = re.compile(
    r"(?<![\w/.-])((?:runs|data)/[\w-]+|[\w/-]+\.(?:jpg|png|pth|csv)|path/to/[\w-]+|examples|photos)\b"
)


def provide(text: str) -> None:
    """Make in the working directory what `text` names and is not there yet."""
    for name in dict.fromkeys(_NAMED.findall(text)):
        place = Path(name)
        if place.exists():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if name.startswith("runs/"):
            _run(place)
        elif name.startswith("data/"):
            _set(place)
        elif name in ("examples", "photos") or name.startswith("examples/"):
            shutil.copytree(pretrained.pictures()[0].parent, place if place.suffix == "" else place.parent)
        elif place.suffix in (".jpg", ".png"):
            shutil.copyfile(pretrained.pictures()[len(name) % 9], place)
        elif place.suffix == ".csv":
            rows = [f"{one.name},a red circle" for one in pretrained.pictures()]
            place.write_text("\n".join(["image,caption", *rows]), encoding="utf-8")
        elif place.suffix == ".pth":
            torch.save(PixelBERT(PixelBertConfig.preset("r50")).backbone.state_dict(), place)
        else:
            _bert(place)


def _run(folder: Path) -> None:
    """A finished run, by its name of one task or another, with a model that comes with the package."""
    kind = folder.name.partition("_")[0]
    if kind != "nlvr2":
        name = pretrained.SCENES_VQA if kind == "vqa" else pretrained.SCENES
        shutil.copytree(pretrained.folder(name), folder / "checkpoint")
        return
    scenes = pretrained.folder(pretrained.SCENES)
    model = PixelBertForNaturalLanguageVisualReasoning(PixelBertConfig.from_pretrained(scenes))
    model.save_pretrained(folder / "checkpoint")
    PixelBertProcessor.from_pretrained(scenes).save_pretrained(folder / "checkpoint")


def _set(folder: Path) -> None:
    """A built set, by its name of one task or another; captions: of one picture, for any row a page names."""
    if folder.name.startswith("vqa"):
        vqa_sets.build(folder)
        return
    if folder.name.startswith("nlvr2"):
        toy_pairs.build(folder)
        return
    content = pretrained.pictures()[0].read_bytes()
    with Image.open(pretrained.pictures()[0]) as picture:
        size = {"height": picture.height, "width": picture.width}
    rows = [{"key": str(row), "image": content, **size, "captions": ["a star"]} for row in range(500)]
    splits = {name: Dataset.from_list(rows) for name in ("train", "val", "test")}
    DatasetDict(splits).save_to_disk(folder)
    write_card(folder, {"name": folder.name, "counts": {name: len(rows) for name in splits}})


def _bert(folder: Path) -> None:
    """A BERT directory of the preset's sizes."""
    sizes = PixelBertConfig.preset("r50").to_dict()
    fields = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    BertModel(BertConfig(**{name: sizes[name] for name in fields})).save_pretrained(folder)
