"""Random calls of the public ops, right and wrong: the hypothesis strategies of `fuzz_ops` and its test."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

FLOATS = ["float32", "bfloat16", "float16", "float64"]
INTEGERS = ["int32", "int64", "int16", "int8", "uint8"]
OTHERS = ["bool", "uint16", "uint32", "uint64", "complex64", "float8_e4m3fn"]
FORMS = ["contiguous", "channels_last", "sliced", "stepped", "transposed", "expanded", "negated", "sparse"]
RIGHT_FORMS = FORMS[:-1]
LONG = 10**5000  # Python refuses to write it out
POISON = 77
"""Fills what lies around a slice: a place or image out of range, a value that no map holds."""


@dataclass(frozen=True)
class Spec:
    """A tensor to be: whole numbers from `low` to `high`, so that sums are exact in any order."""

    shape: tuple[int, ...]
    dtype: str
    form: str = "contiguous"
    device: str = "cpu"
    low: int = -2
    high: int = 2
    seed: int = 0
    special: bool = False
    grad: bool = False

    def build(self) -> Tensor:
        source = torch.Generator().manual_seed(self.seed)
        values = torch.randint(self.low, self.high + 1, self.shape, generator=source).double()
        if self.special:
            chosen = torch.randint(0, 9, self.shape, generator=source)
            for number, special in enumerate((torch.nan, torch.inf, -torch.inf)):
                values = torch.where(chosen == number, special, values)
        values = in_form(values.to(getattr(torch, self.dtype)), self.form, self.seed)
        if self.device != "cpu":
            values = values.to(self.device)
        if self.grad and values.dtype.is_floating_point:
            values = values.detach().requires_grad_()
        return values


def in_form(values: Tensor, form: str, seed: int) -> Tensor:
    """The same numbers with other strides, where the rank and dtype allow it ("expanded" repeats some)."""
    if form == "sparse":
        return values.to_sparse() if values.dim() and values.dtype in (torch.float32, torch.int64) else values
    if form == "negated" and values.dtype in (torch.float32, torch.float64):
        return torch._neg_view(-values)
    if form == "channels_last" and values.dim() == 4:
        return values.contiguous(memory_format=torch.channels_last)
    if values.dim() == 0:
        return values
    if form == "transposed" and values.dim() > 1:
        return values.transpose(-1, -2).contiguous().transpose(-1, -2)
    if form == "expanded":
        dimension = seed % values.dim()
        return values.narrow(dimension, 0, min(1, values.shape[dimension])).expand(values.shape)
    if form in ("sliced", "stepped"):
        step = 2 if form == "stepped" else 1
        larger = torch.full([2 + step * size for size in values.shape], POISON).to(values.dtype)
        return larger[tuple(slice(1, 1 + step * size, step) for size in values.shape)].copy_(values)
    return values


@dataclass(frozen=True, repr=False)
class Call:
    """An op's name and its arguments, tensors as `Spec`."""

    op: str
    arguments: dict[str, Any]

    def __repr__(self) -> str:
        written = {
            name: "10**5000" if value is LONG else repr(value) for name, value in self.arguments.items()
        }
        return f"{self.op}({', '.join(f'{name}={value}' for name, value in written.items())})"

    def built(self) -> dict[str, Any]:
        return {
            name: value.build() if isinstance(value, Spec) else value
            for name, value in self.arguments.items()
        }


# Strategies are made once: making one for each call takes longer than the call.
flags = st.booleans()
upto = cache(lambda most: st.integers(0, most))
# Sizes that are refused: any smaller one that is large only asks for more memory than there is.
huge = st.sampled_from([2**31, 2**32 + 1, 2**63, -(2**63) - 1, 10**30, -(10**30), LONG])
any_dtype = st.sampled_from(FLOATS + INTEGERS + OTHERS)
non_tensors = st.one_of(
    st.none(),
    huge,
    st.integers(-3, 3),
    st.sampled_from([1.5, float("nan"), True, "cpu", "", b"x", object, {}, [], [0, 1], (1, 2), range(3)]),
    st.sampled_from([np.arange(2), np.zeros((2, 2), dtype=np.float32), np.int64(1), np.array(["a", "b"])]),
)
any_tensor = st.builds(
    Spec,
    st.lists(st.integers(0, 3), max_size=5).map(tuple),
    any_dtype,
    st.sampled_from(FORMS),
    st.sampled_from(["cpu", "cpu", "meta"]),
    seed=upto(999),
    grad=flags,
)
anything = st.one_of(non_tensors, any_tensor)
any_seed = st.one_of(st.integers(), huge)
# Sides too large to number places, never so large that only the memory is too small.
wrong_side = st.one_of(huge, st.integers(-2, 3), st.sampled_from([2.0, True, None, "3", np.int64(2)]))
wrong_grids = st.one_of(non_tensors, st.tuples(wrong_side, wrong_side), st.tuples(huge, huge, huge))
wrong_backends = st.one_of(st.sampled_from(["triton", "cuda", "auto", "tpu", ""]), non_tensors)


def one(draw: st.DrawFn, *options: Any) -> Any:
    return options[draw(upto(len(options) - 1))]


def beyond(draw: st.DrawFn) -> int:
    """How far numbers may leave their range: mostly not at all."""
    return max(0, draw(upto(11)) - 9) ** 5


def tensor(draw: st.DrawFn, shape: tuple[int, ...], dtypes: list[str], **fixed: Any) -> Spec:
    """A tensor that an op must take, if its numbers are right."""
    return Spec(shape, one(draw, *dtypes), one(draw, *RIGHT_FORMS), seed=draw(upto(999)), **fixed)


def changed(draw: st.DrawFn, value: object) -> object:
    """`value` made wrong, or perhaps not: one property of a tensor changed, or something else altogether."""
    if not isinstance(value, Spec):
        return draw(anything)
    what = one(draw, "dtype", "device", "form", "range", "size", "rank", "other")
    if what == "dtype":
        return replace(value, dtype=draw(any_dtype))
    if what == "device":
        return replace(value, device="meta")
    if what == "form":
        return replace(value, form=one(draw, *FORMS))
    if what == "range" and value.dtype not in FLOATS:  # whose sums must stay exact
        return replace(value, low=value.low - one(draw, 0, 1, 2**40), high=value.high + 1)
    if what == "size" and value.shape:
        at, by = draw(upto(len(value.shape) - 1)), one(draw, -1, 1)
        sizes = [max(0, size + by * (at == i)) for i, size in enumerate(value.shape)]
        return replace(value, shape=tuple(sizes))
    if what == "rank":
        return replace(value, shape=one(draw, value.shape[1:], (*value.shape, 1), ()))
    return draw(anything)


def gather_arguments(draw: st.DrawFn, most_channels: int) -> dict[str, Any]:
    """Right arguments that `pool_gather` and `pixel_embed` share."""
    batch, height, width = draw(upto(3)), draw(upto(7)), draw(upto(7))
    channels = draw(upto(one(draw, 5, most_channels)))
    indexed = draw(flags)
    sequences = draw(upto(5)) if indexed and batch else batch
    places = (height // 2) * (width // 2)
    low, far = one(draw, -1, min(0, places - 1)), beyond(draw)
    shape, count = (batch, channels, height, width), draw(upto(6))
    images = {"low": 0, "high": max(batch - 1, 0) + beyond(draw)}
    return {
        "features": tensor(draw, shape, FLOATS, special=draw(upto(3)) == 0, grad=draw(flags)),
        "positions": tensor(draw, (sequences, count), INTEGERS[:-1], low=low - far, high=places - 1 + far),
        "image_index": tensor(draw, (sequences,), INTEGERS, **images) if indexed else None,
    }


def vector(draw: st.DrawFn, length: int) -> Spec:
    return tensor(draw, (length,), FLOATS, grad=draw(flags))


def pool_gather_arguments(draw: st.DrawFn) -> dict[str, Any]:
    arguments = gather_arguments(draw, 70)
    channels = arguments["features"].shape[1]
    return arguments | {"embedding": vector(draw, channels) if draw(flags) else None}


def pixel_embed_arguments(draw: st.DrawFn) -> dict[str, Any]:
    arguments, dimensions = gather_arguments(draw, 20), draw(upto(9))
    features = arguments["features"]
    shape = (dimensions, features.shape[1])
    return arguments | {
        "weight": tensor(draw, shape, [features.dtype], low=-1, high=1, grad=draw(flags)),
        "bias": vector(draw, dimensions) if draw(flags) else None,
        "embedding": vector(draw, dimensions),
        "order": one(draw, "project_pool", "pool_project"),
    }


def sample_positions_arguments(draw: st.DrawFn) -> dict[str, Any]:
    rows, sides = draw(upto(4)), (draw(upto(7)), draw(upto(7)))
    wide = {"low": -(2**62), "high": 2**62}
    return {
        "valid_grid": tensor(draw, (rows, 2), INTEGERS, low=0, high=min(sides) + beyond(draw)),
        "grid": one(draw, sides, list(sides)),
        "count": draw(upto(60)),
        "seed": tensor(draw, (), ["int64"], **wide) if draw(flags) else draw(any_seed),
        "keys": tensor(draw, (rows,), INTEGERS, **wide) if draw(flags) else None,
    }


ARGUMENTS = {
    "sample_positions": sample_positions_arguments,
    "pool_gather": pool_gather_arguments,
    "pixel_embed": pixel_embed_arguments,
}


@st.composite
def calls(draw: st.DrawFn) -> Call:
    """A call: half of them right but for the backend, in the others one or two arguments changed."""
    op = one(draw, *ARGUMENTS)
    arguments = ARGUMENTS[op](draw)
    on_meta = draw(upto(11)) == 0
    for _ in range(one(draw, 0, 0, 0, 1, 1, 2)):
        name = one(draw, *arguments)
        arguments[name] = draw(wrong_grids) if name == "grid" else changed(draw, arguments[name])
    if on_meta:
        arguments = {
            name: replace(value, device="meta") if isinstance(value, Spec) else value
            for name, value in arguments.items()
        }
    right = one(draw, None, None, None, "cpu", "cpu", "reference")
    return Call(op, arguments | {"backend": right if draw(upto(9)) else draw(wrong_backends)})
