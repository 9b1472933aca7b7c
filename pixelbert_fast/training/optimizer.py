"""One optimiser, two algorithms by parameter group: as in the paper, SGD for the backbone, else AdamW.

One object, and not two, because DeepSpeed drives one. Every rule that keeps it right under ZeRO is kept here:
arithmetic is element by element only (a flat piece of many tensors may stand in for them), the algorithm's
name is in the group, state is per tensor with the step count in it, and both algorithms have the same keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

ALGORITHMS = ("sgd", "adamw")


class TwoAlgorithmOptimizer(torch.optim.Optimizer):
    """SGD with momentum (coupled L2, as `torch.optim.SGD`) and AdamW (as `torch.optim.AdamW`) by group.

    Args:
        groups: as for any torch optimiser; each group may set `algorithm` ("sgd" or "adamw"), `lr`,
            `weight_decay`, `momentum` (SGD), `betas` and `eps` (AdamW).

    State of every tensor: `step` (0-d float32 on the CPU), `first` and `second` (like the tensor; SGD leaves
    `second` at zero).

    Raises:
        ValueError: an unknown algorithm.
    """

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        defaults = {
            "algorithm": "adamw",
            "lr": 1e-3,
            "weight_decay": 0.0,
            "momentum": 0.9,
            "betas": (0.9, 0.999),
            "eps": 1e-8,
        }
        super().__init__(list(groups), defaults)
        for group in self.param_groups:
            if group["algorithm"] not in ALGORITHMS:
                raise ValueError(
                    f"algorithm must be one of {', '.join(ALGORITHMS)}, got {group['algorithm']!r}"
                )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; returns what `closure` returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            states = [self._state_of(p) for p in params]
            for state in states:
                state["step"] += 1
            update = _sgd if group["algorithm"] == "sgd" else _adamw
            update(group, params, [p.grad for p in params], states)
        return loss

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        state = self.state[parameter]
        if not state:
            # On the CPU, so that the bias correction is a number there and no device is waited for.
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["first"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["second"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state


def _sgd(group: Mapping[str, Any], params: list[Tensor], grads: list[Tensor], states: list[dict]) -> None:
    if group["weight_decay"]:
        grads = torch._foreach_add(grads, params, alpha=group["weight_decay"])
    if group["momentum"]:
        momenta = [state["first"] for state in states]
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, grads)
        grads = momenta
    torch._foreach_add_(params, grads, alpha=-group["lr"])


def _adamw(group: Mapping[str, Any], params: list[Tensor], grads: list[Tensor], states: list[dict]) -> None:
    beta1, beta2 = group["betas"]
    means = [state["first"] for state in states]
    squares = [state["second"] for state in states]
    steps = [float(state["step"]) for state in states]
    if group["weight_decay"]:
        torch._foreach_mul_(params, 1.0 - group["lr"] * group["weight_decay"])
    torch._foreach_lerp_(means, grads, 1.0 - beta1)
    torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, grads, grads, 1.0 - beta2)
    roots = torch._foreach_sqrt(squares)
    torch._foreach_div_(roots, [(1.0 - beta2**step) ** 0.5 for step in steps])
    torch._foreach_add_(roots, group["eps"])
    torch._foreach_addcdiv_(params, means, roots, [-group["lr"] / (1.0 - beta1**step) for step in steps])


def parameter_groups(
    model: nn.Module,
    named: Mapping[str, Iterable[tuple[str, nn.Parameter]]],
    options: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Sort a model's parameters into optimiser groups.

    Args:
        model: whose trainable parameters must all be sorted, each once.
        named: by part ("backbone", "transformer"), the (name, parameter) pairs of that part.
        options: by part, the group's options.

    Returns:
        Up to two groups a part, named after it: vectors and scalars (biases, norms, type embeddings) are
        apart and without weight decay. Frozen parameters are left out.

    Raises:
        ValueError: a parameter in no part or in two, or a part without options.
    """
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    groups: list[dict[str, Any]] = []
    taken: dict[int, str] = {}
    for part, pairs in named.items():
        if part not in options:
            raise ValueError(f"no optimiser options for the part {part!r}; known: {', '.join(options)}")
        matrices, vectors = [], []
        for name, parameter in pairs:
            if not parameter.requires_grad:
                continue
            if id(parameter) in taken:
                raise ValueError(f"the parameter {name} is in both {taken[id(parameter)]!r} and {part!r}")
            taken[id(parameter)] = part
            (matrices if parameter.ndim > 1 else vectors).append(parameter)
        if matrices:
            groups.append({**options[part], "params": matrices, "name": part})
        if vectors:
            groups.append({**options[part], "params": vectors, "name": part, "weight_decay": 0.0})
    missing = [name for key, name in names.items() if key not in taken]
    if missing:
        raise ValueError(
            f"the parameter {missing[0]} belongs to no part of the optimiser ({len(missing)} such)"
        )
    return groups
