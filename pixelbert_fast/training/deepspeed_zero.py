"""What DeepSpeed's ZeRO optimisers hold where: names of its version 0.19.8 that no documentation fixes."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pixelbert_fast.training.canonical_state import Piece


def pieces_of(module: nn.Module, zero: Any, stage: int, rank: int) -> list[Piece]:
    """This process's pieces of all trained parameters, in the same order in all processes.

    Args:
        zero: DeepSpeed's optimiser of stage 1 to 3.
    """
    names = {id(weight): name for name, weight in module.named_parameters()}
    return list((_stage_3 if stage == 3 else _stage_1_or_2)(names, zero, rank))


def _stage_1_or_2(names: Mapping[int, str], zero: Any, rank: int) -> Iterator[Piece]:
    for group, flat in zip(zero.bit16_groups, zero.single_partition_of_fp32_groups, strict=True):
        for weight in group:
            here, there = 0, (0, 0)
            if weight._hp_mapping is not None:
                mine = weight._hp_mapping.lp_fragment_address
                here, there = weight._hp_mapping.hp_fragment_address.start, (mine.start, mine.numel)
            yield Piece(names[id(weight)], weight.shape, flat, here, *there)


def _stage_3(names: Mapping[int, str], zero: Any, rank: int) -> Iterator[Piece]:
    for group, flat in zip(zero.fp16_groups, zero.fp32_partitioned_groups_flat, strict=True):
        for weight in group:
            # Parts are of one size; the last ones may be padding in part or in whole.
            _, offset, size = zero.grad_position[zero.get_param_id(weight)]
            start = min(rank * size, weight.ds_numel)
            length = min(size, weight.ds_numel - start)
            yield Piece(names[id(weight)], weight.ds_shape, flat, offset, start, length)


def forget_gradients(zero: Any) -> None:
    """Zero what stage 3 keeps of an update's gradients: the next would apply them again where it has none."""
    zero.grad_partitions_flat_buffer.zero_()
    if zero.offload_optimizer:
        for flat in zero.fp32_partitioned_groups_flat:
            flat.grad.zero_()


def whole_weights(
    module: nn.Module, deepspeed: Any, *, frozen_only: bool = False
) -> Iterator[tuple[str, Tensor]]:
    """Each parameter of a module under stage 3, whole while it is looked at; called by all processes."""
    for name, weight in module.named_parameters():
        if frozen_only and weight.requires_grad:
            continue
        with deepspeed.zero.GatheredParameters([weight]):
            yield name, weight.detach()


def set_whole_weights(module: nn.Module, weights: Mapping[str, Tensor], deepspeed: Any, first: bool) -> None:
    """Give a module under stage 3 these weights and buffers, of which the first process's count.

    Raises:
        ValueError: they are of another model.
    """
    wanted = module.state_dict(keep_vars=True)
    for name, value in wanted.items():
        if name not in weights:
            raise ValueError(f"it has no {name}")
        shape = getattr(value, "ds_shape", value.shape)
        if weights[name].shape != shape:
            raise ValueError(f"{name} is of shape {list(weights[name].shape)}, not {list(shape)}")
    for name in weights:
        if name not in wanted:
            raise ValueError(f"it has {name}, which the model has not")
    for name, weight in module.named_parameters():
        with deepspeed.zero.GatheredParameters([weight], modifier_rank=0):
            if first:
                weight.data.copy_(weights[name])
    for name, buffer in module.named_buffers():
        if name in weights:
            buffer.copy_(weights[name])


class Twin:
    """A module's structure from before ZeRO-3 took its parameters apart and put hooks on its modules."""

    def __init__(self, module: nn.Module) -> None:
        empty = {
            id(weight): nn.Parameter(torch.empty_like(weight, device="meta"), weight.requires_grad)
            for weight in module.parameters()
        }
        self._empty = copy.deepcopy(module, empty)

    def filled(self, weights: Mapping[str, Tensor], module: nn.Module) -> nn.Module:
        """A module with these parameters, in the layout they had, and the buffers of `module`."""
        made = copy.deepcopy(self._empty)
        full: dict[int, nn.Parameter] = {}
        for name, weight in made.named_parameters():
            value = torch.empty_strided(weight.shape, weight.stride(), device=weights[name].device)
            full[id(weight)] = nn.Parameter(value.copy_(weights[name]), weight.requires_grad)
        for part in made.modules():
            for name, weight in part._parameters.items():
                if weight is not None:
                    part._parameters[name] = full[id(weight)]
        device = next(module.buffers(), torch.empty(0)).device
        made.to(device)
        for mine, its in zip(made.buffers(), module.buffers(), strict=True):
            mine.copy_(its)
        return made.train(module.training)
