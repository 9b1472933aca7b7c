"""Random calls of the public ops, right and wrong: the hypothesis strategies of `fuzz_ops` and its test."""

from __future__ import annotations

from dataclasses import dataclass, replace
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


seeds = st.integers(0, 999)
huge = st.sampled_from([2**31 - 1, 2**31, 2**32 + 1, 2**63, -(2**63) - 1, 10**30, -(10**30), LONG])
ranges_beyond = st.sampled_from([0] * 10 + [1, 50])
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
    seed=seeds,
    grad=st.booleans(),
)
right_backends = st.sampled_from([None, None, None, "cpu", "cpu", "reference"])
wrong_backends = st.one_of(st.sampled_from(["triton", "cuda", "auto", "tpu", ""]), non_tensors)


@st.composite
def changed(draw: st.DrawFn, value: object) -> object:
    """`value` made wrong, or perhaps not: one property of a tensor changed, or something else altogether."""
    if not isinstance(value, Spec):
        return draw(st.one_of(non_tensors, any_tensor))
    what = draw(st.sampled_from(["dtype", "device", "form", "range", "size", "rank", "other"]))
    if what == "dtype":
        return replace(value, dtype=draw(any_dtype))
    if what == "device":
        return replace(value, device="meta")
    if what == "form":
        return replace(value, form=draw(st.sampled_from(FORMS)))
    if what == "range":
        return replace(value, low=value.low - draw(st.sampled_from([0, 1, 2**40])), high=value.high + 1)
    if what == "size" and value.shape:
        at, by = draw(st.integers(0, len(value.shape) - 1)), draw(st.sampled_from([-1, 1]))
        sizes = [max(0, size + by * (at == i)) for i, size in enumerate(value.shape)]
        return replace(value, shape=tuple(sizes))
    if what == "rank":
        return replace(value, shape=draw(st.sampled_from([value.shape[1:], (*value.shape, 1), ()])))
    return draw(st.one_of(non_tensors, any_tensor))


def tensors(shape: tuple[int, ...], dtypes: list[str], **fixed: Any) -> st.SearchStrategy[Spec]:
    """Tensors of that shape that an op must take."""
    forms = st.sampled_from(RIGHT_FORMS)
    return st.builds(Spec, st.just(shape), st.sampled_from(dtypes), forms, seed=seeds, **fixed)


@st.composite
def gather_arguments(draw: st.DrawFn, most_channels: int) -> dict[str, Any]:
    """Right arguments that `pool_gather` and `pixel_embed` share."""
    batch, height, width = draw(st.integers(0, 3)), draw(st.integers(0, 7)), draw(st.integers(0, 7))
    channels = draw(st.one_of(st.integers(0, 5), st.integers(0, most_channels)))
    indexed = draw(st.booleans())
    sequences = draw(st.integers(0, 5)) if indexed and batch else batch
    places = (height // 2) * (width // 2)
    low, beyond = draw(st.sampled_from([-1, min(0, places - 1)])), draw(ranges_beyond)
    special = draw(st.integers(0, 3)) == 0
    shape = (batch, channels, height, width)
    return {
        "features": draw(tensors(shape, FLOATS, special=st.just(special), grad=st.booleans())),
        "positions": draw(
            tensors(
                (sequences, draw(st.integers(0, 6))),
                INTEGERS[:-1],
                low=st.just(low - beyond),
                high=st.just(places - 1 + beyond),
            )
        ),
        "image_index": draw(
            tensors(
                (sequences,), INTEGERS, low=st.just(0), high=st.just(max(batch - 1, 0) + draw(ranges_beyond))
            )
        )
        if indexed
        else None,
    }


@st.composite
def pool_gather_arguments(draw: st.DrawFn) -> dict[str, Any]:
    arguments = draw(gather_arguments(70))
    vector = tensors((arguments["features"].shape[1],), FLOATS, grad=st.booleans())
    return arguments | {"embedding": draw(st.one_of(st.none(), vector))}


@st.composite
def pixel_embed_arguments(draw: st.DrawFn) -> dict[str, Any]:
    arguments = draw(gather_arguments(20))
    features, dimensions = arguments["features"], draw(st.integers(0, 9))
    vector = tensors((dimensions,), FLOATS, grad=st.booleans())
    return arguments | {
        "weight": draw(
            tensors((dimensions, features.shape[1]), [features.dtype], low=st.just(-1), high=st.just(1),
                    grad=st.booleans())
        ),
        "bias": draw(st.one_of(st.none(), vector)),
        "embedding": draw(vector),
        "order": draw(st.sampled_from(["project_pool", "pool_project"])),
    }  # fmt: skip


@st.composite
def sample_positions_arguments(draw: st.DrawFn) -> dict[str, Any]:
    rows, sides = draw(st.integers(0, 4)), (draw(st.integers(0, 7)), draw(st.integers(0, 7)))
    keys = tensors((rows,), INTEGERS, low=st.just(-(2**62)), high=st.just(2**62))
    seed_tensor = tensors((), ["int64"], low=st.just(-(2**62)), high=st.just(2**62))
    return {
        "valid_grid": draw(
            tensors((rows, 2), INTEGERS, low=st.just(0), high=st.just(min(sides) + draw(ranges_beyond)))
        ),
        "grid": sides if draw(st.booleans()) else list(sides),
        "count": draw(st.integers(0, 60)),
        "seed": draw(st.one_of(st.integers(), huge, seed_tensor)),
        "keys": draw(st.one_of(st.none(), keys)),
    }


@st.composite
def wrong_grids(draw: st.DrawFn) -> object:
    """Sides that are too large to number places, never so large that only the memory is too small."""
    side = st.one_of(huge, st.integers(-2, 3), st.sampled_from([2.0, True, None, "3", np.int64(2)]))
    grid = draw(st.lists(side, min_size=1, max_size=3).map(tuple))
    return draw(non_tensors) if len(grid) == 1 else grid


ARGUMENTS = {
    "sample_positions": sample_positions_arguments(),
    "pool_gather": pool_gather_arguments(),
    "pixel_embed": pixel_embed_arguments(),
}


@st.composite
def calls(draw: st.DrawFn) -> Call:
    """A call: half of them right but for the backend, in the others one or two arguments changed."""
    op = draw(st.sampled_from(list(ARGUMENTS)))
    arguments = draw(ARGUMENTS[op])
    on_meta = draw(st.integers(0, 11)) == 0
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2]))):
        name = draw(st.sampled_from(list(arguments)))
        if name == "grid":
            arguments["grid"] = draw(wrong_grids())
        else:
            arguments[name] = draw(changed(arguments[name]))
    if on_meta:
        arguments = {
            name: replace(value, device="meta") if isinstance(value, Spec) else value
            for name, value in arguments.items()
        }
    backend = draw(right_backends if draw(st.integers(0, 9)) else wrong_backends)
    return Call(op, arguments | {"backend": backend})
