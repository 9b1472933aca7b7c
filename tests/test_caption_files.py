"""`captions`: CSV, TSV and JSONL as people write them, rows joined by image, and what may be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pixelbert_fast import cli
from pixelbert_fast.data.build import build_set, make_builder
from pixelbert_fast.data.records import open_set
from pixelbert_fast.errors import UserError
from tests.official_files import picture, put

CSV = (
    "\ufeffimage,caption,split\r\n"
    'a.jpg,"a cat, asleep",train\r\n'
    'sub/b.jpg,"two ""dogs""\r\nin the snow",val\r\n'
    "\r\n"
    "a.jpg,une chatte à côté \U0001f408,train\r\n"
    "./sub/../c.jpg,leaves,train\r\n"
    "./a.jpg,line\u2028separators stay inside,train\r\n"
    "d.jpg,a test image,test\r\n"
    "d.jpg,,test\r\n"
).encode()

GOOD = b"image,caption\na.jpg,x\n"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for number, name in enumerate(["a.jpg", "sub/b.jpg", "c.jpg", "d.jpg"]):
        put(tmp_path / "images" / name, picture(number))
    return tmp_path / "images"


def build(tmp_path: Path, images: Path, content: bytes, name: str = "captions.csv", **options):
    file = put(tmp_path / name, content)
    builder = make_builder("captions", images=images, annotations=[file], **options)
    report = build_set(builder, tmp_path / "set", workers=1, block=2)
    opened = open_set(tmp_path / "set")
    records = {
        record["key"]: (split, record["captions"])
        for split in opened.splits
        if report.counts[split]
        for record in opened.split(split)
    }
    return report, records


def test_rows_of_one_image_become_one_record(tmp_path: Path, images: Path) -> None:
    report, records = build(tmp_path, images, CSV)
    assert records == {
        "a.jpg": (
            "train",
            ["a cat, asleep", "une chatte à côté \U0001f408", "line separators stay inside"],
        ),
        "sub/b.jpg": ("val", ['two "dogs" in the snow']),
        "d.jpg": ("test", ["a test image"]),
    }
    assert report.dropped == [{"key": "sub/../c.jpg", "why": "path of the image leaves the folder of images"}]
    assert report.counted == ["6 captions", "1 empty captions"]
    assert open_set(tmp_path / "set").split("train")[0]["image"] == picture(0)


def test_by_the_command_line_with_columns_and_shares(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"file_name": name, "en": f"this is {name}", "fr": f"voici {name}"} for name in ("a.jpg", "d.jpg")
    ]
    file = put(tmp_path / "metadata.jsonl", "\n\n".join(map(json.dumps, rows)).encode())
    line = ["data", "build", "captions", "--images", str(images), "--annotations", str(file)]
    line += ["--column", "image=file_name", "--column", "caption=en,fr", "--share", "val=0.5"]
    assert cli.main([*line, "--out", str(tmp_path / "set"), "--workers", "1"]) == 0
    assert "4 captions" in capsys.readouterr().out
    opened = open_set(tmp_path / "set")
    split = "val" if opened.card["counts"]["val"] else "train"
    record = opened.split(split)[0]
    assert record["captions"] == [f"this is {record['key']}", f"voici {record['key']}"]


def test_tsv_and_lists_of_captions(tmp_path: Path, images: Path) -> None:
    report, records = build(tmp_path, images, b"caption\timage\na, b\ta.jpg\n", "captions.tsv")
    assert records == {"a.jpg": ("train", ["a, b"])}
    rows = '{"image": "a.jpg", "caption": ["one", null, 7, " two \\n", "\\ud800"]}\r\n'
    (tmp_path / "more").mkdir()
    report, records = build(tmp_path / "more", images, rows.encode(), "captions.jsonl")
    assert records == {"a.jpg": ("train", ["one", "two", "?"])}
    assert "2 empty captions" in report.counted


def test_the_split_of_an_image_depends_on_nothing_but_its_path(tmp_path: Path, images: Path) -> None:
    names = [f"{number}.jpg" for number in range(400)]
    for name in names:
        put(images / name, picture(0))

    def planned(chosen: list[str]) -> dict[str, str]:
        file = put(
            tmp_path / "captions.csv",
            b"image,caption\n" + "".join(f"{n},x\n" for n in chosen).encode(),
        )
        builder = make_builder("captions", images=images, annotations=[file], share={"val": 0.2, "test": 0.1})
        plan = builder.plan()
        return {builder.render(spec)["key"]: split for split, specs in plan.splits.items() for spec in specs}

    whole = planned(names)
    shares = {split: list(whole.values()).count(split) / len(names) for split in ("train", "val", "test")}
    # A share of 400 images strays from its expectation by 0.02 (one sigma of a binomial with p = 0.2).
    assert shares == pytest.approx({"train": 0.7, "val": 0.2, "test": 0.1}, abs=0.1)
    half = planned(names[::-2])
    assert half == {name: whole[name] for name in names[::-2]}


def test_rows_that_cannot_be_used_are_dropped_with_their_reasons(tmp_path: Path, images: Path) -> None:
    rows = "image,caption,split\na.jpg,x,train\na.jpg,y,val\nd.jpg,x,minival\nc.jpg,a cat, on a mat,train\n"
    rows += ",no image,train\nsub/b.jpg, ,train\nc.jpg,ok,Validation\nshort.jpg\n"
    report, records = build(tmp_path, images, rows.encode())
    assert records == {"c.jpg": ("val", ["ok"])}
    assert {one["key"]: one["why"] for one in report.dropped} == {
        "a.jpg": "listed in several splits",
        "d.jpg": "split is none of train, val, test",
        "row 4": "more fields than columns, a quote is missing",
        "row 5": "no image is named",
        "sub/b.jpg": "no caption",
        "short.jpg": "no caption",
    }


@pytest.mark.parametrize(
    ("name", "content", "options", "said"),
    [
        ("c.csv", b"", {}, "has no row"),
        ("c.csv", b"image,caption\n", {}, "has no row"),
        ("c.csv", b"image,caption,caption\na.jpg,x,y\n", {}, "has two columns 'caption'"),
        ("c.txt", b"image,caption\n", {}, r"is none of \.csv, \.tsv, \.jsonl"),
        ("c.csv", b"picture,caption\na.jpg,x\n", {}, "no column 'image', it has: picture, .*image=NAME"),
        ("c.csv", GOOD, {"column": ["caption=txt"]}, "no column 'txt', it has: image, caption"),
        ("c.csv", GOOD, {"column": ["split=part"]}, "no column 'part'"),
        ("c.csv", GOOD, {"column": ["img=image"]}, "has no 'img'; did you mean 'image'"),
        ("c.csv", GOOD, {"column": ["image"]}, "image is given no value"),
        ("c.csv", GOOD, {"column": ["image=a", "image=b"]}, "image is given twice"),
        ("c.csv", b"image,caption,split\na.jpg,x,train\n", {"share": ["val=0.1"]}, "has a split column"),
        ("c.csv", GOOD, {"share": ["train=0.5"]}, "has no 'train'; known are: val, test"),
        ("c.csv", b'image,caption\na.jpg,"x\nb.jpg,y\n', {}, "line 3 cannot be read"),
        ("c.csv", b"image,caption\na.jpg,\xe9\n", {}, "line 2 is not in UTF-8"),
        ("c.csv", "image,caption\na.jpg,x\n".encode("utf-16"), {}, "line 1 is not in UTF-8"),
        ("c.csv", b"image,caption\na.jpg," + b"x" * 200_000, {}, "line 2 cannot be read"),
        ("c.csv", b"image,caption\n.../a.jpg,x\n", {}, r"none of the images that c\.csv lists first"),
        ("c.csv", b"image,caption\na.jpg,\n", {}, r"none of the 1 .* first \(a\.jpg\) for: no caption"),
        ("c.jsonl", b'{"image": "a.jpg", "caption": "x"}\n{"image"', {}, "row 2 is not a JSON object"),
        (
            "c.jsonl",
            b'{"image": "a.jpg", "caption": "x"}\n{"image": "b.jpg", "caption": "y", "split": "test"}\n',
            {},
            "row 2 has a split and the first row has none",
        ),
        ("c.jsonl", b"[1, 2]\n", {}, "row 1 is not a JSON object"),
        ("c.jsonl", b"[" * 100_000, {}, "row 1 is not a JSON object"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_a_sentence(
    tmp_path: Path, images: Path, name: str, content: bytes, options: dict, said: str
) -> None:
    with pytest.raises(UserError, match=said) as caught:
        build(tmp_path, images, content, name, **options)
    assert "\n" not in str(caught.value)
