"""Examples of what a checkpoint gets right and wrong, asked of models whose answers are known beforehand."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from PIL import Image

from pixelbert_fast import PixelBertConfig, PixelBertForPreTraining, PixelBertProcessor
from pixelbert_fast.data.processor import PixelBertImageProcessor
from pixelbert_fast.data.records import open_set, write_card
from pixelbert_fast.data.vocabulary import train_wordpiece
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks import checkpoint_examples, make_task
from pixelbert_fast.tasks.examples import BLANK, ExampleRequest, content_words, gathered
from pixelbert_fast.tasks.retrieval.examples import _ordinal
from pixelbert_fast.tasks.vqa.examples import guesses
from tests import toy_pairs, vqa_sets
from tests.test_report_page import example

SMALL = {"backbone_channels": 8, "hidden_size": 32, "intermediate_size": 64}
COLOURS = ("red", "green", "blue")


def record(row: int) -> dict:
    stream = io.BytesIO()
    Image.fromarray(np.full((32, 48, 3), 20 * row, np.uint8)).save(stream, "PNG")
    colour = COLOURS[row % 3]
    captions = [f"a {colour} star", f"one {colour} circle"]
    facts = [json.dumps({"exist": [{"colour": colour}]})] * 2
    return {
        "key": f"image-{row}",
        "image": stream.getvalue() if row != 5 else b"broken",
        "height": 32,
        "width": 48,
        "captions": captions,
        "facts": facts,
        "scene": json.dumps(
            {"objects": [{"attributes": {"colour": colour}, "box": [0, 0, 48, 32]}], "ground": {}}
        ),
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("captioned")
    DatasetDict({"val": Dataset.from_list([record(row) for row in range(12)])}).save_to_disk(folder)
    categories = {"colour": list(COLOURS), "shape": ["star", "circle"]}
    write_card(folder, {"name": "toy", "counts": {"val": 12}, "word_categories": categories})
    return folder


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory, built) -> Path:
    """A model that always says "a match", with certainty, and always "star"."""
    folder = tmp_path_factory.mktemp("checkpoint")
    texts = [text for own in open_set(built).split("val")["captions"] for text in own]
    tokenizer = train_wordpiece(texts, 200)
    torch.manual_seed(0)
    model = PixelBertForPreTraining(PixelBertConfig.preset("tiny", vocab_size=len(tokenizer), **SMALL))
    with torch.no_grad():
        head = model.itm_head.modules()
        last = [one for one in head if isinstance(one, torch.nn.Linear)][-1]
        last.weight.zero_()
        last.bias.copy_(torch.tensor([-5.0, 5.0]))
        model.mlm_head.bias[tokenizer.convert_tokens_to_ids("star")] = 50.0
    model.save_pretrained(folder)
    PixelBertProcessor(PixelBertImageProcessor(short_side=32, long_side=64), tokenizer).save_pretrained(
        folder
    )
    return folder


def test_matches_and_masked_words(built, pretrained) -> None:
    match, word = checkpoint_examples("pretrain")(pretrained, open_set(built), "val", ExampleRequest(kept=2))
    # One image is broken; each other one has a caption of its own and a false one, which is called a match.
    assert (match.tried, match.wrong) == (22, 11)
    assert [one.right for one in match.examples] == [False, False, True, True]
    certain = 1 / (1 + np.exp(-10))
    for one in match.examples:
        assert one.said == (("a match", pytest.approx(certain)),)
        assert one.truth == ("it is of this image" if one.right else "it is of another image")
        (picture,) = one.pictures
        row = int(picture.name.removeprefix("image-"))
        assert (COLOURS[row % 3] in one.text) == one.right
        assert [own.word for own in picture.maps][-1] in ("star", "circle")
        for own in picture.maps:
            assert own.map.shape == (2, 3) and 0 < own.map.sum() <= 1 and own.covers == (1.0, 1.0)
    assert 0 < word.wrong < word.tried <= 11
    for one in word.examples:
        assert one.said[0][0] == "star" and one.said[-1][0] == "beside another image: star"
        assert one.right == (one.truth == "star")
        assert one.text.count(BLANK) == 1 and one.truth not in one.text.split()
        assert one.text.replace(BLANK, one.truth) in {f"a {colour} star" for colour in COLOURS}
        assert [own.word for own in one.pictures[0].maps] == [BLANK]


def test_the_blind_twin_is_shown_no_pixels_and_gets_no_maps(built, pretrained) -> None:
    request = ExampleRequest(kept=2, text_only=True)
    for group in checkpoint_examples("pretrain")(pretrained, open_set(built), "val", request):
        assert group.examples
        assert not any(picture.maps for one in group.examples for picture in one.pictures)


def test_a_pretrained_model_ranks_images(built, pretrained) -> None:
    (group,) = checkpoint_examples("retrieval")(pretrained, open_set(built), "val", ExampleRequest())
    # Every score is the same: each query's own image stands behind the ten others.
    assert (group.tried, group.wrong) == (22, 22)
    for one in group.examples:
        assert one.truth == "its image comes 11th of 11"
        assert len(one.pictures) == 5
        assert all(picture.maps for picture in one.pictures[:1])
        assert not any(picture.maps for picture in one.pictures[1:] if not picture.right)


def test_no_time_gives_fewer(built, pretrained) -> None:
    found = checkpoint_examples("pretrain")(pretrained, open_set(built), "val", ExampleRequest(seconds=0.0))
    assert 0 < found[0].tried < 22


def test_questions(tmp_path: Path) -> None:
    built = open_set(vqa_sets.build(tmp_path / "set"))
    task = make_task(vqa_sets.config(tmp_path / "set"))
    task.save(task.model, tmp_path / "checkpoint")
    (group,) = checkpoint_examples("vqa")(tmp_path / "checkpoint", built, "val", ExampleRequest(kept=100))
    assert group.tried == len(group.examples) == sum(map(len, built.split("val")["questions"]))
    assert group.wrong == sum(not one.right for one in group.examples)
    for one in group.examples:
        assert one.right == (one.said[0][0] == one.truth)
        assert [score for _, score in one.said] == sorted((score for _, score in one.said), reverse=True)
    with pytest.raises(UserError, match="no questions with public answers"):
        checkpoint_examples("vqa")(tmp_path / "checkpoint", built, "test", ExampleRequest())


def test_what_guessing_by_the_question_gives(tmp_path: Path) -> None:
    built = open_set(vqa_sets.build(tmp_path / "set"))
    found = guesses(built, "val")
    asked = [one for own in built.split("val")["questions"] for one in own]
    for name, share in found.items():
        own = [one["answer"] for one in asked if name in ("all", one["kind"])]
        assert share == max(own.count(answer) for answer in own) / len(own)
    assert found.keys() == {"all", "colour", "where", "yes/no", "other"}
    assert guesses(built, "test") == {}


def test_of_answers_by_several_people_only_the_first_are_read() -> None:
    class Split:
        column_names = ("questions", "raw_answers")

        def select_columns(self, names: list[str]):
            assert names == ["raw_answers"]
            yield {"raw_answers": [["yes"]]}
            yield {"raw_answers": [["yes"], ["no", "yes"]]}
            pytest.fail("more was read than is needed")

    class Built:
        def split(self, _: str) -> Split:
            return Split()

    assert guesses(Built(), "val") == {}


def test_statements(tmp_path: Path) -> None:
    built = open_set(toy_pairs.build(tmp_path / "set"))
    task = make_task(toy_pairs.config(tmp_path / "set"))
    task.save(task.model, tmp_path / "checkpoint")
    find = checkpoint_examples("nlvr2")
    (group,) = find(tmp_path / "checkpoint", built, "val", ExampleRequest(images=8, kept=20))
    assert group.tried == len(group.examples) == 16
    for one in group.examples:
        says = one.said[0][1] > 0.5
        assert one.right == (says == (one.truth == "it is true"))
        assert [picture.note for picture in one.pictures] == ["left", "right"]
        assert all(picture.maps for picture in one.pictures)
    with pytest.raises(UserError, match="no statements whose truth is public"):
        find(tmp_path / "checkpoint", built, "test", ExampleRequest())


def test_the_surest_mistakes_are_kept() -> None:
    from dataclasses import replace

    sure = [0.1, 0.9, 0.5, 0.7]
    found = [replace(example("x", False), sure=one) for one in sure] + [example("y", True)] * 9
    group = gathered("t", "a", found, None, None, (), ExampleRequest(kept=2, maps=False))
    assert (group.tried, group.wrong) == (13, 4)
    assert [one.sure for one in group.examples if not one.right] == [0.9, 0.7]
    assert [one.right for one in group.examples] == [False, False, True, True]


def test_words_of_a_set_that_lists_none() -> None:
    assert content_words(["There is a RED star in the picture", "2 dogs"]) == {"red", "star", "dogs"}


def test_places_are_said_as_english_has_them() -> None:
    numbers = {
        1: "first",
        3: "third",
        4: "4th",
        11: "11th",
        13: "13th",
        21: "21st",
        112: "112th",
        122: "122nd",
    }
    assert {number: _ordinal(number) for number in numbers} == numbers


def test_a_task_without_examples_is_said() -> None:
    with pytest.raises(UserError, match="no task with examples 'objects'"):
        checkpoint_examples("objects")
