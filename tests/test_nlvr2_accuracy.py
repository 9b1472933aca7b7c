"""NLVR2's official accuracy, consistency and prediction file."""

from __future__ import annotations

import random

import pytest

from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.nlvr2.official import Statement, official_accuracy, sentence_of
from pixelbert_fast.tasks.nlvr2.prediction_file import read_predictions, write_predictions


def test_a_sentence_counts_only_where_all_its_pairs_are_right():
    statements = [
        Statement("dev-4-0-0", True),
        Statement("dev-4-1-0", False),
        Statement("dev-4-0-1", True),
        Statement("dev-4-1-1", True),
        Statement("dev-14-0-0", True),
    ]
    predictions = {
        "dev-4-0-0": True, "dev-4-1-0": True, "dev-4-0-1": True, "dev-4-1-1": True, "dev-14-0-0": True,
    }  # fmt: skip
    assert official_accuracy(statements, predictions) == {
        "statements": 5,
        "accuracy": 0.8,
        "sentences": 3,
        "consistency": 2 / 3,
    }
    assert official_accuracy(statements, predictions | {"dev-9-9-9": False})["statements"] == 5
    with pytest.raises(UserError, match="the predictions lack dev-4-1-0"):
        official_accuracy(statements, {"dev-4-0-0": True})
    assert official_accuracy([], {})["consistency"] is None


def test_consistency_is_a_count_by_hand():
    rng = random.Random(1)
    keys = [(s, p, n) for s in range(40) for p in range(4) for n in range(2) if rng.random() < 0.8]
    label = {f"test1-{s}-{p}-{n}": rng.random() < 0.5 for s, p, n in keys}
    guess = {name: truth ^ (rng.random() < 0.2) for name, truth in label.items()}
    found = official_accuracy([Statement(*one) for one in label.items()], guess)
    right = {name: guess[name] == label[name] for name in label}
    assert found["accuracy"] == pytest.approx(sum(right.values()) / len(right))
    sentences = {(s, n) for s, _, n in keys}
    whole = [all(right[f"test1-{a}-{p}-{b}"] for a, p, b in keys if (a, b) == one) for one in sentences]
    assert found["sentences"] == len(sentences)
    assert found["consistency"] == pytest.approx(sum(whole) / len(sentences))
    assert 0 < found["consistency"] < found["accuracy"]


def test_identifiers():
    assert sentence_of("train-10171-0-1") == sentence_of("train-10171-3-1") != sentence_of("train-10171-3-0")
    with pytest.raises(UserError, match="'dev-4' is not SPLIT-SET-PAIR-SENTENCE"):
        sentence_of("dev-4")


def test_the_prediction_file(tmp_path):
    path = tmp_path / "predictions.csv"
    given = {"dev-4-0-0": True, "dev-4-1-0": False}
    assert write_predictions(path, given.items()) == 2
    assert path.read_bytes() == b"dev-4-0-0,True\ndev-4-1-0,False\n"
    assert read_predictions(path) == given
    path.write_text("dev-4-0-0,true\r\n\ndev-4-1-0,FALSE")
    assert read_predictions(path) == given
    for wrong, message in (
        ([("a", True), ("a", True)], "two predictions"),
        ([("a,b", True)], "does not fit in a line"),
        ([("", True)], "does not fit in a line"),
    ):
        with pytest.raises(ValueError, match=message):
            write_predictions(tmp_path / "wrong.csv", wrong)
    assert [one.name for one in tmp_path.iterdir()] == ["predictions.csv"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("identifier,prediction\n", "line 1 of .* is no prediction"),
        ("dev-4-0-0,1\n", "line 1 of .* is no prediction"),
        ("dev-4-0-0\n", "line 1 of .* is no prediction"),
        ("dev-4-0-0,True\ndev-4-0-0,True\n", "two predictions for dev-4-0-0"),
        (None, "cannot be read as predictions"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "predictions.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        read_predictions(path)
