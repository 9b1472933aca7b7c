"""Saving and loading: Auto classes, tied weights, heads that are missing, frozen stages."""

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForPreTraining

from pixelbert_fast import FastPixelBERT, PixelBERT, PixelBertForPreTraining
from tests.small_models import config, text


@pytest.fixture
def model():
    torch.manual_seed(0)
    return PixelBERT(config()).eval()


def test_save_and_load_through_auto_classes(tmp_path, model):
    model.save_pretrained(tmp_path)
    read = AutoConfig.from_pretrained(tmp_path).to_dict() | {"_name_or_path": ""}
    assert read == model.config.to_dict() | {"_name_or_path": ""}
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is FastPixelBERT
    inputs = (text(1), None, torch.randn(1, 3, 96, 96))
    found, expected = loaded.eval()(*inputs), model(*inputs)
    # fp32 outputs of order 1: what a drop-in promises.
    torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state, rtol=1e-4, atol=1e-4)


def test_pretraining_checkpoint_keeps_its_tie_and_serves_the_bare_model(tmp_path):
    model = PixelBertForPreTraining(config(norm="frozen")).eval()
    with torch.no_grad():
        model.mlm_head.bias.normal_()
        model.pixelbert.backbone.bn1.running_var.uniform_(0.5, 2)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForPreTraining.from_pretrained(tmp_path).eval()
    assert loaded.mlm_head.decoder.weight is loaded.pixelbert.embeddings.word_embeddings.weight
    for (name, a), b in zip(model.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    bare = PixelBERT.from_pretrained(tmp_path)
    assert torch.equal(bare.backbone.bn1.running_var, model.pixelbert.backbone.bn1.running_var)


def test_heads_that_a_checkpoint_lacks_start_as_new_ones(tmp_path, model, monkeypatch):
    """Memory that nobody wrote is made visible: a new tensor starts as NaN."""
    model.save_pretrained(tmp_path)
    empty_like = torch.empty_like

    def unwritten(*arguments, **options):
        tensor = empty_like(*arguments, **options)
        return tensor.fill_(torch.nan) if tensor.is_floating_point() and not tensor.is_meta else tensor

    monkeypatch.setattr(torch, "empty_like", unwritten)
    loaded = PixelBertForPreTraining.from_pretrained(tmp_path)
    assert torch.equal(loaded.mlm_head.bias, torch.zeros(50))
    assert all(parameter.isfinite().all() for parameter in loaded.parameters())


def test_frozen_stages_stay_frozen_in_a_loaded_model(tmp_path):
    model = PixelBERT(config(frozen_stages=2))
    model.save_pretrained(tmp_path)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    loaded = PixelBERT.from_pretrained(tmp_path)
    assert {name for name, parameter in loaded.named_parameters() if not parameter.requires_grad} == frozen
    assert "backbone.conv1.weight" in frozen and "backbone.layer3.0.conv1.weight" not in frozen


def test_a_grown_vocabulary_keeps_the_tie(tmp_path):
    model = PixelBertForPreTraining(config()).eval()
    model.resize_token_embeddings(60)
    model.save_pretrained(tmp_path)
    loaded = PixelBertForPreTraining.from_pretrained(tmp_path).eval()
    assert loaded.mlm_head.decoder.weight is loaded.pixelbert.embeddings.word_embeddings.weight
    assert loaded.mlm_head.bias is loaded.mlm_head.decoder.bias
    inputs = (text(1), None, torch.randn(1, 3, 96, 96))
    assert loaded(*inputs).mlm_logits.shape == (1, 7, 60)
    assert torch.equal(loaded(*inputs).mlm_logits, model(*inputs).mlm_logits)
