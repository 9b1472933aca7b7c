"""All texts beside all images at once: the scores that the models give pair by pair."""

from __future__ import annotations

import pytest
import torch

from pixelbert_fast import PixelBertForImageTextRetrieval, PixelBertForPreTraining
from pixelbert_fast.errors import UserError
from pixelbert_fast.model import pair_scores
from pixelbert_fast.model.hard_negatives import hardest_of, renumbered
from pixelbert_fast.model.outputs import FeatureMaps
from pixelbert_fast.model.pair_scores import PairScorer
from pixelbert_fast.ops import split_linear
from tests.small_models import config, images, stir

# Sums of 32 to 64 products in another order, in float32: a few roundings of 6e-8 relative to terms of about
# 1, some layers deep.
CLOSE = {"atol": 2e-5, "rtol": 0}


def model_of(kind, *, fast=True, **overrides):
    torch.manual_seed(0)
    return stir(kind(config(**overrides), fast=fast)).eval()


def pieces(count, length, seed=0):
    return torch.randint(5, 50, (count, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def one_by_one(model, ids, pixel_values):
    """A forward of each pair, the image's pixels and all."""
    rows = []
    for text in ids:
        for image in pixel_values:
            given = {"input_ids": text[None], "pixel_values": image[None]}
            if isinstance(model, PixelBertForPreTraining):
                logits = model(**given).itm_logits[0]
                rows.append(logits[1] - logits[0])
            else:
                rows.append(model(**given).scores[0])
    return torch.stack(rows).view(len(ids), len(pixel_values))


@pytest.mark.parametrize("kind", [PixelBertForImageTextRetrieval, PixelBertForPreTraining])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("fast", [True, False])
def test_scores_are_those_of_a_forward_of_each_pair(kind, layers, fast):
    model = model_of(kind, fast=fast, num_hidden_layers=layers)
    ids, pixel_values = pieces(5, 6), images(count=3)
    scorer = PairScorer(model)
    values = model.pixelbert.embed_pixels(pixel_values).values.detach()
    expected = one_by_one(model, ids, pixel_values)
    for rows in (1, 60, 10_000):  # one pair, a few pairs and all of them a pass
        found = scorer.scores(scorer.texts(ids), scorer.images(values), rows)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, **CLOSE)
    assert expected.std() > 100 * CLOSE["atol"]  # else anything would be close


def test_bfloat16_errs_no_more_than_the_model_itself_in_bfloat16():
    model = model_of(PixelBertForImageTextRetrieval)
    ids, pixel_values = pieces(6, 6), images(count=4)
    values = model.pixelbert.embed_pixels(pixel_values).values.detach()
    exact = one_by_one(model, ids, pixel_values)
    half = PairScorer(model, "bf16")
    error = (half.scores(half.texts(ids), half.images(values)) - exact).abs().max()
    own = (one_by_one(model.bfloat16(), ids, pixel_values.bfloat16()).float() - exact).abs().max()
    # The rule of the ops' tests: twice the error of the plain computation in that type.
    assert 0 < error <= 2 * own


@pytest.mark.skipif(split_linear.why_not() is not None, reason=str(split_linear.why_not()))
def test_float32_by_bfloat16_products_is_within_its_own_rounding():
    model = model_of(PixelBertForImageTextRetrieval, num_hidden_layers=3)
    ids, pixel_values = pieces(5, 6), images(count=3)
    values = model.pixelbert.embed_pixels(pixel_values).values.detach()
    exact, halves = one_by_one(model, ids, pixel_values), PairScorer(model, "bf16x2")
    error = (halves.scores(halves.texts(ids), halves.images(values)) - exact).abs().max()
    half = PairScorer(model, "bf16")
    worse = (half.scores(half.texts(ids), half.images(values)) - exact).abs().max()
    # A number is off by 2^-18 in place of 2^-9: of a factor of 512, some for the terms that come together.
    assert error < worse / 50
    narrow = model_of(PixelBertForImageTextRetrieval, hidden_size=24, num_attention_heads=4)
    with pytest.raises(UserError, match="multiples of 32"):
        PairScorer(narrow, "bf16x2")


def test_a_machine_that_cannot_split_says_so(monkeypatch):
    monkeypatch.setattr(pair_scores, "why_not", lambda: "this is another machine.")
    with pytest.raises(UserError, match="another machine"):
        PairScorer(model_of(PixelBertForImageTextRetrieval), "bf16x2")


def test_weights_and_mode_of_the_model_stay_as_they_are():
    model = model_of(PixelBertForImageTextRetrieval).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scorer = PairScorer(model)
    values = torch.randn(2, 3, 32)
    scorer.scores(scorer.texts(pieces(2, 4)), scorer.images(values))
    assert model.training and model.pixelbert.encoder.layer[0].training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_model_without_scores_is_refused():
    from pixelbert_fast import PixelBertForVisualQuestionAnswering

    with pytest.raises(TypeError, match="scores no pairs"):
        PairScorer(model_of(PixelBertForVisualQuestionAnswering))


def test_hardest_are_the_highest_scores_of_each_group():
    scores = torch.tensor([0.0, 3.0, 1.0, 2.0, 9.0, 2.0, -5.0])
    groups = torch.tensor([[0, 1, 2, 3, 5], [4, 6, 2, -1, -1]])
    found = hardest_of(scores, groups, 2)
    assert found.tolist() == [[0, 1, 3], [4, 2, 6]]  # of the equal 3 and 5 the earlier
    assert hardest_of(scores, groups, 9).tolist() == [[0, 1, 3, 5, 2], [4, 2, 6, -1, -1]]
    kept, again = renumbered(found, 7)
    assert kept.tolist() == [0, 1, 2, 3, 4, 6]
    assert again.tolist() == [[0, 1, 3], [4, 2, 5]]


@pytest.mark.parametrize("fast", [True, False])
def test_learning_from_the_hardest_is_learning_from_a_group_of_them(fast):
    model = model_of(PixelBertForImageTextRetrieval, fast=fast).train()
    ids, image_index = pieces(8, 6), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    groups = torch.arange(8).view(2, 4)
    given = {"pixel_values": images(), "image_index": image_index}
    # Batch norm's statistics of one pass, as the backbone runs once for both.
    out = model(ids, groups=groups, hardest=2, **given)
    out.loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    with torch.no_grad():
        scores = model(ids, **given).scores
    few = hardest_of(scores, groups, 2)
    model.zero_grad()
    expected = model(ids, groups=few, **given)
    expected.loss.backward()
    torch.testing.assert_close(out.loss, expected.loss, **CLOSE)
    torch.testing.assert_close(out.scores, scores, **CLOSE)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            # Other sequences that took part in the sums of rounded terms.
            torch.testing.assert_close(found[name], parameter.grad, atol=1e-4, rtol=1e-3, msg=name)


def test_the_pass_that_finds_them_has_no_dropout_and_puts_training_back():
    model = model_of(PixelBertForImageTextRetrieval, hidden_dropout_prob=0.5).train()
    model.pixelbert.backbone.eval()
    given = {"pixel_values": images(), "image_index": torch.tensor([0, 0, 0, 1, 1, 1])}
    ids, groups = pieces(6, 5), torch.tensor([[0, 1, 2], [3, 4, 5]])
    seen = [model(ids, groups=groups, hardest=1, **given) for _ in range(2)]
    chosen = [(one.scores == other.scores) for one, other in zip(seen, seen[::-1], strict=True)]
    assert all(int(one.sum()) >= 2 for one in chosen)  # those that are not read again
    assert not torch.equal(seen[0].loss, seen[1].loss)  # the pass that learns has dropout
    assert model.pixelbert.encoder.training and not model.pixelbert.backbone.training


def test_maps_of_the_backbone_stand_for_the_images():
    model = model_of(PixelBertForImageTextRetrieval)
    ids = pieces(2, 5)
    maps = model.pixelbert.run_backbone(images(), None)
    grid = torch.tensor([[maps.shape[2] // 2, maps.shape[3] // 2]] * 2, dtype=torch.int32)
    found = model(ids, pixel_embeddings=FeatureMaps(maps, grid)).scores
    torch.testing.assert_close(found, model(ids, None, images()).scores, rtol=0, atol=0)


def test_hardest_must_be_a_positive_number():
    model = model_of(PixelBertForImageTextRetrieval)
    with pytest.raises(ValueError, match="hardest"):
        model(pieces(2, 5), pixel_values=images(), groups=torch.tensor([[0, 1]]), hardest=0)
