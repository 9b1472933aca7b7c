"""The README's Python runs as it stands, and its paths and commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelbert_fast import PixelBertConfig, PixelBertForPreTraining, PixelBertProcessor
from pixelbert_fast.data.processor import PixelBertImageProcessor
from pixelbert_fast.data.vocabulary import train_wordpiece

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def save_demo_checkpoint(directory: Path) -> None:
    tokenizer = train_wordpiece(["a red circle", "two small squares", "a star"], 60)
    config = PixelBertConfig.preset("tiny", vocab_size=len(tokenizer))
    PixelBertForPreTraining(config).save_pretrained(directory)
    images = PixelBertImageProcessor(short_side=config.short_side, long_side=config.long_side)
    PixelBertProcessor(images, tokenizer).save_pretrained(directory)


def model_examples() -> list[str]:
    """Those that go on from the demo's checkpoint, in order; the last one deploys."""
    marks = ("demo/checkpoint", "fast.backbone", "AttentionRequest", "compile_for_inference")
    examples = re.findall(r"```python\n(.*?)```", README, re.S)
    return [code for code in examples if any(mark in code for mark in marks)]


def test_the_examples_of_the_models_run_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The compiler has tests of its own; shapes are prepared and called here without it.
    monkeypatch.setattr("pixelbert_fast.model.inference.compiles_or_warns", lambda device, what: False)
    save_demo_checkpoint(tmp_path / "runs" / "demo" / "checkpoint")
    for name, size in (("a.jpg", (96, 120, 3)), ("b.jpg", (140, 96, 3))):
        Image.fromarray(np.full(size, 127, np.uint8)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    *examples, deploys = model_examples()
    assert len(examples) == 5 and "save_package" in deploys
    space: dict = {}
    for example in examples:
        exec(example, space)
    outputs, pooled = space["outputs"], space["pooled"]
    sentences, words = space["inputs"]["input_ids"].shape
    length = words + outputs.positions.shape[1]
    assert outputs.pooler_output.shape == pooled.pooler_output.shape == (3, 128)
    assert outputs.last_hidden_state.shape == (sentences, length, 128)
    assert [one.shape for one in pooled.attentions] == [(3, 2, 1, length)]
    assert type(space["compiled"]).__name__ == "CompiledInference"
    # Float32 sums in another order: what a drop-in promises.
    for name in ("last_hidden_state", "pooler_output"):
        assert np.allclose(space["same"][name], outputs[name], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_deploy_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_demo_checkpoint(tmp_path / "runs" / "demo" / "checkpoint")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    space: dict = {}
    exec(model_examples()[-1], space)
    assert space["outputs"].pooler_output.shape == (2, 128)


def test_the_weights_example_names_what_exists() -> None:
    example = next(code for code in re.findall(r"```python\n(.*?)```", README, re.S) if "load_bert" in code)
    imports = [line for line in example.splitlines() if line.startswith("from ")]
    assert len(imports) == 2
    exec("\n".join(imports), {})


def test_links_and_make_targets_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")]
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"make ([a-z]+)\b", README)) & set(re.findall(r"^([a-z]+):", makefile, re.M))
    assert {"setup", "demo", "test", "lint"} <= named
