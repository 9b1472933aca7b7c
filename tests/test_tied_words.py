"""One gradient for word embeddings that are looked up and multiplied with."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.profiler import profile

from pixelbert_fast import PixelBertForPreTraining
from pixelbert_fast.model.tied_words import look_up, shares_gradient
from tests.small_models import config, images, text

IDS = torch.tensor([[1, 7, 7, 0], [1, 9, 2, 0]])  # repeated, and padding


def tied(dtype=torch.float64, padding=0):
    torch.manual_seed(0)
    embedding = nn.Embedding(12, 6, padding_idx=padding).to(dtype)
    decoder = nn.Linear(6, 12).to(dtype)
    decoder.weight = embedding.weight
    return embedding, decoder


def gradient(embedding, decoder, shared, *, looks=True, decodes=True):
    words, weight = look_up(embedding, IDS) if shared else (embedding(IDS), decoder.weight)
    loss = torch.zeros((), dtype=words.dtype)
    if looks:
        loss = loss + (words * torch.arange(words.numel()).view_as(words)).sum()
    if decodes:
        loss = loss + F.linear(torch.ones(3, 6, dtype=words.dtype), weight, decoder.bias).square().sum()
    embedding.weight.grad = None
    loss.backward()
    return embedding.weight.grad


@pytest.mark.parametrize("padding", [0, None])
@pytest.mark.parametrize(("looks", "decodes"), [(True, True), (True, False), (False, True)])
def test_the_gradient_is_what_two_uses_give(looks, decodes, padding):
    modules = tied(padding=padding)
    assert shares_gradient(*modules)
    expected, found = (gradient(*modules, shared, looks=looks, decodes=decodes) for shared in (False, True))
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


def test_gradients_of_several_backwards_add_up():
    embedding, decoder = tied()
    once = gradient(embedding, decoder, True).clone()
    for _ in range(2):
        words, weight = look_up(embedding, IDS)
        loss = (words * torch.arange(words.numel()).view_as(words)).sum()
        (loss + F.linear(torch.ones(3, 6).double(), weight, decoder.bias).square().sum()).backward()
    torch.testing.assert_close(embedding.weight.grad, 3 * once)


def test_words_met_often_are_summed_before_they_are_rounded():
    embedding, _ = tied(torch.bfloat16)
    ids = torch.full((1, 1000), 3)
    words, weight = look_up(embedding, ids)
    (words.sum() + 256 * weight.sum()).backward()
    # One after another 1 would be lost in bfloat16 beside 256: its next number is 258.
    assert embedding.weight.grad[3].tolist() == [1256.0] * 6


def test_it_is_left_alone_where_it_gains_nothing():
    embedding, decoder = tied()
    with torch.no_grad():
        assert not shares_gradient(embedding, decoder)
    assert not shares_gradient(embedding, nn.Linear(6, 12))
    embedding.weight.requires_grad_(False)
    assert not shares_gradient(embedding, decoder)
    embedding.weight.requires_grad_(True)
    embedding.weight.ds_id = 0  # split over ranks by ZeRO-3
    assert not shares_gradient(embedding, decoder)


def test_a_step_of_pretraining_writes_no_gradient_of_zeros_for_the_words():
    batch = {"labels": torch.where(text(2) > 30, text(2), -100), "matched": torch.tensor([1, 1])}
    names = []
    for fast in (True, False):
        model = PixelBertForPreTraining(config(norm="frozen"), fast=fast).train()
        with profile() as profiled:
            model(text(2), None, images(), seed=0, **batch).loss.backward()
        names.append({event.name for event in profiled.events()})
    assert "aten::embedding_dense_backward" in names[1]
    # Those of places and of token types remain, which are small.
    assert "LookUpBackward" in names[0] and "LookUpBackward" not in names[1]
