"""FastPixelBERT on a GPU against the reference; `test_model_rehearsal.py` runs most of it on a CPU."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pixelbert_fast.model import fused_convolution, packed_attention
from pixelbert_fast.model.fast_encoder import encode_packed
from pixelbert_fast.model.fused_convolution import convolution_relu, unfused, why_not_fused
from pixelbert_fast.model.packing import Packing
from tests import model_checks
from tests.small_models import images
from tests.task_models import NLVR2, RETRIEVAL, VQA

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
    pytest.mark.skipif(torch.version.hip is not None, reason="cuDNN and Flash as NVIDIA's GPUs have them"),
]

HALVES = [torch.bfloat16, torch.float16]
NORMS = ["frozen", "batch"]
HEAD = 64


@pytest.fixture(autouse=True)
def exact_float32(monkeypatch):
    """No TF32, of which a float32 rounds off 13 bits; and no engine refused before."""
    monkeypatch.setattr(fused_convolution, "_refused", set())
    # Neither `cudnn.flags`, which switches cuDNN off where it is not told otherwise, nor monkeypatch, which
    # cannot restore an attribute of these modules.
    places = (torch.backends.cuda.matmul, torch.backends.cudnn)
    kept = [place.allow_tf32 for place in places]
    for place in places:
        place.allow_tf32 = False
    yield
    for place, value in zip(places, kept, strict=True):
        place.allow_tf32 = value


def flash(dtype: torch.dtype) -> str:
    """The implementation of attention that must run, which is Flash's in half precision."""
    capability = torch.cuda.get_device_capability()
    reason = packed_attention.why_not_varlen("cuda", dtype, HEAD, capability)
    if dtype in HALVES and capability >= (8, 0):
        assert reason is None
    return "padded" if reason else "varlen"


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("kind", [VQA, NLVR2, RETRIEVAL])
def test_downstream(kind, dtype):
    model_checks.check_downstream("cuda", dtype, kind)


@pytest.mark.parametrize("sizes", [False, True], ids=["one-size", "sizes-differ"])
@pytest.mark.parametrize("task", [False, True], ids=["model", "pretraining"])
@pytest.mark.parametrize("norm", NORMS)
def test_float32(norm, task, sizes):
    with model_checks.attention_that_ran() as ran:
        model_checks.check_float32("cuda", norm, task, sizes)
    assert set(ran) == {"padded"}


@pytest.mark.parametrize("task", [False, True], ids=["model", "pretraining"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_half(dtype, norm, task):
    with model_checks.attention_that_ran() as ran:
        model_checks.check_half("cuda", dtype, norm, task)
    assert set(ran) == {flash(dtype)}
    model_checks.check_nothing_refused()


@pytest.mark.parametrize("norm", NORMS)
def test_twenty_steps_follow_the_same_curve(norm):
    model_checks.check_curve("cuda", norm)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
def test_dropout(dtype):
    model_checks.check_dropout("cuda", dtype)
    model_checks.check_dropout_of_forward_and_backward_agree("cuda", dtype, flash(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_compiled(dtype):
    model_checks.check_compiled("cuda", dtype, "inductor")


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_no_layer_waits_for_the_device(dtype, dropout):
    """With the lengths counted, the Transformer of some rows runs forward and backward without a question."""
    more = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    model = model_checks.models("cuda", dtype, **more)[1].train()
    mask = torch.tensor([[1, 1, 1, 0, 1], [1, 0, 0, 1, 1], [0] * 5], device="cuda") != 0
    packing = Packing(mask)
    rows = torch.tensor([0, 1, 4], device="cuda")
    packing.spans_among(rows)
    hidden = torch.randn(7, 128, device="cuda", dtype=dtype, requires_grad=True)

    def step():
        encode_packed(model.encoder.layer, hidden, packing, rows).sum().backward()

    step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


# Of a ResNet-50's stages: (channels in, channels out, kernel, stride, rows, columns).
CONVOLUTIONS = [
    (64, 64, 1, 1, 50, 67),
    (64, 64, 3, 1, 50, 67),
    (128, 128, 3, 2, 50, 67),
    (256, 1024, 1, 1, 13, 17),
    (512, 512, 3, 1, 7, 9),
]


@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize("shape", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
def test_the_fused_convolution(dtype, shape, summed):
    """Errors against float64 at most twice those of convolution, sum and ReLU one by one."""
    inputs, outputs, kernel, stride, rows, columns = shape
    assert why_not_fused("cuda", dtype, (kernel, kernel), 1) is None
    torch.manual_seed(0)
    geometry = ((stride, stride), (kernel // 2,) * 2, (1, 1), 1)
    x = torch.randn(2, inputs, rows, columns)
    weight = torch.randn(outputs, inputs, kernel, kernel) / (inputs * kernel**2) ** 0.5
    bias = torch.randn(outputs)
    residual = torch.randn_like(F.conv2d(x, weight, None, *geometry)) if summed else None
    given = [None if value is None else value.to("cuda", dtype) for value in (x, weight, bias, residual)]
    given = [in_last(value) for value in given]
    wide = [None if value is None else value.detach().double().requires_grad_() for value in given]
    results = []
    for compute, operands in ((convolution_relu, given), (unfused, given), (unfused, wide)):
        # Memory that comes back from the allocator holds NaN: an operand that counts with a factor of 0
        # (cuDNN is given the output itself as the residual that is not there) must not be read.
        poison = [torch.full((2 * outputs * rows * columns,), torch.nan, device="cuda") for _ in range(3)]
        del poison
        out = compute(*operands, *geometry)
        leaves = [value for value in operands if value is not None]
        grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
        results.append([out, *torch.autograd.grad(out, leaves, grad)])
    if dtype in HALVES:  # without TF32 there may be no engine for float32, which then runs unfused
        model_checks.check_nothing_refused()
    found, plain, exact = results
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    for one, other, true in zip(found, plain, exact, strict=True):
        bound = 2 * model_checks.distance([other], [true]) + 2 * torch.finfo(dtype).eps
        assert model_checks.distance([one], [true]) <= bound


def in_last(value):
    if value is None:
        return None
    layout = torch.channels_last if value.dim() == 4 else torch.contiguous_format
    return value.contiguous(memory_format=layout).requires_grad_()


def test_the_fused_convolution_keeps_no_more_memory():
    """Nothing but the output stays, as unfused."""
    x = in_last(torch.randn(4, 64, 128, 128, device="cuda", dtype=torch.bfloat16))
    weight = in_last(torch.randn(64, 64, 3, 3, device="cuda", dtype=torch.bfloat16))
    bias = torch.randn(64, device="cuda", dtype=torch.bfloat16)
    geometry = ((1, 1), (1, 1), (1, 1), 1)
    kept = []
    for compute in (convolution_relu, unfused):
        compute(x, weight, bias, None, *geometry)  # cuDNN's choice of an engine
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        out = compute(x, weight, bias, None, *geometry)
        kept.append(torch.cuda.memory_allocated() - before)
        assert out.requires_grad
        del out
    assert kept[0] <= kept[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_backbone_sampling_and_embedding_in_a_cuda_graph(dtype):
    """The seed and the images change between replays, and nothing else need be said."""
    model = model_checks.models("cuda", dtype, norm="frozen")[1].train()
    pixels = images().to("cuda", dtype)
    index = torch.tensor([0, 1, 1], device="cuda")
    keys = torch.arange(3, device="cuda")
    seed = torch.tensor(7, device="cuda")
    valid_grid, grid = model.grids(pixels, None)

    def step():
        with torch.no_grad():
            features = model.run_backbone(pixels, None)
            return model_checks.sampled_embedding(model, features, valid_grid, grid, index, seed, keys)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    drawn = []
    for number in (8, 9):
        seed.fill_(number)
        pixels.copy_(pixels.flip(0))
        graph.replay()
        places, values = step()
        assert torch.equal(captured[0], places)
        # The same kernels on the same numbers.
        torch.testing.assert_close(captured[1], values, rtol=0, atol=0)
        drawn.append(places)
    assert not torch.equal(*drawn)
