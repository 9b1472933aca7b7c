"""DeepSpeed as an engine. The only file that imports it, and only when it is used.

fp32 at every ZeRO stage, and bf16 through autocast and never through its own bf16 mode, which makes an extra
update of Adam's state at stage 0. Stage 3 is not offered: it reapplies the last gradient of a parameter that
a step left unused.
"""

from __future__ import annotations

import os
import socket
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from pixelbert_fast.errors import UserError
from pixelbert_fast.training.optimizer import TwoAlgorithmOptimizer
from pixelbert_fast.training.ranks import PATIENCE, Ranks, ranks_from_environment
from pixelbert_fast.training.roll_call import call_the_roll

_SHARED_MEMORY_OP = "deepspeed_shm_comm"


def import_deepspeed() -> Any:
    """DeepSpeed, quiet, and without its shared-memory op where there is no GPU.

    That op takes minutes to compile and leaves its buffers (69 MB a process) in /dev/shm after every run, a
    clean one too. Marked as not compatible, it is neither compiled nor loaded, and gloo does its work.

    Raises:
        UserError: it is not installed.
    """
    # Its own look for an accelerator warns when it finds none; say what is known already.
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        import deepspeed
        import deepspeed.ops
    except ImportError as error:
        raise UserError(
            f"DeepSpeed cannot be imported ({error}); install the package with its extra"
            " 'train', or use training.engine=plain"
        ) from None
    if not torch.cuda.is_available():
        deepspeed.ops.__compatible_ops__[_SHARED_MEMORY_OP] = False
    deepspeed.utils.logger.setLevel("WARNING")
    return deepspeed


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
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: TwoAlgorithmOptimizer,
        *,
        ranks: Ranks,
        zero_stage: int = 0,
        images_per_batch: int = 1,
        accumulation: int = 1,
        clip_norm: float | None = None,
        bf16: bool = False,
    ) -> None:
        deepspeed = import_deepspeed()
        config = {
            "train_micro_batch_size_per_gpu": images_per_batch,
            "gradient_accumulation_steps": accumulation,
            # Its own default is 1.0. At stage 0 it forgets the norm, so the clipping is done in step().
            "gradient_clipping": clip_norm if clip_norm and zero_stage > 0 else 0.0,
            "zero_optimization": {"stage": zero_stage},
            "zero_allow_untested_optimizer": True,
            "steps_per_print": 2**31,
            # No module's gradients travel in bf16.
            "torch_autocast": {"enabled": bf16, "dtype": "bfloat16", "lower_precision_safe_modules": []},
        }
        # It warns of every optimiser it does not know; this one is tested.
        deepspeed.utils.logger.setLevel("ERROR")
        layouts = row_major(model)
        engine, *_ = deepspeed.initialize(
            model=model, optimizer=optimizer, config=config, dist_init_required=False
        )
        if zero_stage == 0:
            for weight, strides in layouts:
                weight.data = torch.empty_strided(
                    weight.shape, strides, dtype=weight.dtype, device=weight.device
                ).copy_(weight.data)
        deepspeed.utils.logger.setLevel("WARNING")
        self.model = self._engine = engine
        self.module = engine.module
        self.optimizer = optimizer
        self.device = torch.device(engine.device)
        self._bf16 = bf16
        self._stage = zero_stage
        self._ranks = ranks
        self._clip_norm = clip_norm
        self._norm: Tensor | None = None

    def autocast(self) -> AbstractContextManager[Any]:
        # DeepSpeed's own covers its forward; what a task computes after it (a loss, a head) comes under this
        # one.
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if self._bf16 else nullcontext()

    def backward(self, loss: Tensor) -> None:
        self._engine.backward(loss)

    def step(self) -> bool:
        done = self._engine.is_gradient_accumulation_boundary()
        if done and self._stage == 0 and self._clip_norm is not None:
            # The backward has averaged the gradients over the processes already.
            self._norm = nn.utils.clip_grad_norm_(self.module.parameters(), self._clip_norm)
        self._engine.step()
        return done

    def gradient_norm(self) -> float:
        norm = self._norm if self._stage == 0 else self._engine.get_global_grad_norm()
        return float("nan") if norm is None else float(norm)

    def shared_state(self) -> dict[str, Any]:
        state = {"model": self.module.state_dict()}
        if self._stage == 0:
            state["optimizer"] = self.optimizer.state_dict()
        return state

    def own_state(self) -> dict[str, Any]:
        # Batch-norm statistics are each process's own, and under ZeRO so is its part of the optimiser.
        state: dict[str, Any] = {}
        if self._ranks.world > 1:
            state["buffers"] = dict(self.module.named_buffers())
        if self._stage > 0:
            state["optimizer"] = self.optimizer.state_dict()
        return state

    def load_state(self, shared: dict[str, Any], own: dict[str, Any]) -> None:
        self.module.load_state_dict(shared["model"])
        for name, buffer in self.module.named_buffers():
            if name in own.get("buffers", {}):
                buffer.copy_(own["buffers"][name])
        if self._stage > 0:
            self._engine.optimizer.refresh_fp32_params()
        self.optimizer.load_state_dict((own if self._stage > 0 else shared)["optimizer"])

    def close(self) -> None:
        self._engine.destroy()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
