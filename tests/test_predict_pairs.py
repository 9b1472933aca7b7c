"""`pixelbert predict match` and `pixelbert predict nlvr2`."""

from __future__ import annotations

import json

import pytest
import torch

from pixelbert_fast import (
    PixelBertConfig,
    PixelBertForNaturalLanguageVisualReasoning,
    PixelBertForPreTraining,
    PixelBertProcessor,
    cli,
)
from pixelbert_fast.data.processor import PixelBertImageProcessor
from pixelbert_fast.data.vocabulary import train_wordpiece
from tests.toy_pairs import SMALL, png

CAPTIONS = ["all of it is red", "all of it is green", "a blue one"]


def save(directory, kind, **fields):
    tokenizer = train_wordpiece(CAPTIONS, 100)
    settings = PixelBertConfig.preset(
        "tiny", vocab_size=len(tokenizer), short_side=32, long_side=64, **SMALL, **fields
    )
    torch.manual_seed(0)
    kind(settings).save_pretrained(directory)
    images = PixelBertImageProcessor(short_side=32, long_side=64)
    PixelBertProcessor(images, tokenizer, max_text_length=16).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    return save(tmp_path_factory.mktemp("pretrained") / "checkpoint", PixelBertForPreTraining)


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory):
    return save(tmp_path_factory.mktemp("nlvr2"), PixelBertForNaturalLanguageVisualReasoning)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    files = [folder / "red.png", folder / "green.png"]
    for row, file in enumerate(files):
        file.write_bytes(png(row, (40, 32)))
    return [str(file) for file in files]


def line(*words, checkpoint):
    return [*words, "--checkpoint", str(checkpoint), "--device", "cpu"]


def expected(checkpoint, image, caption):
    """By one plain forward."""
    model = PixelBertForPreTraining.from_pretrained(checkpoint, fast=False).eval()
    inputs = PixelBertProcessor.from_pretrained(checkpoint)(images=image, text=caption)
    with torch.no_grad():
        return float(model(**inputs).itm_logits.softmax(dim=-1)[0, 1])


def test_captions_are_ranked_by_the_probability_that_they_match(pretrained, pictures, capsys):
    told = line("predict", "match", pictures[0], *CAPTIONS, "--json", checkpoint=pretrained)
    assert cli.main(told) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["probability"] for one in found] == sorted(
        (one["probability"] for one in found), reverse=True
    )
    assert {one["caption"] for one in found} == set(CAPTIONS)
    for one in found:
        # Float32 by other kernels, and beside other captions.
        assert one["probability"] == pytest.approx(
            expected(pretrained, pictures[0], one["caption"]), abs=1e-5
        )
    # The folder of the run that made it does as well.
    assert cli.main(line("predict", "match", pictures[0], CAPTIONS[0], checkpoint=pretrained.parent)) == 0
    out = capsys.readouterr().out
    assert out.startswith(CAPTIONS[0])
    assert out.strip().endswith("%")


def test_statements_are_judged_of_both_images_in_their_order(fine_tuned, pictures, capsys):
    def asked(*sides):
        told = line("predict", "nlvr2", *sides, *CAPTIONS[:2], "--json", checkpoint=fine_tuned)
        assert cli.main(told) == 0
        return json.loads(capsys.readouterr().out)

    found, turned = asked(*pictures), asked(*pictures[::-1])
    assert [one["statement"] for one in found] == CAPTIONS[:2]
    model = PixelBertForNaturalLanguageVisualReasoning.from_pretrained(fine_tuned, fast=False).eval()
    processor = PixelBertProcessor.from_pretrained(fine_tuned)
    for sides, judged in ((pictures, found), (pictures[::-1], turned)):
        with torch.no_grad():
            logits = model(**processor(images=sides, text=CAPTIONS[0])).logits
        # Float32 by other kernels.
        assert judged[0]["true"] == pytest.approx(float(logits.softmax(dim=-1)[0, 1]), abs=1e-5)
    assert found[0]["true"] != turned[0]["true"]
    assert cli.main(line("predict", "nlvr2", *pictures, CAPTIONS[0], checkpoint=fine_tuned)) == 0
    assert capsys.readouterr().out.split("  ")[-1].strip().startswith(("true, ", "false, "))


def test_mistakes_are_said_in_one_sentence(pretrained, fine_tuned, pictures, tmp_path, capsys):
    without = save(tmp_path / "words", PixelBertForPreTraining, itm=False)
    cases = [
        (line("predict", "match", pictures[0], "a", checkpoint=tmp_path / "none"), "no checkpoint at"),
        (line("predict", "match", pictures[0], "a", checkpoint=fine_tuned), "not learnt image-text matching"),
        (line("predict", "match", pictures[0], "a", checkpoint=without), "not learnt image-text matching"),
        (line("predict", "match", pictures[0], " ", checkpoint=pretrained), "a caption is empty"),
        (line("predict", "match", "none.png", "a", checkpoint=pretrained), "none.png"),
        (line("predict", "nlvr2", *pictures, "a", checkpoint=pretrained), "has not learnt this task"),
        (line("predict", "nlvr2", *pictures, "", checkpoint=fine_tuned), "a statement is empty"),
    ]
    for words, sentence in cases:
        assert cli.main(words) == 2, words
        said = capsys.readouterr().err.strip().splitlines()
        assert sentence in said[-1]
