"""Building a set: what comes of it, dropped records, and everything that may be in the way."""

import json
import os
from pathlib import Path

import datasets
import pytest

from pixelbert_fast.data import records
from pixelbert_fast.data.build import build_set, make_builder
from pixelbert_fast.data.records import open_set
from pixelbert_fast.errors import RunError, UserError
from tests.toy_sets import Toy


def test_a_built_set_opens_with_datasets_and_with_open_set(tmp_path):
    seen = []
    report = build_set(Toy(), tmp_path / "set", workers=1, block=3, progress=lambda *now: seen.append(now))
    assert report.counts == {"train": 10, "val": 0, "test": 4}
    assert (report.dropped, report.directory) == ([], tmp_path / "set")
    assert sum(advance for advance, _ in seen) == 14
    assert {total for _, total in seen} == {14}
    assert not (tmp_path / "set.partial").exists()

    whole = datasets.load_from_disk(str(tmp_path / "set"))
    assert sorted(whole) == ["test", "train"]
    assert whole["train"]["key"][:] == [f"train-{i}" for i in range(10)]

    built = open_set(tmp_path / "set")
    assert built.splits == ["train", "val", "test"]
    assert built.card["builder"] == Toy().options()
    assert built.split("test")[3]["image"] == bytes([3])
    assert built.split("test").cache_files  # memory-mapped, not read
    assert built.split("train").features["captions"] == datasets.List(datasets.Value("string"))
    assert built.pairs("train")[8]["right"] == 9


def test_dropped_records_are_counted_listed_and_left_out_of_the_pairs(tmp_path):
    report = build_set(Toy(broken=(2, 3)), tmp_path / "set", workers=1, block=2)
    assert report.counts == {"train": 8, "val": 0, "test": 2}
    assert {"key": "train-2", "why": "not an image"} in report.dropped
    assert len(report.dropped) == 4
    built = open_set(tmp_path / "set")
    assert built.card["dropped"] == report.dropped
    keys = built.split("train")["key"][:]
    assert keys == [f"train-{i}" for i in (0, 1, 4, 5, 6, 7, 8, 9)]
    # Places in the plan became rows: the statement named by its left place still speaks of that image.
    for pair in built.pairs("train"):
        assert keys[pair["left"]] == f"train-{pair['statement']}"
        assert keys[pair["right"]] == f"train-{int(pair['statement']) + 1}"
    assert built.card["pairs"] == {"train": 6, "val": 0, "test": 1}


def test_a_split_of_which_everything_is_dropped_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"all 4 images of split 'test' were dropped.*not an image"):
        build_set(Toy(broken=(0, 1, 2, 3)), tmp_path / "set", workers=1)
    assert not (tmp_path / "set").exists()


def test_a_finished_set_is_not_built_again(tmp_path):
    first = build_set(Toy(broken=(1,)), tmp_path / "set", workers=1)
    again = Toy(broken=(1,))
    assert build_set(again, tmp_path / "set", workers=1) == first
    assert not again.rendered


def test_a_folder_whose_name_is_not_in_utf_8(tmp_path):
    odd = Toy()
    odd.options = lambda: {"images": os.fsdecode(b"/data/caf\xe9")}
    first = build_set(odd, tmp_path / "set", workers=1)
    assert open_set(tmp_path / "set").card["builder"] == odd.options()
    assert build_set(odd, tmp_path / "set", workers=1) == first


def test_what_is_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"file is a file"):
        build_set(Toy(), tmp_path / "file", workers=1)

    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("x")
    with pytest.raises(UserError, match=r"photos is not empty and has no card\.json of ours"):
        build_set(Toy(), tmp_path / "photos", workers=1)
    assert (tmp_path / "photos" / "cat.jpg").exists()

    build_set(Toy(), tmp_path / "set", workers=1)
    with pytest.raises(UserError, match="holds another data set, with train = 10 and not 12"):
        build_set(Toy(train=12), tmp_path / "set", workers=1)
    other = make_builder("scenes", images=20)
    with pytest.raises(UserError, match="holds another data set, 'toy' and not 'scenes'"):
        build_set(other, tmp_path / "set", workers=1)

    with pytest.raises(UserError, match="cannot be written"):
        build_set(Toy(), tmp_path / "file" / "set", workers=1)

    (tmp_path / "empty").mkdir()
    assert build_set(Toy(), tmp_path / "empty", workers=1).counts["train"] == 10


def test_a_symbolic_link_is_followed(tmp_path):
    (tmp_path / "big").mkdir()
    for name in ("there", "missing"):
        (tmp_path / name).symlink_to(tmp_path / "big" / name)
    (tmp_path / "big" / "there").mkdir()
    for name in ("there", "missing"):
        assert build_set(Toy(), tmp_path / name, workers=1).counts["train"] == 10
        assert open_set(tmp_path / "big" / name).card["name"] == "toy"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big", "missing", "there"]


def test_a_mount_point_is_refused_before_anything_is_rendered(tmp_path, monkeypatch):
    # A set takes its name by a rename, which nothing can do onto a mount point.
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "disk")
    builder = Toy()
    with pytest.raises(UserError, match=r"disk is where a file system is mounted.*below it"):
        build_set(builder, tmp_path / "disk", workers=1)
    assert not builder.rendered
    assert build_set(builder, tmp_path / "disk" / "set", workers=1).counts["train"] == 10


def test_a_disk_that_is_full_from_the_start_is_told(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(RunError, match=r"set failed.*No space left on device.*resumes"):
            build_set(Toy(), tmp_path / "set", workers=1)
    assert build_set(Toy(), tmp_path / "set", workers=1).counts["train"] == 10


def test_a_failure_while_rendering_is_told_and_can_be_resumed(tmp_path):
    class Failing(Toy):
        def render(self, spec):
            if spec == ("train", 4):
                raise OSError(28, "No space left on device")
            return super().render(spec)

    with pytest.raises(RunError, match=r"No space left on device.*resumes"):
        build_set(Failing(), tmp_path / "set", workers=1, block=2)
    again = Toy()
    build_set(again, tmp_path / "set", workers=1)
    assert again.rendered[0] == ("train", 4)


def test_open_set_tells_what_is_wrong(tmp_path):
    with pytest.raises(UserError, match="there is no data set at"):
        open_set(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        open_set(tmp_path / "file")
    (tmp_path / "other").mkdir()
    for content in (None, "{", "[]", '{"format": "something else"}'):
        if content is not None:
            (tmp_path / "other" / "card.json").write_text(content)
        with pytest.raises(UserError, match="is not a data set of pixelbert_fast"):
            open_set(tmp_path / "other")
    records.write_card(tmp_path / "other", {"name": "later"})
    card = json.loads((tmp_path / "other" / "card.json").read_text())
    (tmp_path / "other" / "card.json").write_text(json.dumps({**card, "version": 99}))
    with pytest.raises(UserError, match="format version 99"):
        open_set(tmp_path / "other")
    records.write_card(tmp_path / "other", {"name": "toy"})
    with pytest.raises(UserError, match=r"card\.json is damaged, it has no counts: build the set again"):
        open_set(tmp_path / "other")

    build_set(Toy(), tmp_path / "set", workers=1)
    built = open_set(tmp_path / "set")
    with pytest.raises(UserError, match="has no split 'validation', it has: train, val, test"):
        built.split("validation")
    with pytest.raises(UserError, match=r"the split 'val' of .* is empty"):
        built.split("val")
    (tmp_path / "set" / "train" / "state.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        built.split("train")


def test_make_builder_names_the_nearest():
    with pytest.raises(UserError, match="no data set 'scene'; did you mean 'scenes'"):
        make_builder("scene")
    with pytest.raises(UserError, match="'scenes' has no option 'image'; did you mean 'images'"):
        make_builder("scenes", image=3)
    with pytest.raises(UserError, match=r"images must be a whole number from 20 to .* not 3"):
        make_builder("scenes", images=3)
    assert make_builder("scenes", images=30, seed=None).options()["seed"] == 0


def test_a_column_the_schema_does_not_know_is_an_error(tmp_path):
    class Odd(Toy):
        def render(self, spec):
            return {**super().render(spec), "colour": "red"}

    with pytest.raises(ValueError, match="a column 'colour' that the schema does not know"):
        build_set(Odd(), tmp_path / "set", workers=1)
