"""Who listens at a module of the fast model hears what the reference's module gives."""

import pytest
import torch
from torch import nn

from pixelbert_fast import PixelBertForPreTraining
from tests.small_models import SIZES, config, gradients, images, stir, text

LABELS = torch.where(text(2) > 30, text(2), -100)


def models(**more):
    made = []
    for fast in (False, True):
        torch.manual_seed(0)
        still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        model = PixelBertForPreTraining(config(**(still | more)), fast=fast)
        made.append(stir(model).double().train())
    return made


def step(model, **more):
    given = {"labels": LABELS, "matched": torch.tensor([1, 1]), "seed": 0}
    out = model(text(2), None, images(torch.float64), **(given | more))
    out.loss.backward()
    return out


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)  # float64, summed in another order


def test_what_a_hook_keeps_of_a_convolution_is_not_overwritten():
    kept = []
    for model in models(norm="frozen"):
        seen, backbone = {}, model.pixelbert.backbone
        for name, module in backbone.named_modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(
                    lambda _, __, out, name=name, seen=seen: seen.update({name: out})
                )
        step(model)
        kept.append(seen)
    reference, fast = kept
    assert fast.keys() == reference.keys() and len(fast) > 5
    for name, value in reference.items():
        assert_close(fast[name], value)


@pytest.mark.parametrize("sizes", [None, SIZES], ids=["one-size", "sizes-differ"])
@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_backward_hooks_of_convolutions_and_norms(norm, sizes):
    heard = []
    for model in models(norm=norm):
        seen = {}
        for name, module in model.pixelbert.backbone.named_modules():
            if not list(module.children()):
                module.register_full_backward_hook(
                    lambda _, __, grads, name=name, seen=seen: seen.update({name: grads[0]})
                )
        step(model, pixel_size=sizes)
        heard.append((seen, gradients(model)))
    (reference, wanted), (fast, got) = heard
    convolutions = {name for name in reference if "conv" in name}
    assert convolutions <= fast.keys() and len(convolutions) > 5
    for name in fast:
        assert_close(fast[name], reference[name])
    assert_close(got, wanted)


def test_a_layout_that_a_hook_changes_is_changed_back():
    outputs = []
    for model in models(norm="frozen", backbone="resnet18"):  # its first block adds what the pooling gives
        model.pixelbert.backbone.maxpool.register_forward_hook(lambda _, __, out: out.contiguous())
        outputs.append(step(model).itm_logits)
    assert_close(outputs[1], outputs[0])


@pytest.mark.parametrize("path", ["pixelbert.embeddings.word_embeddings", "mlm_head.decoder", "mlm_head"])
def test_hooks_on_the_words_and_on_their_head_are_called(path):
    results = []
    for model in models(norm="frozen"):
        model.get_submodule(path).register_forward_hook(lambda _, __, out: 2 * out)
        results.append((step(model).mlm_logits, gradients(model)))
    assert_close(results[1][0], results[0][0])
    assert_close(results[1][1], results[0][1])


class Adapter(nn.Module):
    """A low-rank term beside a linear layer, whose weight it shows as its own."""

    def __init__(self, base: nn.Linear):
        super().__init__()
        torch.manual_seed(1)
        self.base = base
        self.down = nn.Linear(base.in_features, 2, bias=False, dtype=torch.float64)
        self.up = nn.Linear(2, base.out_features, bias=False, dtype=torch.float64)
        self.weight, self.bias = base.weight, base.bias

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


def test_an_adapter_on_the_masked_word_head_is_called():
    results = []
    for model in models(norm="frozen"):
        model.mlm_head.decoder = Adapter(model.mlm_head.decoder)
        results.append((step(model).mlm_logits, gradients(model)))
    assert any("up.weight" in name for name in results[1][1])
    assert_close(results[1][0], results[0][0])
    assert_close(results[1][1], results[0][1])
