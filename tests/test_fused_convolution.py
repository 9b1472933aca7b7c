"""relu(convolution + bias + residual) with its own derivative, over cuDNN's operators emulated on a CPU."""

import logging

import pytest
import torch
import torch.nn.functional as F
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from pixelbert_fast import FastPixelBERT
from pixelbert_fast.model import fast_backbone, fused_convolution
from pixelbert_fast.model.fused_convolution import convolution_relu, why_not_fused
from tests.cudnn_emulation import emulated_cudnn
from tests.small_models import SIZES, assert_same_gradients, config, gradients, images, pair, projected

LAST = torch.channels_last
# (input [B, C, H, W], output channels, kernel, stride, dilation, groups)
CASES = {
    "1x1": ((2, 6, 5, 4), 8, 1, 1, 1, 1),
    "3x3": ((2, 6, 5, 4), 8, 3, 1, 1, 1),
    "strided": ((2, 6, 7, 5), 4, 3, 2, 1, 1),
    "strided-1x1": ((1, 6, 7, 5), 4, 1, 2, 1, 1),
    "dilated": ((2, 4, 6, 7), 4, 3, 1, 2, 1),
    "groups": ((2, 8, 5, 5), 8, 3, 2, 1, 4),
    "one-pixel": ((2, 4, 1, 1), 3, 3, 1, 1, 1),
}


@pytest.fixture
def cudnn(monkeypatch):
    """Every convolution is fused, by emulated operators; yields the names of those that ran."""
    monkeypatch.setattr(fused_convolution, "why_not_fused", lambda *_: None)
    monkeypatch.setattr(fused_convolution, "_refused", set())
    with emulated_cudnn() as ran:
        yield ran


def operands(case, dtype=torch.float64, layout=LAST):
    """x, weight, bias, residual as leaves, and the geometry; values whose ReLU no difference step crosses."""
    shape, outputs, kernel, stride, dilation, groups = case
    generator = torch.Generator().manual_seed(0)

    def leaf(*shape):
        value = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        return (value.contiguous(memory_format=layout) if len(shape) == 4 else value).requires_grad_()

    x, weight = leaf(*shape), leaf(outputs, shape[1] // groups, kernel, kernel)
    geometry = ((stride, stride), (dilation * (kernel // 2),) * 2, (dilation, dilation), groups)
    out = F.conv2d(x, weight, None, *geometry)
    return (x, weight, leaf(outputs), leaf(*out.shape)), geometry


def plain(x, weight, bias, residual, *geometry):
    out = F.conv2d(x, weight, bias, *geometry)
    return torch.relu(out if residual is None else out + residual)


@pytest.mark.parametrize("layout", [LAST, torch.contiguous_format], ids=["channels_last", "contiguous"])
@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_equals_the_plain_operations(cudnn, case, summed, layout):
    given, geometry = operands(case, layout=layout)
    given = given if summed else (*given[:3], None)
    leaves = [value for value in given if value is not None]
    results = []
    for compute in (convolution_relu, plain):
        out = compute(*given, *geometry)
        results.append((out, torch.autograd.grad(projected(out), leaves)))
    (found, grads), (expected, wanted) = results
    assert cudnn == ["add_relu" if summed else "relu"]
    # The same sums of some dozen float64 terms of order 1, taken in another order.
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(grads, wanted, rtol=1e-11, atol=1e-11)
    assert found.is_contiguous(memory_format=LAST)
    if layout is LAST:
        assert grads[0].is_contiguous(memory_format=LAST)


@pytest.mark.parametrize("case", [CASES["strided"], CASES["groups"]], ids=["strided", "groups"])
def test_gradients_by_differences_once_and_twice(cudnn, case):
    given, geometry = operands(case)
    assert torch.autograd.gradcheck(lambda *o: convolution_relu(*o, *geometry), given, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda *o: convolution_relu(*o, *geometry), given, fast_mode=True)


@pytest.mark.parametrize("trained", range(16), ids=lambda n: f"{n:04b}")
def test_whatever_is_frozen(cudnn, trained):
    """Gradients of any subset of x, weight, bias and residual, without the others."""
    given, geometry = operands(CASES["3x3"])
    for number, value in enumerate(given):
        value.requires_grad_(bool(trained >> number & 1))
    leaves = [value for value in given if value.requires_grad]
    out, expected = (compute(*given, *geometry) for compute in (convolution_relu, plain))
    assert out.requires_grad == bool(leaves)
    if leaves:
        found, wanted = (torch.autograd.grad(projected(value), leaves) for value in (out, expected))
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)


def kept_by(compute):
    """The result, and the memory that its backward holds: bytes by address."""
    kept = {}

    def note(value):
        kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    with saved_tensors_hooks(note, lambda value: value):
        out = compute()
    return out, kept


@pytest.mark.parametrize("trained", ["all", "no-weight", "no-input", "residual-alone"])
def test_it_keeps_what_the_backward_reads_and_nothing_else(cudnn, trained):
    given, geometry = operands(CASES["3x3"])
    x, weight, bias, _ = given
    x.requires_grad_(trained in ("all", "no-weight"))
    weight.requires_grad_(trained in ("all", "no-input"))
    bias.requires_grad_(False)
    out, kept = kept_by(lambda: convolution_relu(*given, *geometry))
    read = {"all": [x, weight], "no-weight": [weight], "no-input": [x], "residual-alone": []}[trained]
    assert kept.keys() == {value.untyped_storage().data_ptr() for value in [*read, out]}
    _, more = kept_by(lambda: fused_convolution.unfused(*given, *geometry))
    assert sum(kept.values()) <= sum(more.values())


def test_nothing_is_kept_where_nothing_is_trained(cudnn):
    given, geometry = operands(CASES["3x3"])
    with torch.no_grad():
        _, kept = kept_by(lambda: convolution_relu(*given, *geometry))
    assert not kept and cudnn == ["add_relu"]


def test_a_nan_passes_as_through_relu(cudnn):
    given, geometry = operands(CASES["1x1"])
    with torch.no_grad():
        given[0][0, 0, 0, 0] = torch.nan
    results = []
    for compute in (convolution_relu, plain):
        out = compute(*given, *geometry)
        results.append((out, *torch.autograd.grad(projected(out), given)))
    assert results[0][0].isnan().any()
    torch.testing.assert_close(*results, rtol=1e-11, atol=1e-11, equal_nan=True)


def test_autocast(cudnn):
    given, geometry = operands(CASES["3x3"], torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = convolution_relu(*given, *geometry)
    assert out.dtype == torch.bfloat16 and cudnn == ["add_relu"]
    grads = torch.autograd.grad(projected(out), given)
    assert [grad.dtype for grad in grads] == [torch.float32] * 4
    exact = plain(*given, *geometry)
    # Inputs are rounded to 8 bits, and 54 products of order 1 added to one of them in float32.
    torch.testing.assert_close(out.float(), exact, rtol=2**-6, atol=2**-3)


def test_opcheck(cudnn):
    given, geometry = operands(CASES["strided"], torch.float32)
    arguments = (*given, *map(list, geometry[:3]), geometry[3])
    torch.library.opcheck(torch.ops.pixelbert_fast.convolution_relu.default, arguments)


def test_compiled_whole_and_checkpointed(cudnn):
    given, geometry = operands(CASES["3x3"], torch.float32)

    def twice(x, weight, bias, residual):
        inner = convolution_relu(x, weight, bias, residual, *geometry)
        return convolution_relu(inner[:, :6], weight, bias, inner, *geometry)

    def again(*leaves):
        return checkpoint(twice, *leaves, use_reentrant=False)

    results = []
    for compute in (twice, torch.compile(twice, backend="aot_eager", fullgraph=True), again):
        out = compute(*given)
        results.append((out, *torch.autograd.grad(projected(out), given)))
    # Compiled, the gradient of the slice is added up in another order.
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-5)
    assert all(torch.equal(found, wanted) for found, wanted in zip(results[2], results[0], strict=True))
    assert len(cudnn) == 2 + 2 + 4


def test_what_cudnn_refuses_runs_unfused_and_is_said_once(cudnn, monkeypatch, caplog):
    asked = []

    def refuses(*arguments):
        asked.append(arguments)
        raise RuntimeError("GET was unable to find an engine to execute this computation")

    monkeypatch.setattr(fused_convolution, "run_cudnn", refuses)
    given, geometry = operands(CASES["3x3"])
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            found = convolution_relu(*given, *geometry)
            torch.testing.assert_close(found, plain(*given, *geometry), rtol=1e-12, atol=1e-12)
    assert len(asked) == 1 and len(caplog.records) == 1 and "unable to find" in caplog.text
    convolution_relu(*given[:3], None, *geometry)
    assert len(asked) == 2


def test_memory_that_runs_out_is_no_refusal(cudnn, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(fused_convolution, "run_cudnn", full)
    given, geometry = operands(CASES["3x3"])
    with pytest.raises(torch.OutOfMemoryError):
        convolution_relu(*given, *geometry)
    assert not fused_convolution._refused


GPU = ("cuda", torch.bfloat16, (3, 3), 1)


@pytest.mark.parametrize(
    ("place", "given", "word"),
    [(0, "cpu", "NVIDIA"), (1, torch.float64, "float64"), (2, (7, 7), "(7, 7)"), (3, 32, "groups")],
)
def test_why_it_cannot_be_fused(monkeypatch, place, given, word):
    monkeypatch.setattr(torch.backends.cudnn, "is_available", lambda: True)
    assert why_not_fused(*GPU) is None
    asked = [*GPU]
    asked[place] = given
    assert word in why_not_fused(*asked)


def test_cudnn_can_be_missing_switched_off_or_asked_to_be_deterministic(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "is_available", lambda: False)
    assert "missing" in why_not_fused(*GPU)
    monkeypatch.setattr(torch.backends.cudnn, "is_available", lambda: True)
    with torch.backends.cudnn.flags(enabled=False):
        assert "switched off" in why_not_fused(*GPU)
    with torch.backends.cudnn.flags(enabled=True, deterministic=True):
        assert "deterministic" in why_not_fused(*GPU)
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert "NVIDIA" in why_not_fused(*GPU)


@pytest.mark.parametrize("checkpoints", [False, True])
@pytest.mark.parametrize("sizes", [None, SIZES], ids=["one-size", "sizes-differ"])
@pytest.mark.parametrize("backbone", ["tiny", "resnext"])
def test_the_backbone_over_it(cudnn, monkeypatch, backbone, sizes, checkpoints):
    """Outputs and gradients of the reference; weights are folded once a forward, checkpointed ones twice."""
    monkeypatch.setattr(fast_backbone, "in_one_pass", lambda _: False)  # on a GPU
    folds = []
    original = fast_backbone.folded
    monkeypatch.setattr(fast_backbone, "folded", lambda *of: folds.append(of) or original(*of))
    more = {"tiny": {}, "resnext": {"backbone": "resnext101_32x8d", "backbone_depths": [1, 1, 1, 1]}}[
        backbone
    ]
    reference, fast = pair(config(norm="frozen", **more), torch.float64)
    fast.train(), reference.train()
    if checkpoints:
        fast.gradient_checkpointing_enable()
    results = []
    for model in (fast, reference):
        out = model.run_backbone(images(torch.float64), sizes)
        projected(out).backward()
        results.append((out, gradients(model)))
    (found, got), (expected, wanted) = results
    # Some thousand float64 roundings of values of order 1; a gradient sums some thousand terms more.
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    assert_same_gradients(got, wanted, 1e-8)
    convolutions = sum(isinstance(module, torch.nn.Conv2d) for module in fast.backbone.modules())
    again = convolutions - 1 if checkpoints else 0  # the stem is in no stage
    assert len(folds) == convolutions + again
    downsamples = sum(block.downsample is not None for stage in fast.backbone.stages() for block in stage)
    assert len(cudnn) == len(folds) - downsamples * (1 + checkpoints)


@pytest.mark.parametrize("fuses", [False, True])
def test_the_backbone_is_one_graph(cudnn, monkeypatch, fuses):
    reason = None if fuses else "asked for by the test"
    monkeypatch.setattr(fused_convolution, "why_not_fused", lambda *_: reason)
    model = pair(config(norm="frozen"))[1].train()
    torch._dynamo.reset()
    compiled = torch.compile(model.run_backbone, backend="aot_eager", fullgraph=True)
    found, expected = (run(images(), None) for run in (compiled, model.run_backbone))
    # Float32 values of order 1 after sums of some hundred terms in another order.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert bool(cudnn) == fuses


def test_an_exported_backbone_needs_no_operator_of_this_package(cudnn):
    class Backbone(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = FastPixelBERT(config(norm="frozen")).eval()

        def forward(self, pixel_values):
            return self.model.run_backbone(pixel_values, None)

    program = torch.export.export(Backbone(), (images(),))
    operators = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert any("conv2d" in name for name in operators)
    assert not any("pixelbert_fast" in name for name in operators)


def test_a_cpu_takes_no_fused_convolution(monkeypatch):
    monkeypatch.setattr(fused_convolution, "fused", None)
    model = FastPixelBERT(config(norm="frozen"))
    projected(model.run_backbone(images(), None)).backward()
