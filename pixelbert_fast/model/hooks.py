"""Whether somebody listens at a module: then it must be called, and what it gave must stay as it was."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules import module as everywhere


def hooked(module: nn.Module) -> bool:
    """Whether a hook is registered that a call of `module` would run, its own or one for all modules."""
    own = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, name) or getattr(everywhere, f"_global{name}") for name in own)


def overwritable(module: nn.Module, output: Tensor) -> Tensor:
    """What a call of `module` gave, or a copy of it where a hook may have kept it."""
    return output.clone() if hooked(module) else output
