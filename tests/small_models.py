"""A PixelBERT small enough for a test, inputs for it, and the same weights in both models."""

import torch

from pixelbert_fast import FastPixelBERT, PixelBERT, PixelBertConfig

SIZES = torch.tensor([[48, 64], [33, 40]])
# S > B, with -1 among the places; all lie within the smaller image's 2 x 2 grid.
INDEX = torch.tensor([0, 1, 1])
PLACES = torch.tensor([[0, 5, -1], [1, -1, 0], [-1, -1, 4]])
MASK = torch.tensor([[1] * 7, [1] * 4 + [0] * 3, [1] * 2 + [0] * 5])


def config(**overrides):
    small = {
        "backbone_channels": 8,
        "hidden_size": 32,
        "intermediate_size": 64,
        "vocab_size": 50,
        "sampled_pixels": 5,
    }
    return PixelBertConfig.preset("tiny", **(small | overrides))


def text(rows, words=7):
    return torch.randint(5, 50, (rows, words), generator=torch.Generator().manual_seed(rows))


def images(dtype=torch.float32, count=2):
    return torch.randn(count, 3, 48, 64, generator=torch.Generator().manual_seed(1)).to(dtype)


def stir(model):
    """Norms and biases that do something, so that no fold of them passes unseen."""
    torch.manual_seed(5)
    for name, value in model.state_dict().items():
        if name.endswith("running_var") or ("bn" in name and name.endswith("weight")):
            value.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", "bias")):
            value.normal_(std=0.1)
    return model


def pair(settings, dtype=torch.float32):
    torch.manual_seed(0)
    reference = stir(PixelBERT(settings))
    fast = FastPixelBERT(settings)
    fast.load_state_dict(reference.state_dict())
    return reference.to(dtype), fast.to(dtype)


def projected(*outputs):
    """A random projection: unlike squares after a LayerNorm, its gradient is small for no parameter."""
    generator = torch.Generator().manual_seed(9)
    return sum((o * torch.randn(o.shape, generator=generator).to(o)).sum() for o in outputs)


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def run(model, *inputs, **more):
    model.zero_grad()
    out = model(*inputs, **more)
    projected(out.last_hidden_state, out.pooler_output).backward()
    return out, gradients(model)


def assert_same_gradients(found, expected, tolerance):
    """`tolerance` is relative to a parameter's largest gradient, or to 1e-3 where all should be zero.

    A key's bias moves no softmax: its gradient is rounding alone, of which no relative error can be asked.
    """
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        largest = max(float(value.abs().max()), 1e-3)
        assert float((found[name] - value).abs().max()) <= tolerance * largest, name
