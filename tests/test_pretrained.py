"""The small models that come with the package, and the commands that use them when told no other."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner

import pixelbert_fast
from pixelbert_fast import PixelBertForPreTraining, PixelBertProcessor, pretrained
from pixelbert_fast.cli import app
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.pretraining.match import match
from pixelbert_fast.tasks.saved_model import open_saved
from pixelbert_fast.training.recipes import load_config

SHIPPED_BYTES = 6_000_000


def told() -> list[dict[str, str]]:
    with pretrained.texts().open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def files() -> list[Path]:
    here = Path(pretrained.__file__).parent
    return [file for file in here.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc")]


def run(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_all_of_it_is_small() -> None:
    assert sum(file.stat().st_size for file in files()) <= SHIPPED_BYTES


@pytest.mark.parametrize("name", pretrained.NAMES)
def test_a_model_has_its_card_and_wide_weights_in_bfloat16(name: str) -> None:
    folder = pretrained.folder(name)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "pixelbert train --config" in card and "Apache-2.0" in card and re.search(r"\d\d\.\d %", card)
    with safe_open(folder / "model.safetensors", "pt") as weights:
        kinds = {key: weights.get_tensor(key) for key in weights.keys()}  # noqa: SIM118 - not a dict
    for key, weight in kinds.items():
        if weight.is_floating_point():
            assert weight.dtype == (torch.bfloat16 if weight.ndim > 1 else torch.float32), key


@pytest.mark.parametrize("name", pretrained.NAMES)
def test_a_card_says_what_is_true_of_the_files(name: str) -> None:
    folder = pretrained.folder(name)
    own = {file.name: file.stat().st_size for file in folder.iterdir() if file.name != "README.md"}
    tokenizer = {"tokenizer.json", "tokenizer_config.json"}
    assert own.keys() == {"config.json", "model.safetensors", "processor_config.json", *tokenizer}
    card = " ".join((folder / "README.md").read_text(encoding="utf-8").split())
    model, _, missing = open_saved(folder, getattr(pixelbert_fast, architecture(folder)))
    assert not missing
    (size, millions), (recipe,) = (
        re.search(pattern, card).groups()
        for pattern in (r"\(([\d.]+) MB; ([\d.]+) million", r"`pixelbert train --config ([^`]+)`")
    )
    assert float(size) == pytest.approx(sum(own.values()) / 1e6, abs=0.051)
    assert float(millions) == pytest.approx(sum(one.numel() for one in model.parameters()) / 1e6, abs=0.0051)
    config = load_config(*recipe.split()[:1], recipe.split()[1:])
    assert config.task == {"scenes": "pretrain", "scenes-vqa": "vqa"}[name]
    assert config.model.preset == "tiny" and "preset `tiny`" in card


def architecture(folder: Path) -> str:
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"][0]


def test_from_pretrained_computes_in_float32() -> None:
    model = PixelBertForPreTraining.from_pretrained(pretrained.folder())
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert len(PixelBertProcessor.from_pretrained(pretrained.folder()).tokenizer) == model.config.vocab_size


def test_captions_find_their_own_pictures() -> None:
    captions = [one["caption"] for one in told()]
    found = [
        match(pretrained.folder(), picture, captions) for picture in sorted(pretrained.pictures(), key=str)
    ]
    assert [one["picture"] for one in told()] == [picture.name for picture in pretrained.pictures()]
    matched = torch.tensor(found)
    # Trained to 98 % on pairs drawn at random; every caption lists all objects of its picture alone.
    assert int((matched.argmax(dim=1) == torch.arange(len(captions))).sum()) >= len(captions) - 1


def test_a_wrong_name_is_told_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no model called 'scene'.*did you mean 'scenes'"):
        pretrained.folder("scene")


def test_commands_work_before_any_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    printed = run("examples")
    assert len(list(Path("examples").glob("*.jpg"))) == len(told()) == 9
    commands = re.findall(r"^  pixelbert (.+)$", printed, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["attend", "predict", "predict", "search"]
    for command in commands:
        words = [quoted or bare for quoted, bare in re.findall(r'"([^"]+)"|(\S+)', command)]
        said = run(*words)
        if words[:2] == ["predict", "match"]:
            assert said.split("  ")[0] != "a yellow square"
        if words[:2] == ["predict", "vqa"]:
            assert said.split()[0] == told()[0]["answer"]
        if words[0] == "search":
            assert told()[0]["picture"] in "\n".join(said.splitlines()[:3])
    for page in ("attention.html", "found.html"):
        # A page may be sent to others, whom the folders of this machine are no concern of.
        text = Path(page).read_text(encoding="utf-8")
        assert "by the package&#x27;s small model &#x27;scenes&#x27;" in text
        assert str(pretrained.folder().parent) not in text


def test_examples_in_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(app, ["examples", str(tmp_path / "file")])
    assert isinstance(result.exception, UserError) and "give another folder" in str(result.exception)


def test_examples_replace_no_picture_of_someones_own(tmp_path: Path) -> None:
    (tmp_path / "3.jpg").write_bytes(b"mine")
    result = CliRunner().invoke(app, ["examples", str(tmp_path)])
    assert isinstance(result.exception, UserError) and "3.jpg is another file" in str(result.exception)
    assert [file.name for file in tmp_path.iterdir()] == ["3.jpg"]
    assert (tmp_path / "3.jpg").read_bytes() == b"mine"


def test_the_commands_of_examples_can_be_pasted_whatever_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "it's $mine"
    printed = run("examples", str(folder)), run("examples", str(folder))
    assert printed[0] == printed[1]
    for command in re.findall(r"^  pixelbert (.+)$", printed[0], re.MULTILINE):
        (path,) = (word for word in shlex.split(command) if "mine" in word)
        assert Path(path).exists()
