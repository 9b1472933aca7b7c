"""`huggingface`: sets as `datasets` writes them, by a mapping of columns, without a network."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest

from pixelbert_fast import cli
from pixelbert_fast.data.build import build_set, make_builder
from pixelbert_fast.data.records import open_set
from pixelbert_fast.errors import UserError
from tests.official_files import declared_huge, lying, picture, put


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def columns(number: int) -> dict[str, list]:
    return {
        "photo": [{"bytes": picture(i), "path": None} for i in range(number)],
        "texts": [[f"picture {i}", f"no. {i}\n"] for i in range(number)],
        "id": [100 + i for i in range(number)],
        "split": ["restval", "test", "dev"] * (number // 3) + ["train"] * (number % 3),
    }


FEATURES = datasets.Features(
    {
        "photo": datasets.Image(),
        "texts": datasets.List(datasets.Value("string")),
        "id": datasets.Value("int64"),
        "split": datasets.Value("string"),
    }
)
COLUMNS = {"image": "photo", "caption": "texts"}


def build(source: Path, out: Path, **options):
    builder = make_builder("huggingface", source=str(source), **options)
    return builder, build_set(builder, out, workers=options.pop("workers", 1))


def records(out: Path) -> dict[str, tuple[str, list[str], bytes]]:
    opened = open_set(out)
    return {
        record["key"]: (split, record["captions"], record["image"])
        for split in opened.splits
        if opened.card["counts"][split]
        for record in opened.split(split)
    }


def test_a_saved_set_with_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = {"train": 3, "validation": 2, "test": 1, "extra": 1}
    whole = {name: datasets.Dataset.from_dict(columns(n), features=FEATURES) for name, n in parts.items()}
    datasets.DatasetDict(whole).save_to_disk(tmp_path / "saved")
    line = [
        "data",
        "build",
        "huggingface",
        "--source",
        str(tmp_path / "saved"),
        "--out",
        str(tmp_path / "set"),
    ]
    line += ["--column", "image=photo", "--column", "caption=texts"]
    # Two workers: what is sent to them is where the set lies, not its rows.
    assert cli.main([*line, "--workers", "2"]) == 0
    said = capsys.readouterr().out
    assert "train 3, validation 2, test 1\nleft out, being none of train, val and test: extra\n" in said
    assert f"{tmp_path / 'set'}: train 3, val 2, test 1" in said
    assert records(tmp_path / "set")["train-000000001"] == ("train", ["picture 1", "no. 1"], picture(1))
    card = open_set(tmp_path / "set").card
    assert len([entry for entry in card["annotations"] if entry["file"].endswith(".arrow")]) == 4
    assert cli.main(line) == 0


def test_keys_and_splits_from_columns(tmp_path: Path) -> None:
    rows = columns(3)
    rows = {name: values + values[:1] for name, values in rows.items()}
    datasets.Dataset.from_dict(rows, features=FEATURES).save_to_disk(tmp_path / "saved")
    named = {**COLUMNS, "key": "id", "split": "split"}
    _, report = build(tmp_path / "saved", tmp_path / "set", column=named)
    assert {key: split for key, (split, *_) in records(tmp_path / "set").items()} == {
        "100": "train",
        "101": "test",
        "102": "val",
    }
    assert report.dropped == [{"key": "100", "why": "listed before under the same key"}]


def test_parquet_with_raw_bytes_and_shares(tmp_path: Path) -> None:
    (tmp_path / "parquet").mkdir()
    rows = {"jpg": [lying(i) for i in range(60)], "a": ["one"] * 60, "b": ["two"] * 60}
    rows["jpg"][3:8] = [b"", None, b"<html>", picture(1, (90, 90))[:-1500], declared_huge()]
    rows["a"][8], rows["b"][8] = None, " "
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "parquet" / "data.parquet")
    options = {"column": {"image": "jpg", "caption": "a,b"}, "share": ["val=0.3"]}
    builder, report = build(tmp_path / "parquet", tmp_path / "set", **options)
    assert {one["key"][-1]: one["why"] for one in report.dropped} == {
        "3": "image file is empty",
        "4": "no image",
        "5": "not an image",
        "6": "image is truncated or broken",
        "7": "image has more than 89,478,485 pixels",
        "8": "no caption",
    }
    found = records(tmp_path / "set")
    assert found["train-000000059"][1:] == (["one", "two"], lying(59))
    assert {split for split, *_ in found.values()} == {"train", "val"}
    assert open_set(tmp_path / "set").split("val")[0]["height"] == 24
    # Opened again, perhaps by another process after a kill, it is the same set.
    assert (
        make_builder("huggingface", source=str(tmp_path / "parquet"), **options).options()
        == builder.options()
    )


def test_an_image_folder(tmp_path: Path) -> None:
    for i in range(3):
        put(tmp_path / "folder" / "train" / f"{i}.png", picture(i, file_format="PNG"))
    rows = [json.dumps({"file_name": f"{i}.png", "text": f"picture {i}"}) for i in range(3)]
    put(tmp_path / "folder" / "train" / "metadata.jsonl", "\n".join(rows).encode())
    _, report = build(tmp_path / "folder", tmp_path / "set", column=["caption=text"])
    assert report.counts == {"train": 3, "val": 0, "test": 0}
    assert records(tmp_path / "set")["train-000000002"][2] == picture(2, file_format="PNG")


def test_paths_stay_in_their_folder(tmp_path: Path) -> None:
    inside = put(tmp_path / "images" / "a.jpg", picture(1))
    outside = put(tmp_path / "elsewhere" / "b.jpg", picture(2))
    rows = {"image": [str(inside), "a.jpg", str(outside), "../elsewhere/b.jpg", ""], "caption": list("abcde")}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "saved")
    _, report = build(tmp_path / "saved", tmp_path / "set", images=tmp_path / "images")
    assert [image for *_, image in records(tmp_path / "set").values()] == [picture(1), picture(1)]
    assert [one["why"] for one in report.dropped] == [
        "image lies outside the set and of the folder --images",
        "path of the image leaves the folder of images",
        "no image",
    ]


def test_splits_without_rows_are_left_out(tmp_path: Path) -> None:
    whole = {
        name: datasets.Dataset.from_dict(columns(n), features=FEATURES)
        for name, n in {"train": 2, "validation": 0}.items()
    }
    datasets.DatasetDict(whole).save_to_disk(tmp_path / "saved")
    _, report = build(tmp_path / "saved", tmp_path / "set", column=COLUMNS)
    assert report.counts == {"train": 2, "val": 0, "test": 0}
    datasets.DatasetDict({"validation": whole["validation"]}).save_to_disk(tmp_path / "empty")
    with pytest.raises(UserError, match="empty has no rows"):
        build(tmp_path / "empty", tmp_path / "other", column=COLUMNS)


def test_splits_and_keys_that_are_stored_as_numbers_of_names(tmp_path: Path) -> None:
    features = datasets.Features(
        {
            **FEATURES,
            "part": datasets.ClassLabel(names=["test", "train"]),
            "id": datasets.ClassLabel(names=["x", "y"]),
        }
    )
    rows = {**columns(3), "part": [1, 0, 1], "id": [1, 0, None]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    column = {**COLUMNS, "split": "part", "key": "id"}
    _, report = build(tmp_path / "saved", tmp_path / "set", column=column)
    assert {key: split for key, (split, *_) in records(tmp_path / "set").items()} == {
        "y": "train",
        "x": "test",
    }
    assert [one["why"] for one in report.dropped] == ["no key"]


def test_columns_that_are_not_used_are_not_read(tmp_path: Path) -> None:
    rows = {**columns(3), "depth": [{"bytes": b"no image", "path": None}] * 3}
    whole = datasets.Dataset.from_dict(
        rows, features=datasets.Features({**FEATURES, "depth": datasets.Image()})
    )
    whole.save_to_disk(tmp_path / "saved")
    _, report = build(tmp_path / "saved", tmp_path / "set", column=COLUMNS)
    assert report.counts == {"train": 3, "val": 0, "test": 0}


def test_what_is_wrong_is_told_in_a_sentence(tmp_path: Path) -> None:
    datasets.Dataset.from_dict(columns(3), features=FEATURES).save_to_disk(tmp_path / "saved")
    put(tmp_path / "broken" / "state.json", b"{")
    put(tmp_path / "text" / "a.txt", b"hello")
    (tmp_path / "empty").mkdir()
    saved = tmp_path / "saved"
    cases = [
        ({"source": None}, "needs the option 'source'"),
        ({"source": tmp_path / "nowhere"}, "there is no directory .*nowhere"),
        ({"source": "no-such-organisation/no-such-set"}, "the set no-such-.* cannot be opened"),
        ({"source": tmp_path / "broken"}, "broken cannot be opened"),
        ({"source": tmp_path / "empty"}, "empty cannot be opened"),
        ({"source": tmp_path / "text"}, r"text \(train\) has no column 'photo', it has: text"),
        ({"column": {}}, "has no column 'image', it has: photo, texts, id, split"),
        ({"column": {**COLUMNS, "caption": "id"}}, "column 'id' holds .* not a text or a list of texts"),
        ({"column": {**COLUMNS, "image": "id"}}, "column 'id' holds .* not images, bytes or paths"),
        ({"column": {**COLUMNS, "key": "name"}}, "has no column 'name'"),
        ({"column": {**COLUMNS, "split": "split"}, "share": {"val": 0.1}}, "has splits of its own"),
        ({"images": tmp_path / "nowhere"}, "there is no folder"),
    ]  # fmt: skip
    for changed, said in cases:
        given = {"source": saved, "column": COLUMNS, **changed}
        given["source"] = given["source"] and str(given["source"])
        with pytest.raises(UserError, match=said) as caught:
            make_builder("huggingface", **given)
        assert "\n" not in str(caught.value)


def test_a_set_of_nothing_that_can_be_used_is_told(tmp_path: Path) -> None:
    rows = {**columns(3), "split": ["a", "b", "c"]}
    datasets.Dataset.from_dict(rows, features=FEATURES).save_to_disk(tmp_path / "saved")
    builder = make_builder(
        "huggingface", source=str(tmp_path / "saved"), column={**COLUMNS, "split": "split"}
    )
    with pytest.raises(UserError, match="no row that can be used: split is none of train, val, test"):
        build_set(builder, tmp_path / "set", workers=1)
