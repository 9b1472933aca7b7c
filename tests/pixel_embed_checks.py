"""What `pixel_embed` on a CPU is held against: float64, given the pixels that won, and the reference."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelbert_fast import ops
from pixelbert_fast.ops import backends, cpu_backend
from pixelbert_fast.ops.pixel_embed_reference import pixel_embed_reference
from tests.op_inputs import in_layout, normal

ORDERS = ["project_pool", "pool_project"]


def run(
    backend: str, features, positions, weight, embedding, image_index, order, grad=None, bias=None
) -> list[Tensor | None]:
    """Output and, given its gradient, the gradients of features, weight, embedding and bias."""
    leaves = [
        None if leaf is None else leaf.detach().requires_grad_()
        for leaf in (features, weight, embedding, bias)
    ]
    features, weight, embedding, bias = leaves
    with backends.watch() as ran:
        out = ops.pixel_embed(
            features, positions, weight, bias, embedding,
            image_index=image_index, order=order, backend=backend,
        )  # fmt: skip
        grads = [None] * 4
        if grad is not None:
            grads = torch.autograd.grad(out, [leaf for leaf in leaves if leaf is not None], grad)
    assert {name for _, name in ran} == {backend}
    return [out.detach(), *grads]


def pixels_of_windows(values: Tensor, positions: Tensor, image_index: Tensor) -> Tensor:
    """``[S, K, 4, C]``: the pixels of the window at each place, -1 read as 0."""
    batch, channels, height, width = values.shape
    h, w = height // 2, width // 2
    windows = values[:, :, : 2 * h, : 2 * w].reshape(batch, channels, h, 2, w, 2)
    windows = windows.permute(0, 2, 4, 3, 5, 1).reshape(batch, h * w, 4, channels)
    return windows[image_index.long()[:, None], positions.long().clamp(min=0)]


def max_pool_winners(values: Tensor, positions: Tensor, image_index: Tensor) -> Tensor:
    """``[S, K, C]``: which of its window's four pixels max_pool2d takes."""
    windows = pixels_of_windows(values, positions, image_index).transpose(2, 3).to(torch.float64)
    _, winners = F.max_pool2d(windows.reshape(-1, 1, 2, 2), 2, return_indices=True)
    return winners.view(windows.shape[:-1])


def exact_gradients(
    grad: Tensor, winners: Tensor, features: Tensor, positions: Tensor, weight: Tensor, image_index, order
) -> list[Tensor]:
    """Gradients of features and weight in float64 when those pixels win."""
    grad, features, weight = (each.double() for each in (grad, features, weight))
    grad = torch.where((positions >= 0)[..., None], grad, 0)
    won = F.one_hot(winners.long(), 4).movedim(-1, 2).double()  # [S, K, 4, D or C]
    features = features.detach().requires_grad_()
    pixels = pixels_of_windows(features, positions, image_index)
    weight = weight.detach().requires_grad_()
    if order == "project_pool":
        out = ((pixels @ weight.t()) * won).sum(2)
    else:
        out = (pixels * won).sum(2) @ weight.t()
    out.backward(grad)
    return [features.grad, weight.grad]


def assert_closer_than_reference(
    result: Tensor, reference: Tensor, of_reference: Tensor, exact: Tensor
) -> None:
    """The error is at most twice PyTorch's own in that dtype, or a few roundings where PyTorch was lucky.

    `of_reference` is what PyTorch's result would be without errors: near ties it may take another pixel.
    """
    assert result.dtype == reference.dtype and result.shape == reference.shape
    if not result.numel():
        return
    luck = 4 * torch.finfo(result.dtype).eps * exact.abs().max()
    allowed = 2 * (reference.double() - of_reference).abs().max() + luck
    assert (result.double() - exact).abs().max() <= allowed


def assert_right(features, positions, weight, embedding, image_index, order, bias=None) -> None:
    """Output and gradients against float64, and as near to it as PyTorch's own."""
    dtype = features.dtype
    grad = normal((*positions.shape, weight.shape[0]), dtype, seed=9)
    arguments = (features, positions, weight, embedding, image_index, order, grad, bias)
    found, plain = run("cpu", *arguments), run("reference", *arguments)
    wide = [each.double() for each in (features, weight, embedding if bias is None else embedding + bias)]
    exact = pixel_embed_reference(
        wide[0], positions, wide[1], None, wide[2], image_index=image_index, order=order
    )
    assert_closer_than_reference(found[0], plain[0], exact, exact)
    layout = torch.channels_last if features.stride(1) == 1 else torch.contiguous_format
    assert found[1].is_contiguous(memory_format=layout)

    image_index = torch.arange(features.shape[0]) if image_index is None else image_index
    _, winners = cpu_backend.pixel_embed_forward(
        features, positions.int(), weight, embedding, image_index.int(), order
    )
    maximum_of = F.conv2d(features, weight[:, :, None, None]) if order == ORDERS[0] else features
    plain_winners = max_pool_winners(maximum_of, positions, image_index)
    rest = (features, positions, weight, image_index, order)
    exact, of_plain = exact_gradients(grad, winners, *rest), exact_gradients(grad, plain_winners, *rest)
    for result, reference, of_reference, truth in zip(found[1:3], plain[1:3], of_plain, exact, strict=True):
        assert_closer_than_reference(result, reference, of_reference, truth)
    # A sum of at most 45 numbers of about 1, in another order, rounded once.
    bound = 45 * max(torch.finfo(dtype).eps / 8, torch.finfo(torch.promote_types(dtype, torch.float32)).eps)
    torch.testing.assert_close(found[3], plain[3], rtol=bound, atol=bound)
    if bias is not None:
        assert torch.equal(found[4], found[3])


def whole_numbers(shape, dtype=torch.float32, layout="contiguous", *, low=-1, seed=0) -> Tensor:
    """Of few different values, so that products and sums are exact in every dtype and ties are frequent."""
    drawn = torch.randint(low, 2, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return in_layout(drawn, layout) if len(shape) == 4 else drawn
