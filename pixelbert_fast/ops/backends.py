"""Which implementation of an op runs: by argument, `ops.backend(...)`, environment, or the best there is.

A backend other than the reference is a module of this package that defines

- ``AUTOMATIC``: the device types on which it may be chosen without being named;
- ``why_not(op, device_type, dtype)``: None where it can run that op there, otherwise a sentence of why not;
- the functions of the ops it implements, which take checked arguments: ``positions``, ``image_index`` and
  ``valid_grid`` int32 and contiguous (``image_index`` None: row s reads image s), ``keys`` int64 and
  contiguous, ``seed`` a 0-d int64 tensor, all on one device; ``features`` of any strides, empty included:

  - ``sample_positions(valid_grid, grid, count, seed, keys)`` -> ``[N, count]`` int32;
  - ``pool_gather_forward(features, positions, embedding, image_index, save_winners)`` -> output ``[S, K, C]``
    and winners ``[S, K, C]`` uint8: which of its window's four pixels, in row-major order, each value came
    from (of a row without a place: anything); without `save_winners` an empty tensor;
  - ``pool_gather_backward(grad, winners, positions, image_index, shape, channels_last)`` -> the gradient of
    the features, dense, of `shape` and in that memory format;
  - ``pixel_embed_forward(features, positions, weight, vector, image_index, order)`` -> output ``[S, K, D]``
    in the dtype of `features`, and winners uint8, ``[S, K, D]`` for "project_pool" or ``[S, K, C]`` for
    "pool_project"; `vector` ``[D]`` is the embedding plus the bias;
  - ``pixel_embed_backward(grad, winners, features, positions, weight, image_index, order, wants_features,
    wants_weight)`` -> the gradients of features and weight; one that is not wanted may be an empty tensor.

Gradients of `embedding` and `vector` are sums of the rows that have a place. A backend may offer them as
``sum_rows(rows, positions, image_index, batch, places)`` -> ``[C]`` float64; otherwise PyTorch takes them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch

from ..environment import BACKEND
from .arguments import shown

REFERENCE = "reference"
MODULES = {"triton": "triton_backend", "cpu": "cpu_backend"}
"""Name and module of each backend beside the reference, in the order in which automatic choice tries them."""
BACKENDS = (REFERENCE, *MODULES)
OPS = ("sample_positions", "pool_gather", "pixel_embed")

_logger = logging.getLogger(__name__)
_selected: ContextVar[str | None] = ContextVar("pixelbert_fast_backend", default=None)
_watchers: list[list[tuple[str, str]]] = []


class BackendError(RuntimeError):
    """A backend was asked for by name and cannot run; the message says why."""


@contextmanager
def backend(name: str | None) -> Iterator[None]:
    """Ops called inside, in this thread, use the backend `name`; None chooses automatically.

    An op's own argument still wins. A graph of ``torch.compile`` keeps the backend that was chosen when it
    was compiled.

    Raises:
        ValueError: no backend has that name.
    """
    require_name("ops.backend", name)
    token = _selected.set(name or "auto")
    try:
        yield
    finally:
        _selected.reset(token)


@contextmanager
def watch() -> Iterator[list[tuple[str, str]]]:
    """For tests: yields a list that grows by ``(op, backend)`` with every op that runs, backward included."""
    ran: list[tuple[str, str]] = []
    _watchers.append(ran)
    try:
        yield ran
    finally:
        _watchers[:] = [other for other in _watchers if other is not ran]


def note(op: str, name: str) -> None:
    """Tell the watchers that `op` runs on the backend `name`."""
    if torch.compiler.is_compiling():
        return  # a registered op tells when the compiled graph runs; the reference is part of that graph
    for ran in _watchers:
        ran.append((op, name))


def require_name(op: str, name: object) -> None:
    """Raises ValueError when `name` is neither None nor a backend's name."""
    if name is not None and not (isinstance(name, str) and name in BACKENDS):
        raise ValueError(f"{op}: backend must be one of {', '.join(BACKENDS)} (or None), got {shown(name)}")


def choose(op: str, name: str | None, device_type: str, dtype: torch.dtype) -> str:
    """The backend that runs `op` on tensors of that device type and dtype; `name` is the caller's wish.

    Raises:
        ValueError: `name` is no backend's name.
        BackendError: a backend asked for by name, here or around, cannot run.
    """
    require_name(op, name)
    wish = name or _selected.get() or BACKEND.read()
    if wish != "auto":
        reason = why_not(wish, op, device_type, dtype)
        if reason is not None:
            raise BackendError(f"{op}: the backend {wish!r} cannot run: {reason}")
        return wish
    for candidate in MODULES:
        implementation = module(candidate)
        if implementation is None or device_type not in implementation.AUTOMATIC:
            continue
        reason = implementation.why_not(op, device_type, dtype)
        if reason is None:
            return candidate
        _say_once(op, candidate, reason)
    return REFERENCE


# What `torch.compiler.assume_constant_result` sets, without its import of the whole compiler: the choice is
# made in Python while a graph is traced, from names and a dtype alone.
choose._dynamo_marked_constant = True


def why_not(name: str, op: str, device_type: str, dtype: torch.dtype) -> str | None:
    """None where the backend `name` can run `op` on that device type and dtype, otherwise why not."""
    if name == REFERENCE:
        return None
    implementation = module(name)
    if implementation is None:
        return f"this version of pixelbert_fast has no {name} backend."
    return implementation.why_not(op, device_type, dtype)


@cache
def module(name: str) -> ModuleType | None:
    """The module of a backend, imported when first asked for; None where this version has none."""
    path = f"{__package__}.{MODULES[name]}"
    return import_module(path) if find_spec(path) else None


@cache
def _say_once(op: str, name: str, reason: str) -> None:
    _logger.debug("%s: automatic choice passes over the backend %r: %s", op, name, reason)
