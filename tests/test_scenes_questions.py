"""What `scenes` asks and states is answered by the pictures, and by words alone at chance only."""

import json
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from pixelbert_fast.data.scenes.lexicon import plural
from pixelbert_fast.data.scenes.pairs import FORMS, pair_is_true
from pixelbert_fast.data.truth import RELATION_MARGIN, is_true, offset
from tests.rendered_scenes import IMAGES, planned, rendered


@pytest.fixture(scope="module")
def plan():
    return planned()


@pytest.fixture(scope="module")
def built():
    return rendered()


@pytest.fixture(scope="module")
def everything(built):
    return [record for records in built.values() for record in records]


def answer_of(question, scene):
    """The answer to a question, read off the scene by a parser of its own."""
    attributes = [thing["attributes"] for thing in scene["objects"]]

    def meant(phrase):
        name, _, place = re.sub(" (at|in) the ", "|", phrase).partition("|")
        words = {*name.split(), *([place] if place else [])} - {"object"}
        found = [i for i, one in enumerate(attributes) if words <= set(one.values())]
        assert len(found) == 1, (phrase, scene)
        return found[0]

    if match := re.fullmatch(r"what shape is the (.+)\?", question):
        return attributes[meant(match[1])]["shape"]
    if match := re.fullmatch(r"which colour is the (.+)\?", question):
        return attributes[meant(match[1])]["colour"]
    if match := re.fullmatch(r"where is the (.+)\?", question):
        return attributes[meant(match[1])]["place"]
    if match := re.fullmatch(r"how many (.+) are there\?", question):
        word = match[1].removesuffix("objects").strip()
        names = [value for one in attributes for value in one.values()]
        number = sum(value == word or plural(value) == word for value in names) if word else len(attributes)
        return ("zero", "one", "two", "three", "four")[number]
    if match := re.fullmatch(r"is there a (\w+) (\w+)\?", question):
        return "yes" if any((one["colour"], one["shape"]) == match.groups() for one in attributes) else "no"
    match = re.fullmatch(r"is the (\w+ \w+) (left of|right of|above|below) the (\w+ \w+)\?", question)
    first, second = (scene["objects"][meant(phrase)] for phrase in (match[1], match[3]))
    return "yes" if offset(first, second, match[2]) >= RELATION_MARGIN else "no"


def test_questions_are_answered_by_the_scene(built, everything):
    kinds = Counter()
    for record in everything:
        assert len(record["questions"]) == 5
        for question in record["questions"]:
            kinds[question["kind"]] += 1
            assert answer_of(question["question"], record["scene"]) == question["answer"], question
    assert kinds["yes/no"] == kinds["which colour"] == kinds["how many"] == IMAGES
    assert kinds["where"] > 0.9 * IMAGES
    closed = [q["answer"] for r in built["train"] for q in r["questions"] if q["kind"] == "yes/no"]
    assert Counter(closed) == {"yes": 200, "no": 200}


def test_statements_about_pairs_are_true_and_false_equally_often(plan, built):
    forms = Counter()
    for split, statements in plan.pairs.items():
        scenes = [record["scene"] for record in built[split]]
        assert len(statements) == len(scenes)
        labels = {}
        for one in statements:
            fact = json.loads(one["fact"])
            forms.update(list(fact))
            assert one["left"] != one["right"]
            assert pair_is_true(fact, scenes[one["left"]], scenes[one["right"]]) is one["label"]
            labels.setdefault(one["statement"], []).append(one["label"])
        assert all(np.mean(found) == 0.5 for found in labels.values())
    assert set(forms) == set(FORMS)


def test_facts_about_pairs():
    def scene(*shapes):
        return {"objects": [{"attributes": {"shape": shape}, "box": [0, 0, 1, 1]} for shape in shapes]}

    left, right, star = scene("star", "star", "ring"), scene("star", "moon"), {"shape": "star"}
    has = {"exist": [star]}
    assert pair_is_true({"both": has}, left, right)
    assert not pair_is_true({"one": has}, left, right)
    assert pair_is_true({"one": {"exist": [{"shape": "moon"}]}}, left, right)
    assert pair_is_true({"right": {"exist": [{"shape": "moon"}]}}, left, right)
    assert not pair_is_true({"left": {"exist": [{"shape": "moon"}]}}, left, right)
    assert pair_is_true({"neither": {"exist": [{"shape": "heart"}]}}, left, right)
    assert pair_is_true({"more": [star, "left"]}, left, right)
    assert not pair_is_true({"more": [{}, "right"]}, left, right)
    assert not pair_is_true({"more": [{"shape": "heart"}, "right"]}, left, right)
    assert pair_is_true({"together": [star, 3]}, left, right)
    with pytest.raises(ValueError, match="unknown form"):
        pair_is_true({"all": []}, left, right)


def bag(texts, vocabulary):
    """Words and neighbouring pairs of words as 0/1 features, `[N, V]` float."""
    rows = np.zeros((len(texts), len(vocabulary)))
    for row, text in enumerate(texts):
        for gram in grams(text):
            if gram in vocabulary:
                rows[row, vocabulary[gram]] = 1
    return rows


def grams(text):
    words = re.findall(r"[a-z]+", text)
    return words + [f"{a} {b}" for a, b in pairwise(words)]


def text_only_accuracy(train, test):
    """Accuracy on `test` of a ridge classifier on bags of words; both are lists of (text, label)."""
    vocabulary = {gram: i for i, gram in enumerate(sorted({g for text, _ in train for g in grams(text)}))}
    features = bag([text for text, _ in train], vocabulary)
    middle = features.mean(0)
    features -= middle
    labels = np.array([label for _, label in train]) - 0.5
    weights = np.linalg.solve(features.T @ features + 10.0 * np.eye(len(vocabulary)), features.T @ labels)
    guesses = (bag([text for text, _ in test], vocabulary) - middle) @ weights > 0
    return (guesses == np.array([label for _, label in test])).mean()


def matching_pairs(records):
    """The (caption, matched?) pairs of an epoch as pre-training sees them, verified to be true or false."""
    from pixelbert_fast.tasks.pretraining.matching import plan_epoch

    captions = [record["captions"] for record in records]
    facts = [[json.dumps(fact) for fact in record["facts"]] for record in records]
    scenes = [json.dumps(record["scene"]) for record in records]
    epoch = plan_epoch(captions, 0, 0, 4, 0.5, facts, scenes)
    pairs = [(captions[i][c], 1) for i, row in enumerate(epoch.matched) for c in row if c >= 0]
    for i, row in enumerate(epoch.mismatched):
        for other, c in row:
            if c >= 0:
                assert not is_true(records[other]["facts"][c], records[i]["scene"])
                pairs.append((captions[other][c], 0))
    return pairs


def test_a_text_only_classifier_stays_at_chance_on_matching(built):
    train, test = matching_pairs(built["train"]), matching_pairs(built["val"] + built["test"])
    assert len(train) > 1500
    sigma = 0.5 / np.sqrt(len(test))
    assert abs(text_only_accuracy(train, test) - 0.5) < 3 * sigma
    # The same classifier does find a difference where there is one: captions that count, against the others.
    leaking = [
        [(text, int(text.split()[0] in ("exactly", "only"))) for text, _ in part] for part in (train, test)
    ]
    assert text_only_accuracy(*leaking) > 0.9


def test_text_only_classifiers_stay_at_chance_on_yes_no_and_on_pairs(plan, built):
    closed = [
        (question["question"], int(question["answer"] == "yes"))
        for records in built.values()
        for record in records
        for question in record["questions"]
        if question["kind"] == "yes/no" and not record["scene"]["novel"]
    ]
    half = len(closed) // 2
    assert abs(text_only_accuracy(closed[:half], closed[half:]) - 0.5) < 3 * 0.5 / np.sqrt(half)
    stated = {s: [(one["statement"], int(one["label"])) for one in plan.pairs[s]] for s in plan.pairs}
    test = stated["val"] + stated["test"]
    assert abs(text_only_accuracy(stated["train"], test) - 0.5) < 3 * 0.5 / np.sqrt(len(test))
