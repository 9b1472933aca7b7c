"""The ops as PyTorch knows them: schema, fake kernels, autograd, and what they refuse.

Each calls the backend that its last argument names. The references of pool_gather and pixel_embed are not
among them: they are plain PyTorch and need no registration. Arguments have been checked, and integers made
int32, by `functional`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import backends
from .sample_positions_reference import sample_positions_reference


@torch.library.custom_op(
    "pixelbert_fast::sample_positions",
    mutates_args=(),
    schema="(Tensor valid_grid, SymInt h, SymInt w, SymInt count, Tensor seed, Tensor keys, str backend)"
    " -> Tensor",
)
def sample_positions(
    valid_grid: Tensor, h: int, w: int, count: int, seed: Tensor, keys: Tensor, backend: str
) -> Tensor:
    """The reference too: Philox in compiled code takes minutes to compile and, with products that exceed an
    int64 in generated C++, gave other words (torch 2.13).
    """
    backends.note("sample_positions", backend)
    if backend == backends.REFERENCE:
        return sample_positions_reference(valid_grid, (h, w), count, seed=seed, keys=keys)
    return backends.module(backend).sample_positions(valid_grid, (h, w), count, seed, keys)


@sample_positions.register_fake
def _(valid_grid, h, w, count, seed, keys, backend):
    return valid_grid.new_empty((valid_grid.shape[0], count), dtype=torch.int32)


@torch.library.custom_op(
    "pixelbert_fast::pool_gather",
    mutates_args=(),
    schema="(Tensor features, Tensor positions, Tensor? embedding, Tensor? image_index, bool save_winners,"
    " str backend) -> (Tensor, Tensor)",
)
def pool_gather(
    features: Tensor,
    positions: Tensor,
    embedding: Tensor | None,
    image_index: Tensor | None,
    save_winners: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """The gradient of `features` needs the winners; where it is not wanted they are an empty tensor."""
    backends.note("pool_gather", backend)
    return backends.module(backend).pool_gather_forward(
        features, positions, embedding, image_index, save_winners
    )


@pool_gather.register_fake
def _(features, positions, embedding, image_index, save_winners, backend):
    shape = (*positions.shape, features.shape[1])
    return features.new_empty(shape), features.new_empty(shape if save_winners else 0, dtype=torch.uint8)


@torch.library.custom_op(
    "pixelbert_fast::pool_gather_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor winners, Tensor positions, Tensor? image_index, SymInt[] shape,"
    " bool channels_last, str backend) -> Tensor",
)
def pool_gather_backward(
    grad: Tensor,
    winners: Tensor,
    positions: Tensor,
    image_index: Tensor | None,
    shape: list[int],
    channels_last: bool,
    backend: str,
) -> Tensor:
    backends.note("pool_gather_backward", backend)
    return backends.module(backend).pool_gather_backward(
        grad, winners, positions, image_index, shape, channels_last
    )


@pool_gather_backward.register_fake
def _(grad, winners, positions, image_index, shape, channels_last, backend):
    return _dense(grad, shape, channels_last)


@torch.library.custom_op(
    "pixelbert_fast::pixel_embed",
    mutates_args=(),
    schema="(Tensor features, Tensor positions, Tensor weight, Tensor vector, Tensor? image_index, str order,"
    " str backend) -> (Tensor, Tensor)",
)
def pixel_embed(
    features: Tensor,
    positions: Tensor,
    weight: Tensor,
    vector: Tensor,
    image_index: Tensor | None,
    order: str,
    backend: str,
) -> tuple[Tensor, Tensor]:
    backends.note("pixel_embed", backend)
    return backends.module(backend).pixel_embed_forward(
        features, positions, weight, vector, image_index, order
    )


@pixel_embed.register_fake
def _(features, positions, weight, vector, image_index, order, backend):
    pooled = weight.shape[0] if order == "project_pool" else weight.shape[1]
    return (
        features.new_empty((*positions.shape, weight.shape[0])),
        features.new_empty((*positions.shape, pooled), dtype=torch.uint8),
    )


@torch.library.custom_op(
    "pixelbert_fast::pixel_embed_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor winners, Tensor features, Tensor positions, Tensor weight,"
    " Tensor? image_index, str order, bool wants_features, bool wants_weight, str backend)"
    " -> (Tensor, Tensor)",
)
def pixel_embed_backward(
    grad: Tensor,
    winners: Tensor,
    features: Tensor,
    positions: Tensor,
    weight: Tensor,
    image_index: Tensor | None,
    order: str,
    wants_features: bool,
    wants_weight: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    backends.note("pixel_embed_backward", backend)
    grad_features, grad_weight = backends.module(backend).pixel_embed_backward(
        grad, winners, features, positions, weight, image_index, order, wants_features, wants_weight
    )
    return (
        grad_features if wants_features else grad.new_empty(0),
        grad_weight if wants_weight else grad.new_empty(0),
    )


@pixel_embed_backward.register_fake
def _(grad, winners, features, positions, weight, image_index, order, wants_features, wants_weight, backend):
    channels_last = prefers_channels_last(features)
    return (
        _dense(grad, features.shape, channels_last) if wants_features else grad.new_empty(0),
        grad.new_empty(weight.shape) if wants_weight else grad.new_empty(0),
    )


def prefers_channels_last(features: Tensor) -> bool:
    """Whether neighbours in memory are channels: the layout that the gradient then gets as well."""
    return features.stride(1) == 1


def _dense(like: Tensor, shape: list[int], channels_last: bool) -> Tensor:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout)


@torch.library.custom_op(
    "pixelbert_fast::sum_rows",
    mutates_args=(),
    schema="(Tensor rows, Tensor positions, Tensor? image_index, SymInt batch, SymInt places, str backend)"
    " -> Tensor",
)
def sum_rows(
    rows: Tensor, positions: Tensor, image_index: Tensor | None, batch: int, places: int, backend: str
) -> Tensor:
    """``[C]`` float64: the sum of the rows ``[S, K, C]`` that have a place."""
    implementation = backends.module(backend)
    if hasattr(implementation, "sum_rows"):
        return implementation.sum_rows(rows, positions, image_index, batch, places)
    inside = (positions >= 0) & (positions < places)
    if image_index is not None:
        inside = inside & ((image_index >= 0) & (image_index < batch))[:, None]
    wide = torch.float64 if rows.dtype == torch.float64 else torch.float32
    return torch.where(inside[..., None], rows, 0).sum((0, 1), dtype=wide).double()


@sum_rows.register_fake
def _(rows, positions, image_index, batch, places, backend):
    return rows.new_empty(rows.shape[2], dtype=torch.float64)


def _gradient_of_vector(ctx, grad, positions, image_index, shape, dtype):
    batch, _, height, width = shape
    places = (height // 2) * (width // 2)
    return sum_rows(grad, positions, image_index, batch, places, ctx.backend).to(dtype)


def _pool_gather_setup(ctx, inputs, output):
    features, positions, embedding, image_index, ctx.has_winners, ctx.backend = inputs
    ctx.shape, ctx.channels_last = features.shape, prefers_channels_last(features)
    ctx.embedding_dtype = None if embedding is None else embedding.dtype
    ctx.save_for_backward(output[1], positions, image_index)
    ctx.set_materialize_grads(False)


def _pool_gather_gradients(ctx, grad, _):
    if grad is None:
        return None, None, None, None, None, None
    winners, positions, image_index = ctx.saved_tensors
    grad_features = grad_embedding = None
    if ctx.needs_input_grad[0]:
        if not ctx.has_winners:
            raise RuntimeError("pool_gather: features need a gradient now and did not in the forward")
        grad_features = pool_gather_backward(
            grad, winners, positions, image_index, ctx.shape, ctx.channels_last, ctx.backend
        )
    if ctx.needs_input_grad[2]:
        grad_embedding = _gradient_of_vector(
            ctx, grad, positions, image_index, ctx.shape, ctx.embedding_dtype
        )
    return grad_features, None, grad_embedding, None, None, None


def _pixel_embed_setup(ctx, inputs, output):
    features, positions, weight, vector, image_index, ctx.order, ctx.backend = inputs
    ctx.vector_dtype = vector.dtype
    ctx.save_for_backward(output[1], features, positions, weight, image_index)
    ctx.set_materialize_grads(False)


def _pixel_embed_gradients(ctx, grad, _):
    if grad is None:
        return None, None, None, None, None, None, None
    winners, features, positions, weight, image_index = ctx.saved_tensors
    wants_features, _, wants_weight, wants_vector = ctx.needs_input_grad[:4]
    grad_features = grad_weight = grad_vector = None
    if wants_features or wants_weight:
        grad_features, grad_weight = pixel_embed_backward(
            grad, winners, features, positions, weight, image_index, ctx.order, wants_features, wants_weight,
            ctx.backend,
        )  # fmt: skip
    if wants_vector:
        grad_vector = _gradient_of_vector(ctx, grad, positions, image_index, features.shape, ctx.vector_dtype)
    return (
        grad_features if wants_features else None,
        None,
        grad_weight if wants_weight else None,
        grad_vector,
        None,
        None,
        None,
    )


pool_gather.register_autograd(_pool_gather_gradients, setup_context=_pool_gather_setup)
pixel_embed.register_autograd(_pixel_embed_gradients, setup_context=_pixel_embed_setup)


def _refuse_second_derivatives(name: str):
    def refuse(ctx, *_):
        raise RuntimeError(
            f"{name}: its gradient cannot be differentiated again; use backend='reference' for that"
        )

    return refuse


def _refuse_vmap(name: str):
    def refuse(info, in_dims, *_):
        raise NotImplementedError(
            f"{name}: torch.func.vmap is not supported; the op takes batches by itself (image_index lets many"
            " rows read one image), or use backend='reference'"
        )

    return refuse


pool_gather_backward.register_autograd(_refuse_second_derivatives("pool_gather"))
pixel_embed_backward.register_autograd(_refuse_second_derivatives("pixel_embed"))
sum_rows.register_autograd(_refuse_second_derivatives("pool_gather"))
for _name, _op in (
    ("sample_positions", sample_positions),
    ("pool_gather", pool_gather),
    ("pool_gather", pool_gather_backward),
    ("pool_gather", sum_rows),
    ("pixel_embed", pixel_embed),
    ("pixel_embed", pixel_embed_backward),
):
    _op.register_vmap(_refuse_vmap(_name))
