"""The builders of `coco` and `flickr30k`: captions with the split files of Karpathy and Li (2015).

``dataset_coco.json`` and ``dataset_flickr30k.json`` are one object, {"images": [...], "dataset": NAME}. An
image is {"filename", "imgid", "split", "sentids", "sentences": [{"tokens", "raw", "imgid", "sentid"}, ...]};
COCO's have "filepath" (train2014 or val2014) and "cocoid" as well. "split" is train, val, test or, of COCO,
restval, which is trained on. A caption is "raw"; an image has five of them, some of COCO's more, some ending
with a line end.

The images lie below one folder: COCO's in train2014/ and val2014/, or as train2017/ and val2017/ hold them,
Flickr30K's in flickr30k-images/ or in the folder itself.
"""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pixelbert_fast.data.blocks import Dropped
from pixelbert_fast.data.build import Plan
from pixelbert_fast.data.json_stream import Element, JsonArray, bytes_at, value_of
from pixelbert_fast.data.official import (
    CHANGED,
    DUPLICATE,
    NO_CAPTION,
    AnnotationFile,
    Keys,
    OfficialSet,
    clean_captions,
    coco_paths,
    split_named,
)
from pixelbert_fast.data.records import SPLITS
from pixelbert_fast.errors import UserError

# So many of the first images tell whether the folder of images is the right one.
_FIRST = 50


def karpathy_images(file: AnnotationFile, dataset: str, needed: Sequence[str]) -> Iterator[Element]:
    """The images of a split file, one at a time.

    Args:
        dataset: what the file's "dataset" must say where it says something.
        needed: members that the first image must have, by which another file is told.
    """
    images = JsonArray(file.path, "images")
    for number, image in enumerate(images):
        missing = [name for name in needed if not isinstance(image.value, dict) or name not in image.value]
        if missing and not number:
            raise UserError(
                f"{file.path} is not Karpathy's dataset_{dataset}.json: its first image has no {missing[0]!r}"
            )
        yield image
    if images.beside.get("dataset", dataset) != dataset:
        raise UserError(f"{file.path} is of {images.beside['dataset']!r}: give dataset_{dataset}.json")


class _Karpathy(OfficialSet):
    """What the two share. A record's spec is its place in the split file."""

    dataset: str
    needed: tuple[str, ...]
    published: dict[str, int]
    layout: str

    def __init__(self, images: Path, annotations: Sequence[Path]):
        super().__init__(images, annotations)
        if len(self.files) > 1:
            raise UserError(f"{self.name} has one annotation file, dataset_{self.dataset}.json")

    def key(self, image: dict) -> str | None:
        """A record's key; None where the image has no name or number to make it of."""
        raise NotImplementedError

    def paths(self, image: dict) -> list[str]:
        """Where the file of an image that has a key may lie, the official place first."""
        raise NotImplementedError

    def plan(self) -> Plan:
        """The places of the images that have a split, a name and a caption."""
        splits, dropped = {split: array("Q") for split in SPLITS}, []
        keys, counted, first = Keys(), Counter(), []
        for number, element in enumerate(karpathy_images(self.files[0], self.dataset, self.needed), 1):
            read = self._read(element.value, f"image {number:,} of the file", counted)
            if isinstance(read, Dropped):
                dropped.append(read)
                continue
            key, split, paths, _ = read
            if not keys.take(key):
                dropped.append(Dropped(key, DUPLICATE))
                continue
            splits[split].append(element.place)
            if len(first) < _FIRST * len(paths):
                first += paths
        self.check_some(splits, dropped)
        self.check_layout(first, self.layout)
        return Plan(splits, self.card(counted=counted, published=self.published, dropped=dropped))

    def render(self, spec: int) -> dict | Dropped:
        """The record of one image, from its place in the split file."""
        try:
            read = self._read(value_of(bytes_at(self.files[0].path, spec)), "image")
        except ValueError:
            return Dropped("image", CHANGED)
        if isinstance(read, Dropped):
            return Dropped(read.key, CHANGED)
        key, _, paths, captions = read
        return self.record(key, self.folder.first_of(paths), captions=captions)

    def _read(
        self, image: Any, place: str, counted: Counter | None = None
    ) -> tuple[str, str, list[str], list[str]] | Dropped:
        """Key, split, paths and captions of an image, or why it has none; `place` names one without a key."""
        if not isinstance(image, dict) or not isinstance(image.get("filename"), str):
            return Dropped(place, "no filename")
        key = self.key(image)
        if key is None:
            return Dropped(place, "no cocoid")
        split = split_named(image.get("split"))
        if split is None:
            return Dropped(key, "split is none of train, restval, val, test")
        sentences = image.get("sentences")
        sentences = sentences if isinstance(sentences, list) else []
        captions = clean_captions([one.get("raw") for one in sentences if isinstance(one, dict)], counted)
        if not captions:
            return Dropped(key, NO_CAPTION)
        return key, split, self.paths(image), captions


class Coco(_Karpathy):
    """COCO captions of 2014.

    Args:
        images: the folder that holds train2014/ and val2014/, or train2017/ and val2017/.
        annotations: dataset_coco.json.

    Raises UserError for a missing folder or file; `plan` does for another file.
    """

    name = "coco"
    dataset = "coco"
    home = "https://cocodataset.org"
    licence = "annotations CC BY 4.0 (COCO Consortium); images under the terms of Flickr and of their owners"
    needed = ("filename", "filepath", "split", "cocoid", "sentences")
    # TensorFlow Datasets' coco_captions counts the same: 82,783 train and 30,504 restval, 5,000, 5,000.
    published = {"images in train": 113_287, "images in val": 5_000, "images in test": 5_000}
    layout = "give the folder that holds train2014 and val2014, or train2017 and val2017"

    def key(self, image: dict) -> str | None:
        """``coco-`` and COCO's own number of the image."""
        number = image.get("cocoid")
        return f"coco-{number}" if isinstance(number, int) and not isinstance(number, bool) else None

    def paths(self, image: dict) -> list[str]:
        """``train2014/COCO_train2014_000000000009.jpg``, or ``train2017/000000000009.jpg``"""
        path = f"{image['filepath']}/{image['filename']}" if image.get("filepath") else image["filename"]
        return coco_paths(path, image["cocoid"])


class Flickr30k(_Karpathy):
    """Flickr30K captions.

    Args:
        images: flickr30k-images/, or the folder that holds it.
        annotations: dataset_flickr30k.json.

    Raises UserError for a missing folder or file; `plan` does for another file.
    """

    name = "flickr30k"
    dataset = "flickr30k"
    home = "https://shannon.cs.illinois.edu/DenotationGraph"
    licence = "captions CC BY 3.0; images under the terms of Flickr and of their owners"
    needed = ("filename", "split", "sentences")
    # As two copies of this file on the Hugging Face hub count, umaru97/flickr30k_train_val_test among them.
    published = {"images in train": 29_000, "images in val": 1_014, "images in test": 1_000}
    layout = "give flickr30k-images, or the folder that holds it"

    def __init__(self, images: Path, annotations: Sequence[Path]):
        super().__init__(images, annotations)
        self._below = "flickr30k-images/" if (self.folder.root / "flickr30k-images").is_dir() else ""

    def key(self, image: dict) -> str | None:
        """``flickr30k-`` and the name of the file without its ending."""
        return f"flickr30k-{image['filename'].removesuffix('.jpg')}"

    def paths(self, image: dict) -> list[str]:
        """The file, below flickr30k-images/ where that is not the folder given."""
        return [self._below + image["filename"]]
