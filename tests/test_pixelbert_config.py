"""PixelBertConfig: presets, what is refused, and that every field survives a file."""

import inspect

import pytest
from transformers import AutoConfig

from pixelbert_fast import PixelBERT, PixelBertConfig


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("norm", "group", "norm must be one of batch, frozen, sync"),
        ("backbone", "vgg", "backbone must be one of resnet18"),
        ("output_stride", 4, "output_stride must be one of 8, 16, 32"),
        ("num_attention_heads", 5, "multiple of num_attention_heads"),
        ("num_attention_heads", 0, "num_attention_heads must be an integer of at least 1, got 0"),
        ("hidden_size", "128", "hidden_size must be an integer of at least 1, got '128'"),
        ("sampled_pixels", 0, "sampled_pixels must be an integer of at least 1, or None for all, got 0"),
        ("sampled_pixels", "5", "sampled_pixels must be an integer of at least 1, or None for all, got '5'"),
        ("backbone_depths", [1, 2], "four integers"),
        ("backbone_depths", 3, "four integers of at least 1, or None, got 3"),
        ("backbone_depths", ["1", 1, 1, 1], "four integers"),
        ("frozen_stages", 5, "frozen_stages must be an integer in 0 .. 4, got 5"),
        ("frozen_stages", "1", "frozen_stages must be an integer in 0 .. 4, got '1'"),
    ],
)
def test_wrong_configuration_is_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        PixelBertConfig(**{field: value})
    changed = PixelBertConfig()
    setattr(changed, field, value)
    with pytest.raises(ValueError, match=message):
        PixelBERT(changed)


def test_presets():
    assert PixelBertConfig.preset("x152").short_side == 600
    assert PixelBertConfig.preset("tiny", vocab_size=77).vocab_size == 77
    with pytest.raises(ValueError, match="preset must be one of tiny, r50, x152"):
        PixelBertConfig.preset("huge")
    with pytest.raises(ValueError, match=r"no field 'hiden_size'; did you mean 'hidden_size'\?"):
        PixelBertConfig.preset("tiny", hiden_size=3)


def test_every_field_survives_a_file(tmp_path):
    odd = {
        "backbone": "resnet34", "backbone_channels": 16, "backbone_depths": [1, 1, 2, 1], "output_stride": 16,
        "norm": "frozen", "frozen_stages": 1, "projection_order": "pool_project", "sampled_pixels": None,
        "short_side": 11, "long_side": 12, "mlm": False, "itm": False, "mlm_on_mismatched": True,
        "vocab_size": 77, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6,
        "intermediate_size": 99, "hidden_act": "relu", "hidden_dropout_prob": 0.3,
        "attention_probs_dropout_prob": 0.2, "max_position_embeddings": 99, "type_vocab_size": 3,
        "initializer_range": 0.1, "layer_norm_eps": 1e-5, "pad_token_id": None, "tie_word_embeddings": False,
        "sampled_fine_tuning": True,
    }  # fmt: skip
    fields = set(inspect.signature(PixelBertConfig.__init__).parameters) - {"self", "kwargs"}
    assert set(odd) == fields
    PixelBertConfig(**odd).save_pretrained(tmp_path)
    read = AutoConfig.from_pretrained(tmp_path)
    assert {field: getattr(read, field) for field in fields} == odd
