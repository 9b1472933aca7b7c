"""The builder `nlvr2` on small files in the official format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pixelbert_fast.data.build import build_set, make_builder
from pixelbert_fast.data.records import open_set
from pixelbert_fast.errors import UserError
from tests.vqa_files import picture, statement, write_lines


def image(root: Path, path: str, shade: int = 0, kind: str = "PNG", size=(8, 6)) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(picture((shade, 0, 0), size, kind))


@pytest.fixture
def official(tmp_path: Path) -> list[Path]:
    """Train: two statements about one pair and one about another; dev and test1 one statement each."""
    root = tmp_path / "images"
    for place, name in enumerate(("10171-0", "10171-3")):
        image(root, f"train/37/train-{name}-img0.png", 10 * place)
        # Not every file named .png is one.
        image(root, f"train/37/train-{name}-img1.png", 10 * place + 1, "JPEG", (10, 4))
    for side in (0, 1):
        image(root, f"dev/dev-850-0-img{side}.png", 50 + side)
        image(root, f"test1/test1-0-1-img{side}.png", 60 + side)
    train = [
        statement("train-10171-0-0", "An image shows\n a  dog.", "True", 37),
        statement("train-10171-3-0", "An image shows a dog.", "False", 37),
        statement("train-10171-0-1", "There are two dogs.", "False", 37),
    ]
    return [
        write_lines(tmp_path / "train.json", train),
        write_lines(tmp_path / "dev.json", [statement("dev-850-0-0", "The right one is dark.")]),
        write_lines(tmp_path / "test1.json", [statement("test1-0-1-0", "Both are dark.", "False")]),
    ]


def build(tmp_path: Path, files: list[Path], root: str = "images"):
    return build_set(
        make_builder("nlvr2", images=tmp_path / root, annotations=files), tmp_path / "set", workers=1
    )


def test_the_official_files_become_images_and_pairs(tmp_path: Path, official: list[Path]) -> None:
    report = build(tmp_path, official)
    assert report.counts == {"train": 4, "val": 2, "test": 2}
    assert report.dropped == []
    built = open_set(tmp_path / "set")
    assert built.card["pairs"] == {"train": 3, "val": 1, "test": 1}
    train = built.split("train")
    assert train["key"] == [f"train-10171-{pair}-img{side}" for pair in (0, 3) for side in (0, 1)]
    assert train["captions"] == [[]] * 4
    assert [train["height"][1], train["width"][1]] == [4, 10]
    assert train["image"][3] == picture((11, 0, 0), (10, 4), "JPEG")
    assert built.pairs("train")[:] == {
        "left": [0, 2, 0],
        "right": [1, 3, 1],
        "statement": ["An image shows a dog.", "An image shows a dog.", "There are two dogs."],
        "label": [True, False, False],
        "identifier": ["train-10171-0-0", "train-10171-3-0", "train-10171-0-1"],
    }
    assert built.pairs("val")[0]["identifier"] == "dev-850-0-0"
    assert built.pairs("test")[0]["label"] is False
    assert "3 statements in train, published are 86,373" in report.counted
    assert "1 statements in val, published are 6,982" in report.counted
    assert "1 statements in test, published are 6,967" in report.counted


def test_statements_about_a_missing_image_are_left_out_and_listed(
    tmp_path: Path, official: list[Path]
) -> None:
    (tmp_path / "images/train/37/train-10171-0-img1.png").unlink()
    (tmp_path / "images/train/37/train-10171-3-img1.png").write_bytes(b"<html>404</html>")
    with official[0].open("a") as file:
        file.write(json.dumps(statement("train-4-1-0", "It is.", "True", 5)) + "\n")
    for side in (0, 1):
        image(tmp_path / "images", f"train/5/train-4-1-img{side}.png", 70 + side)
    report = build(tmp_path, official)
    assert [(drop["key"], drop["why"]) for drop in report.dropped] == [
        ("train-10171-0-img1", "image file is missing"),
        ("train-10171-3-img1", "not an image"),
        ("train-10171-0-0", "an image of the pair was dropped"),
        ("train-10171-3-0", "an image of the pair was dropped"),
        ("train-10171-0-1", "an image of the pair was dropped"),
    ]
    built = open_set(tmp_path / "set")
    assert built.split("train")["key"] == [
        "train-10171-0-img0",
        "train-10171-3-img0",
        "train-4-1-img0",
        "train-4-1-img1",
    ]
    assert built.pairs("train")[:]["left"] == [2]
    assert built.pairs("train")[:]["right"] == [3]


def test_lines_that_cannot_be_used_are_dropped(tmp_path: Path, official: list[Path]) -> None:
    wrong = [
        statement("train-10171-0-0", "Again.", "True", 37),
        statement("test2-1-0-0", "Hidden.", "True"),
        statement("train-1-0", "Short.", "True", 37),
        statement("train-../../etc-0-0", "Out.", "True", 37),
        statement("train-10171-0-2", " ", "True", 37),
        statement("train-10171-0-3", "What?", "maybe", 37),
        statement("train-10171-0-4", "What?", 1, 37),
        {"sentence": "No name.", "label": "True"},
    ]
    with official[0].open("a") as file:
        file.write("\n" + "".join(json.dumps(one) + "\n" for one in wrong))
        file.write(json.dumps(statement("train-10171-0-5", "A boolean.", True, 37)))  # no line end
    report = build(tmp_path, official)
    identifier = "identifier is not SPLIT-SET-PAIR-SENTENCE of train, dev or test1"
    label = "label is neither True nor False"
    assert [drop["why"] for drop in report.dropped] == [
        "listed before under the same key",
        identifier,
        identifier,
        identifier,
        "no sentence",
        label,
        label,
        identifier,
    ]
    assert report.dropped[1]["key"] == "train.json line 6 test2-1-0-0"
    assert open_set(tmp_path / "set").pairs("train")[3]["label"] is True


@pytest.mark.parametrize("place", ["images/train/37", "train", "images/train"])
def test_images_may_lie_where_the_download_script_leaves_them(
    tmp_path: Path, official: list[Path], place: str
) -> None:
    root = tmp_path / "elsewhere"
    for pair in (0, 3):
        for side in (0, 1):
            image(root, f"{place}/train-10171-{pair}-img{side}.png")
    assert build(tmp_path, official[:1], "elsewhere").counts == {"train": 4}


def test_a_test_statement_may_come_without_a_label(tmp_path: Path, official: list[Path]) -> None:
    bare = statement("test1-0-1-1", "One is dark.")
    del bare["label"]
    lines = [statement("test1-0-1-0", "Both are dark.", "False"), bare]
    train, dev, _ = official
    unlabelled = statement("dev-850-0-1", "The left one is dark.")
    del unlabelled["label"]
    write_lines(dev, [statement("dev-850-0-0", "The right one is dark."), unlabelled])
    report = build(tmp_path, [train, dev, write_lines(tmp_path / "test1.json", lines)])
    pairs = open_set(tmp_path / "set").pairs("test")
    assert pairs["label"][:] == [False, None]
    assert pairs["identifier"][1] == "test1-0-1-1"
    # Where labels are known to exist, one that lacks is a mistake.
    assert [one["why"] for one in report.dropped] == ["label is neither True nor False"]


@pytest.mark.parametrize("directory", ["../..", "/etc", -1, None, {"a": 1}])
def test_a_directory_that_is_no_number_is_not_followed(
    tmp_path: Path, official: list[Path], directory: object
) -> None:
    lines = [statement("train-10171-0-0", "A dog.") | {"directory": directory}]
    files = [write_lines(tmp_path / "odd.json", lines)]
    for side in (0, 1):
        image(tmp_path / "images", f"train/train-10171-0-img{side}.png")
    assert build(tmp_path, files).counts == {"train": 2}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has no statements that can be used$"),
        (b"\n\n", "has no statements that can be used$"),
        (b"[1, 2]\n", "line 1 of .* is not a JSON object"),
        (b'{"identifier": "train-1-0-0"}\n{"identifier"', "line 2 of .* is not a JSON object"),
        (b"\xff\xfe{}", "line 1 of .* is not a JSON object"),
        (b'{"identifier": "train-1-0-0"}\n', "no statements .*, the first for: no sentence"),
        (b'{"data_subtype": "train2014", "questions": []}', "the first for: identifier is not"),
    ],
)
def test_a_broken_file_is_one_sentence(
    tmp_path: Path, official: list[Path], content: bytes, said: str
) -> None:
    official[0].write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        build(tmp_path, official[:1])
    assert "train.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_line_of_any_length_does_not_fill_memory(tmp_path: Path, official: list[Path], monkeypatch) -> None:
    monkeypatch.setattr("pixelbert_fast.data.nlvr2.MOST_BYTES", 1000)
    official[0].write_text(json.dumps(statement("train-10171-0-0", "long " * 1000, "True", 37)))
    with pytest.raises(UserError, match="line 1 of"):
        build(tmp_path, official[:1])


def test_a_wrong_folder_of_images_is_told_before_building(tmp_path: Path, official: list[Path]) -> None:
    with pytest.raises(UserError, match="train, dev and test1"):
        build(tmp_path, official, "images/dev")
