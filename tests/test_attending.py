"""Attention maps of words: the reference's own attention, averaged over pieces and laid on the grid."""

import numpy as np
import pytest
import torch
from transformers import BertTokenizer

from pixelbert_fast import (
    PixelBERT,
    PixelBertForImageTextRetrieval,
    PixelBertForNaturalLanguageVisualReasoning,
    PixelBertForPreTraining,
    PixelBertForVisualQuestionAnswering,
)
from pixelbert_fast.data.processor import PixelBertImageProcessor, PixelBertProcessor
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.attending import attention_maps, attention_maps_of_texts, word_spans
from tests.small_models import config, pair, stir

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = [
    *SPECIAL,
    "a",
    "red",
    "star",
    "##s",
    "left",
    "of",
    ",",
    "-",
    "the",
    "##fish",
    "blue",
    "don",
    "'",
    "t",
]
PICTURE = np.random.default_rng(3).integers(0, 256, (50, 70, 3)).astype(np.uint8)
TEXT = "A red starfish, left of blue stars"
# As the processor makes it of PICTURE: short side 48, and 48 * 70 // 50.
READ = (48, 67)
# Of maps of 6 x 9 at stride 8; pooling drops the ninth column.
GRID = (3, 4)


def processor(max_text_length=20):
    tokenizer = BertTokenizer(vocab={word: place for place, word in enumerate(VOCABULARY)})
    images = PixelBertImageProcessor(short_side=48, long_side=96)
    return PixelBertProcessor(images, tokenizer, max_text_length=max_text_length)


def models(dtype=torch.float64):
    return [model.eval() for model in pair(config(norm="frozen"), dtype)]


def whole_maps(model, text, limit=20, picture=PICTURE):
    """``[L, H, T + K, T + K]``, the model's own, asked for without any choice."""
    inputs = processor(limit)(images=picture, text=text)
    with torch.no_grad():
        out = model.base_model(
            inputs["input_ids"],
            inputs["attention_mask"],
            inputs["pixel_values"].to(model.dtype),
            output_attentions=True,
        )
    return torch.cat(out.attentions).numpy()


def expected(whole, pieces, grid=GRID):
    """Word maps of the `pieces` (places in the sequence) of each word, by plain indexing."""
    count = grid[0] * grid[1]
    rows = [np.mean([whole[..., piece, -count:] for piece in own], axis=0) for own in pieces]
    return np.stack(rows, axis=-2).reshape(*whole.shape[:-2], len(pieces), *grid)


# [CLS] a red star ##fish , left of blue star ##s [SEP]
PIECES = [[1], [2], [3, 4], [6], [7], [8], [9, 10]]
WORDS = ["A", "red", "starfish", "left", "of", "blue", "stars"]


def test_the_maps_are_the_reference_models_own_attention():
    reference, fast = models()
    right = expected(whole_maps(reference, TEXT), PIECES)
    for model in (reference, fast):
        found = attention_maps(model, PICTURE, TEXT, processor=processor())
        assert found.words == WORDS and [TEXT[a:b] for a, b in found.spans] == WORDS
        assert found.text == TEXT and found.rollout is None
        assert (found.grid, found.image_size, found.window) == (GRID, READ, 16)
        assert found.maps.dtype == np.float32 and found.maps.shape == (3, 4, 7, *GRID)
        # One rounding to float32 of values of 0..1, and far less of float64 before it.
        np.testing.assert_allclose(found.maps, right, rtol=1e-7, atol=1e-12)
        assert (found.maps.sum((-1, -2)) < 1).all() and (found.maps > 0).all()


def test_of_takes_a_layer_a_head_or_a_mean():
    found = attention_maps(models()[1], PICTURE, TEXT, processor=processor())
    np.testing.assert_array_equal(found.of(1, 2), found.maps[1, 2])
    np.testing.assert_array_equal(found.of(-1, -1), found.maps[2, 3])
    # Means of four and of twelve float32 values.
    np.testing.assert_allclose(found.of(), found.maps[0].mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.of(None, 3), found.maps[:, 3].mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.of(None, None), found.maps.mean((0, 1)), rtol=1e-6)
    for wrong, message in (
        ((3, 0), r"layer must lie in -3 .. 2 \(3 layers\), got 3"),
        ((0, -5), "head must"),
    ):
        with pytest.raises(IndexError, match=message):
            found.of(*wrong)


def test_rollout_is_the_product_of_the_layers_matrices():
    reference, fast = models()
    whole = whole_maps(reference, TEXT)
    rolled = np.eye(whole.shape[-1])
    for layer in whole:
        mixed = 0.5 * layer.mean(axis=0) + 0.5 * np.eye(len(rolled))
        np.testing.assert_allclose(mixed.sum(axis=1), 1, atol=1e-12)
        rolled = mixed @ rolled
    for model in (reference, fast):
        found = attention_maps(model, PICTURE, TEXT, processor=processor(), rollout=True)
        assert found.rollout.dtype == np.float32 and found.rollout.shape == (7, *GRID)
        np.testing.assert_allclose(found.rollout, expected(rolled, PIECES), rtol=1e-7, atol=1e-12)
        # With rollout the whole maps are asked for, of which those of the words are taken.
        np.testing.assert_allclose(found.maps, expected(whole, PIECES), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("rollout", [False, True])
def test_texts_together_give_what_each_gives_alone(rollout):
    texts = [TEXT, "red", "the blue star, the star", TEXT[:12]]
    for model in models():
        together = attention_maps_of_texts(model, PICTURE, texts, processor=processor(), rollout=rollout)
        for text, found in zip(texts, together, strict=True):
            alone = attention_maps(model, PICTURE, text, processor=processor(), rollout=rollout)
            assert (found.words, found.spans, found.text) == (alone.words, alone.spans, text)
            # Sums over other numbers of rows round differently, in float64, before one to float32.
            np.testing.assert_allclose(found.maps, alone.maps, rtol=1e-6, atol=1e-12)
            if rollout:
                np.testing.assert_allclose(found.rollout, alone.rollout, rtol=1e-6, atol=1e-12)


def test_words_that_a_long_text_loses_are_left_out():
    reference, fast = models()
    # [CLS] a red star [SEP]: of "starfish" one piece is left, of what follows nothing.
    right = expected(whole_maps(reference, TEXT, limit=5), [[1], [2], [3]])
    for model in (reference, fast):
        found = attention_maps(model, PICTURE, TEXT, processor=processor(5))
        assert found.words == ["A", "red", "starfish"] and found.text == TEXT
        np.testing.assert_allclose(found.maps, right, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize(("shape", "grid"), [((96, 30), (6, 2)), ((20, 100), (1, 6)), ((48, 48), (3, 3))])
def test_images_of_any_proportion(shape, grid):
    picture = np.random.default_rng(7).integers(0, 256, (*shape, 3)).astype(np.uint8)
    reference, fast = models()
    right = expected(whole_maps(reference, "a star", picture=picture), [[1], [2]], grid)
    for model in (reference, fast):
        found = attention_maps(model, picture, "a star", processor=processor())
        assert found.grid == grid
        np.testing.assert_allclose(found.maps, right, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize(
    "kind",
    [
        PixelBERT,
        PixelBertForPreTraining,
        PixelBertForVisualQuestionAnswering,
        PixelBertForImageTextRetrieval,
        PixelBertForNaturalLanguageVisualReasoning,
    ],
)
def test_every_model_of_the_package_gives_them(kind):
    torch.manual_seed(0)
    model = stir(kind(config(norm="frozen"))).double().eval()
    right = expected(whole_maps(model, TEXT), PIECES)
    found = attention_maps(model, PICTURE, TEXT, processor=processor())
    np.testing.assert_allclose(found.maps, right, rtol=1e-7, atol=1e-12)


def test_narrow_models_give_float32():
    exact = attention_maps(models()[0], PICTURE, TEXT, processor=processor(), rollout=True)
    for model in models(torch.bfloat16):
        found = attention_maps(model, PICTURE, TEXT, processor=processor(), rollout=True)
        assert found.maps.dtype == found.rollout.dtype == np.float32
        # Probabilities near 1 / 24 here; bfloat16 keeps 8 bits of the scores they come from.
        assert np.abs(found.maps - exact.maps).max() < 0.05
        assert np.abs(found.rollout - exact.rollout).max() < 0.05


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A red star, (left) of it!", ["A", "red", "star", "left", "of", "it"]),
        ("don't  t-shirt - 'quoted' ends-", ["don't", "t-shirt", "quoted", "ends"]),
        ("<script>alert(1)</script>", ["script", "alert", "1", "script"]),
        ("étoile e\u0301toile नमस्ते", ["étoile", "e\u0301toile", "नमस्ते"]),
        ("红色 star红", ["红", "色", "star", "红"]),
        ("2 stars\n\tat 3.5", ["2", "stars", "at", "3", "5"]),
        ("", []),
        (" ... --- ''", []),
    ],
)
def test_words_are_as_written_without_punctuation(text, words):
    spans = word_spans(text)
    assert [text[start:end] for start, end in spans] == words


def test_a_word_with_an_apostrophe_is_the_mean_of_all_its_pieces():
    model = models()[0]
    found = attention_maps(model, PICTURE, "don't 'a' star", processor=processor())
    assert found.words == ["don't", "a", "star"]
    # [CLS] don ' t ' a ' star [SEP]
    right = expected(whole_maps(model, "don't 'a' star"), [[1, 2, 3], [5], [7]])
    np.testing.assert_allclose(found.maps, right, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("text", ["", "  ", "?!"])
def test_a_text_without_a_word_is_refused(text):
    with pytest.raises(UserError, match="has no word that the model reads") as raised:
        attention_maps(models()[1], PICTURE, text, processor=processor())
    assert "\n" not in str(raised.value)


def test_an_image_too_small_for_a_cell_is_refused():
    with pytest.raises(UserError, match="too small for one cell: each side needs at least 9"):
        attention_maps(models()[1], np.zeros((2, 300, 3), np.uint8), "a star", processor=processor())


def test_a_model_in_training_mode_and_another_model_are_refused():
    with pytest.raises(ValueError, match="training mode"):
        attention_maps(models()[1].train(), PICTURE, TEXT, processor=processor())
    with pytest.raises(TypeError, match="model must be a Pixel-BERT of this package, got Linear"):
        attention_maps(torch.nn.Linear(2, 2), PICTURE, TEXT, processor=processor())
