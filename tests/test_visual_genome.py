"""`visual-genome`: phrases of regions as captions of whole images, without those that COCO evaluates on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pixelbert_fast.data.build import build_set, make_builder
from pixelbert_fast.data.records import open_set
from pixelbert_fast.errors import UserError
from tests.official_files import FIVE, coco_image, picture, why, write_coco, write_flickr, write_visual_genome

ROOT = Path(__file__).resolve().parent.parent

_PLAN = """
import json, resource, sys
from pixelbert_fast.data.build import make_builder
given = json.loads(sys.argv[1])
build = lambda: sum(len(specs) for specs in make_builder("visual-genome", **given).plan().splits.values())
assert build() == 3
with open(given["annotations"][0], "w") as file:
    for number in range(3_000):
        regions = [
            {"region_id": 50 * number + i, "width": 82, "height": 139, "image_id": number + 100,
             "phrase": f"phrase {i} of {number}, told at some length", "y": 57, "x": 421}
            for i in range(50)
        ]
        file.write("[," [number > 0] + json.dumps({"regions": regions, "id": number + 100}))
    file.write("]")
with open(given["annotations"][1], "w") as file:
    images = [{"image_id": number + 100, "coco_id": None, "url": "VG_100K/1.jpg"} for number in range(3_000)]
    json.dump(images, file)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert build() == 3_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_phrases_are_not_held_in_memory(tmp_path: Path) -> None:
    images, described, listed = write_visual_genome(tmp_path)
    _, karpathy = write_coco(tmp_path)
    given = {"images": images, "annotations": [str(described), str(listed)], "karpathy": karpathy}
    result = subprocess.run(
        [sys.executable, "-c", _PLAN, json.dumps(given, default=str)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 0, result.stderr
    assert described.stat().st_size > 20e6
    # Read whole, this file takes more than 80,000 KiB; an image at a time, some windows of 1 MiB.
    assert int(result.stdout) < 20_000


def genome(tmp_path: Path, **options):
    images, described, listed = write_visual_genome(tmp_path)
    _, karpathy = write_coco(tmp_path)
    given = {"images": images, "annotations": [described, listed], "karpathy": karpathy, **options}
    return make_builder("visual-genome", **given)


def test_visual_genome_leaves_out_what_coco_evaluates_on(tmp_path: Path) -> None:
    report = build_set(genome(tmp_path), tmp_path / "set", workers=1)
    assert report.counts == {"train": 3, "val": 0, "test": 0}
    records = list(open_set(tmp_path / "set").split("train"))
    assert {record["key"]: record["captions"] for record in records} == {
        "visual-genome-1": ["the clock is green in colour", "é"],
        "visual-genome-2": ["a man", "shade is along the street"],
        "visual-genome-5": ["restval may be trained on"],
    }
    assert records[1]["image"] == picture(2, (20, 30))
    assert (records[1]["width"], records[1]["height"]) == (20, 30)
    assert why(report) == {
        "visual-genome-3": "in COCO's val or test split",
        "visual-genome-4": "in COCO's val or test split",
        "visual-genome-6": "no caption",
        "visual-genome-7": "not in region_descriptions.json",
    }
    assert report.counted == [
        "7 images in image_data.json, published are 108,077",
        "5 captions",
        "2 empty captions",
        "2 captions repeated for their image",
    ]
    card = open_set(tmp_path / "set").card
    assert [entry["file"] for entry in card["annotations"]] == [
        "region_descriptions.json",
        "image_data.json",
        "dataset_coco.json",
    ]


def test_visual_genome_takes_its_files_in_any_order_and_images_in_one_folder(tmp_path: Path) -> None:
    images, described, listed = write_visual_genome(tmp_path)
    for image in [*images.glob("VG_100K*/*.jpg")]:
        image.rename(images / image.name)
    builder = make_builder(
        "visual-genome",
        images=images,
        annotations=[listed, described],
        karpathy=write_coco(tmp_path)[1],
        share=["val=0.5"],
    )
    plan = builder.plan()
    assert sum(len(specs) for specs in plan.splits.values()) == 3
    assert plan.splits["val"]
    record = builder.render(plan.splits["val"][0])
    assert record["image"] == (images / f"{record['key'].removeprefix('visual-genome-')}.jpg").read_bytes()


@pytest.mark.parametrize("cocoid", ["184613", None])
def test_visual_genome_refuses_a_split_file_by_which_it_could_leave_nothing_out(
    tmp_path: Path, cocoid: str | None
) -> None:
    builder = genome(tmp_path)
    entries = [
        coco_image(0, 391895, "test", FIVE),
        coco_image(1, 184613, "val", FIVE) | {"cocoid": cocoid},
    ]
    builder.files[2].path.write_text(json.dumps({"images": entries, "dataset": "coco"}))
    with pytest.raises(UserError, match=rf"of val has the cocoid {cocoid!r}, by which it cannot be left out"):
        builder.plan()


def test_visual_genome_finds_images_without_a_url_in_either_folder(tmp_path: Path) -> None:
    builder = genome(tmp_path)
    listed = builder.files[1].path
    images = json.loads(listed.read_text())
    for image in images[1:]:  # by the first the file is told
        del image["url"]
    listed.write_text(json.dumps(images))
    records = [builder.render(spec) for spec in builder.plan().splits["train"]]
    assert [record["key"] for record in records] == [f"visual-genome-{number}" for number in (1, 2, 5)]


def test_visual_genome_tells_what_is_missing(tmp_path: Path) -> None:
    _, described, listed = write_visual_genome(tmp_path)
    with pytest.raises(UserError, match="has two annotation files"):
        genome(tmp_path, annotations=[described])
    with pytest.raises(UserError, match="needs the option 'karpathy'"):
        genome(tmp_path, karpathy=None)
    with pytest.raises(UserError, match=r"none of .* is Visual Genome's image_data\.json"):
        genome(tmp_path, annotations=[described, described]).plan()
    with pytest.raises(UserError, match=r"none of .* is Visual Genome's region_descriptions\.json"):
        genome(tmp_path, annotations=[listed, listed]).plan()
    with pytest.raises(UserError, match="leaves nothing to train on"):
        genome(tmp_path, share=["val=0.5", "test=0.5"])
    with pytest.raises(UserError, match="must be a number from 0 to 1, not 'much'"):
        genome(tmp_path, share=["val=much"])
    flickr = write_flickr(tmp_path / "flickr")[1]
    with pytest.raises(UserError, match=r"is not Karpathy's dataset_coco\.json"):
        genome(tmp_path, karpathy=flickr).plan()
    only_train = write_coco(tmp_path / "train", images=[coco_image(3, 318219, "train", FIVE)])[1]
    with pytest.raises(UserError, match="no image of COCO's val or test split to leave out"):
        genome(tmp_path, karpathy=only_train).plan()
