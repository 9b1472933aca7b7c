"""The saved state of weights and optimiser by parameter, the same whatever engine held it in how many pieces.

`{"model": {name: tensor}, "optimizer": {parameter: {"step", "first", "second"}}}`, every tensor whole and in
the parameter's own shape. Under ZeRO an optimiser holds flat tensors of many parameters, and each process
a part of them; what lies where is said by `Piece`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

MOMENTS = ("first", "second")

OptimizerState = dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class Piece:
    """What this process holds of a parameter, flattened.

    Attributes:
        name, shape: the parameter's.
        flat: what the optimiser steps in its place, with state of its own.
        offset: where the piece lies in `flat`.
        start, length: which elements of the parameter it is; a length of 0: none.
    """

    name: str
    shape: torch.Size
    flat: Tensor
    offset: int
    start: int
    length: int

    def of(self, flat: Tensor) -> Tensor:
        """The piece of `flat`, or of a moment that belongs to it."""
        return flat.detach().narrow(0, self.offset, self.length)

    def wanted(self, whole: Tensor) -> Tensor:
        """The same elements of the whole parameter, or of a whole moment."""
        return whole.reshape(-1).narrow(0, self.start, self.length)


def whole_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> OptimizerState:
    """The state of an optimiser that holds `model`'s parameters themselves."""
    return {
        name: {key: optimizer.state[weight][key].detach() for key in ("step", *MOMENTS)}
        for name, weight in trained(model)
        if optimizer.state.get(weight)
    }


def load_whole(model: nn.Module, optimizer: torch.optim.Optimizer, saved: OptimizerState) -> None:
    """The reverse of `whole_state`.

    Raises:
        ValueError: a state of other parameters.
    """
    named = dict(trained(model))
    check_names(saved, {name: weight.shape for name, weight in named.items()})
    optimizer.state.clear()
    for name, values in saved.items():
        state = optimizer.state[named[name]] = empty_state(named[name])
        state["step"].copy_(values["step"])
        for key in MOMENTS:
            state[key].copy_(values[key])


def trained(model: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
    """The parameters that an optimiser has, each once, with their names."""
    return ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)


def empty_state(weight: Tensor) -> dict[str, Tensor]:
    """An optimiser's state of `weight` (whole or flat) before its first step."""
    moments = {key: torch.zeros_like(weight, memory_format=torch.preserve_format) for key in MOMENTS}
    return {"step": torch.zeros((), dtype=torch.float32), **{k: v.detach() for k, v in moments.items()}}


def check_names(saved: Mapping[str, Any], wanted: Mapping[str, torch.Size]) -> None:
    """Raise ValueError, in a sentence, unless `saved` is empty or of just these parameters."""
    if "param_groups" in saved:
        raise ValueError("the optimiser's state is of an earlier version of this package")
    if not saved:
        return
    for name in wanted:
        if name not in saved:
            raise ValueError(f"it has no optimiser state of {name}")
    for name, values in saved.items():
        if name not in wanted:
            raise ValueError(f"it has optimiser state of {name}, which is not trained")
        if values["first"].shape != wanted[name]:
            raise ValueError(
                f"the optimiser's state of {name} is of shape {list(values['first'].shape)}, not"
                f" {list(wanted[name])}"
            )


def gather_pieces(
    pieces: Iterable[Piece], optimizer: torch.optim.Optimizer, *, rank: int, world: int, device: torch.device
) -> tuple[dict[str, Tensor], OptimizerState]:
    """Put the parameters and their state together in the first process; called by all.

    One parameter after the other, so `device` holds no more than three times the largest.

    Returns:
        weights and state, on the CPU; two empty dictionaries in the other processes.
    """
    weights: dict[str, Tensor] = {}
    states: OptimizerState = {}
    for piece in pieces:
        state = optimizer.state.get(piece.flat)
        sources = [piece.flat, *(state[key] for key in MOMENTS)] if state else [piece.flat]
        rows = torch.zeros(len(sources), piece.shape.numel(), device=device)
        for row, source in zip(rows, sources, strict=True):
            piece.wanted(row).copy_(piece.of(source))
        if world > 1:
            # Added as integers, one process has the bits and the others zeros: exact, also for -0.0 and NaN.
            torch.distributed.reduce(rows.view(torch.int32), dst=0)
        if rank:
            continue
        values = [row.view(piece.shape).to("cpu", copy=True) for row in rows]
        weights[piece.name] = values[0]
        if state:
            step = state["step"].detach().clone()
            states[piece.name] = {"step": step, **dict(zip(MOMENTS, values[1:], strict=True))}
    return weights, states


def scatter_pieces(
    pieces: list[Piece],
    optimizer: torch.optim.Optimizer,
    weights: Mapping[str, Tensor],
    saved: OptimizerState,
) -> None:
    """Take this process's pieces out of what `gather_pieces` returned in the first; nothing is exchanged.

    Raises:
        ValueError: a state of other parameters, or parameters of one flat tensor with unlike step counts.
    """
    check_names(saved, {piece.name: piece.shape for piece in pieces})
    _check_steps(pieces, saved)
    optimizer.state.clear()
    for piece in pieces:
        piece.of(piece.flat).copy_(piece.wanted(weights[piece.name]))
        if not saved:
            continue
        state = optimizer.state[piece.flat]
        if not state:
            state.update(empty_state(piece.flat))
        values = saved[piece.name]
        state["step"].copy_(values["step"])
        for key in MOMENTS:
            piece.of(state[key]).copy_(piece.wanted(values[key]))


def _check_steps(pieces: list[Piece], saved: OptimizerState) -> None:
    if not saved:
        return
    counts: dict[int, tuple[str, float]] = {}
    for piece in pieces:
        step = float(saved[piece.name]["step"])
        other, known = counts.setdefault(id(piece.flat), (piece.name, step))
        if known != step:
            raise ValueError(
                f"{other} had {known:.0f} updates and {piece.name} {step:.0f}, which ZeRO cannot keep apart;"
                " use training.zero_stage=0"
            )
