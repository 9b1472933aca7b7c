"""DeepSpeed as an engine. The only file that imports it, and only when it is used.

fp32 at every ZeRO stage, bf16 and fp16 through autocast and never through its own modes: that of bf16 makes
an extra update of Adam's state at stage 0, and both turn batch-norm statistics to half precision.

Stage 3 divides the weights after the model has been built (`zero.Init` would build others). What
FastPixelBERT reads without calling its module (the pixel projection; on a GPU also convolutions with their
norms folded in, and queries, keys and values) DeepSpeed finds at the first forward and keeps whole from a
forward's use to the end of its backward. All processes must use the same modules in each update, as both
tasks do.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from pixelbert_fast.errors import UserError
from pixelbert_fast.training.canonical_state import (
    Piece,
    gather_pieces,
    load_whole,
    scatter_pieces,
    trained,
    whole_state,
)
from pixelbert_fast.training.deepspeed_config import DeepSpeedOptions
from pixelbert_fast.training.deepspeed_zero import (
    Twin,
    forget_gradients,
    pieces_of,
    set_whole_weights,
    whole_weights,
)
from pixelbert_fast.training.engine import autocast
from pixelbert_fast.training.loss_scale import LossScale, unscale
from pixelbert_fast.training.optimizer import TwoAlgorithmOptimizer
from pixelbert_fast.training.ranks import PATIENCE, Ranks, name_accelerator, ranks_from_environment
from pixelbert_fast.training.roll_call import call_the_roll

_SHARED_MEMORY_OP = "deepspeed_shm_comm"


def import_deepspeed() -> Any:
    """DeepSpeed, quiet, and without its shared-memory op where there is no GPU.

    That op takes minutes to compile and leaves its buffers (69 MB a process) in /dev/shm after every run, a
    clean one too. Marked as not compatible, it is neither compiled nor loaded, and gloo does its work.

    Raises:
        UserError: it is not installed.
    """
    name_accelerator()
    try:
        import deepspeed
        import deepspeed.ops
    except ImportError as error:
        raise UserError(
            f"DeepSpeed cannot be imported ({error}); the package's extra `train` brings it,"
            " or use training.engine=plain"
        ) from None
    if not torch.cuda.is_available():
        deepspeed.ops.__compatible_ops__[_SHARED_MEMORY_OP] = False
    deepspeed.utils.logger.setLevel("WARNING")
    deepspeed.utils.logger.addFilter(_not_told_by_us)
    # What it calls torch 2.13 names otherwise, and says so to every process of every run.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    return deepspeed


def _not_told_by_us(record: logging.LogRecord) -> bool:
    # The loop says which update was left out and why; fp16's search for its scale is no reason to warn.
    return "OVERFLOW!" not in record.getMessage()


def join() -> Ranks:
    """Join the processes the launcher started, or be the only one."""
    deepspeed = import_deepspeed()
    ranks = ranks_from_environment()
    for name, value in (("RANK", 0), ("LOCAL_RANK", 0), ("WORLD_SIZE", 1), ("MASTER_ADDR", "127.0.0.1")):
        os.environ.setdefault(name, str(value))
    if ranks.world == 1:
        # Nobody else needs to know the port, and with the launcher's own two runs on a machine would collide.
        os.environ["MASTER_PORT"] = str(_free_port())
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(ranks.local_rank)
    if not torch.distributed.is_initialized():
        backend = "nccl" if cuda else "gloo"
        deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
    if ranks.world == 1:
        return ranks
    group = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
    return ranks_from_environment(group, call_the_roll(ranks))


def leave() -> None:
    """Close the process group, if there is one; without it gloo and NCCL warn at exit."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def row_major(model: nn.Module) -> list[tuple[nn.Parameter, tuple[int, ...]]]:
    """Lays out every weight row by row, and says which had which strides.

    DeepSpeed broadcasts them as bytes, which fails for channels_last; ZeRO keeps them row by row for good.
    """
    found = []
    for weight in model.parameters():
        plain = weight.data.clone(memory_format=torch.contiguous_format)
        if plain.stride() != weight.stride():
            found.append((weight, weight.stride()))
            weight.data = plain
    return found


class DeepSpeedEngine:
    """See `engine.Engine`; one of `ranks.world` processes, gradients averaged over them.

    Each process's loss is a mean over its own batch, and the processes' gradients are averaged with equal
    weight.

    Raises:
        UserError: DeepSpeed refuses what the `deepspeed:` block says.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: TwoAlgorithmOptimizer,
        *,
        ranks: Ranks,
        options: DeepSpeedOptions | None = None,
    ) -> None:
        options = options or DeepSpeedOptions()
        self._deepspeed = deepspeed = import_deepspeed()
        self._stage = options.zero_stage
        self._twin = Twin(model) if self._stage == 3 and ranks.first else None
        elements = sum(weight.numel() for _, weight in trained(model))
        # It warns of every optimiser it does not know; this one is tested.
        deepspeed.utils.logger.setLevel("ERROR")
        # A global of DeepSpeed's: an engine of another precision before this one would decide for it.
        deepspeed.runtime.torch_autocast.TORCH_AUTOCAST_INITIALIZED = False
        layouts = row_major(model)
        try:
            engine, *_ = deepspeed.initialize(
                model=model,
                optimizer=optimizer,
                config=options.dictionary(elements),
                dist_init_required=False,
            )
        except (ValueError, AssertionError, TypeError) as error:
            if not options.extra:
                raise
            lines = [line.strip() for line in str(error).splitlines() if "further information" not in line]
            raise UserError(f"DeepSpeed refuses the block deepspeed: {', '.join(lines)}") from None
        if self._stage == 0:
            for weight, strides in layouts:
                weight.data = torch.empty_strided(
                    weight.shape, strides, dtype=weight.dtype, device=weight.device
                ).copy_(weight.data)
        deepspeed.utils.logger.setLevel("WARNING")
        if self._stage == 0 and ranks.world == 1:
            # It would copy all gradients together, average them over one process and copy them apart.
            engine.enable_backward_allreduce = False
        self.model = self._engine = engine
        self.module = engine.module
        self.optimizer = optimizer
        self.device = torch.device(engine.device)
        self._weights = [weight for _, weight in trained(self.module)]
        self._precision = options.precision
        self._ranks = ranks
        # DeepSpeed's own forgets the norm at stage 0; above it no process has all gradients.
        optimizer.clip_norm = options.clip_norm if self._stage == 0 else None
        self._scale = LossScale() if options.precision == "fp16" else None
        if self._scale is not None:
            self._take_over_scaling()

    def _take_over_scaling(self) -> None:
        """Put our loss scale in place of torch's, which DeepSpeed asks group by group and process by process.

        So one group could be updated and another not. Its own path asks once: of the norm of all gradients.
        """
        self._engine.torch_autocast_z0_gradscaler = None
        if self._stage > 0:
            zero = self._engine.optimizer
            zero.torch_autocast_gradscaler = None
            zero.loss_scaler, zero.dynamic_loss_scale = self._scale, True

    def autocast(self) -> AbstractContextManager[Any]:
        # DeepSpeed's own covers its forward; what a task computes after it (a loss, a head) comes under this
        # one.
        return autocast(self.device, self._precision)

    def backward(self, loss: Tensor) -> None:
        if self._stage == 0 and self._scale is not None:
            loss = self._scale.scale_loss(loss)
        self._engine.backward(loss)

    def step(self) -> bool:
        done = self._engine.is_gradient_accumulation_boundary()
        if done and self._stage == 0:
            self._prepare_gradients()
        self._engine.step()
        if done and self._stage > 0:
            self._note_skipped()
        if done and self._stage == 3:
            forget_gradients(self._engine.optimizer)
        if done and self._scale is not None:
            self._scale.settle()
        return done

    def _prepare_gradients(self) -> None:
        """What the other stages do by themselves; the backward has averaged over the processes already."""
        for weight in self._weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        if self._scale is not None:
            finite = unscale(self._weights, self._scale.cur_scale)
            self._scale.update_scale(not finite)
            if not finite:
                self.optimizer.zero_grad(set_to_none=True)

    def _note_skipped(self) -> None:
        # ZeRO leaves everything as it is where the norm of all gradients is not finite, without a word to the
        # optimiser. With fp16 that is how its scale is found.
        if self._scale is None and self._engine.optimizer.overflow:
            self.optimizer.skipped += 1

    def gradient_norm(self) -> float:
        norm = self.optimizer.norm if self._stage == 0 else self._engine.get_global_grad_norm()
        return float("nan") if norm is None else float(norm)

    @contextlib.contextmanager
    def gathered(self) -> Iterator[nn.Module]:
        if self._stage < 3:
            yield self.module
            return
        # Not the module itself: its hooks would wait for processes that do not evaluate.
        weights = {
            name: weight.clone()
            for name, weight in whole_weights(self.module, self._deepspeed)
            if self._twin is not None
        }
        yield self.module if self._twin is None else self._twin.filled(weights, self.module)

    def shared_state(self) -> dict[str, Any]:
        if self._stage == 0:
            state = {"model": self.module.state_dict(), "optimizer": whole_state(self.module, self.optimizer)}
        else:
            weights, state_of_optimizer = gather_pieces(
                self._pieces(),
                self.optimizer,
                rank=self._ranks.rank,
                world=self._ranks.world,
                device=self.device,
            )
            model = self.module.state_dict() if self._stage < 3 else self._whole_state_dict(weights)
            state = {"model": model, "optimizer": state_of_optimizer}
        return state if self._scale is None else {**state, "scaler": self._scale.state_dict()}

    def _whole_state_dict(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The module's state dict at stage 3, with `weights` (the trained ones) and what else there is."""
        for name, weight in whole_weights(self.module, self._deepspeed, frozen_only=True):
            if self._ranks.first:
                weights[name] = weight.to("cpu", copy=True)
        if not self._ranks.first:
            return {}
        names = {id(weight): name for name, weight in self.module.named_parameters()}
        return {
            name: weights[names[id(value)]] if id(value) in names else value.detach()
            for name, value in self.module.state_dict(keep_vars=True).items()
        }

    def own_state(self) -> dict[str, Any]:
        # Batch-norm statistics are each process's own.
        return {"buffers": dict(self.module.named_buffers())} if self._ranks.world > 1 else {}

    def load_state(self, shared: dict[str, Any], own: dict[str, Any]) -> None:
        if self._stage == 3:
            set_whole_weights(self.module, shared["model"], self._deepspeed, self._ranks.first)
        else:
            self.module.load_state_dict(shared["model"])
        for name, buffer in self.module.named_buffers():
            if name in own.get("buffers", {}):
                buffer.copy_(own["buffers"][name])
        if self._stage == 0:
            load_whole(self.module, self.optimizer, shared["optimizer"])
        else:
            scatter_pieces(self._pieces(), self.optimizer, shared["model"], shared["optimizer"])
        if self._scale is not None and "scaler" in shared:
            self._scale.load_state_dict(shared["scaler"])

    def _pieces(self) -> list[Piece]:
        return pieces_of(self.module, self._engine.optimizer, self._stage, self._ranks.rank)

    def close(self) -> None:
        self._engine.destroy()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
