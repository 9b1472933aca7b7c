"""`pixelbert attend`: a page, figures and a table of any checkpoint."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BertTokenizer

from pixelbert_fast import (
    FastPixelBERT,
    PixelBertForPreTraining,
    PixelBertForVisualQuestionAnswering,
    PixelBertProcessor,
    cli,
)
from pixelbert_fast.data.processor import PixelBertImageProcessor
from pixelbert_fast.tasks.attending import attention_maps_of_texts, load_any
from pixelbert_fast.visualize.attention_figure import draw
from pixelbert_fast.visualize.word_page import attention_page
from tests.small_models import config, stir

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "star", "left", "of", "blue"]
CAPTIONS = ["a red star", "left of a <b>blue</b> star"]


def save(folder: Path, kind=PixelBertForPreTraining, dtype=torch.float32) -> Path:
    torch.manual_seed(0)
    stir(kind(config(vocab_size=len(VOCABULARY)))).to(dtype).save_pretrained(folder)
    tokenizer = BertTokenizer(vocab={word: place for place, word in enumerate(VOCABULARY)})
    images = PixelBertImageProcessor(short_side=48, long_side=96)
    PixelBertProcessor(images, tokenizer, max_text_length=12).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("run")
    save(run / "checkpoint")
    return run


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("images") / "<i>a & b.png"
    pixels = np.random.default_rng(2).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def computed(checkpoint: Path, image: Path, captions=CAPTIONS):
    model, processor = load_any(checkpoint)
    assert isinstance(model, FastPixelBERT) and not model.training and model.dtype == torch.float32
    return attention_maps_of_texts(model, image, captions, processor=processor, rollout=True)


def test_it_writes_the_page_and_the_figures(checkpoint, image, tmp_path, capsys):
    out, png = tmp_path / "new" / "page.html", tmp_path / "figures"
    line = ["attend", str(image), *CAPTIONS, "--checkpoint", str(checkpoint)]
    assert cli.main([*line, "--out", str(out), "--png", str(png)]) == 0
    maps = computed(checkpoint, image)
    about = f"<i>a & b.png, read by {checkpoint}"
    # The first layer, the mean of its heads.
    assert out.read_text(encoding="utf-8") == attention_page(maps, image, about=[about])
    assert "<i>" not in out.read_text(encoding="utf-8") and "<b>blue" not in out.read_text(encoding="utf-8")
    for number, one in enumerate(maps, start=1):
        with Image.open(png / f"attention-{number}.png") as figure:
            np.testing.assert_array_equal(np.asarray(figure), np.asarray(draw(one, image)))
    lines = capsys.readouterr().out.splitlines()
    assert [lines[0], lines[4]] == CAPTIONS
    assert lines[-3:] == [str(out), str(png / "attention-1.png"), str(png / "attention-2.png")]
    row, column = np.unravel_index(maps[0].of(0)[2].argmax(), maps[0].grid)
    assert lines[3].startswith("  star  ") and lines[3].endswith(f"at row {row + 1}, column {column + 1}")
    assert sorted(path.name for path in out.parent.iterdir()) == ["page.html"]


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        (["--layer", "3", "--head", "2"], {"layer": 2, "head": 1}),
        (["--layer", "mean"], {"layer": None}),
        (["--rollout"], {"rollout": True}),
    ],
)
def test_options_choose_what_is_shown_first(options, chosen, checkpoint, image, tmp_path):
    out, png = tmp_path / "page.html", tmp_path / "png"
    line = ["attend", str(image), CAPTIONS[0], "--checkpoint", str(checkpoint), "--device", "cpu"]
    assert cli.main([*line, "--out", str(out), "--png", str(png), *options]) == 0
    maps = computed(checkpoint, image, CAPTIONS[:1])
    about = [f"<i>a & b.png, read by {checkpoint}"]
    assert out.read_text(encoding="utf-8") == attention_page(maps, image, about=about, **chosen)
    with Image.open(png / "attention.png") as figure:
        np.testing.assert_array_equal(np.asarray(figure), np.asarray(draw(maps[0], image, **chosen)))


def test_a_fine_tuned_checkpoint_and_a_narrow_one_serve_as_well(checkpoint, image, tmp_path):
    right = computed(checkpoint, image)[0]
    tuned, _ = load_any(save(tmp_path / "vqa", PixelBertForVisualQuestionAnswering))
    weights = PixelBertForVisualQuestionAnswering.from_pretrained(tmp_path / "vqa").pixelbert.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in tuned.state_dict().items())
    narrow = computed(save(tmp_path / "narrow", dtype=torch.bfloat16), image)[0]
    # Weights that keep 8 bits, of scores of some units before the softmax.
    np.testing.assert_allclose(narrow.maps, right.maps, atol=0.05)
    assert narrow.maps.dtype == np.float32


def fails(capsys, line: list[str]) -> str:
    assert cli.main(line) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("pixelbert: ")
    return said


def test_what_cannot_be_done_is_told_in_a_sentence(checkpoint, image, tmp_path, capsys):
    def line(*options, image=image, caption="a star", checkpoint=checkpoint):
        out = ["--out", str(tmp_path / "page.html")]
        return ["attend", str(image), caption, "--checkpoint", str(checkpoint), *out, *options]

    assert "'4': the model has layers 1 to 3" in fails(capsys, line("--layer", "4"))
    assert "'0': the model has heads 1 to 4" in fails(capsys, line("--head", "0"))
    assert "'first'" in fails(capsys, line("--layer", "first"))
    assert "has no word that the model reads" in fails(capsys, line(caption="..."))
    assert "is missing" in fails(capsys, line(image=tmp_path / "none.png"))
    assert "there is no checkpoint at" in fails(capsys, line(checkpoint=tmp_path))
    assert "is a folder" in fails(capsys, line("--out", str(tmp_path)))
    assert "is a file" in fails(capsys, line("--png", str(image)))
    assert "page.html cannot be written" in fails(capsys, line("--out", str(image / "page.html")))
    (tmp_path / "full").symlink_to("/dev/full")
    assert "full cannot be written (No space left" in fails(capsys, line("--out", str(tmp_path / "full")))
    assert "is no text" in fails(capsys, line(caption="a red \udcff star"))
    assert "--device nowhere cannot be used here" in fails(capsys, line("--device", "nowhere"))
    assert not (tmp_path / "page.html").exists()


def test_a_checkpoint_without_a_transformer_is_refused(checkpoint, image, tmp_path, capsys):
    from safetensors.torch import load_file, save_file

    folder = save(tmp_path / "part")
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if ".encoder.layer.1." not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    said = fails(capsys, ["attend", str(image), "a star", "--checkpoint", str(folder)])
    assert "they lack encoder.layer.1." in said


def test_the_guides_python_runs_as_it_stands(image, tmp_path, monkeypatch):
    guide = Path(__file__).resolve().parent.parent / "docs" / "attention.md"
    (example,) = re.findall(r"```python\n(.*?)```", guide.read_text(encoding="utf-8"), re.S)
    save(tmp_path / "runs" / "scenes_long" / "checkpoint")
    (tmp_path / "photo.jpg").write_bytes(image.read_bytes())
    monkeypatch.chdir(tmp_path)
    space: dict = {}
    exec(example, space)
    assert space["maps"].words == ["a", "red", "star"]
    assert (tmp_path / "figure.png").stat().st_size and "<canvas" in (tmp_path / "page.html").read_text(
        "utf-8"
    )


# What a camera stores: the inverse of what EXIF's orientation asks for.
@pytest.mark.parametrize(
    ("orientation", "stored"),
    [(2, "FLIP_LEFT_RIGHT"), (6, "ROTATE_90"), (7, "TRANSVERSE"), (8, "ROTATE_270")],
)
def test_a_turned_image_is_shown_as_the_model_reads_it(orientation, stored, checkpoint, image, tmp_path):
    file, exif = tmp_path / "turned.png", Image.Exif()
    exif[0x0112] = orientation
    with Image.open(image) as upright:
        upright.transpose(Image.Transpose[stored]).save(file, exif=exif)
    (straight,), (turned,) = (computed(checkpoint, one, ["a red star"]) for one in (image, file))
    np.testing.assert_array_equal(turned.maps, straight.maps)
    assert attention_page([turned], file) == attention_page([straight], image)
    figures = [np.asarray(draw(straight, one)) for one in (image, file)]
    np.testing.assert_array_equal(*figures)
