"""The registered `pixel_embed` inside PyTorch's machinery, on the C++ kernels for CPUs."""

from __future__ import annotations

import pytest
import torch

from pixelbert_fast import ops
from pixelbert_fast.ops import backends, cpu_backend, registered
from tests.op_inputs import gather_inputs, projection
from tests.pixel_embed_checks import ORDERS

REASON = cpu_backend.why_not_loaded()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_opcheck(layout: str, order: str) -> None:
    features, positions, _, image_index = gather_inputs((2, 5, 5, 6), layout=layout)
    weight, vector, _ = (leaf.requires_grad_() for leaf in projection(5, 4))
    features, image_index = features.requires_grad_(), image_index.int()
    arguments = (features, positions, weight, vector, image_index, order, "cpu")
    torch.library.opcheck(registered.pixel_embed, arguments)
    own_images = (features, positions[:2], weight, vector, None, order, "cpu")
    torch.library.opcheck(registered.pixel_embed, own_images)
    out, winners = registered.pixel_embed(*(each.detach() for each in arguments[:5]), order, "cpu")
    rest = (features.detach(), positions, weight.detach(), image_index, order)
    for wanted in ((True, True), (False, True)):
        torch.library.opcheck(registered.pixel_embed_backward, (out, winners, *rest, *wanted, "cpu"))


@pytest.mark.parametrize("order", ORDERS)
def test_a_whole_graph_compiles_forward_and_backward(order: str) -> None:
    features, positions, _, image_index = gather_inputs((2, 6, 5, 6))
    leaves = [leaf.requires_grad_() for leaf in (features, *projection(6, 4))]

    def step(features, weight, bias, embedding):
        pixels = ops.pixel_embed(
            features * 2, positions, weight, bias, embedding, image_index=image_index, order=order
        )
        return (pixels**2).sum()

    plain = torch.autograd.grad(step(*leaves), leaves)
    torch.compiler.reset()
    with backends.watch() as ran:
        compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
        found = torch.autograd.grad(compiled(*leaves), leaves)
    assert {("pixel_embed", "cpu"), ("pixel_embed_backward", "cpu")} <= set(ran)
    assert {name for _, name in ran} == {"cpu"}
    torch.testing.assert_close(found, plain)


@pytest.mark.parametrize("order", ORDERS)
def test_autocast_makes_bfloat16_of_both_factors(order: str) -> None:
    features, positions, _, image_index = gather_inputs((2, 37, 6, 8))
    weight, bias, embedding = projection(37, 20)
    leaves = [leaf.requires_grad_() for leaf in (features, weight, bias, embedding)]
    options = {"image_index": image_index, "order": order}
    found = {}
    for backend in ("cpu", "reference"):
        with torch.autocast("cpu", torch.bfloat16):
            out = ops.pixel_embed(features, positions, *leaves[1:], **options, backend=backend)
            found[backend] = [out, *torch.autograd.grad(out.float().sum(), leaves)]
    assert all(a.dtype == b.dtype for a, b in zip(found["cpu"], found["reference"], strict=True))
    assert all(grad.isfinite().all() and grad.any() for grad in found["cpu"][1:])
    rounded = features.bfloat16(), positions, weight.bfloat16(), bias, embedding
    out = ops.pixel_embed(*rounded, **options, backend="cpu")
    assert torch.equal(found["cpu"][0], out.to(found["cpu"][0].dtype))


def test_it_is_chosen_by_itself() -> None:
    features, positions, _, image_index = gather_inputs((2, 5, 4, 6))
    leaves = [leaf.requires_grad_() for leaf in (features, *projection(5, 4))]
    with backends.watch() as ran:
        ops.pixel_embed(features, positions, *leaves[1:], image_index=image_index).sum().backward()
    assert ran[:2] == [("pixel_embed", "cpu"), ("pixel_embed_backward", "cpu")]
    assert "on cuda" in cpu_backend.why_not("pixel_embed", "cuda", torch.float32)
    assert "no kernel for torch.int8" in cpu_backend.why_not("pixel_embed", "cpu", torch.int8)
