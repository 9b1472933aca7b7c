"""What the loop asks of an engine, and the choice between the two that there are."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pixelbert_fast.errors import UserError
from pixelbert_fast.training.deepspeed_config import Precision
from pixelbert_fast.training.optimizer import TwoAlgorithmOptimizer
from pixelbert_fast.training.ranks import PeerError, Ranks, launched, name_accelerator, ranks_from_environment


class Engine(Protocol):
    """Computes updates; the loop decides what of, and when.

    A trained parameter that an update leaves unused has gradient 0 there, in every engine.

    Attributes:
        model: what a loss is computed with; its call is the engine's forward.
        module: the module inside, of which a process may hold only a part of each weight: `gathered` has all.
        optimizer: the one whose groups hold the learning rates.
        device: where batches must be.
    """

    model: nn.Module
    module: nn.Module
    optimizer: TwoAlgorithmOptimizer
    device: torch.device

    def autocast(self) -> AbstractContextManager[Any]:
        """The context a loss is computed in."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss` (a mean over one batch) divided by the accumulation."""

    def step(self) -> bool:
        """After each backward; True when this completed an update: clipped, applied, gradients cleared."""

    def gradient_norm(self) -> float:
        """The global norm before clipping at the last update; NaN: not known. Waits for the device."""

    def gathered(self) -> AbstractContextManager[nn.Module]:
        """Inside, the first process has the module with whole weights, to evaluate, save or export.

        Entered by all processes together. The others must not call theirs, and none may train inside.
        """

    def shared_state(self) -> dict[str, Any]:
        """The state that resumes under any engine, ZeRO stage and number of processes.

        Called by all processes together; only what the first one gets is whole.

        Returns:
            "model": the module's state dict, "optimizer": see `canonical_state`, and with fp16 "scaler".
        """

    def own_state(self) -> dict[str, Any]:
        """State that differs by process; empty when there is none."""

    def load_state(self, shared: dict[str, Any], own: dict[str, Any]) -> None:
        """Take over, exactly, what the two above returned; an empty `own` when the world changed.

        Raises:
            RuntimeError, ValueError, KeyError: the state is of another model; the first line says how.
        """

    def close(self) -> None:
        """Give up what the engine holds beyond the module."""


def engine_name(wanted: str) -> str:
    """`auto` resolved: "deepspeed" when a launcher started this process, else "plain".

    Raises:
        UserError: a plain engine in one of several processes.
    """
    if wanted == "auto":
        return "deepspeed" if launched() else "plain"
    return wanted


def start_ranks(name: str) -> Ranks:
    """Join the run's processes before anything else is done together.

    Raises:
        UserError: a plain engine in one of several processes, or an engine that is not installed.
    """
    if name == "deepspeed":
        from pixelbert_fast.training import deepspeed_engine

        return deepspeed_engine.join()
    name_accelerator()
    ranks = ranks_from_environment() if launched() else Ranks()
    if ranks.world > 1:
        error = UserError(
            f"training.engine=plain runs in one process and {ranks.world} were started;"
            " use training.engine=deepspeed or start one"
        )
        raise PeerError(2) if ranks.local_rank else error  # one of each machine tells
    return ranks


def make_engine(
    name: str, model: nn.Module, optimizer: TwoAlgorithmOptimizer, config: Any, ranks: Ranks
) -> Engine:
    """Build an engine from a `RunConfig`; the model is moved to the process's device.

    Raises:
        UserError: the engine cannot do what the configuration asks for.
    """
    if name == "deepspeed":
        from pixelbert_fast.training.deepspeed_config import DeepSpeedOptions
        from pixelbert_fast.training.deepspeed_engine import DeepSpeedEngine

        return DeepSpeedEngine(model, optimizer, ranks=ranks, options=DeepSpeedOptions.of(config))
    from pixelbert_fast.training.plain_engine import PlainEngine

    return PlainEngine(
        model,
        optimizer,
        device=device_of(ranks),
        accumulation=config.training.accumulation,
        clip_norm=config.optimizer.clip_norm,
        precision=config.training.precision,
    )


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """The context in which a loss is computed in `precision`."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)


def device_of(ranks: Ranks) -> torch.device:
    """The process's GPU where there is one, else the CPU."""
    return torch.device("cuda", ranks.local_rank) if torch.cuda.is_available() else torch.device("cpu")
