"""Whole sets of captions read: each word is true of what it names."""

import json
from pathlib import Path

from pixelbert_fast.data.build import make_builder
from pixelbert_fast.data.records import BuiltSet
from pixelbert_fast.data.scenes.captions import MAKERS
from pixelbert_fast.tasks.grounding.captions import CaptionReader
from pixelbert_fast.tasks.grounding.mentions import KINDS
from tests.rendered_scenes import rendered
from tests.tuxpaint_stamps import make_stamps


def reader(name):
    return CaptionReader(BuiltSet(Path("nowhere"), {"name": name, "counts": {}}))


def test_every_caption_of_rendered_scenes_is_read():
    read, seen = reader("scenes"), set()
    for record in (record for records in rendered().values() for record in records):
        encoded = {
            "captions": record["captions"],
            "facts": [json.dumps(fact) for fact in record["facts"]],
            "scene": json.dumps(record["scene"]),
        }
        found = read(encoded)
        assert (found.untrue, found.unread) == (0, 0)
        for caption, mentions in found.read:
            for one in mentions:
                word = caption[one.start : one.end]
                seen.add(one.kind)
                assert bool(one.objects) == (one.kind != "ground")
                attributes = [record["scene"]["objects"][number]["attributes"] for number in one.objects]
                if one.kind in ("colour", "size", "texture"):
                    assert all(own[one.kind] == word for own in attributes), caption
                if one.kind == "noun":
                    assert all(word.startswith(own["shape"]) for own in attributes), caption
                if one.kind == "place":
                    assert all(word in own["place"].split() for own in attributes), caption
    assert seen == set(KINDS) - {"category", "modifier"}
    assert len(MAKERS) == 5  # another kind of caption needs a form in test_grounding_words


def test_every_caption_of_composed_photographs_is_read(tmp_path):
    builder = make_builder("tuxpaint", source=make_stamps(tmp_path / "stamps"), images=60, seed=1)
    read, seen = reader("tuxpaint"), set()
    for specs in builder.plan().splits.values():
        for record in map(builder.render, specs):
            scene, found = json.loads(record["scene"]), read(record)
            assert (found.untrue, found.unread) == (0, 0)
            for caption, mentions in found.read:
                for one in mentions:
                    seen.add(one.kind)
                    word = caption[one.start : one.end]
                    attributes = [scene["objects"][number]["attributes"] for number in one.objects]
                    if one.kind in ("noun", "modifier", "colour"):
                        assert all(word in own["object"].split() for own in attributes), caption
                    if one.kind == "place" and word != "corner":
                        assert all(word in (own["row"], own["column"]) for own in attributes), caption
    assert seen >= {"noun", "modifier", "colour", "category", "number", "relation", "place", "ground"}
