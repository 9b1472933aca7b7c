"""The builder of `visual-genome`: region descriptions, each a caption of its whole image as in the paper.

``region_descriptions.json`` is [{"id": IMAGE, "regions": [{"region_id", "image_id", "phrase", "x", "y",
"width", "height"}, ...]}, ...], about 700 MB, with images that have no regions. ``image_data.json`` is
[{"image_id", "url", "width", "height", "coco_id", "flickr_id"}, ...], where coco_id is null for images that
are not in COCO, and the url ends in VG_100K/1.jpg or VG_100K_2/1.jpg, as the images lie on disk.

Half of the images are COCO's: those in the val and test splits of Karpathy and Li are left out, since a model
pre-trained on them is evaluated there.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from pixelbert_fast.data.blocks import Dropped
from pixelbert_fast.data.build import Plan
from pixelbert_fast.data.json_stream import JsonArray, bytes_at, value_of
from pixelbert_fast.data.karpathy import Coco, karpathy_images
from pixelbert_fast.data.official import (
    CHANGED,
    DUPLICATE,
    NO_CAPTION,
    AnnotationFile,
    Keys,
    OfficialSet,
    clean_captions,
    split_named,
    split_of,
    split_shares,
)
from pixelbert_fast.data.records import SPLITS
from pixelbert_fast.errors import UserError

_FOLDERS = ("VG_100K", "VG_100K_2")
_FIRST = 50


class VisualGenome(OfficialSet):
    """Images of Visual Genome with the different phrases of their regions.

    Args:
        images: the folder that holds VG_100K/ and VG_100K_2/ (or all the images).
        annotations: region_descriptions.json and image_data.json, in any order.
        karpathy: dataset_coco.json.
        share: of val and test, by a hash of the key, as {"val": 0.01}; by default all are for training.

    Raises UserError for a missing folder or file, and for a wrong share; `plan` does for another file.
    """

    name = "visual-genome"
    home = "https://homes.cs.washington.edu/~ranjay/visualgenome"
    licence = "CC BY 4.0 (Visual Genome); images under the terms of Flickr and of their owners"

    def __init__(
        self,
        images: Path,
        annotations: Sequence[Path],
        karpathy: Path,
        share: Sequence[str] | Mapping[str, float] = (),
    ):
        super().__init__(images, annotations)
        if len(self.files) != 2:
            raise UserError(
                f"{self.name} has two annotation files: give --annotations region_descriptions.json and "
                f"--annotations image_data.json, not {len(self.files)} of them"
            )
        self.files.append(AnnotationFile(self.name, karpathy))
        self.shares = split_shares(share)

    def settings(self) -> dict:
        """The shares."""
        return {"share": self.shares}

    def plan(self) -> Plan:
        """For each image the place of its regions and its path; no phrase is kept in memory."""
        regions, image_data = self._told_apart
        held_out = self._held_out()
        paths, left_out = _image_data(image_data, held_out)
        splits, dropped = {split: [] for split in SPLITS}, list(left_out.values())
        keys, counted = Keys(), Counter({"images in image_data.json": len(paths) + len(left_out)})
        for number, element in enumerate(JsonArray(regions.path), 1):
            image_id, phrases = _phrases(element.value)
            if image_id is None:
                dropped.append(Dropped(f"image {number:,} of {regions.name}", "no id"))
                continue
            key = f"visual-genome-{image_id}"
            if image_id in left_out:
                continue
            if not keys.take(image_id):
                dropped.append(Dropped(key, DUPLICATE))
            elif image_id not in paths:
                dropped.append(Dropped(key, "not in image_data.json"))
            elif not _captions(phrases, counted):
                dropped.append(Dropped(key, NO_CAPTION))
            else:
                splits[split_of(key, self.shares)].append((element.place, paths[image_id]))
        dropped += [
            Dropped(f"visual-genome-{one}", f"not in {regions.name}") for one in paths if keys.take(one)
        ]
        self.check_some(splits, dropped)
        first = [path for specs in splits.values() for _, path in specs[:_FIRST]]
        flat = [PurePosixPath(path).name for path in first]
        self.check_layout([*first, *flat], "give the folder that holds VG_100K and VG_100K_2")
        # The page of the set on the Hugging Face hub (ranjaykrishna/visual_genome) counts as many.
        published = {"images in image_data.json": 108_077}
        return Plan(splits, self.card(counted=counted, published=published, dropped=dropped))

    def render(self, spec: tuple[int, str]) -> dict | Dropped:
        """The record of one image, from the place of its regions and its path."""
        place, path = spec
        try:
            image_id, phrases = _phrases(value_of(bytes_at(self._told_apart[0].path, place)))
        except ValueError:
            image_id = None
        if image_id is None:
            return Dropped(path, CHANGED)
        key = f"visual-genome-{image_id}"
        # Some keep all images in one folder, and some entries have no url, which says in which one it lies.
        name = PurePosixPath(path).name
        path = self.folder.first_of([path, name, *(f"{folder}/{name}" for folder in _FOLDERS)])
        return self.record(key, path, captions=_captions(phrases))

    @cached_property
    def _told_apart(self) -> tuple[AnnotationFile, AnnotationFile]:
        """Region descriptions and image data, by what the first image in each file has."""
        found: dict[str, AnnotationFile] = {}
        for file in self.files[:2]:
            first = next(iter(JsonArray(file.path)), None)
            value = first.value if first is not None else None
            for member in ("regions", "url"):
                if isinstance(value, dict) and member in value:
                    found[member] = file
        if len(found) < 2:
            wanted = "region_descriptions.json" if "regions" not in found else "image_data.json"
            given = " and ".join(str(file.path) for file in self.files[:2])
            raise UserError(f"{self.name}: none of {given} is Visual Genome's {wanted}")
        return found["regions"], found["url"]

    def _held_out(self) -> set[int]:
        """COCO's numbers of the images that are evaluated on."""
        held_out = set()
        for element in karpathy_images(self.files[2], Coco.dataset, Coco.needed):
            image = element.value if isinstance(element.value, dict) else {}
            if split_named(image.get("split")) not in ("val", "test"):
                continue
            number = image.get("cocoid")
            if not isinstance(number, int):  # it would be trained on, and nobody would know
                raise UserError(
                    f"{self.files[2].path}: an image of {image['split']} has the cocoid {number!r}, by which "
                    "it cannot be left out; give dataset_coco.json as it was distributed"
                )
            held_out.add(number)
        if not held_out:
            raise UserError(f"{self.files[2].path} has no image of COCO's val or test split to leave out")
        return held_out


def _image_data(file: AnnotationFile, held_out: set[int]) -> tuple[dict[int, str], dict[int, Dropped]]:
    """By the images' numbers: the path of each below the folder, and those that are left out."""
    paths, left_out = {}, {}
    for element in JsonArray(file.path):
        image = element.value if isinstance(element.value, dict) else {}
        # Named so since version 1.2 of the set.
        number = image.get("image_id", image.get("id"))
        if not isinstance(number, int):
            continue
        coco_id = image.get("coco_id")
        if coco_id is not None and not isinstance(coco_id, int):
            left_out[number] = Dropped(f"visual-genome-{number}", "coco_id is no number")
            continue
        if coco_id in held_out:
            left_out[number] = Dropped(f"visual-genome-{number}", "in COCO's val or test split")
            continue
        url = PurePosixPath(image["url"] if isinstance(image.get("url"), str) else f"{number}.jpg")
        folder = url.parent.name
        paths[number] = f"{folder}/{url.name}" if folder in _FOLDERS else url.name
    return paths, left_out


def _phrases(image: Any) -> tuple[int | None, list]:
    """The image's number and the phrases of its regions as they are."""
    if not isinstance(image, dict):
        return None, []
    regions = image.get("regions")
    regions = [one for one in regions if isinstance(one, dict)] if isinstance(regions, list) else []
    number = image.get("id", regions[0].get("image_id") if regions else None)
    number = number if isinstance(number, int) and not isinstance(number, bool) else None
    return number, [region.get("phrase") for region in regions]


def _captions(phrases: list, counted: Counter | None = None) -> list[str]:
    """The different phrases of an image, in their order."""
    lines = clean_captions(phrases, counted)
    different = list(dict.fromkeys(lines))
    if counted is not None:
        counted["captions"] -= len(lines) - len(different)
        counted["captions repeated for their image"] += len(lines) - len(different)
    return different
