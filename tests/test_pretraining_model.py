"""PixelBertForPreTraining: what counts in each loss."""

import pytest
import torch
import torch.nn.functional as F

from pixelbert_fast import PixelBertConfig, PixelBertForPreTraining

IDS = torch.randint(5, 50, (4, 6), generator=torch.Generator().manual_seed(0))
MATCHED = torch.tensor([1, 0, 1, 0])
LABELS = torch.full((4, 6), -100)
LABELS[0, 2], LABELS[1, 1], LABELS[2, 3], LABELS[2, 4] = 7, 8, 9, 10


def build(**overrides):
    torch.manual_seed(0)
    small = {"backbone_channels": 8, "hidden_size": 32, "intermediate_size": 64, "vocab_size": 50}
    return PixelBertForPreTraining(PixelBertConfig.preset("tiny", **(small | overrides))).eval()


def run(model, **targets):
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    return model(IDS, None, image, image_index=torch.tensor([0, 0, 1, 1]), **targets)


def test_losses_are_those_of_the_papers_two_tasks():
    model = build()
    everywhere = run(model)
    assert everywhere.mlm_logits.shape == (4, 6, 50) and everywhere.loss is None
    out = run(model, labels=LABELS, matched=MATCHED)
    rows, columns, targets = [0, 2, 2], [2, 3, 4], torch.tensor([7, 9, 10])
    torch.testing.assert_close(out.mlm_logits, everywhere.mlm_logits[rows, columns])
    torch.testing.assert_close(out.mlm_loss, F.cross_entropy(everywhere.mlm_logits[rows, columns], targets))
    torch.testing.assert_close(out.itm_loss, F.cross_entropy(everywhere.itm_logits, MATCHED))
    torch.testing.assert_close(out.loss, out.mlm_loss + out.itm_loss)


def test_words_of_mismatched_captions_count_only_when_asked():
    assert run(build(mlm_on_mismatched=True), labels=LABELS, matched=MATCHED).mlm_logits.shape == (4, 50)
    assert run(build(), labels=LABELS, matched=MATCHED).mlm_logits.shape == (3, 50)
    assert run(build(), labels=LABELS).mlm_logits.shape == (4, 50)


@pytest.mark.parametrize(("mlm", "itm"), [(True, False), (False, True), (False, False)])
def test_each_loss_can_be_switched_off(mlm, itm):
    model = build(mlm=mlm, itm=itm)
    out = run(model, labels=LABELS, matched=MATCHED)
    torch.testing.assert_close(out.loss, out.mlm_loss * mlm + out.itm_loss * itm)
    out.loss.backward()
    # Every head takes part in every step, with a zero gradient when its loss is off.
    assert all(p.grad is not None for p in model.parameters())
    assert bool(model.itm_head.weight.grad.any()) == itm
    assert bool(model.mlm_head.transform.dense.weight.grad.any()) == mlm


def test_nothing_to_predict_is_no_loss():
    out = run(build(), labels=torch.full((4, 6), -100), matched=MATCHED)
    assert out.mlm_loss == 0 and out.mlm_logits.shape == (0, 50)
