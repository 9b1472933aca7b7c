"""The official VQA accuracy against a second implementation, its special cases, and the prediction file."""

from __future__ import annotations

import json
import random
from fractions import Fraction

import pytest

from pixelbert_fast.data.vqa.answers import normalise
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.vqa.official import (
    Asked,
    VqaAccuracy,
    asked_of,
    official_accuracy,
    question_accuracy,
)
from pixelbert_fast.tasks.vqa.prediction_file import read_predictions, write_predictions

# Words to make answers of, each with what the evaluation turns it into when it stands alone.
WORDS = {
    "yes": "yes", "No": "no", "red": "red", "Dog": "dog", "a": "", "an": "", "The": "", "two": "2",
    "Ten": "10", "none": "0", "eleven": "eleven", "2": "2", "dont": "don't", "couldntve": "couldntve",
    "wouldn'tve": "wouldn't've",
    "twas": "'twas", "somebody'd": "somebodyd", "yall'll": "y'all'll", "Im": "im", "it's": "it's",
    "isn't": "isn't",
    "10:30": "10:30", "$5": "$5", "3.5": "3.5", "p.m.": "pm", "É": "é",
}  # fmt: skip
SEPARATORS = [
    " ",
    " ",
    " ",
    "  ",
    "\t",
    "\n",
    ", ",
    ",",
    " - ",
    "-",
    "/",
    " /",
    "! ",
    "?",
    ".",
    ". ",
    " (",
    ")",
]
MARKS = ';/[]"{}()=+\\_-><@`,?!'


def punctuation_read_from_the_page(text: str) -> str:
    """docs/vqa-accuracy.md, steps 2 and 3, a letter at a time."""
    between_digits = any(
        text[i] == "," and text[i - 1].isdigit() and text[i + 1].isdigit() for i in range(1, len(text) - 1)
    )
    beside_space = {
        letter
        for i, letter in enumerate(text)
        if (i > 0 and text[i - 1] == " ") or (i + 1 < len(text) and text[i + 1] == " ")
    }
    letters = []
    for letter in text:
        if letter not in MARKS:
            letters.append(letter)
        elif not between_digits and letter not in beside_space:
            letters.append(" ")
    kept, gone = [], 0
    for i, letter in enumerate(letters):
        before_digit = i + 1 < len(letters) and letters[i + 1].isdigit()
        if letter == "." and not before_digit and gone < 32:
            gone += 1
        else:
            kept.append(letter)
    return "".join(kept)


def words_read_from_the_page(text: str) -> str:
    """Steps 4 to 6 for texts of WORDS; what marks have made of them is no contraction and no number."""
    known = {word.lower(): form for word, form in WORDS.items()}
    forms = [known.get(word, word) for word in text.lower().split()]
    return " ".join(form for form in forms if form)


def tidy(text: str) -> str:
    return text.replace("\t", " ").replace("\n", " ").strip()


def normal(text: str) -> str:
    return words_read_from_the_page(punctuation_read_from_the_page(tidy(text)))


def accuracy_read_from_the_page(answers: list[str], prediction: str, edition: str) -> Fraction:
    if edition == "current":
        answers, prediction = [tidy(answer) for answer in answers], tidy(prediction)
        if len(set(answers)) > 1:
            answers, prediction = [normal(answer) for answer in answers], normal(prediction)
    else:
        prediction = normal(prediction)
        if len(set(answers)) > 1:
            answers = [punctuation_read_from_the_page(answer) for answer in answers]
    total = Fraction(0)
    for left_out in range(len(answers)):
        fellows = [answer for place, answer in enumerate(answers) if place != left_out]
        total += min(Fraction(1), Fraction(fellows.count(prediction), 3))
    return total / len(answers)


def made_answer(rng: random.Random) -> str:
    words = rng.choices(list(WORDS), k=rng.choice((1, 1, 1, 2, 3)))
    text = "".join(word + rng.choice(SEPARATORS) for word in words)
    text = text.strip() if rng.random() < 0.6 else text
    if rng.random() < 0.05:
        text = f"1,000 {text}"
    return text + "." * rng.randint(31, 40) if rng.random() < 0.02 else text


def made_question(rng: random.Random) -> tuple[list[str], str]:
    pool = [made_answer(rng) for _ in range(rng.choice((1, 1, 2, 3, 5)))]
    answers = rng.choices(pool, k=10)
    return answers, rng.choice((rng.choice(answers), normalise(rng.choice(answers)), made_answer(rng)))


@pytest.mark.parametrize("edition", ["current", "first"])
def test_ten_thousand_answer_sets_agree_with_a_second_implementation(edition):
    rng = random.Random(7)
    kinds = ("yes/no", "number", "other")
    collected, sums, by_kind = VqaAccuracy(edition=edition), Fraction(0), {kind: [] for kind in kinds}
    for number in range(10_000):
        answers, prediction = made_question(rng)
        kind = kinds[number % 3]
        expected = accuracy_read_from_the_page(answers, prediction, edition)
        found = collected.add(Asked(number, answers, kind, f"type {number % 7}"), prediction)
        # Thirtieths are no binary fractions: the last digits are rounding.
        assert found == pytest.approx(float(expected), abs=1e-12), (answers, prediction)
        sums += expected
        by_kind[kind].append(expected)
    result = collected.result()
    assert result["questions"] == 10_000
    assert result["accuracy"] == pytest.approx(float(sums / 10_000), abs=1e-9)
    for kind, values in by_kind.items():
        told = result["by_answer_type"][kind]
        assert told["questions"] == len(values)
        assert told["accuracy"] == pytest.approx(float(sum(values) / len(values)), abs=1e-9)
    assert sorted(result["by_question_type"]) == [f"type {number}" for number in range(7)]
    assert 0.02 < result["accuracy"] < 0.95  # or little was compared


def test_ten_thousand_texts_have_the_normal_form_of_the_page():
    rng = random.Random(8)
    for _ in range(10_000):
        text = made_answer(rng)
        assert normalise(text) == normal(text), text


@pytest.mark.parametrize(
    ("answers", "prediction", "current", "first"),
    [
        (["yes"] * 10, "yes", 1, 1),
        (["yes"] * 10, "Yes.", 0, 1),  # agreeing annotators: the current edition compares as written
        (["Yes"] * 10, "yes", 0, 0),
        (["Yes"] * 10, "Yes", 1, 0),
        (["dont know"] * 10, "don't know", 0, 0),
        ([" yes\n"] * 10, "yes", 1, 0),
        (["yes"] * 9 + ["Yes"], "YES!", 1, 1),
        (["two"] * 9 + ["2"], "2", 1, 0.3),
        (["a dog"] * 3 + ["cat"] * 7, "dog", 0.9, 0),
        (["x-ray"] * 2 + ["cat"] * 8, "X-ray", 0.6, 0.6),
        (["the"] * 5 + ["a"] * 5, "", 1, 0),
        (["red"] * 1 + ["blue"] * 9, "red", 0.3, 0.3),
        (["red"] * 4 + ["blue"] * 6, "red", 1, 1),
        (["red", "red", "red", "blue"], "red", 0.75, 0.75),  # (2/3 * 3 + 1) / 4
        (["red"], "the Red", 1, 1),  # one annotator leaves no others
        (["red"], "blue", 0, 0),
    ],
)
def test_special_cases(answers, prediction, current, first):
    assert question_accuracy(answers, prediction) == pytest.approx(current, abs=1e-12)
    assert question_accuracy(answers, prediction, edition="first") == pytest.approx(first, abs=1e-12)


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(ValueError, match="without answers"):
        question_accuracy([], "yes")
    with pytest.raises(ValueError, match="edition must be 'current' or 'first', got 'second'"):
        question_accuracy(["yes"] * 10, "yes", edition="second")


def test_a_split_is_scored_whole():
    asked = [Asked(7, ["yes"] * 10, "yes/no", "is the"), Asked(9, ["red"] * 4 + ["blue"] * 6, "other", None)]
    found = official_accuracy(asked, {9: "green", 7: "yes"})
    assert found["accuracy"] == 0.5 and found["questions"] == 2
    assert found["by_answer_type"] == {
        "other": {"questions": 1, "accuracy": 0.0},
        "yes/no": {"questions": 1, "accuracy": 1.0},
    }
    assert found["by_question_type"] == {"is the": {"questions": 1, "accuracy": 1.0}}
    assert official_accuracy([], {})["accuracy"] is None
    with pytest.raises(UserError, match="the predictions lack question 9"):
        official_accuracy(asked, {7: "yes"})
    with pytest.raises(UserError, match="3 predictions for 2 questions"):
        official_accuracy(asked, {7: "yes", 9: "red", 11: "no"})


def test_questions_of_a_record():
    record = {
        "questions": [
            {"question": "is it?", "answer": "yes", "kind": "yes/no"},
            {"question": "what?", "answer": None, "kind": None},
        ],
        "question_ids": [70, 71],
        "question_types": ["is it", None],
        "raw_answers": [["yes"] * 10, []],
    }
    assert asked_of(record) == [Asked(70, ["yes"] * 10, "yes/no", "is it")]
    del record["question_ids"], record["question_types"], record["raw_answers"]
    assert asked_of(record, first=5) == [Asked(5, ["yes"], "yes/no", None)]


def test_the_prediction_file_is_what_the_server_takes(tmp_path):
    path = tmp_path / "predictions.json"
    given = {9: "don't know", 7: 'a "b" é\n'}
    assert write_predictions(path, given.items()) == 2
    assert json.loads(path.read_text()) == [
        {"question_id": 9, "answer": "don't know"},
        {"question_id": 7, "answer": 'a "b" é\n'},
    ]
    assert read_predictions(path) == given
    assert write_predictions(path, []) == 0 and json.loads(path.read_text()) == []
    with pytest.raises(ValueError, match="question 1 has two predictions"):
        write_predictions(tmp_path / "twice.json", [(1, "a"), (1, "b")])
    assert [one.name for one in tmp_path.iterdir()] == ["predictions.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "cannot be read as predictions"),
        ("{}", "holds no list"),
        ('[{"question_id": "7", "answer": "a"}]', "entry 0 of .* is no prediction"),
        ('[{"question_id": true, "answer": "a"}]', "entry 0 of .* is no prediction"),
        ('[{"question_id": 7, "answer": "a"}, {"question_id": 7, "answer": "b"}]', "two predictions for"),
    ],
)  # fmt: skip
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "predictions.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        read_predictions(path)
