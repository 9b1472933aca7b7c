"""The recalls of images that show objects together that training did not, apart."""

from __future__ import annotations

import json

import numpy as np
import pytest
from datasets import Dataset
from typer.testing import CliRunner

from pixelbert_fast.cli import app
from pixelbert_fast.data.records import open_set
from pixelbert_fast.data.truth import parse
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.retrieval.compositions import compositions
from pixelbert_fast.tasks.retrieval.ranks import ranks
from tests.test_retrieval_task import scenes, trained  # noqa: F401  (fixtures)


def shown(*every):
    told = [
        {"objects": [{"attributes": {"object": name, "kind": kind}} for name, kind in one]} for one in every
    ]
    return Dataset.from_dict({"scene": [json.dumps(scene) for scene in told]})


OWL, DUCK, FOX, HEN = ("owl", "bird"), ("duck", "bird"), ("fox", "beast"), ("hen", "bird")


def test_what_no_training_scene_shows_is_new():
    train = shown([OWL, DUCK], [OWL, FOX, HEN], [HEN])
    asked = {
        "seen": [OWL, DUCK],
        "seen in another order": [DUCK, OWL],
        "within a training scene": [FOX, OWL],
        "never together": [DUCK, FOX],
        "only two of it together": [OWL, FOX, DUCK],
        "one twice": [OWL, OWL],
        "one object": [FOX],
    }
    found = compositions(train, shown(*asked.values()), range(len(asked)), ["object"])
    unseen = {name for name, new in zip(asked, found.unseen, strict=True) if new}
    apart = {name for name, new in zip(asked, found.apart, strict=True) if new}
    assert apart == {"never together", "only two of it together", "one twice"}
    assert unseen == apart | {"within a training scene"}
    kinds = compositions(train, shown(*asked.values()), range(len(asked)), ["kind"])
    unseen = {name for name, new in zip(asked, kinds.unseen, strict=True) if new}
    assert unseen == {"within a training scene", "never together"} and not kinds.apart.any()


def test_other_sets_are_refused():
    known = shown([OWL, DUCK])
    with pytest.raises(UserError, match="no attribute 'colour'; they have object, kind"):
        compositions(known, known, [0], ["colour"])
    with pytest.raises(UserError, match="for sets that know"):
        compositions(Dataset.from_dict({"key": ["a"]}), known, [0], ["object"])


def test_the_command_tells_them_apart(scenes, trained, tmp_path):  # noqa: F811
    out = tmp_path / "figures.json"
    given = ["--checkpoint", str(trained[1]), "--data", str(scenes), "--split", "test", "--images", "10"]
    options = ["--option", "compositions=shape+colour", "--option", "keep=true"]
    result = CliRunner().invoke(app, ["evaluate", "retrieval", *given, "--out", str(out), *options])
    assert result.exit_code == 0, result.output
    told = json.loads(out.read_text())
    assert told["options"] == {"compositions": "shape+colour", "keep": "true"}
    metrics = told["metrics"]
    assert metrics["images"] == 10 and metrics["images_of_split"] == 12
    assert "10 (the first of 12), 10" in result.output

    def objects(row):
        told = [thing["attributes"] for thing in parse(row["scene"])["objects"]]
        return sorted((one["shape"], one["colour"]) for one in told)

    built = open_set(scenes)
    seen = [objects(row) for row in built.split("train")]
    own = [objects(row) for row in list(built.split("test"))[:10]]
    new = np.array([len(one) > 1 and one not in seen for one in own])
    assert 0 < new.sum() == metrics["compositions"]["unseen"]["images"] < 10
    ranked = ranks(np.load(f"{out}.scores/scores/scores.npy"), np.arange(10))
    for k in (1, 5, 10):
        assert metrics["compositions"]["unseen"][f"tr_r{k}"] == np.mean(ranked.of_texts[new] < k)
        assert metrics["compositions"]["unseen"][f"ir_r{k}"] == np.mean(ranked.of_images[new] < k)
    assert f"{new.sum()} new compositions, image to text" in result.output
