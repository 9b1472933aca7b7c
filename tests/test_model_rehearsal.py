"""The checks of test_model_cuda.py on a CPU, as it is and over emulated kernels of a GPU."""

import pytest
import torch

from pixelbert_fast.model import fast_backbone, fused_convolution, packed_attention
from tests import model_checks
from tests.cudnn_emulation import emulated_cudnn
from tests.flash_emulation import emulated_flash
from tests.task_models import NLVR2, RETRIEVAL, VQA


@pytest.fixture(params=["as-it-is", "padded", "emulated-gpu"])
def kernels(request, monkeypatch):
    """Yields the implementation of attention that must run."""
    if request.param == "as-it-is":
        yield "each"
        return
    name = {"padded": "padded", "emulated-gpu": "varlen"}[request.param]
    monkeypatch.setattr(packed_attention, "choose", lambda *_: name)
    if name == "padded":
        yield name
        return
    # What only a CPU does would come before it.
    monkeypatch.setattr(fast_backbone, "in_one_pass", lambda _: False, raising=False)
    monkeypatch.setattr(fused_convolution, "why_not_fused", lambda *_: None)
    monkeypatch.setattr(fused_convolution, "_refused", set())
    with emulated_flash(), emulated_cudnn() as ran:
        yield name
    model_checks.check_nothing_refused()
    assert ran or request.node.callspec.params.get("norm") != "frozen"


@pytest.mark.parametrize("task", [False, True])
@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_float32(kernels, norm, task):
    with model_checks.attention_that_ran() as ran:
        model_checks.check_float32("cpu", norm, task, sizes=norm == "batch")
    assert set(ran) == {kernels}


@pytest.mark.parametrize("task", [False, True])
@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_half(kernels, norm, task):
    with model_checks.attention_that_ran() as ran:
        model_checks.check_half("cpu", torch.bfloat16, norm, task)
    assert set(ran) == {kernels}


def test_curve(kernels):
    model_checks.check_curve("cpu", "frozen")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout(kernels, dtype):
    model_checks.check_dropout("cpu", dtype)
    model_checks.check_dropout_of_forward_and_backward_agree("cpu", dtype, kernels)


@pytest.mark.parametrize("kind", [VQA, NLVR2, RETRIEVAL])
def test_downstream(kernels, kind):
    with model_checks.attention_that_ran() as ran:
        model_checks.check_downstream("cpu", torch.bfloat16, kind)
    assert set(ran) == {kernels}


def test_compiled(kernels):
    model_checks.check_compiled("cpu", torch.float32, "aot_eager")


def test_sampled_embedding():
    """What the CUDA graph captures is what the model does."""
    model = model_checks.models("cpu", norm="frozen")[1].train()
    given = model_checks.inputs("cpu", positions=None)
    pixels, index, keys = given["pixel_values"], given["image_index"], torch.tensor([4, 2, 9])
    tokens = model.embed(**given, seed=7, sample_keys=keys)
    valid_grid, grid = model.grids(pixels, None)
    features = model.run_backbone(pixels, None)
    seed = torch.tensor(7)
    found = model_checks.sampled_embedding(model, features, valid_grid, grid, index, seed, keys)
    assert torch.equal(found[0], tokens.positions) and torch.equal(found[1], tokens.pixels)
