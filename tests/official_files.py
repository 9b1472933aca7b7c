"""Small files in the layouts of published sets, field by field, for the tests of their builders."""

from __future__ import annotations

import io
import json
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from pixelbert_fast.data.build import build_set, make_builder
from pixelbert_fast.data.records import open_set


def picture(number: int, size: tuple[int, int] = (24, 16), file_format: str = "JPEG", **options) -> bytes:
    """An encoded image of its own for each number; `size` is (width, height) as stored."""
    noise = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, file_format, **options)
    return stream.getvalue()


def lying(number: int) -> bytes:
    """Stored 24 x 16, to be turned by EXIF: the right way up it is 16 wide and 24 high."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture(number, exif=exif)


def declared_huge() -> bytes:
    """A PNG whose header declares 30,000 x 30,000 pixels, with none of them behind it."""
    content = bytearray(picture(1, file_format="PNG"))
    content[16:24] = (30_000).to_bytes(4) * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4)
    return bytes(content)


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def sentences(texts: list[str], imgid: int, first: int) -> list[dict]:
    return [
        {
            "tokens": text.lower().replace(".", "").split(),
            "raw": text,
            "imgid": imgid,
            "sentid": first + number,
        }
        for number, text in enumerate(texts)
    ]


def coco_image(imgid: int, cocoid: int, split: str, texts: list[str], **changed) -> dict:
    """An entry of dataset_coco.json, its members in the file's own order."""
    folder = "train2014" if split == "train" else "val2014"
    spoken = sentences(texts, imgid, 770_337 + 5 * imgid)
    entry = {
        "filepath": folder,
        "sentids": [sentence["sentid"] for sentence in spoken],
        "filename": f"COCO_{folder}_{cocoid:012d}.jpg",
        "imgid": imgid,
        "split": split,
        "sentences": spoken,
        "cocoid": cocoid,
    }
    return {**entry, **changed}


FIVE = [
    "A man with a red helmet on a small moped on a dirt road. ",
    "Man riding a motor bike on a dirt road on the countryside.\n",
    "A man riding on the back of a motorcycle.",
    "A dirt path with a young person on a motor bike \r\nrests to the foreground of a verdant area.",
    "A man in a café at 30°C \u2014 naïve \U0001f6b2",
]


def write_coco(root: Path, *, images: list[dict] | None = None, dataset: str = "coco") -> tuple[Path, Path]:
    """A folder of images and dataset_coco.json: two train, one restval, two val, one test."""
    entries = images or [
        coco_image(0, 391895, "test", FIVE),
        coco_image(1, 522418, "restval", [*FIVE, "A sixth caption.", "A seventh caption."]),
        coco_image(2, 184613, "val", FIVE),
        coco_image(3, 318219, "train", FIVE),
        coco_image(4, 554625, "train", FIVE),
        coco_image(5, 574769, "val", FIVE),
    ]
    for entry in entries:
        put(root / "images" / entry["filepath"] / entry["filename"], picture(entry["cocoid"]))
    put(root / "images" / "train2014" / "COCO_train2014_000000554625.jpg", lying(1))
    file = root / "dataset_coco.json"
    file.write_text(json.dumps({"images": entries, "dataset": dataset}))
    return root / "images", file


def write_flickr(root: Path) -> tuple[Path, Path]:
    """A folder of images and dataset_flickr30k.json: two train, one val, one test."""
    names = ["1000092795", "10002456", "1000268201", "1000344755"]
    entries = []
    for imgid, (name, split) in enumerate(zip(names, ("train", "train", "val", "test"), strict=True)):
        spoken = sentences(FIVE, imgid, 5 * imgid)
        sentids = [sentence["sentid"] for sentence in spoken]
        entries.append(
            {
                "sentids": sentids,
                "imgid": imgid,
                "sentences": spoken,
                "split": split,
                "filename": f"{name}.jpg",
            }
        )
        put(root / "flickr30k-images" / f"{name}.jpg", picture(imgid))
    file = root / "dataset_flickr30k.json"
    file.write_text(json.dumps({"images": entries, "dataset": "flickr30k"}))
    return root / "flickr30k-images", file


def region(region_id: int, image_id: int, phrase: str | None) -> dict:
    return {
        "region_id": region_id,
        "width": 82,
        "height": 139,
        "image_id": image_id,
        "phrase": phrase,
        "y": 57,
        "x": 421,
    }


def vg_image(image_id: int, coco_id: int | None, folder: str = "VG_100K") -> dict:
    return {
        "width": 24,
        "url": f"https://cs.stanford.edu/people/rak248/{folder}/{image_id}.jpg",
        "height": 16,
        "image_id": image_id,
        "coco_id": coco_id,
        "flickr_id": None if coco_id is None else 4_492_000_000 + image_id,
    }


def write_visual_genome(root: Path) -> tuple[Path, Path, Path]:
    """Images, region_descriptions.json and image_data.json; COCO's 184613 (val), 391895 (test) in them."""
    data = [
        vg_image(1, None),
        vg_image(2, 318219, "VG_100K_2"),
        vg_image(3, 184613),
        vg_image(4, 391895),
        vg_image(5, 522418),
        vg_image(6, None),
        vg_image(7, None),
    ]
    phrases = {
        1: [
            "the clock is green in colour",
            "the clock is green in colour",
            " the clock is green\nin colour",
            "é",
        ],
        2: ["a man", "shade is along the street ", "", None],
        3: ["leaks into evaluation"],
        4: ["leaks into evaluation"],
        5: ["restval may be trained on"],
        6: [],
    }
    regions = [
        {"regions": [region(100 * image + i, image, text) for i, text in enumerate(texts)], "id": image}
        for image, texts in phrases.items()
    ]
    for entry in data:
        folder, name = entry["url"].split("/")[-2:]
        put(root / "vg" / folder / name, picture(entry["image_id"], (20, 30)))
    described, listed = root / "region_descriptions.json", root / "image_data.json"
    described.write_text(json.dumps(regions))
    listed.write_text(json.dumps(data))
    return root / "vg", described, listed


def built(name: str, out: Path, **options):
    """The report of a build, and the records of each split that has any."""
    report = build_set(make_builder(name, **options), out, workers=1)
    opened = open_set(out)
    return report, {split: list(opened.split(split)) for split in opened.splits if report.counts[split]}


def why(report) -> dict[str, str]:
    """By key, why each record was dropped."""
    return {one["key"]: one["why"] for one in report.dropped}
