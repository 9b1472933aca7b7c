"""DeepSpeed's dictionary, made from our configuration, and what an expert may add to it.

Batch sizes, accumulation, precision, clipping and the ZeRO stage have their one place in our configuration: a
`deepspeed:` block that says them as well is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Precision = Literal["fp32", "bf16", "fp16"]

# Elements of gradients that travel together where the configuration does not say: 100 MB of float32.
_BUCKET = 25_000_000

# By DeepSpeed's key: what to set instead, or why not at all.
_OURS = {
    "train_batch_size": "set training.images_per_batch and training.accumulation",
    "train_micro_batch_size_per_gpu": "set training.images_per_batch",
    "gradient_accumulation_steps": "set training.accumulation",
    "managed_gradient_accumulation": "set training.accumulation",
    "gradient_clipping": "set optimizer.clip_norm",
    "fp16": "set training.precision=fp16",
    "bf16": "set training.precision=bf16",
    "bfloat16": "set training.precision=bf16",
    "amp": "set training.precision",
    "torch_autocast": "set training.precision",
    "data_types": "set training.precision",
    "optimizer": "set the section optimizer",
    "scheduler": "set the section schedule",
    "checkpoint": "set training.checkpoint_every_minutes",
    "zero_optimization.stage": "set training.zero_stage",
    "zero_optimization.offload_optimizer": "set training.offload_optimizer",
    "zero_optimization.cpu_offload": "set training.offload_optimizer",
    "zero_optimization.overlap_comm": "set training.overlap_comm",
    "zero_optimization.reduce_bucket_size": "set training.reduce_bucket_size",
    "zero_optimization.contiguous_gradients": "set training.contiguous_gradients",
    "zero_optimization.offload_param": "the state to resume from could not be read from there",
    "zero_optimization.zenflow": "it brings an optimiser of its own",
    "zero_optimization.compute_grad_norm": "without the norm an update that is not finite would be made",
    "zero_allow_untested_optimizer": "it is set already",
    "zero_force_ds_cpu_optimizer": "it is set already",
}


def refused_keys(block: Mapping[str, Any]) -> list[str]:
    """A clause for every key of a `deepspeed:` block that our configuration decides: "KEY (what to do)"."""
    zero = block.get("zero_optimization", {})
    if not isinstance(zero, Mapping):
        return ["zero_optimization (it is a mapping)"]
    keys = [*block, *(f"zero_optimization.{key}" for key in zero)]
    return [f"deepspeed.{key} ({_OURS[key]})" for key in keys if key in _OURS]


@dataclass(frozen=True)
class DeepSpeedOptions:
    """What DeepSpeed is told; the fields are `TrainingConfig`'s, and `extra` is the `deepspeed:` block."""

    images_per_batch: int = 1
    accumulation: int = 1
    clip_norm: float | None = None
    precision: Precision = "fp32"
    zero_stage: int = 0
    offload_optimizer: bool = False
    overlap_comm: bool | None = None
    reduce_bucket_size: int | None = None
    contiguous_gradients: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Any) -> DeepSpeedOptions:
        """Those of a `RunConfig`."""
        training = config.training
        own = (name for name in cls.__dataclass_fields__ if hasattr(training, name))
        return cls(
            **{name: getattr(training, name) for name in own},
            clip_norm=config.optimizer.clip_norm,
            extra=config.deepspeed,
        )

    def dictionary(self, elements: int) -> dict[str, Any]:
        """DeepSpeed's configuration.

        Args:
            elements: of all trained parameters; no bucket need be larger.
        """
        zero: dict[str, Any] = {
            "stage": self.zero_stage,
            "reduce_bucket_size": self.reduce_bucket_size or max(min(_BUCKET, elements), 1),
            "contiguous_gradients": self.contiguous_gradients,
        }
        if self.overlap_comm is not None:
            zero["overlap_comm"] = self.overlap_comm
        if self.offload_optimizer:
            zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
        made = {
            "train_micro_batch_size_per_gpu": self.images_per_batch,
            "gradient_accumulation_steps": self.accumulation,
            # Its own default is 1.0. At stage 0 it forgets the norm, so the engine clips there.
            "gradient_clipping": self.clip_norm if self.clip_norm and self.zero_stage > 0 else 0.0,
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": 2**31,
            "torch_autocast": {
                "enabled": self.precision != "fp32",
                "dtype": "float16" if self.precision == "fp16" else "bfloat16",
                # No module's gradients travel in half precision.
                "lower_precision_safe_modules": [],
            },
        }
        return merged(made, self.extra)


def merged(made: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """`extra` laid over `made`, mapping by mapping."""
    result = dict(made)
    for key, value in extra.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result
