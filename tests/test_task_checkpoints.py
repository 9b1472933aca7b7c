"""Task models from and to checkpoint folders: their own, a pre-training's, another task's."""

import logging

import pytest
import torch
from transformers import AutoConfig, AutoModelForVisualQuestionAnswering

from pixelbert_fast import FastPixelBERT, PixelBERT, PixelBertForPreTraining
from pixelbert_fast.model import answer_labels
from tests.small_models import config, stir
from tests.task_models import ANSWERS, NLVR2, OUTPUT, RETRIEVAL, VQA, inputs_of, pair_of, settings

HEAD = {VQA: "answer_head", NLVR2: "pair_head", RETRIEVAL: "score_head"}
KINDS = list(HEAD)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """(model, folder of its checkpoint)."""
    torch.manual_seed(3)
    model = stir(PixelBertForPreTraining(config()))
    folder = tmp_path_factory.mktemp("pretraining")
    model.save_pretrained(folder)
    return model, folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_comes_back_whole(kind, tmp_path):
    _, model = pair_of(kind)
    assert getattr(kind(settings()), HEAD[kind]).fresh
    model.save_pretrained(tmp_path)
    expected = model.eval()(**inputs_of(kind))[OUTPUT[kind]]
    for fast in (True, False):
        found = kind.from_pretrained(tmp_path, fast=fast).eval()
        assert isinstance(found.pixelbert, FastPixelBERT) == fast
        assert not getattr(found, HEAD[kind]).fresh
        torch.testing.assert_close(found(**inputs_of(kind))[OUTPUT[kind]], expected, rtol=1e-4, atol=1e-4)
    assert AutoConfig.from_pretrained(tmp_path).id2label == dict(enumerate(ANSWERS))


@pytest.mark.parametrize("kind", KINDS)
def test_a_pretraining_gives_all_but_the_head_and_says_nothing(kind, pretrained, caplog):
    model, folder = pretrained
    labels = answer_labels(ANSWERS) if kind is VQA else {}
    logging.getLogger("transformers").addHandler(caplog.handler)  # transformers' loggers do not propagate
    try:
        loaded, told = kind.from_pretrained(folder, output_loading_info=True, **labels)
    finally:
        logging.getLogger("transformers").removeHandler(caplog.handler)
    assert not caplog.records
    assert not any(told[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    expected = model.pixelbert.state_dict()
    found = loaded.pixelbert.state_dict()
    assert expected.keys() == found.keys() and all(torch.equal(found[name], expected[name]) for name in found)
    assert getattr(loaded, HEAD[kind]).fresh == (kind is not RETRIEVAL)
    assert loaded.pixelbert.samples is False
    head = dict(getattr(loaded, HEAD[kind]).named_parameters())
    assert all(bool(value.isfinite().all()) for value in head.values())
    if kind is VQA:
        assert loaded.config.num_labels == len(ANSWERS)
        weight = head["classifier.weight"]
        assert float(weight.detach().std()) == pytest.approx(loaded.config.initializer_range, rel=0.2)
        assert not head["classifier.bias"].any()


def test_retrieval_starts_as_the_logit_of_a_match(pretrained):
    model, folder = pretrained
    given = inputs_of(RETRIEVAL, target=False)
    expected = model.eval()(**given).itm_logits[:, 1]
    for load in (RETRIEVAL.from_pretrained, RETRIEVAL.from_pretraining):
        torch.testing.assert_close(load(folder).eval()(**given).scores, expected)
    half = RETRIEVAL.from_pretraining(folder, dtype=torch.bfloat16)
    assert half.score_head.weight.dtype == torch.bfloat16
    found, _ = RETRIEVAL.from_pretrained(folder, output_loading_info=True)
    torch.testing.assert_close(found.score_head.bias[0], model.itm_head.bias[1])


def test_a_folder_below_a_checkpoint_is_found(pretrained, tmp_path):
    model, _ = pretrained
    model.save_pretrained(tmp_path / "last")
    loaded = RETRIEVAL.from_pretraining(tmp_path, subfolder="last")
    torch.testing.assert_close(loaded.score_head.weight[0], model.itm_head.weight[1])


def test_retrieval_starts_at_random_where_there_is_no_match_head(tmp_path):
    _, other = pair_of(VQA)
    other.save_pretrained(tmp_path)
    loaded = RETRIEVAL.from_pretrained(tmp_path)
    assert loaded.score_head.fresh
    torch.testing.assert_close(loaded.pixelbert.pooler.dense.weight, other.pixelbert.pooler.dense.weight)
    with pytest.raises(ValueError, match=r"has no match head \(itm_head\) in model.safetensors"):
        RETRIEVAL.from_pretraining(tmp_path)


def test_a_fine_tuned_score_is_not_replaced(tmp_path):
    _, model = pair_of(RETRIEVAL)
    model.save_pretrained(tmp_path)
    loaded = RETRIEVAL.from_pretraining(tmp_path)
    assert torch.equal(loaded.score_head.weight, model.score_head.weight)


@pytest.mark.parametrize("kind", KINDS)
def test_every_model_reads_the_checkpoint_of_a_task(kind, tmp_path, caplog):
    _, model = pair_of(kind)
    model.save_pretrained(tmp_path)
    for other in (PixelBERT, FastPixelBERT, *(set(KINDS) - {kind})):
        loaded = other.from_pretrained(tmp_path)
        base = getattr(loaded, "pixelbert", loaded)
        assert torch.equal(base.pooler.dense.weight, model.pixelbert.pooler.dense.weight)


def test_a_base_model_gives_a_task_its_start(tmp_path):
    model = FastPixelBERT(settings())
    model.save_pretrained(tmp_path)
    loaded = NLVR2.from_pretrained(tmp_path)
    assert loaded.pair_head.fresh
    assert torch.equal(loaded.pixelbert.pooler.dense.weight, model.pooler.dense.weight)


def test_transformers_finds_the_model_of_answers(tmp_path):
    _, model = pair_of(VQA)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForVisualQuestionAnswering.from_pretrained(tmp_path)
    assert type(loaded) is VQA and isinstance(loaded.pixelbert, FastPixelBERT)
    assert type(AutoModelForVisualQuestionAnswering.from_config(settings())) is VQA


def test_another_number_of_answers_is_an_error_and_not_a_random_head(tmp_path):
    _, model = pair_of(VQA)
    model.save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="mismatch"):
        VQA.from_pretrained(tmp_path, **answer_labels(["yes", "no"]))
