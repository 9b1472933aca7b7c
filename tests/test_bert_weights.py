"""An imported BERT must compute what it computed where it came from; anything amiss must be said."""

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertModel

from pixelbert_fast.errors import UserError
from pixelbert_fast.model import PixelBERT, PixelBertConfig, PixelBertForPreTraining
from pixelbert_fast.model.weights import load_bert

torch.set_num_threads(1)

SIZES = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
}


def small_config(**fields):
    return PixelBertConfig(
        backbone="resnet18", backbone_channels=4, backbone_depths=[1, 1, 1, 1], **{**SIZES, **fields}
    )


def randomised(module):
    """Every tensor random, so that no key can be mixed up unnoticed."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return module.eval()


def assert_loaded(module, state):
    own = module.state_dict()
    for key, value in own.items():
        torch.testing.assert_close(value, state[key].to(value.dtype), rtol=0, atol=0, msg=key)


def bert_config(**fields):
    return BertConfig(**{**SIZES, **fields})


def assert_same_function(model, bert):
    """Our parts in BERT's own forward give what BERT gives."""
    twin = BertModel(bert.config).eval()
    twin.embeddings, twin.encoder, twin.pooler = model.embeddings, model.encoder, model.pooler
    ids = torch.arange(20).reshape(2, 10) % 50
    mask = torch.ones(2, 10, dtype=torch.long)
    mask[1, 6:] = 0
    with torch.no_grad():
        expected, result = bert(ids, attention_mask=mask), twin(ids, attention_mask=mask)
    torch.testing.assert_close(result.last_hidden_state, expected.last_hidden_state, rtol=0, atol=0)
    torch.testing.assert_close(result.pooler_output, expected.pooler_output, rtol=0, atol=0)


@pytest.mark.parametrize("given", ["module", "directory", "torch bin", "prefixed", "shards", "bare file"])
def test_bert_weights_compute_the_same(given, tmp_path):
    bert = randomised(BertModel(bert_config()))
    source = tmp_path
    if given == "module":
        source = bert
    elif given == "prefixed":
        source = {f"module.bert.{key}": tensor for key, tensor in bert.state_dict().items()}
    elif given == "torch bin":
        bert.config.save_pretrained(tmp_path)
        torch.save(bert.state_dict(), tmp_path / "pytorch_model.bin")
    elif given == "bare file":
        source = tmp_path / "bert.pt"
        torch.save(bert.state_dict(), source)
    else:
        bert.save_pretrained(tmp_path, max_shard_size="4KB" if given == "shards" else "1GB")
        assert (tmp_path / "model.safetensors.index.json").exists() == (given == "shards")
    model = PixelBERT(small_config()).eval()
    backbone = {key: tensor.clone() for key, tensor in model.backbone.state_dict().items()}
    report = load_bert(model, source)
    assert report.missing == report.unexpected == ()
    assert_same_function(model, bert)
    assert_loaded(model.backbone, backbone)


def test_old_names_of_layer_norm():
    bert = randomised(BertModel(bert_config()))
    old = {
        f"bert.{key}".replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for key, tensor in bert.state_dict().items()
    }
    old["bert.embeddings.position_ids"] = torch.arange(32)[None]
    model = PixelBERT(small_config()).eval()
    report = load_bert(model, old)
    assert report.missing == report.unexpected == ()
    assert_same_function(model, bert)


def test_the_masked_word_head_is_loaded_where_there_is_one(tmp_path):
    theirs = randomised(BertForMaskedLM(bert_config()))
    theirs.save_pretrained(tmp_path)
    model = PixelBertForPreTraining(small_config()).eval()
    report = load_bert(model, tmp_path)
    assert report.unexpected == ()
    pooler = ("pixelbert.pooler.dense.weight", "pixelbert.pooler.dense.bias")
    assert report.missing == pooler, "BertForMaskedLM has no pooler"
    hidden = torch.randn(3, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(model.mlm_head(hidden), theirs.cls(hidden), rtol=0, atol=0)
    assert model.mlm_head.decoder.weight is model.pixelbert.embeddings.word_embeddings.weight
    # A state dict names the tied matrix twice; it must not be reported.
    assert load_bert(PixelBertForPreTraining(small_config()), theirs).unexpected == ()


def test_a_head_without_a_place_is_reported():
    report = load_bert(PixelBERT(small_config()), BertForMaskedLM(bert_config()).state_dict())
    assert "cls.predictions.transform.dense.weight" in report.unexpected
    assert all(key.startswith("cls.") for key in report.unexpected)


def test_a_model_with_a_head_reports_that_bert_brings_none():
    model = PixelBertForPreTraining(small_config())
    report = load_bert(model, BertModel(bert_config()))
    assert report.unexpected == ()
    assert "mlm_head.transform.dense.weight" in report.missing
    assert all(key.startswith("mlm_head.") for key in report.missing)
    assert "mlm_head.decoder.weight" not in report.missing, "it is the word embedding, which was loaded"


def test_no_pooler_and_another_depth_are_reported(caplog):
    state = BertModel(bert_config(num_hidden_layers=3), add_pooling_layer=False).state_dict()
    report = load_bert(PixelBERT(small_config()), state)
    assert report.missing == ("pooler.dense.weight", "pooler.dense.bias")
    assert report.unexpected
    assert all(key.startswith("encoder.layer.2.") for key in report.unexpected)
    assert "pooler.dense.weight" in caplog.text
    shallow = BertModel(bert_config(num_hidden_layers=1)).state_dict()
    report = load_bert(PixelBERT(small_config()), shallow)
    assert all(key.startswith("encoder.layer.1.") for key in report.missing)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"vocab_size": 60}, r"embeddings\.word_embeddings\.weight.*\[60, 16\].*\[50, 16\]"),
        ({"hidden_size": 32}, r"embeddings\.word_embeddings\.weight.*\[50, 32\].*\[50, 16\]"),
        ({"intermediate_size": 20}, r"intermediate\.dense\.weight.*\[20, 16\].*\[24, 16\]"),
        ({"num_attention_heads": 4}, "num_attention_heads=4"),
        ({"hidden_act": "relu"}, "hidden_act='relu'"),
    ],
)
def test_a_bert_that_does_not_fit_is_refused_whole(fields, words, tmp_path):
    BertModel(bert_config(**fields)).save_pretrained(tmp_path)
    model = PixelBERT(small_config())
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=words) as caught:
        load_bert(model, tmp_path)
    assert "\n" not in str(caught.value)
    assert_loaded(model, before)


def test_other_models_are_refused(tmp_path):
    bert = BertModel(bert_config())
    bert.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"model_type": "bert"', '"model_type": "roberta"'))
    with pytest.raises(UserError, match="is a roberta model"):
        load_bert(PixelBERT(small_config()), tmp_path)
    with pytest.raises(UserError, match="no BERT"):
        load_bert(PixelBERT(small_config()), {"layer1.0.conv1.weight": torch.ones(1)})
    twice = {f"{side}.{key}": t for side in "ab" for key, t in BertModel(bert_config()).state_dict().items()}
    with pytest.raises(UserError, match="several BERTs"):
        load_bert(PixelBERT(small_config()), twice)
