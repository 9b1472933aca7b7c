"""`coco` and `flickr30k`: the official layouts, field by field, and what may be wrong."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pixelbert_fast import cli
from pixelbert_fast.data.build import build_set, make_builder
from pixelbert_fast.data.records import open_set
from pixelbert_fast.errors import UserError
from tests.official_files import (
    FIVE,
    built,
    coco_image,
    declared_huge,
    lying,
    picture,
    put,
    why,
    write_coco,
    write_flickr,
)

ROOT = Path(__file__).resolve().parent.parent
LINES = [" ".join(text.split()) for text in FIVE]


def test_coco_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, file = write_coco(tmp_path)
    line = ["data", "build", "coco", "--images", str(images), "--annotations", str(file)]
    assert cli.main([*line, "--out", str(tmp_path / "set"), "--workers", "1"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        f"reading dataset_coco.json ({file.stat().st_size / 1e6:,.1f} MB)",
        f"{tmp_path / 'set'}: train 3, val 2, test 1",
        "3 images in train, published are 113,287",
        "2 images in val, published are 5,000",
        "1 images in test, published are 5,000",
        "32 captions",
    ]
    assert "building coco" in said.err

    opened = open_set(tmp_path / "set")
    train = {record["key"]: record for record in opened.split("train")}
    assert list(train) == ["coco-522418", "coco-318219", "coco-554625"]
    assert train["coco-522418"]["captions"] == [*LINES, "A sixth caption.", "A seventh caption."]
    assert train["coco-318219"]["image"] == picture(318219)
    assert (train["coco-318219"]["width"], train["coco-318219"]["height"]) == (24, 16)
    assert train["coco-554625"]["image"] == lying(1)
    assert (train["coco-554625"]["width"], train["coco-554625"]["height"]) == (16, 24)
    assert set(train["coco-318219"]) == {"key", "image", "height", "width", "captions"}
    assert opened.split("val")["key"][:] == ["coco-184613", "coco-574769"]

    card = opened.card
    assert card["annotations"] == [
        {
            "file": "dataset_coco.json",
            "bytes": file.stat().st_size,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
    ]
    assert card["home"].startswith("https://")
    assert "Flickr" in card["licence"]

    # Found again, it tells the same; another annotation file is another set.
    assert cli.main([*line, "--out", str(tmp_path / "set")]) == 0
    assert "published are 113,287" in capsys.readouterr().out
    file.write_text(file.read_text() + " ")
    assert cli.main([*line, "--out", str(tmp_path / "set")]) == 2
    assert "holds another data set, with annotations" in capsys.readouterr().err


def test_what_is_published_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pixelbert_fast.data.karpathy import Flickr30k

    monkeypatch.setattr(Flickr30k, "published", {"images in train": 2, "images in val": 2})
    images, file = write_flickr(tmp_path)
    report, _ = built("flickr30k", tmp_path / "set", images=images, annotations=[file])
    assert report.counted[:2] == ["2 images in train, as published", "1 images in val, published are 2"]


@pytest.mark.parametrize("above", [False, True])
def test_flickr30k(tmp_path: Path, above: bool) -> None:
    images, file = write_flickr(tmp_path)
    images = images.parent if above else images
    report, records = built("flickr30k", tmp_path / "set", images=str(images), annotations=str(file))
    assert report.counts == {"train": 2, "val": 1, "test": 1}
    assert report.dropped == []
    assert [record["key"] for record in records["train"]] == ["flickr30k-1000092795", "flickr30k-10002456"]
    assert records["test"][0]["captions"] == LINES
    assert records["test"][0]["image"] == picture(3)


def test_what_cannot_be_in_a_set_is_dropped_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    put(tmp_path / "outside" / "secret.jpg", picture(1))
    names = {
        11: "missing.jpg",
        12: "html.jpg",
        13: "cut.jpg",
        14: "empty.jpg",
        15: "folder.jpg",
        16: "link.jpg",
        17: "bomb.png",
        18: "../../outside/secret.jpg",
        20: "a\0b.jpg",
        21: "x" * 300 + ".jpg",
    }
    entries = [coco_image(i, i, "train", FIVE, filename=name) for i, name in names.items()]
    entries += [
        coco_image(19, 19, "train", FIVE, filepath=str(tmp_path / "outside"), filename="secret.jpg"),
        coco_image(22, 22, "train", FIVE),
        coco_image(23, 22, "train", FIVE),
        coco_image(24, 24, "train", ["", " \n"]),
        coco_image(25, 25, "train", []),
        coco_image(26, 26, "minival", FIVE),
        coco_image(27, 27, "train", FIVE) | {"cocoid": "27"},
        coco_image(28, 28, "train", FIVE, filename=None),
        coco_image(29, 29, "train", FIVE, sentences="none"),
        "not an image",
    ]
    folder = tmp_path / "images" / "train2014"
    put(folder / "COCO_train2014_000000000022.jpg", picture(22))
    put(folder / "html.jpg", b"<!DOCTYPE html><html><body>404</body></html>")
    put(folder / "cut.jpg", picture(1, (200, 200))[:-4000])
    put(folder / "empty.jpg", b"")
    (folder / "folder.jpg").mkdir()
    (folder / "link.jpg").symlink_to(tmp_path / "outside" / "secret.jpg")
    put(folder / "bomb.png", declared_huge())
    # First one that is as it should be, by which the file is told.
    file = tmp_path / "dataset_coco.json"
    file.write_text(json.dumps({"images": [coco_image(22, 10, "train", FIVE), *entries], "dataset": "coco"}))
    put(folder / "COCO_train2014_000000000010.jpg", picture(10))

    report, records = built("coco", tmp_path / "set", images=tmp_path / "images", annotations=[file])
    assert [record["key"] for record in records["train"]] == ["coco-10", "coco-22"]
    leaves = "path of the image leaves the folder of images"
    assert why(report) == {
        "coco-11": "image file is missing",
        "coco-12": "not an image",
        "coco-13": "image is truncated or broken",
        "coco-14": "image file is empty",
        "coco-15": "not a file but a folder or device",
        "coco-16": leaves,
        "coco-17": "image has more than 89,478,485 pixels",
        "coco-18": leaves,
        "coco-19": leaves,
        "coco-20": "no image file is named",
        "coco-21": "image file cannot be read",
        "coco-22": "listed before under the same key",
        "coco-24": "no caption",
        "coco-25": "no caption",
        "coco-26": "split is none of train, restval, val, test",
        "image 18 of the file": "no cocoid",
        "image 19 of the file": "no filename",
        "coco-29": "no caption",
        "image 21 of the file": "no filename",
    }
    assert "2 empty captions" in report.counted


def coco_with(tmp_path: Path, content: bytes | None, *, name: str = "dataset_coco.json"):
    images, file = write_coco(tmp_path)
    if content is not None:
        file.write_bytes(content)
    return make_builder("coco", images=images, annotations=[file.with_name(name)])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty: give the whole annotation file"),
        (b"\x1f\x8b\x08\x00", "is not the annotation file expected: it has no list 'images'"),
        (b'{"images": [', r"is not valid JSON at byte 12: .*not downloaded whole"),
        (b'{"images": [{"filename": "a"', "is not valid JSON at byte 12"),
        (b'{"images": {}}', "has no list 'images'"),
        (b'{"images": []}', "lists no image"),
        (b'{"images": [{"id": 1, "file_name": "a.jpg"}]}', "its first image has no 'filename'"),
        (b'{"images": [7]}', "its first image has no 'filename'"),
        (b"[" * 100_000, "has no list 'images'"),
        (b'{"images": [' + b"[" * 100_000, "is not valid JSON"),
        (b'{"images": [1' + b"0" * 5000 + b"]}", "is not valid JSON"),
    ],
)
def test_another_file_given_as_annotations_is_told_in_a_sentence(
    tmp_path: Path, content: bytes, said: str
) -> None:
    builder = coco_with(tmp_path, content)
    with pytest.raises(UserError, match=said) as caught:
        build_set(builder, tmp_path / "set", workers=1)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "set").exists()


def test_what_is_given_wrongly_is_told_in_a_sentence(tmp_path: Path) -> None:
    images, file = write_coco(tmp_path)
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    cases = [
        ({"images": tmp_path / "nowhere"}, "there is no folder .*nowhere"),
        ({"images": "10000"}, "--images names the folder .* and there is no folder 10000"),
        ({"images": file}, "is a file"),
        ({"annotations": [tmp_path / "nowhere.json"]}, "there is no annotation file"),
        ({"annotations": [tmp_path]}, "is a folder, give the annotation file in it"),
        ({"annotations": [pipe]}, "is no ordinary file"),
        ({"annotations": [file, file]}, "has one annotation file"),
        ({"annotations": []}, "needs its annotation file"),
        ({"annotations": None}, "needs the option 'annotations'"),
        ({"seed": 3}, "has no option 'seed'"),
    ]
    for changed, said in cases:
        with pytest.raises(UserError, match=said) as caught:
            make_builder("coco", **{"images": images, "annotations": [file], **changed})
        assert "\n" not in str(caught.value)


def test_the_wrong_folder_of_images_is_told_before_anything_is_built(tmp_path: Path) -> None:
    images, file = write_coco(tmp_path)
    builder = make_builder("coco", images=images / "train2014", annotations=[file])
    with pytest.raises(
        UserError, match=r"none of the images .* give the folder that holds train2014 and val2014"
    ):
        build_set(builder, tmp_path / "set", workers=1)


def test_coco_as_it_was_divided_in_2017(tmp_path: Path) -> None:
    images, file = write_coco(tmp_path)
    before = built("coco", tmp_path / "before", images=images, annotations=[file])[1]
    for number, path in enumerate(sorted(images.glob("*/*.jpg"))):
        folder = ("train2017", "val2017")[number % 2]
        put(images / folder / path.name[-16:], path.read_bytes())
        path.unlink()
    report, records = built("coco", tmp_path / "set", images=images, annotations=[file])
    assert report.counts == {"train": 3, "val": 2, "test": 1}
    assert records == before


def test_one_set_given_for_another_is_told(tmp_path: Path) -> None:
    images, file = write_flickr(tmp_path)
    with pytest.raises(
        UserError, match=r"is not Karpathy's dataset_coco\.json: its first image has no 'filepath'"
    ):
        make_builder("coco", images=images, annotations=[file]).plan()
    images, file = write_coco(tmp_path / "coco")
    with pytest.raises(UserError, match=r"is of 'coco': give dataset_flickr30k\.json"):
        make_builder("flickr30k", images=images, annotations=[file]).plan()


_BUILD = """
import time
from pixelbert_fast.data.build import build_set, make_builder

def progress(advance, total):
    if advance:
        print(advance, flush=True)
        time.sleep(60)

if __name__ == "__main__":
    builder = make_builder("coco", images={images!r}, annotations=[{file!r}])
    build_set(builder, {out!r}, workers=1, block=4, progress=progress)
"""


def test_a_killed_build_goes_on_where_it_was(tmp_path: Path) -> None:
    images, file = write_coco(
        tmp_path,
        images=[coco_image(i, 100 + i, "train" if i % 3 else "restval", FIVE) for i in range(30)],
    )
    for missing in (105, 122):
        next(images.glob(f"*/*{missing}.jpg")).unlink()
    code = _BUILD.format(images=str(images), file=str(file), out=str(tmp_path / "killed"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    build = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True, cwd=ROOT
    )
    try:
        assert build.stdout.readline().strip() == "4"
    finally:
        build.send_signal(signal.SIGKILL)
        build.wait()
        build.stdout.close()
    assert not (tmp_path / "killed").exists()

    builder, seen = make_builder("coco", images=images, annotations=[file]), []
    report = build_set(builder, tmp_path / "killed", workers=1, progress=lambda *now: seen.append(now))
    assert seen[0] == (4, 30)
    assert report.counts == {"train": 28, "val": 0, "test": 0}
    assert why(report) == {"coco-105": "image file is missing", "coco-122": "image file is missing"}
    build_set(builder, tmp_path / "whole", workers=1, block=4)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }
