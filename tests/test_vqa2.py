"""The builder `vqa2` on small files in the official format."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from pixelbert_fast.data.build import build_set, make_builder
from pixelbert_fast.data.records import ANSWERS, open_set
from pixelbert_fast.errors import RunError, UserError
from tests.vqa_files import (
    annotation,
    annotations_file,
    coco_image,
    picture,
    question,
    questions_file,
    write,
)

NINE_YES = [annotation(image, 0, ["yes"] * 10, kind="yes/no") for image in range(100, 109)]
SPLIT_ANSWERS = ["red", "Red", "a red", "the dog", "dog", "yes", "1,000", "two", "dont know", "x-ray"]


@pytest.fixture
def official(tmp_path: Path) -> list[Path]:
    """Train: nine images with a "yes" question, and image 9 with two more; val: image 42; test: 1 and 2."""
    images = tmp_path / "coco"
    for image in (*range(100, 109), 9):
        coco_image(images, "train2014", image)
    coco_image(images, "val2014", 42, picture((1, 2, 3), (10, 4)))
    for image in (1, 2):
        coco_image(images, "test2015", image)
    files = {
        "v2_OpenEnded_mscoco_train2014_questions.json": questions_file(
            "train2014",
            [
                question(9, 0, "  Where is\nthe  dog? "),
                *(question(image, 0, "Is it?") for image in range(100, 109)),
                question(9, 1, 'Does it say \\"annotations\\": [ "?'),  # of an image named before
            ],
        ),
        "v2_mscoco_train2014_annotations.json": annotations_file(
            "train2014",
            [
                *NINE_YES,
                annotation(9, 1, ["Red."] * 4 + ["blue"] * 6),
                annotation(9, 0, SPLIT_ANSWERS, "Red"),
            ],
        ),
        "v2_OpenEnded_mscoco_val2014_questions.json": questions_file("val2014", [question(42, 0, "Is it?")]),
        "v2_mscoco_val2014_annotations.json": annotations_file(
            "val2014", [annotation(42, 0, ["no"] * 7 + ["yes"] * 3, kind="yes/no")]
        ),
        "v2_OpenEnded_mscoco_test2015_questions.json": questions_file(
            "test2015", [question(2, 0, "Who?"), question(1, 0, "What?")]
        ),
    }
    return [write(tmp_path / name, content) for name, content in files.items()]


def build(tmp_path: Path, files: list[Path], **options):
    builder = make_builder("vqa2", images=tmp_path / "coco", annotations=files)
    return build_set(builder, tmp_path / "set", workers=1, **options)


def change(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_the_official_files_become_one_record_an_image(tmp_path: Path, official: list[Path]) -> None:
    report = build(tmp_path, official)
    assert report.counts == {"train": 10, "val": 1, "test": 2}
    assert report.dropped == []
    built = open_set(tmp_path / "set")
    assert built.answers() == ["yes"]  # main answer of nine questions; "red" of two, "no" of one
    train = built.split("train")
    assert train[0]["key"] == "COCO_train2014_000000000009"
    assert train["key"][1:] == [f"COCO_train2014_{image:012d}" for image in range(100, 109)]
    assert (train[0]["height"], train[0]["width"], train[0]["captions"]) == (6, 8, [])
    assert train[0]["image"] == picture()
    assert train[0]["questions"] == [
        {"question": "Where is the dog?", "answer": "red", "kind": "other"},
        {"question": 'Does it say \\"annotations\\": [ "?', "answer": "red", "kind": "other"},
    ]
    assert train[0]["question_ids"] == [9000, 9001]
    assert train[0]["question_types"] == ["what color is the"] * 2
    assert train[0]["raw_answers"] == [SPLIT_ANSWERS, ["Red."] * 4 + ["blue"] * 6]
    assert train[0]["answer_confidences"][0] == ["yes", "maybe", "no"] * 3 + ["yes"]
    assert train[0]["answer_labels"] == [[0], []]
    assert train[0]["answer_scores"] == [[pytest.approx(0.3)], []]
    assert train[1]["answer_labels"] == [[0]]
    assert train[1]["answer_scores"] == [[1.0]]


def test_the_order_of_the_files_does_not_count(tmp_path: Path, official: list[Path]) -> None:
    first = build(tmp_path, official)
    assert build(tmp_path, official[::-1]) == first  # the same set, so nothing is built


def test_val_is_scored_by_the_common_vocabulary(tmp_path: Path, official: list[Path]) -> None:
    build(tmp_path, official)
    val = open_set(tmp_path / "set").split("val")[0]
    assert (val["height"], val["width"], val["key"]) == (4, 10, "COCO_val2014_000000000042")
    assert val["questions"][0] == {"question": "Is it?", "answer": "no", "kind": "yes/no"}
    assert val["answer_labels"] == [[0]]
    assert val["answer_scores"] == [[pytest.approx(0.9)]]


def test_images_of_coco_as_divided_in_2017(tmp_path: Path, official: list[Path]) -> None:
    for path in (tmp_path / "coco").glob("*2014/*.jpg"):
        (tmp_path / "coco" / "val2017").mkdir(exist_ok=True)
        path.rename(tmp_path / "coco" / "val2017" / path.name[-16:])
    report = build(tmp_path, official)
    assert report.counts == {"train": 10, "val": 1, "test": 2}
    train = open_set(tmp_path / "set").split("train")
    assert train["key"][:2] == ["COCO_train2014_000000000009", "COCO_train2014_000000000100"]


def test_a_test_split_has_no_answers(tmp_path: Path, official: list[Path]) -> None:
    build(tmp_path, official)
    test = open_set(tmp_path / "set").split("test")
    assert test["key"] == ["COCO_test2015_000000000002", "COCO_test2015_000000000001"]
    assert test[0]["questions"] == [{"question": "Who?", "answer": None, "kind": None}]
    assert test[0]["question_ids"] == [2000]
    assert test[0]["question_types"] == [None]
    for column in ("raw_answers", "answer_confidences", "answer_labels", "answer_scores"):
        assert test[0][column] == [[]]


def test_the_test_split_alone_needs_no_vocabulary(tmp_path: Path, official: list[Path]) -> None:
    change(official[4], lambda content: content.update(data_subtype="test-dev2015"))
    report = build(tmp_path, official[4:])
    assert report.counted == ["2 questions in test, published are 107,394"]
    with pytest.raises(UserError, match="no answer vocabulary"):
        open_set(tmp_path / "set").answers()


def test_the_vocabulary_is_of_train_and_val_sorted(tmp_path: Path, official: list[Path]) -> None:
    more = [annotation(42, number, ["no"] * 10, "No.") for number in range(1, 9)]
    blue = [annotation(42, number, ["blue"] * 10) for number in range(9, 18)]
    change(official[3], lambda content: content["annotations"].extend(more + blue))
    asked = [question(42, number) for number in range(1, 18)]
    change(official[2], lambda content: content["questions"].extend(asked))
    build(tmp_path, official)
    built = open_set(tmp_path / "set")
    assert built.answers() == ["blue", "no", "yes"]
    assert built.split("val")[0]["answer_labels"][0] == [1, 2]  # best first
    assert built.split("val")[0]["answer_scores"][0] == [1.0, pytest.approx(0.9)]


def test_the_card_says_where_all_comes_from(tmp_path: Path, official: list[Path]) -> None:
    report = build(tmp_path, official)
    card = open_set(tmp_path / "set").card
    for entry, path in zip(card["annotations"], sorted(official), strict=True):
        assert entry["file"] == path.name
        assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    content = (tmp_path / "set" / ANSWERS).read_bytes()
    assert card["files"] == {ANSWERS: hashlib.sha256(content).hexdigest()}
    assert "11 questions in train, published are 443,757" in report.counted
    assert "1 answers in the vocabulary, published are 3,129" in report.counted


def test_a_changed_vocabulary_is_refused(tmp_path: Path, official: list[Path]) -> None:
    build(tmp_path, official)
    (tmp_path / "set" / ANSWERS).write_text("no\n")
    with pytest.raises(UserError, match=r"answers\.txt is not the file"):
        open_set(tmp_path / "set").answers()


def test_what_does_not_fit_is_dropped_and_listed(tmp_path: Path, official: list[Path]) -> None:
    def spoil_questions(content: dict) -> None:
        content["questions"] += [
            question(100, 5),  # without annotation
            question(101, 0),  # a second time
            {"image_id": 101, "question_id": 101007},
            {"image_id": "101", "question": "Why?", "question_id": 101008},
            question(101, 9),  # its annotation names another image
            "text",
        ]

    def spoil_annotations(content: dict) -> None:
        other = annotation(101, 9, ["yes"] * 10)
        other["image_id"] = 102
        no_answers = annotation(102, 1, ["yes"] * 10)
        no_answers["answers"] = []
        number = annotation(102, 2, ["yes"] * 10)
        number["answers"][3]["answer"] = 7
        content["annotations"] += [other, no_answers, number, annotation(103, 4, ["yes"] * 10)]

    change(official[0], spoil_questions)
    change(official[1], spoil_annotations)
    (tmp_path / "coco/train2014/COCO_train2014_000000000108.jpg").unlink()
    coco_image(tmp_path / "coco", "train2014", 107, picture()[:60])
    report = build(tmp_path, official)
    name, told = "v2_OpenEnded_mscoco_train2014_questions.json", "v2_mscoco_train2014_annotations.json"
    assert sorted((drop["key"], drop["why"]) for drop in report.dropped) == sorted(
        [
            (f"{name} question 101000", "listed before under the same key"),
            (f"{name} question 101007", "no question"),
            (f"{name} question 101008", "question_id or image_id is no whole number"),
            (f"{name} question 16", "not an object"),
            (f"{told} annotation 102001", "no answers of annotators"),
            (f"{told} annotation 102002", "an annotator's answer is no text"),
            (f"{name} question 100005", "question without annotation"),
            (f"{name} question 101009", "question and annotation name different images"),
            (f"{told} annotation 103004", "annotation without question"),
            ("COCO_train2014_000000000108", "image file is missing"),
            ("COCO_train2014_000000000107", "image is truncated or broken"),
        ]
    )
    assert report.counts["train"] == 8
    assert open_set(tmp_path / "set").split("train")["question_ids"][1] == [100000]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([0], "give its annotations file too"),
        ([1], "give its questions too"),
        ([0, 1, 0], "both questions of the split 'train'"),
        ([2, 3], "no answer is the main answer of 9 questions"),
    ],
)
def test_a_wrong_choice_of_files_is_one_sentence(
    tmp_path: Path, official: list[Path], given: list[int], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        build(tmp_path, [official[place] for place in given])


def test_test_and_test_dev_are_not_taken_together(tmp_path: Path, official: list[Path]) -> None:
    dev = write(tmp_path / "dev.json", questions_file("test-dev2015", [question(1, 0)]))
    with pytest.raises(UserError, match="both questions of the split 'test'"):
        build(tmp_path, [official[4], dev])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"<html>not found</html>", "neither a list of questions"),
        (b'{"info": {}, "images": [1]}', "neither a list of questions"),
        (b'{"data_subtype": "train2014", "questions": [{"image_id": 1,', "not valid JSON"),
        (b'{"questions": [{"image_id": 1]}', "not valid JSON"),
        (b'{"data_subtype": "train2014", "questions": []}', "no questions that can be used"),
        (
            b'{"questions": [{"image_id": 1, "question_id": 1, "question": "a"}]}',
            "data_subtype None, expected one of train2014",
        ),
        (
            b'{"data_subtype": ["x"], "questions": [{"image_id": 1, "question_id": 1, "question": "a"}]}',
            "data_subtype None",
        ),
    ],
)
def test_a_broken_file_is_one_sentence(
    tmp_path: Path, official: list[Path], content: bytes, said: str
) -> None:
    official[0].write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        build(tmp_path, official)
    assert official[0].name in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "set").exists()


def test_annotations_of_another_set_are_refused(tmp_path: Path, official: list[Path]) -> None:
    def renumber(content: dict) -> None:
        for entry in content["annotations"]:
            entry["question_id"] += 500

    change(official[1], renumber)
    with pytest.raises(UserError, match=r"no question of .* has its annotation in"):
        build(tmp_path, official)


def test_a_wrong_folder_of_images_is_told_before_building(tmp_path: Path, official: list[Path]) -> None:
    builder = make_builder("vqa2", images=tmp_path / "coco" / "val2014", annotations=official)
    with pytest.raises(UserError, match="train2014, val2014 and test2015"):
        build_set(builder, tmp_path / "set", workers=1)


def test_texts_of_any_kind_are_kept(tmp_path: Path, official: list[Path]) -> None:
    long = "word " * 50_000
    change(official[0], lambda content: content["questions"][0].update(question=f"é 狗 \ud800 {long}"))
    change(official[1], lambda content: content["annotations"][-1]["answers"][0].update(answer="\udfff \x00"))
    for one in range(9):  # so many that it is in the vocabulary
        change(
            official[1],
            lambda content, one=one: content["annotations"][one].update(multiple_choice_answer="cup\ud83d"),
        )
    build(tmp_path, official)
    # What cannot be stored became a question mark, which no answer keeps.
    assert "cup" in open_set(tmp_path / "set").answers()
    record = open_set(tmp_path / "set").split("train")[0]
    assert record["questions"][0]["question"] == f"é 狗 ? {long}".strip()
    assert record["raw_answers"][0][0] == "? \x00"


def test_a_killed_build_goes_on(tmp_path: Path, official: list[Path], monkeypatch) -> None:
    from pixelbert_fast.data.vqa.vqa2 import VQA2

    whole, rendered = VQA2.render, []

    def render(self, spec):
        if len(rendered) == 5:
            raise KeyboardInterrupt
        rendered.append(spec)
        return whole(self, spec)

    monkeypatch.setattr(VQA2, "render", render)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, official, block=2)
    rendered.append("the kill is over")
    build(tmp_path, official, block=2)
    assert len(rendered) == 1 + 13 + 1  # one record of the block under way was rendered twice
    monkeypatch.undo()
    builder = make_builder("vqa2", images=tmp_path / "coco", annotations=official)
    build_set(builder, tmp_path / "again", workers=2)
    again, resumed = open_set(tmp_path / "again"), open_set(tmp_path / "set")
    for split in resumed.splits:
        assert again.split(split)[:] == resumed.split(split)[:]


def test_a_file_that_changes_while_building_ends_it(tmp_path: Path, official: list[Path]) -> None:
    builder = make_builder("vqa2", images=tmp_path / "coco", annotations=official)
    spec = builder.plan().splits["train"][0]
    official[0].write_text("")
    with pytest.raises(RunError, match="changed while the set was built"):
        builder.render(spec)
