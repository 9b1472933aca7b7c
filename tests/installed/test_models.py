"""The models that come with the package: predictions by the command, and the same by both models in code."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from pixelbert_fast import FastPixelBERT, PixelBERT, PixelBertProcessor, cli, pretrained


def told() -> dict[str, str]:
    """What is in the first picture: its caption, a question and the answer."""
    with pretrained.texts().open(encoding="utf-8", newline="") as file:
        return next(csv.DictReader(file, delimiter="\t"))


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    status = cli.main([str(word) for word in words])
    said = capsys.readouterr()
    assert status == 0, said.err
    return said.out


def test_a_question_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    said = run(capsys, "predict", "vqa", pretrained.pictures()[0], told()["question"])
    assert said.split()[0] == told()["answer"]


def test_the_right_caption_fits_best(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = "a yellow square"
    said = run(capsys, "predict", "match", pretrained.pictures()[0], told()["caption"], wrong)
    assert said.split("  ")[0] != wrong


def test_where_each_word_looks_is_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "attention.html"
    run(capsys, "attend", pretrained.pictures()[0], told()["caption"], "--out", page)
    text = page.read_text(encoding="utf-8")
    assert "<script" in text and "data:image/" in text and told()["caption"].split()[-1] in text


def test_a_picture_is_found_by_its_caption(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "examples", tmp_path / "examples")
    said = run(capsys, "search", tmp_path / "examples", told()["caption"], "--out", tmp_path / "found.html")
    assert told()["picture"] in "\n".join(said.splitlines()[:3])


def test_both_models_give_the_same_and_save_what_they_read(tmp_path: Path) -> None:
    folder = pretrained.folder()
    processor = PixelBertProcessor.from_pretrained(folder)
    inputs = processor(
        images=[str(picture) for picture in pretrained.pictures()[:2]], text=["a star", "a red heart"]
    )
    plain = PixelBERT.from_pretrained(folder).eval()
    plain.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    fast = FastPixelBERT.from_pretrained(tmp_path / "saved").eval()
    again = PixelBertProcessor.from_pretrained(tmp_path / "saved")
    assert torch.equal(again(text="a red heart")["input_ids"], processor(text="a red heart")["input_ids"])
    with torch.no_grad():
        expected, found = plain(**inputs), fast(**inputs)
    # Float32 sums in another order: what a drop-in promises.
    torch.testing.assert_close(found.pooler_output, expected.pooler_output, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state, rtol=1e-4, atol=1e-4)
    config = json.loads((tmp_path / "saved" / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == plain.config.model_type
