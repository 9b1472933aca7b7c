"""The official VQA evaluation's form of answers, scores, and the vocabulary."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from pixelbert_fast.data.vqa.answers import normalise, soft_scores, vocabulary


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Yes", "yes"),
        (" a dog \n", "dog"),
        ("the", ""),
        ("", ""),
        ("two", "2"),
        ("None", "0"),
        ("ten", "10"),
        ("eleven", "eleven"),
        ("dont know", "don't know"),
        ("Isnt it", "isn't it"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("couldntve", "couldntve"),
        ("y'alldve", "y'alldve"),
        ("y'alld've", "y'all'd've"),
        ("'ow'sat", "'ow's'at"),
        ("somebody'd", "somebodyd"),  # the evaluation's own way round
        ("Im", "im"),  # listed there with a capital, which no lower-case word meets
        ("black/white", "black white"),
        ("black / white", "black white"),
        ("black/ white", "black white"),
        ("x-ray, please", "x ray please"),
        ("1,000", "1000"),
        ("1,000 a-b", "1000 ab"),  # digits around a comma: every mark is removed
        ("3.5", "3.5"),
        ("p.m.", "pm"),
        ("St. 5", "st 5"),
        (".5", ".5"),
        ("10:30", "10:30"),  # no colon in the list of marks
        ("$5 & 50%", "$5 & 50%"),
        ("it's", "it's"),
        ("tab\tand\nline", "tab and line"),
        ("." * 40, "." * 8),  # 32 full stops are removed and no more
        ("É\u2003b", "é b"),
    ],
)
def test_normalise(answer: str, expected: str) -> None:
    assert normalise(answer) == expected


def test_a_normal_form_is_one_line_of_single_spaces() -> None:
    for parts in itertools.product(("a", "two", ",", "\n", " ", "-", "\x85", "b1,2"), repeat=4):
        answer = normalise("".join(parts))
        assert answer == " ".join(answer.split())


def leave_one_out(answers: list[str], answer: str) -> float:
    """The official accuracy, written out."""
    total = 0.0
    for left_out in range(len(answers)):
        others = answers[:left_out] + answers[left_out + 1 :]
        total += min(1, others.count(answer) / 3)
    return total / len(answers)


def test_ten_answers_score_as_the_fields_table() -> None:
    for times, score in enumerate((0.3, 0.6, 0.9, 1, 1, 1, 1, 1, 1, 1), start=1):
        answers = ["red"] * times + [f"other {i}" for i in range(10 - times)]
        assert soft_scores(answers)["red"] == pytest.approx(score, abs=1e-12)


def test_scores_are_the_official_accuracy_for_any_number_of_answers() -> None:
    for number in range(1, 13):
        for pattern in ("abcdefghijkl", "aabbccddeeff", "aaaabbbbcccc", "abbcccddddee", "aaaaaaaaaaaa"):
            answers = list(pattern[:number])
            scores = soft_scores(answers)
            assert set(scores) == set(answers)
            for answer, score in scores.items():
                assert score == pytest.approx(leave_one_out(answers, answer), abs=1e-12)
    assert soft_scores([]) == {}


def test_the_vocabulary_is_ordered_by_frequency_and_then_by_spelling() -> None:
    occurrences = Counter({"yes": 20, "blue": 9, "": 9, "a cat": 9, "rare": 8, "no": 21})
    assert vocabulary(occurrences) == ["no", "yes", "", "a cat", "blue"]
    assert vocabulary(Counter(dict(reversed(occurrences.items())))) == vocabulary(occurrences)
