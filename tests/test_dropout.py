"""Dropout of 16 random bits an element: what is dropped, how often, and that a seed repeats it."""

import pytest
import torch
import torch.nn.functional as F

from pixelbert_fast.model import packed_attention
from pixelbert_fast.model.dropout import LEVELS, dropout
from pixelbert_fast.model.packed_attention import worth_padding
from tests.small_models import config, images, pair, text


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_what_stays_is_scaled_and_what_goes_is_as_likely_as_asked(p, dtype):
    torch.manual_seed(0)
    x = torch.full((1000, 1001), 3.0, dtype=dtype, requires_grad=True)
    out = dropout(x, p)
    out.backward(torch.full_like(out, 2.0))
    kept = out != 0
    share = LEVELS / (LEVELS - round(p * LEVELS))
    torch.testing.assert_close(out[kept].unique(), torch.tensor([3 * share], dtype=dtype))
    # The same elements in the backward, by the same factor.
    torch.testing.assert_close(x.grad, kept * torch.tensor(2 * share, dtype=dtype))
    count = x.numel()
    deviation = (p * (1 - p) / count) ** 0.5
    dropped = 1 - float(kept.sum()) / count
    assert abs(dropped - p) < 4 * deviation + 1 / LEVELS
    # Four elements share one draw: each place among the four is as likely, and none depends on its neighbour.
    places = (~kept).flatten()[: count // 4 * 4].view(-1, 4).double()
    assert (places.mean(0) - p).abs().max() < 4 * 2 * deviation + 1 / LEVELS
    correlation = torch.corrcoef(places.T) - torch.eye(4)
    assert correlation.abs().max() < 5 / (count / 4) ** 0.5


def test_a_seed_repeats_it_and_the_next_draw_is_another():
    x = torch.ones(77, 3)
    torch.manual_seed(4)
    first, second = dropout(x, 0.3), dropout(x, 0.3)
    torch.manual_seed(4)
    assert torch.equal(dropout(x, 0.3), first) and not torch.equal(first, second)


def test_nothing_is_drawn_where_nothing_is_dropped():
    x, state = torch.randn(5, 7), torch.get_rng_state()
    assert dropout(x, 0.1, training=False) is x and dropout(x, 0.0) is x
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(dropout(x, 1.0), torch.zeros(5, 7))
    assert dropout(torch.empty(0, 4), 0.5).shape == (0, 4)


def test_the_default_device_is_not_where_it_draws():
    with torch.device("meta"):
        out = dropout(torch.ones(77, 3, device="cpu"), 0.5)
    assert out.device.type == "cpu" and 0 < int((out == 0).sum()) < out.numel()


def test_compiled_code_draws_by_itself():
    compiled = torch.compile(lambda x: dropout(x, 0.5), backend="eager", fullgraph=True)
    x = torch.ones(1000)
    torch.manual_seed(0)
    found = compiled(x)
    torch.manual_seed(0)
    assert torch.equal(found, F.dropout(x, 0.5))


@pytest.mark.parametrize(
    ("lengths", "worth"),
    [([30, 31, 32], True), ([8, 8, 8, 260], False), ([], True), ([0, 5], False), ([5], True)],
)
def test_when_padding_is_worth_it(lengths, worth):
    assert worth_padding(lengths) == worth


@pytest.mark.parametrize("where", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
@pytest.mark.parametrize("lengths", ["each", "batched"])
def test_both_models_outputs_are_distributed_alike(where, lengths, monkeypatch):
    monkeypatch.setattr(packed_attention, "worth_padding", lambda _: lengths == "batched")
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    settings = config(norm="frozen", num_hidden_layers=2, **(none | {where: 0.3}))
    reference, fast = (model.train() for model in pair(settings))
    draws, found = 400, []
    torch.manual_seed(0)
    for model in (reference, fast):
        model.embeddings.dropout.p = 0.0  # or it would drown that of the layers
        with torch.no_grad():
            tokens = model.embed_pixels(images())
            outputs = [
                model(text(2), pixel_embeddings=tokens, seed=0).last_hidden_state[:, 0].flatten()
                for _ in range(draws)
            ]
        found.append(torch.stack(outputs))
    means, deviations = ([each.mean(0) for each in found], [each.std(0) for each in found])
    error = (deviations[0] ** 2 + deviations[1] ** 2).div(draws).sqrt()
    # 64 outputs, each within four and a half of its standard errors.
    assert ((means[0] - means[1]).abs() <= 4.5 * error).all()
    assert (deviations[0] > 1e-3).all()  # or nothing was drawn
    # A deviation's own error is a 28th of it, of 64 together less; half the dropout would give 0.64.
    assert abs(float((deviations[1] / deviations[0]).mean()) - 1) < 0.1
