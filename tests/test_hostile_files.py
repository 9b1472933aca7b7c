"""Files that somebody else made: nothing in them runs, and none leads out of its folder."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
import safetensors
import torch

from pixelbert_fast import PixelBertConfig
from pixelbert_fast.data.build import make_builder
from pixelbert_fast.data.declared_files import check_declared
from pixelbert_fast.data.records import open_set, write_card
from pixelbert_fast.data.summary import load_tokenizer as tokenizer_of_summary
from pixelbert_fast.errors import RunError, UserError
from pixelbert_fast.model import PixelBertForPreTraining
from pixelbert_fast.pretrained import __file__ as shipped
from pixelbert_fast.tasks.pretraining.start import load_tokenizer
from pixelbert_fast.tasks.retrieval.block_store import BlockStore
from pixelbert_fast.tasks.retrieval.cache import Layout, VisualCache
from pixelbert_fast.tasks.saved_model import open_saved
from pixelbert_fast.training.checkpoint import StateFolder
from pixelbert_fast.training.durable import content_of
from pixelbert_fast.training.ranks import Ranks
from pixelbert_fast.training.recipe_files import parse
from tests.fuzzed_cases import at_most

SCENES = Path(shipped).parent / "scenes"


class Planted:
    """Unpickled carelessly, it writes a file."""

    def __init__(self, marker: Path):
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, "w")


@pytest.fixture
def marker(tmp_path: Path):
    """What a planted pickle would write, which must not be there in the end."""
    path = tmp_path / "was-here"
    pickle.loads(pickle.dumps(Planted(path))).close()
    assert path.exists(), "the trap itself must work"
    path.unlink()
    yield path
    assert not path.exists()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SCENES, tmp_path / "checkpoint"))


def edit(file: Path, **values) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_a_pickle_in_a_checkpoint_is_not_run(checkpoint: Path, marker: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    torch.save({"a": Planted(marker)}, checkpoint / "pytorch_model.bin")
    with pytest.raises(UserError, match="holds no checkpoint that can be used") as caught:
        open_saved(checkpoint, PixelBertForPreTraining)
    assert "\n" not in str(caught.value)


def test_a_pickle_in_a_state_is_not_run(tmp_path: Path, marker: Path) -> None:
    folder = StateFolder(tmp_path / "resume", Ranks())
    folder.write(1, {}, {"a": torch.ones(2)}, {})
    (state,) = (tmp_path / "resume").iterdir()
    torch.save({"a": Planted(marker)}, state / "shared.pt")
    told = json.loads((state / "state.json").read_text())
    told["files"]["shared.pt"] = (state / "shared.pt").stat().st_size
    (state / "state.json").write_text(json.dumps(told))
    names = ("shared.pt", "rank-0.pt", "state.json")
    (state / "SHA256SUMS").write_text("".join(f"{content_of(state / n).sha256}  {n}\n" for n in names))
    with pytest.raises(RunError, match="can be read; --resume never"):
        folder.read()


@pytest.mark.parametrize("place", ["scores.npy", "blocks/0000000.npy"])
def test_a_pickle_among_scores_is_not_run(tmp_path: Path, marker: Path, place: str) -> None:
    store = BlockStore(tmp_path / "scores", (1, 1), "a")
    np.save(store.directory / place, np.array([Planted(marker)], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="is not the file of scores"):
        store.matrix() if place == "scores.npy" else store.put_together([object()])


def test_code_beside_a_tokenizer_is_not_run(checkpoint, marker, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))  # transformers asks
    (checkpoint / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: pass\n")
    edit(
        checkpoint / "tokenizer_config.json",
        tokenizer_class="Evil",
        auto_map={"AutoTokenizer": [None, "evil.Evil"]},
    )
    for read in (load_tokenizer, tokenizer_of_summary):
        with pytest.raises(UserError, match="custom code"):
            read(str(checkpoint))
    with pytest.raises(UserError, match="custom code"):
        open_saved(checkpoint, PixelBertForPreTraining)


@pytest.mark.parametrize("field", ["attn_implementation", "_attn_implementation"])
def test_a_configuration_cannot_name_code_of_a_hub(checkpoint: Path, field: str) -> None:
    edit(checkpoint / "config.json", **{field: "evil/kernel"})
    assert PixelBertConfig.from_pretrained(checkpoint)._attn_implementation is None
    open_saved(checkpoint, PixelBertForPreTraining)
    asked = PixelBertConfig.from_pretrained(checkpoint, attn_implementation="eager")
    assert asked._attn_implementation == "eager"  # the caller may still say


BOMB = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else 0}]" for n in range(9))
MERGED = "\n".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 13))
MERGED = "a0: &a0 {b: 1}\n" + MERGED


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:builtins.open [MARKER, w]",
        "? [a]\n: b",
        "a: 2001-99-99",
        "[" * 5000,
        "&a [*a]",
        "a: !!int x",
        "a: !!timestamp x",
        "a: !!bool x",
        BOMB,
        MERGED,
        "a: &a {<<: *a}",
    ],
)
def test_yaml_is_values_or_one_sentence(text: str, marker: Path) -> None:
    text = text.replace("MARKER", str(marker))
    with (
        at_most(20),
        pytest.raises(UserError, match=r"is not valid YAML|that YAML cannot read|is no recipe") as caught,
    ):
        parse(text, "a.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["README.md", ".huggingface.yaml"])
@pytest.mark.parametrize(
    "pattern", ["/etc/*.csv", "../a.jsonl", "~/a.csv", "https://a.b/c.csv", "hf://datasets/a/b/c.csv"]
)
@pytest.mark.parametrize("key", ["data_files", "data_dir"])
def test_a_set_of_tables_declares_none_outside(tmp_path: Path, name: str, pattern: str, key: str) -> None:
    line = f"configs:\n- config_name: default\n  {key}: {json.dumps(pattern)}\n"
    (tmp_path / name).write_text(f"---\n{line}---\n" if name == "README.md" else line)
    (tmp_path / "own.jsonl").write_text('{"image": "a.jpg", "caption": "b"}\n')
    with pytest.raises(UserError, match="declares data outside its folder"):
        make_builder("huggingface", source=str(tmp_path))
    good = line.replace(json.dumps(pattern), '"*.jsonl"' if key == "data_files" else '"."')
    (tmp_path / name).write_text(f"---\n{good}---\n" if name == "README.md" else good)
    if key == "data_files":
        make_builder("huggingface", source=str(tmp_path))


@pytest.mark.parametrize("name", ["README.md", ".huggingface.yaml"])
@pytest.mark.parametrize("key", ["data_files", "anything"])
def test_a_declaration_without_end_is_refused(tmp_path: Path, name: str, key: str) -> None:
    text = f"{BOMB}\nconfigs:\n- config_name: default\n  {key}: *a8\n"
    (tmp_path / name).write_text(f"---\n{text}---\n" if name == "README.md" else text)
    with at_most(20), pytest.raises(UserError, match=r"more than 1,000,000 values"):
        check_declared(tmp_path)


def test_a_saved_set_names_no_file_outside(tmp_path: Path) -> None:
    for name in ("own", "other"):
        datasets.Dataset.from_dict({"image": ["a.jpg"], "caption": [name]}).save_to_disk(tmp_path / name)
    (arrow,) = (tmp_path / "other").glob("*.arrow")
    edit(tmp_path / "own" / "state.json", _data_files=[{"filename": f"../other/{arrow.name}"}])
    with pytest.raises(UserError, match="no file of that folder"):
        make_builder("huggingface", source=str(tmp_path / "own"))
    (tmp_path / "several").mkdir()
    (tmp_path / "several" / "dataset_dict.json").write_text('{"splits": ["../other"]}')
    with pytest.raises(UserError, match="no folder in"):
        make_builder("huggingface", source=str(tmp_path / "several"))
    write_card(tmp_path, {"counts": {"own": 1}})
    with pytest.raises(UserError, match="no file of that folder"):
        open_set(tmp_path).split("own")
    write_card(tmp_path, {"counts": {"../elsewhere": 1}})
    with pytest.raises(UserError, match="a split outside its folder"):
        open_set(tmp_path)


def test_an_index_of_weights_names_no_file_outside(checkpoint: Path, tmp_path: Path) -> None:
    weights = checkpoint / "model.safetensors"
    index = checkpoint / "model.safetensors.index.json"
    names = list(safetensors.safe_open(weights, "pt").keys())
    outside = shutil.move(weights, tmp_path / "other.safetensors")
    for name in ("../other.safetensors", str(outside), "..", 3):
        index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, name)}))
        with pytest.raises(UserError, match="is no file of that folder"):
            open_saved(checkpoint, PixelBertForPreTraining)
    shutil.move(outside, checkpoint / "model-00001-of-00001.safetensors")
    own = {"metadata": {}, "weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors")}
    index.write_text(json.dumps(own))
    open_saved(checkpoint, PixelBertForPreTraining)


PATH = str(Path(shipped).parent / "pictures" / "7.jpg")


@pytest.mark.parametrize(
    ("column", "kind", "value"),
    [
        ("image", datasets.Image(), {"bytes": b"", "path": PATH}),
        ("image", datasets.Value("string"), PATH),
        ("more", datasets.Image(), {"bytes": b"", "path": PATH}),
        ("more", datasets.List(datasets.Image()), [{"bytes": b"", "path": PATH}]),
    ],
)
def test_a_built_set_has_nothing_decoded_behind_its_back(tmp_path: Path, column, kind, value) -> None:
    kinds = {"key": datasets.Value("string"), "image": datasets.Value("binary"), column: kind}
    row = {"key": ["a"], "image": [b""], column: [value]}
    datasets.Dataset.from_dict(row, features=datasets.Features(kinds)).save_to_disk(tmp_path / "train")
    write_card(tmp_path, {"counts": {"train": 1}})
    with pytest.raises(UserError, match=f"holds a column '{column}' of .*, which no set of ours has"):
        open_set(tmp_path).split("train")


def test_a_key_that_is_an_image_is_refused(tmp_path: Path) -> None:
    kinds = datasets.Features({name: datasets.Image() for name in ("image", "other")})
    columns = {"image": [{"bytes": b"", "path": None}], "other": [{"bytes": b"", "path": PATH}]}
    one = datasets.Dataset.from_dict(
        columns | {"text": ["a"]}, features=datasets.Features({**kinds, "text": datasets.Value("string")})
    )
    one.save_to_disk(tmp_path / "set")
    for ours in ("key", "split"):
        with pytest.raises(UserError, match="column 'other' holds Image"):
            make_builder(
                "huggingface",
                source=str(tmp_path / "set"),
                column={"image": "image", "caption": "text", ours: "other"},
            )


def test_a_pickle_in_the_cache_of_features_is_numbers(tmp_path: Path, marker: Path) -> None:
    layout = Layout("embeddings", np.array([[64, 64]]), np.array([[16, 16]]), 8)
    VisualCache(tmp_path / "cache", layout, "a")
    planted = pickle.dumps(Planted(marker))
    for name in ("values.bin", "done.bin"):
        file = tmp_path / "cache" / name
        file.write_bytes(planted.ljust(file.stat().st_size, b"."))
    again = VisualCache(tmp_path / "cache", layout, "a")
    again.check_complete()
    assert again.values([0]).shape == (1, 64, 8)
    (tmp_path / "cache" / "card.json").write_bytes(planted)
    with pytest.raises(UserError, match="is a cache of other weights"):
        VisualCache(tmp_path / "cache", layout, "a")


def test_a_pickle_in_place_of_answers_is_refused(tmp_path: Path, marker: Path) -> None:
    planted = pickle.dumps(Planted(marker))
    (tmp_path / "answers.txt").write_bytes(planted)
    write_card(tmp_path, {"counts": {"train": 1}, "files": {}})
    with pytest.raises(UserError, match="is not the file that the set was built with"):
        open_set(tmp_path).answers()
    sums = {"answers.txt": hashlib.sha256(planted).hexdigest()}
    write_card(tmp_path, {"counts": {"train": 1}, "files": sums})
    with pytest.raises(UserError, match="is not UTF-8"):
        open_set(tmp_path).answers()
