"""The builder `easy-vqa` on a small copy of the package's layout."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pixelbert_fast.data.build import build_set, make_builder
from pixelbert_fast.data.records import open_set
from pixelbert_fast.errors import UserError
from tests.vqa_files import picture

ANSWERS = [
    *("circle", "green", "red", "gray", "yes", "teal", "black"),
    *("rectangle", "yellow", "triangle", "brown", "blue", "no"),
]
TRAIN, TEST = 60, 5


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """60 training and 5 test images with two questions each."""
    data = tmp_path / "wheel" / "easy_vqa" / "data"
    for folder, number in (("train", TRAIN), ("test", TEST)):
        (data / folder / "images").mkdir(parents=True)
        for image in range(number):
            (data / folder / "images" / f"{image}.png").write_bytes(
                picture((image, 0, 0), (64, 64), kind="PNG")
            )
        asked = [
            [text, answer, image]
            for image in range(number)
            for text, answer in (("what is the blue shape?", "rectangle"), ("is there a red shape?", "no"))
        ]
        (data / folder / "questions.json").write_text(json.dumps(asked))
    (data / "answers.txt").write_text("\n".join(ANSWERS) + "\n")
    (data.parent / "__init__.py").write_text("raise RuntimeError('the package is read, not run')\n")
    return tmp_path / "wheel"


def build(source: Path | None, out: Path):
    options = {} if source is None else {"source": str(source)}
    return build_set(make_builder("easy-vqa", **options), out, workers=1)


def test_the_package_becomes_one_record_an_image(tmp_path: Path, package: Path) -> None:
    report = build(package, tmp_path / "set")
    built = open_set(tmp_path / "set")
    assert built.answers() == ANSWERS
    assert report.dropped == []
    assert report.counts["train"] + report.counts["val"] == TRAIN
    assert report.counts["test"] == TEST
    record = built.split("test")[3]
    assert record["key"] == "test-000003"
    assert record["image"] == picture((3, 0, 0), (64, 64), kind="PNG")
    assert record["questions"] == [
        {"question": "what is the blue shape?", "answer": "rectangle", "kind": "shape"},
        {"question": "is there a red shape?", "answer": "no", "kind": "yes/no"},
    ]
    assert record["question_ids"] == [6, 7]
    assert record["raw_answers"] == [["rectangle"], ["no"]]
    assert record["answer_labels"] == [[7], [12]]
    assert record["answer_scores"] == [[1.0], [1.0]]
    assert "120 questions in train and val, published are 38,575" in report.counted
    assert "13 answers in the vocabulary, as published" in report.counted


def test_the_val_split_is_the_same_whatever_else_is_there(tmp_path: Path, package: Path) -> None:
    build(package, tmp_path / "set")
    val = open_set(tmp_path / "set").split("val")["key"]
    assert val
    assert not set(val) & set(open_set(tmp_path / "set").split("train")["key"])
    file = package / "easy_vqa" / "data" / "train" / "questions.json"
    file.write_text(json.dumps([one for one in json.loads(file.read_text()) if one[2] % 2][::-1]))
    build(package, tmp_path / "half")
    half = open_set(tmp_path / "half").split("val")["key"]
    assert sorted(half) == [key for key in val if int(key[-6:]) % 2]


def test_the_installed_package_is_found_and_not_run(
    tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(package), *sys.path])
    assert build(None, tmp_path / "set").counts["test"] == TEST


@pytest.mark.parametrize("folder", [".", "easy_vqa", "easy_vqa/data"])
def test_any_folder_above_the_data_will_do(tmp_path: Path, package: Path, folder: str) -> None:
    assert make_builder("easy-vqa", source=str(package / folder)).options()


def test_questions_that_cannot_be_used_are_dropped(tmp_path: Path, package: Path) -> None:
    file = package / "easy_vqa" / "data" / "test" / "questions.json"
    wrong = [["is it?", "maybe", 0], ["is it?", "yes"], ["is it?", "yes", "0"], [" ", "yes", 0], "text"]
    file.write_text(json.dumps([*wrong, ["is it?", "yes", 0], ["is it?", "yes", 4], ["is it?", "yes", 5]]))
    report = build(package, tmp_path / "set")
    shape = "not [question, answer, image]"
    assert [(drop["key"], drop["why"]) for drop in report.dropped] == [
        ("test question 0", "answer is not in answers.txt"),
        *((f"test question {place}", shape) for place in range(1, 5)),
        ("test-000005", "image file is missing"),
    ]
    assert open_set(tmp_path / "set").split("test")["question_ids"] == [[5], [6]]


def test_a_missing_or_broken_package_is_one_sentence(tmp_path: Path, package: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        make_builder("easy-vqa", source=str(tmp_path / "none"))
    with pytest.raises(UserError, match="does not hold the package's data"):
        make_builder("easy-vqa", source=str(tmp_path))
    data = package / "easy_vqa" / "data"
    (data / "test" / "questions.json").write_text("[]")
    with pytest.raises(UserError, match="no questions that can be used"):
        build(package, tmp_path / "set")
    (data / "answers.txt").write_text("yes\nno\nyes\n")
    with pytest.raises(UserError, match="not a list of different answers"):
        make_builder("easy-vqa", source=str(package))
    (data / "test" / "questions.json").unlink()
    with pytest.raises(UserError, match="no annotation file"):
        make_builder("easy-vqa", source=str(package))


def test_without_the_package_the_error_says_how_to_get_it() -> None:
    with pytest.raises(UserError, match=r"pip download --no-deps easy-vqa==1\.0"):
        make_builder("easy-vqa")
