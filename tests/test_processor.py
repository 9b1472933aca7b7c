"""The processor by transformers' conventions: what it returns, saves, loads, counts and refuses."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoImageProcessor,
    AutoProcessor,
    AutoTokenizer,
    BertTokenizer,
    PreTrainedTokenizerFast,
)

from pixelbert_fast.data.processor import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PixelBertImageProcessor,
    PixelBertProcessor,
)
from pixelbert_fast.errors import UserError

torch.set_num_threads(1)

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, "a", "red", "blue", "circle", "square", "of", "the", "left", "to", "##s"]


@pytest.fixture
def tokenizer():
    return BertTokenizer(vocab={word: place for place, word in enumerate(WORDS)})


@pytest.fixture
def processor(tokenizer):
    return PixelBertProcessor(
        PixelBertImageProcessor(short_side=32, long_side=48), tokenizer, max_text_length=8
    )


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_one_image_is_normalised_as_imagenet_models_expect():
    rgb = picture(24, 40)
    processor = PixelBertImageProcessor(short_side=24, long_side=40)
    expected = ((rgb / 255 - IMAGENET_MEAN) / IMAGENET_STD).transpose(2, 0, 1)
    result = processor.pixels(rgb)
    assert result.dtype == torch.float32
    assert result.is_contiguous()
    # Three roundings of float32 at a magnitude of at most 2.7.
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-6, rtol=0)


def test_other_statistics():
    result = PixelBertImageProcessor(4, 4, image_mean=(0, 0.5, 1), image_std=(1, 0.5, 2)).pixels(
        np.ones((4, 4))
    )
    assert result[:, 0, 0].tolist() == pytest.approx([1, 1, 0], abs=1e-6)


def test_images_are_padded_with_zeros_to_the_largest(processor):
    images = [picture(32, 40), picture(48, 32, seed=1), picture(64, 64, seed=2)]
    batch = processor(images=images)
    assert set(batch) == {"pixel_values", "pixel_size"}
    assert batch["pixel_values"].shape == (3, 3, 48, 40)
    assert batch["pixel_values"].dtype == torch.float32
    assert batch["pixel_size"].dtype == torch.int32
    assert batch["pixel_size"].tolist() == [[32, 40], [48, 32], [32, 32]]
    for image, values, (height, width) in zip(
        images, batch["pixel_values"], batch["pixel_size"], strict=True
    ):
        alone = processor.image_processor.pixels(image)
        torch.testing.assert_close(values[:, :height, :width], alone, rtol=0, atol=0)
        inside = torch.zeros(48, 40, dtype=torch.bool)
        inside[:height, :width] = True
        assert not values[:, ~inside].any(), "padding is zero after normalisation"


def test_no_side_becomes_less_than_the_model_needs(tmp_path):
    processor = PixelBertImageProcessor(50, 80, least_side=9)
    assert processor.pixels(picture(2, 300)).shape == (3, 9, 80)
    assert processor.pixels(picture(300, 2)).shape == (3, 80, 9)
    processor.save_pretrained(tmp_path)
    assert PixelBertImageProcessor.from_pretrained(tmp_path).least_side == 9
    with pytest.raises(UserError, match=r"short_side \(8\) is less than least_side \(9\)"):
        processor(picture(2, 300), short_side=8)


def test_size_divisor_rounds_both_sides():
    values = PixelBertImageProcessor(50, 80, size_divisor=32).pixels(picture(30, 40))
    assert values.shape == (3, 64, 64)  # 50 x 66 -> 64 x 64


def test_texts_are_tokenized_and_padded_on_the_right(processor):
    batch = processor(text=["a red circle", "the blue squares left"], return_tensors="pt")
    assert set(batch) == {"input_ids", "attention_mask"}
    assert batch["input_ids"].dtype == torch.int64
    assert batch["input_ids"].tolist() == [[2, 5, 6, 8, 3, 0, 0], [2, 11, 7, 9, 14, 12, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 0, 0], [1] * 7]
    assert processor(text="a")["input_ids"].tolist() == [[2, 5, 3]]
    assert processor(text="")["input_ids"].tolist() == [[2, 3]]
    assert processor(text=["a"], padding="max_length")["attention_mask"].tolist() == [
        [1, 1, 1, 0, 0, 0, 0, 0]
    ]


@pytest.mark.parametrize("text", [5, b"a", {"a": 1}, ["a", None]])
def test_what_is_no_text_is_refused(processor, text):
    with pytest.raises(UserError, match=r"text(\[1\])? is of type (int|bytes|dict|NoneType): .* string"):
        processor(text=text)


def test_half_a_character_is_refused(processor):
    with pytest.raises(UserError, match=r"text\[1\] is no text, as UTF-8 has no place for its '\\udcff'"):
        processor(text=["a star", "a \udcff star"])


def test_images_and_texts_together(processor):
    batch = processor(images=picture(32, 32), text=["a red circle", "a square"])
    assert set(batch) == {"input_ids", "attention_mask", "pixel_values", "pixel_size"}
    assert batch["input_ids"].shape[0] == 2
    assert batch["pixel_values"].shape[0] == 1
    assert set(processor.model_input_names) == set(batch)
    assert (
        batch.to(torch.float64)["pixel_values"].dtype == torch.float64
    )  # a BatchFeature, as in transformers


def test_long_texts_lose_their_end_and_are_counted(processor):
    long = "a red circle left of the blue square"
    encoded = processor.encode_texts(["a", long])
    assert encoded.truncated.tolist() == [False, True]
    assert encoded.input_ids.tolist()[1] == [2, 5, 6, 8, 12, 10, 11, 3]  # the separator stays
    assert processor.truncated_texts == 1
    processor(text=[long, long, "a"])
    assert processor.truncated_texts == 3
    assert processor(text=long, max_length=5)["input_ids"].tolist() == [[2, 5, 6, 8, 3]]
    assert processor.truncated_texts == 4
    assert processor(text=long, truncation=False)["input_ids"].shape == (1, 10)
    assert processor(text=long, max_length=10)["input_ids"].shape == (1, 10)
    assert processor.truncated_texts == 4


def test_a_text_of_exactly_the_limit_is_not_cut(processor):
    assert processor(text="a red circle left of the")["input_ids"].shape == (1, 8)
    assert processor.truncated_texts == 0


def test_a_tokenizer_file_with_its_own_truncation_and_padding(processor, tokenizer):
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=20)
    tokenizer.padding_side = "left"
    batch = processor(text=["a red circle", "a"])
    assert batch["input_ids"].tolist() == [[2, 5, 6, 8, 3], [2, 5, 3, 0, 0]]


def test_any_tokenizer_serves():
    # No special tokens at all, as GPT-2's: padding needs none, since the mask hides it.
    backend = Tokenizer(models.WordLevel({"a": 0, "red": 1, "circle": 2, "?": 3}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    processor = PixelBertProcessor(
        PixelBertImageProcessor(), PreTrainedTokenizerFast(tokenizer_object=backend), max_text_length=2
    )
    batch = processor(text=["a red circle", "red"])
    assert batch["input_ids"].tolist() == [[0, 1], [1, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]]


def test_numpy_output(processor):
    batch = processor(images=picture(32, 32), text="a", return_tensors="np")
    assert all(isinstance(value, np.ndarray) for value in batch.values())
    assert batch["pixel_size"].dtype == np.int32


def test_image_containers(processor):
    rgb = picture(32, 32)
    one = processor(images=rgb)["pixel_values"]
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "PNG")
    for images in (
        [rgb],
        (rgb,),
        rgb[None],
        torch.from_numpy(rgb).permute(2, 0, 1)[None],
        Image.fromarray(rgb),
        stream.getvalue(),
    ):
        torch.testing.assert_close(processor(images=images)["pixel_values"], one, rtol=0, atol=0)


def test_options_for_one_call(processor):
    assert processor(images=picture(32, 32), short_side=16)["pixel_size"].tolist() == [[16, 16]]
    assert processor(images=picture(32, 32))["pixel_size"].tolist() == [[32, 32]]


def test_saved_and_loaded_it_does_the_same(processor, tmp_path):
    processor.image_processor.size_divisor = 16
    inputs = {"images": [picture(30, 50)], "text": "a red circle left of the blue square"}
    expected = processor(**inputs)
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    assert saved["max_text_length"] == 8
    assert saved["image_processor"]["short_side"] == 32
    for loaded in (PixelBertProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert type(loaded) is PixelBertProcessor
        assert loaded.truncated_texts == 0
        result = loaded(**inputs)
        assert set(result) == set(expected)
        for name in expected:
            torch.testing.assert_close(result[name], expected[name], rtol=0, atol=0)
    assert isinstance(AutoTokenizer.from_pretrained(tmp_path), BertTokenizer)
    assert PixelBertProcessor.from_pretrained(tmp_path, max_text_length=5).max_text_length == 5
    assert PixelBertProcessor.from_pretrained(tmp_path, short_side=20).image_processor.short_side == 20


def test_the_image_processor_is_saved_and_loaded_alone(tmp_path):
    own = PixelBertImageProcessor(64, 96, 32, image_mean=(0.1, 0.2, 0.3), image_std=[0.4, 0.5, 0.6])
    own.save_pretrained(tmp_path)
    for loaded in (
        PixelBertImageProcessor.from_pretrained(tmp_path),
        AutoImageProcessor.from_pretrained(tmp_path),
        PixelBertImageProcessor.from_pretrained(tmp_path / "preprocessor_config.json"),
    ):
        assert type(loaded) is PixelBertImageProcessor
        assert loaded.to_dict() == own.to_dict()
    assert PixelBertImageProcessor.from_pretrained(tmp_path, short_side=32).short_side == 32


def test_the_paper_s_sizes_are_the_default(tokenizer):
    processor = PixelBertProcessor(tokenizer=tokenizer)
    assert processor.max_text_length == 40
    options = processor.image_processor
    assert (options.short_side, options.long_side, options.size_divisor) == (800, 1333, 1)
    assert processor(images=picture(48, 64))["pixel_size"].tolist() == [[800, 1066]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"short_sid": 5}, "did you mean short_side"),
        ({"colour_jitter": 5}, "the options are short_side"),
        ({"short_side": 0}, "short_side is 0"),
        ({"short_side": 100, "long_side": 50}, "long_side"),
        ({"image_mean": 0.5}, "image_mean is 0.5"),
        ({"image_mean": (1, 2)}, "three numbers"),
        ({"image_std": (1, 1, 0)}, "image_std"),
        ({"image_std": (1, 1, float("nan"))}, "image_std"),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(UserError, match=words):
        PixelBertImageProcessor(**options)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "given nothing"),
        ({"text": []}, "empty list"),
        ({"text": ["a", 3]}, r"text\[1\] is of type int"),
        ({"text": ["a"], "padding": "left"}, "padding"),
        ({"text": ["a"], "max_length": 2}, "at least 3"),
        ({"text": ["a"], "max_length": "8"}, "'8'"),
        ({"text": ["a"], "return_tensors": "tf"}, "return_tensors"),
        ({"text": ["a"], "short_side": 5}, "short_side: not an option for texts alone"),
        ({"images": []}, "no images"),
        ({"images": [np.zeros((4, 4), np.uint8), b"broken"]}, r"images\[1\]: encoded image of 6 bytes"),
        ({"images": "no-such.png"}, "^image file 'no-such.png' is missing"),
        ({"images": np.zeros((4, 4), np.uint8), "shortside": 8}, "did you mean short_side"),
    ],
)
def test_wrong_input_is_said_in_one_sentence(processor, inputs, words):
    with pytest.raises(UserError, match=words) as caught:
        processor(**inputs)
    assert "\n" not in str(caught.value)


def test_a_wrong_part_is_refused(tokenizer):
    with pytest.raises(
        UserError, match="a transformers tokenizer, not a PixelBertImageProcessor and a NoneType"
    ):
        PixelBertProcessor(PixelBertImageProcessor())
    with pytest.raises(UserError, match="BertTokenizer"):
        PixelBertProcessor(tokenizer, PixelBertImageProcessor())
    with pytest.raises(UserError, match="the text length is 0"):
        PixelBertProcessor(PixelBertImageProcessor(), tokenizer, max_text_length=0)
