"""`scenes`: deterministic, true, singled out, balanced, and drawn as described."""

import hashlib
import io
import json
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from pixelbert_fast.data.build import build_set, make_builder
from pixelbert_fast.data.records import open_set
from pixelbert_fast.data.scenes.lexicon import COLOURS, HELD_OUT, PLACES, plural
from pixelbert_fast.data.truth import RELATION_MARGIN, RELATIONS, is_true, offset
from tests.rendered_scenes import IMAGES, rendered


@pytest.fixture(scope="module")
def built():
    return rendered()


@pytest.fixture(scope="module")
def everything(built):
    return [record for records in built.values() for record in records]


def pixels(record):
    return np.asarray(Image.open(io.BytesIO(record["image"]))).astype(int)


def combinations(record):
    attributes = [thing["attributes"] for thing in record["scene"]["objects"]]
    return {(one["shape"], one["colour"]) for one in attributes}


def words_of(builder, plan, number):
    """All that is decided in words about the first records of each split, without the JPEG bytes."""
    told = {"specs": plan.splits, "pairs": plan.pairs, "card": plan.card, "records": []}
    for specs in plan.splits.values():
        for spec in specs[:number]:
            record = builder.render(spec)
            del record["image"]
            told["records"].append(record)
    return json.dumps(told, sort_keys=True).encode()


# Changes only together with builder.REVISION: the same options must never name two different sets.
GOLDEN = {
    "scenes": "6e1ca1589d0c40bf",
    "scenes-objects": "bc24012e77b221a9",
}


@pytest.mark.parametrize("name", list(GOLDEN))
def test_the_same_seed_gives_the_same_set_for_ever(name):
    builder = make_builder(name, images=60, seed=5)
    first = words_of(builder, builder.plan(), 10)
    assert words_of(builder, builder.plan(), 10) == first
    other = make_builder(name, images=60, seed=6)
    assert words_of(other, other.plan(), 10) != first
    assert hashlib.sha256(first).hexdigest()[:16] == GOLDEN[name]
    spec = builder.plan().splits["test"][3]
    assert builder.render(spec)["image"] == make_builder(name, images=60, seed=5).render(spec)["image"]


def test_sizes_of_splits_and_images(built):
    assert {split: len(records) for split, records in built.items()} == {"train": 400, "val": 50, "test": 50}
    for record in built["train"][:20]:
        image = Image.open(io.BytesIO(record["image"]))
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (96, 96))
        assert (record["height"], record["width"]) == (96, 96)
    assert len({record["key"] for records in built.values() for record in records}) == IMAGES


def test_every_image_has_five_different_true_captions(everything):
    for record in everything:
        assert len(set(record["captions"])) == 5
        assert len(record["facts"]) == 5
        for caption, fact in zip(record["captions"], record["facts"], strict=True):
            assert is_true(fact, record["scene"]), caption


def test_captions_say_what_their_facts_say(everything):
    """The attribute values that a caption names and those that its fact claims are the same."""
    values = {
        value
        for record in everything
        for thing in record["scene"]["objects"]
        for value in thing["attributes"].values()
    }
    values |= {value for record in everything for value in record["scene"]["ground"].values()}
    values |= set(PLACES)
    for record in everything:
        for caption, fact in zip(record["captions"], record["facts"], strict=True):
            bare = re.sub("|".join(RELATIONS), " ", caption)
            named = Counter()
            for value in sorted(values, key=len, reverse=True):
                found = re.findall(rf"\b(?:{value}|{plural(value)})\b", bare)
                bare = re.sub(rf"\b(?:{value}|{plural(value)})\b", " ", bare)
                named[value] = len(found)
            claimed = re.findall(r'"([^"]+)"', json.dumps(fact))
            assert {v for v in values if named[v]} == {v for v in values if v in claimed}, caption


def test_captions_are_short_and_of_few_words(everything):
    words = Counter(word for r in everything for c in r["captions"] for word in re.findall(r"[a-z]+", c))
    assert len(words) < 120
    assert all(re.fullmatch(r"[a-z ,:]+", c) for r in everything for c in r["captions"])
    lengths = [len(c.split()) for r in everything for c in r["captions"]]
    assert max(lengths) <= 27
    assert np.mean(np.array(lengths) <= 24) > 0.99


def test_the_retrieval_caption_is_true_of_its_image_alone(built):
    """By brute force over every pair of images of each split."""
    for records in built.values():
        scenes = [record["scene"] for record in records]
        for row, record in enumerate(records):
            fact = record["facts"][record["retrieval_caption"]]
            assert [i for i, scene in enumerate(scenes) if is_true(fact, scene)] == [row]


def test_held_out_combinations_occur_in_half_of_the_test_images_only(built):
    for split in ("train", "val"):
        for record in built[split]:
            assert not combinations(record) & HELD_OUT
            assert record["scene"]["novel"] is False
            words = " ".join(record["captions"] + [question["question"] for question in record["questions"]])
            assert not any(re.search(rf"\b{colour} {shape}", words) for shape, colour in HELD_OUT)
    novel = [bool(combinations(record) & HELD_OUT) for record in built["test"]]
    assert novel == [record["scene"]["novel"] for record in built["test"]]
    assert sum(novel) == 25
    assert len(HELD_OUT) == 8
    assert len({shape for shape, _ in HELD_OUT}) == len({colour for _, colour in HELD_OUT}) == 8


@pytest.mark.parametrize(("attribute", "values"), [("shape", 8), ("colour", 8), ("size", 2), ("texture", 3)])
def test_marginals_are_balanced(everything, attribute, values):
    counts = Counter(t["attributes"][attribute] for r in everything for t in r["scene"]["objects"])
    expected = sum(counts.values()) / values
    assert len(counts) == values
    # About 170 objects of each of 8 colours, drawn in groups that share them: 3 sigma is about 30 %.
    assert max(abs(count - expected) for count in counts.values()) < 0.3 * expected


def test_places_and_relations_are_never_borderline(everything):
    third = 96 / 3
    for record in everything:
        objects = record["scene"]["objects"]
        for thing in objects:
            x0, y0, x1, y1 = thing["box"]
            assert min(x0, y0) >= 0
            assert max(x1, y1) <= 96
            x, y = (x0 + x1) / 2, (y0 + y1) / 2
            assert thing["attributes"]["place"] == PLACES[int(y // third) * 3 + int(x // third)]
            assert all(min(v % third, third - v % third) >= 4.9 for v in (x, y) if third < v < 2 * third)
            longest = max(x1 - x0, y1 - y0)
            assert (longest > 32) if thing["attributes"]["size"] == "large" else (20 <= longest < 31)
        for i, first in enumerate(objects):
            for second in objects[:i]:
                a, b = first["box"], second["box"]
                assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]
                for relation in RELATIONS:
                    distance = abs(offset(first, second, relation))
                    assert not RELATION_MARGIN / 1.25 < distance < RELATION_MARGIN * 1.25


def test_pictures_show_what_the_scene_says(everything):
    """Colour inside each object, ground outside, textures and noise by the spread of the pixels."""
    spread = {"plain": [], "striped": [], "dotted": []}
    noise = {"plain": [], "noisy": []}
    for record in everything[:150]:
        image, scene = pixels(record), record["scene"]
        outside = np.ones((96, 96), bool)
        for thing in scene["objects"]:
            x0, y0, x1, y1 = (round(v) for v in thing["box"])
            outside[max(0, y0 - 2) : y1 + 2, max(0, x0 - 2) : x1 + 2] = False
            attributes = thing["attributes"]
            if attributes["shape"] in ("circle", "square", "heart", "cross"):
                x, y = (x0 + x1) // 2, (y0 + y1) // 2
                inside = image[y - 3 : y + 4, x - 3 : x + 4].reshape(-1, 3)
                # 45: beyond jitter and JPEG error, below the distance of second tones to other colours.
                near = {name: (np.abs(inside - rgb).max(1) < 45).sum() for name, rgb in COLOURS.items()}
                assert max(near, key=near.get) == attributes["colour"], (record["key"], attributes, near)
                spread[attributes["texture"]].append(inside.std(0).max())
        noise[scene["ground"]["texture"]].append(image[outside].std(0).mean())
    assert max(spread["plain"]) < min(spread["striped"] + spread["dotted"])
    assert max(noise["plain"]) < 4 < 10 < min(noise["noisy"])


def test_a_set_of_single_objects(tmp_path):
    build_set(make_builder("scenes-objects", images=60, seed=1), tmp_path / "set", workers=1)
    built = open_set(tmp_path / "set")
    for split in built.splits:
        for record in built.split(split):
            scene = json.loads(record["scene"])
            (thing,) = scene["objects"]
            assert {
                name: thing["attributes"][name] in values for name, values in built.card["attributes"].items()
            } == {
                "shape": True,
                "colour": True,
                "size": True,
                "texture": True,
            }
            assert is_true(json.loads(record["facts"][0]), scene)
            assert record["captions"] == ["a {size} {texture} {colour} {shape}".format(**thing["attributes"])]
            assert record["retrieval_caption"] == -1
            held_out = (thing["attributes"]["shape"], thing["attributes"]["colour"]) in HELD_OUT
            assert held_out == scene["novel"]
            assert not (held_out and split != "test")
            assert Image.open(io.BytesIO(record["image"])).size == (48, 48)
            assert min(thing["box"]) >= 0
            assert max(thing["box"]) <= 48


def test_a_built_set_holds_questions_and_pairs(tmp_path):
    report = build_set(make_builder("scenes", images=40, size=64, quality=70), tmp_path / "set", workers=1)
    assert report.counts == {"train": 32, "val": 4, "test": 4}
    built = open_set(tmp_path / "set")
    record = built.split("train")[0]
    assert Image.open(io.BytesIO(record["image"])).size == (64, 64)
    assert {question["kind"] for question in record["questions"]} >= {"what", "which colour", "yes/no"}
    assert built.card["captions_per_image"] == 5
    assert set(built.card["word_categories"]) >= {"colour", "shape", "number", "size", "texture", "place"}
    assert set(built.pairs("train")[0]) == {"left", "right", "statement", "label", "fact"}
    assert built.card["pairs"]["train"] == 32


@pytest.mark.parametrize(
    ("option", "value"),
    [("images", 19), ("images", 50.5), ("size", 8), ("quality", 0), ("seed", -1), ("seed", True)],
)
def test_options_out_of_range_are_named(option, value):
    from pixelbert_fast.errors import UserError

    with pytest.raises(UserError, match=f"scenes: {option} must be a whole number from .* not {value!r}"):
        make_builder("scenes", **{option: value})
