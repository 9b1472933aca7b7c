"""One optimiser, two algorithms by parameter group: as in the paper, SGD for the backbone, else AdamW.

One object, and not two, because DeepSpeed drives one. Every rule that keeps it right under ZeRO is kept here:
arithmetic is element by element only (a flat piece of many tensors may stand in for them), the algorithm's
name is in the group, state is per tensor with the step count in it, and both algorithms have the same keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pixelbert_fast.training import update_rules
from pixelbert_fast.training.update_rules import Pieces

ALGORITHMS = ("sgd", "adamw")


class TwoAlgorithmOptimizer(torch.optim.Optimizer):
    """SGD with momentum (coupled L2, as `torch.optim.SGD`) and AdamW (as `torch.optim.AdamW`) by group.

    An update whose gradients are not all finite, or whose norm passes float32's range (1.8e19), is left out:
    parameters and state stay as they were, and `skipped` counts it. That is decided on the device; no step
    waits for one.

    Args:
        groups: as for any torch optimiser; each group may set `algorithm` ("sgd" or "adamw"), `lr`,
            `weight_decay`, `momentum` (SGD), `betas` and `eps` (AdamW), `name`, and `label`, under which its
            gradients' norm is told.
        fused: use torch's fused kernels for float32 on CPU and CUDA; False: never.

    State of every tensor: `step` (0-d float32 on the tensor's device), `first` and `second` (like the tensor;
    SGD leaves `second` at zero).

    Attributes:
        skipped: updates left out so far, 0-d int64 on the gradients' device. Where processes hold pieces of
            the gradients (ZeRO) their engine leaves such an update out in all of them, and adds to it.
        clip_norm: bound on the global norm of the gradients of one `step`, applied within the update; only
            where one `step` sees all gradients (not under ZeRO). None: none.
        norm: the gradients' norm at the last `step` before that, 0-d on their device; None: no step yet.

    Raises:
        ValueError: an unknown algorithm.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], *, fused: bool = True) -> None:
        defaults = {
            "algorithm": "adamw",
            "lr": 1e-3,
            "weight_decay": 0.0,
            "momentum": 0.9,
            "betas": (0.9, 0.999),
            "eps": 1e-8,
        }
        super().__init__(list(groups), defaults)
        for number, group in enumerate(self.param_groups):
            if group["algorithm"] not in ALGORITHMS:
                raise ValueError(
                    f"algorithm must be one of {', '.join(ALGORITHMS)}, got {group['algorithm']!r}"
                )
            group.setdefault("name", f"group_{number}")
            group.setdefault("label", group["name"])
        self.skipped = torch.zeros((), dtype=torch.int64)
        self.clip_norm: float | None = None
        self.norm: Tensor | None = None
        self._fused = fused
        # By label and first tensor: ZeRO steps group by group, and stage 3 in several pieces a group.
        self._squares: dict[str, dict[int, Tensor]] = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; returns what `closure` returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        work = [(group, list(self._pieces(group))) for group in self.param_groups]
        if not any(pieces for _, pieces in work):
            return loss
        bad, scale = self._judged(work)
        for group, several in work:
            for pieces in several:
                # Left out, it does not count. A list, since of a single tensor torch reads the value.
                torch._foreach_add_(pieces.steps, [1.0 - bad] * len(pieces.steps))
                fusable = self._fused and update_rules.fusable(pieces.params[0])
                (update_rules.fused if fusable else update_rules.foreach)(group, pieces, bad, scale)
        return loss

    def gradient_norms(self) -> dict[str, Tensor]:
        """By label, the gradients' norms at the last update, as `step` got them: 0-d, on their device."""
        return {
            label: torch.stack(list(squares.values())).sum().sqrt()
            for label, squares in self._squares.items()
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over `state_dict()`'s value; the groups keep their own names."""
        own = [{key: group[key] for key in ("name", "label")} for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, names in zip(self.param_groups, own, strict=True):
            group.update(names)

    def _judged(self, work: list[tuple[dict[str, Any], list[Pieces]]]) -> tuple[Tensor, Tensor | None]:
        """(1 where this update is to be left out, else 0; what to divide the gradients by)."""
        norms, counts = [], []
        for _, several in work:
            before = len(norms)
            for pieces in several:
                found = torch._foreach_norm(pieces.grads)
                norms += found if found[0].dtype == torch.float32 else [norm.float() for norm in found]
            counts.append(len(norms) - before)
        if self.skipped.device != norms[0].device:
            self.skipped = self.skipped.to(norms[0].device)
        each = torch.stack(norms).square()
        squares = torch.stack([part.sum() for part in each.split(counts)])
        for (group, _), square in zip(work, squares.unbind(), strict=True):
            if group["params"]:
                self._squares.setdefault(group["label"], {})[id(group["params"][0])] = square
        whole = squares.sum()
        wrong = ~torch.isfinite(whole)
        bad = wrong.float()
        self.skipped += wrong
        self.norm = whole.sqrt()
        if self.clip_norm is None:
            return bad, None
        return bad, ((self.norm + 1e-6) / self.clip_norm).clamp(min=1.0)

    def _pieces(self, group: dict[str, Any]) -> Iterator[Pieces]:
        """The group's tensors that have gradients, apart by device, dtype and whether they can be fused."""
        sorted_out: dict[Any, Pieces] = {}
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            kind = parameter.device, parameter.dtype, update_rules.fusable(parameter)
            pieces = sorted_out.get(kind)
            if pieces is None:
                pieces = sorted_out[kind] = Pieces([], [], [], [], [])
            state = self._state_of(parameter)
            pieces.params.append(parameter)
            pieces.grads.append(update_rules.ordered_as(parameter, parameter.grad))
            pieces.first.append(state["first"])
            pieces.second.append(state["second"])
            pieces.steps.append(state["step"])
        yield from sorted_out.values()

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["first"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["second"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        elif state["step"].device != parameter.device:  # it was saved elsewhere
            state["step"] = state["step"].to(parameter.device)
        for key in ("first", "second"):
            if state[key].stride() != parameter.stride():
                state[key] = update_rules.ordered_as(parameter, state[key])
        return state


def parameter_groups(
    model: nn.Module,
    named: Mapping[str, Iterable[tuple[str, nn.Parameter]]],
    options: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Sort a model's parameters into optimiser groups.

    Args:
        model: whose trainable parameters must all be sorted, each once.
        named: by part ("backbone", "transformer"), the (name, parameter) pairs of that part.
        options: by part, the group's options; `layer_decay` and `head_lr_scale` as in the configuration.

    Returns:
        Up to two groups a part, named after it: vectors and scalars (biases, norms, type embeddings) are
        apart and without weight decay. With `layer_decay` or `head_lr_scale`, as many for each of
        "transformer_embeddings", "transformer_layer00" and so on, "transformer_top" (what follows the last
        layer), and "head" (everything outside the model that heads are put on). `label` is that name, `name`
        ends in "_no_decay" where there is none. Frozen parameters are left out.

    Raises:
        ValueError: a parameter in no part or in two, a part without options, or a layer decay for a part
            without numbered layers.
    """
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    groups: dict[str, dict[str, Any]] = {}
    taken: dict[int, str] = {}
    base = getattr(model, "base_model_prefix", "")
    for part, pairs in named.items():
        if part not in options:
            raise ValueError(f"no optimiser options for the part {part!r}; known: {', '.join(options)}")
        pairs = [pair for pair in pairs if pair[1].requires_grad]
        own = dict(options[part])
        rate = _rates(part, [name for name, _ in pairs], base, own)
        for name, parameter in pairs:
            if id(parameter) in taken:
                raise ValueError(f"the parameter {name} is in both {taken[id(parameter)]!r} and {part!r}")
            taken[id(parameter)] = part
            label, factor = rate(name)
            for kind, decayed in (("", True), ("_no_decay", False)):
                # Both at once, so that a label's two groups stay side by side.
                group = groups.setdefault(
                    f"{label}{kind}", {**own, "params": [], "name": f"{label}{kind}", "label": label}
                )
                if "lr" in own:
                    group["lr"] = own["lr"] * factor
                if not decayed:
                    group["weight_decay"] = 0.0
                if decayed == (parameter.ndim > 1):
                    group["params"].append(parameter)
    missing = [name for key, name in names.items() if key not in taken]
    if missing:
        raise ValueError(
            f"the parameter {missing[0]} belongs to no part of the optimiser ({len(missing)} such)"
        )
    return [group for group in groups.values() if group["params"]]


_LAYER = re.compile(r"(?:^|\.)layers?\.(\d+)\.")


def _rates(
    part: str, names: list[str], base: str, options: dict[str, Any]
) -> Callable[[str], tuple[str, float]]:
    """By a parameter's name: its label and what its learning rate is multiplied by. Eats the two options."""
    decay, head = options.pop("layer_decay", 1.0), options.pop("head_lr_scale", 1.0)
    if decay == 1.0 and head == 1.0:
        return lambda name: (part, 1.0)
    numbers = [int(found[1]) for found in map(_LAYER.search, names) if found]
    if decay != 1.0 and not numbers:
        raise ValueError(f"layer_decay: the part {part!r} has no numbered layers")
    count = max(numbers, default=-1) + 1

    def rate(name: str) -> tuple[str, float]:
        found = _LAYER.search(name)
        if found is None and not (base and name.startswith(f"{base}.")):
            return "head", head
        if decay == 1.0:
            return part, 1.0
        if found is not None:
            return f"{part}_layer{int(found[1]):02d}", decay ** (count - int(found[1]))
        if ".pooler." in name:
            return f"{part}_top", 1.0
        return f"{part}_embeddings", decay ** (count + 1)

    return rate
