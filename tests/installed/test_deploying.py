"""The shipped model out of the package: a torch.export program, and a compiled file for PyTorch alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pixelbert_fast import FastPixelBERT, InferenceShape, PixelBertForVisualQuestionAnswering, pretrained
from pixelbert_fast.model.answer_export import export_answers
from pixelbert_fast.model.compilation import can_compile
from pixelbert_fast.model.export import load_package, save_package

SHAPE = InferenceShape(images=1, height=96, width=96, sequences=2, words=6)
# Float32 through another order of sums: what a drop-in promises.
DROP_IN = {"rtol": 1e-4, "atol": 1e-4}
ELSEWHERE = """
import sys, torch
inputs, expected = torch.load("inputs.pt")
found = torch.export.load("answers.pt2").module()(**inputs)
torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
assert not [name for name in sys.modules if name.startswith("pixelbert_fast")]
"""


def inputs() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "input_ids": torch.tensor([[2, 7, 9, 8, 6, 3], [2, 5, 6, 3, 0, 0]]),
        "attention_mask": torch.tensor([[1] * 6, [1] * 4 + [0] * 2]),
        "pixel_values": torch.randn(1, 3, 96, 96),
        "image_index": torch.zeros(2, dtype=torch.int64),
    }


def test_an_exported_program_answers_without_the_package(tmp_path: Path) -> None:
    folder = pretrained.folder(pretrained.SCENES_VQA)
    model = PixelBertForVisualQuestionAnswering.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = model(**inputs()).logits
    torch.export.save(export_answers(model, SHAPE), tmp_path / "answers.pt2")
    torch.save((inputs(), expected), tmp_path / "inputs.pt")
    ran = subprocess.run([sys.executable, "-c", ELSEWHERE], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.slow
def test_a_compiled_package_computes_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if (reason := can_compile("cpu")) is not None:
        pytest.skip(reason)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    model = FastPixelBERT.from_pretrained(pretrained.folder()).eval()
    with torch.no_grad():
        expected = model(**inputs())
    save_package(model, SHAPE, tmp_path / "model.pt2")
    found = load_package(tmp_path / "model.pt2")(**inputs())
    torch.testing.assert_close(found.pooler_output, expected.pooler_output, **DROP_IN)
    torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state, **DROP_IN)
