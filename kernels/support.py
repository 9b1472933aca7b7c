"""Whether Triton kernels can run on a device, and if not, why not."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def why_not(device: torch.device | str) -> str | None:
    """Say in a sentence why Triton kernels cannot run on `device`, or return None where they can.

    CUDA and ROCm devices (both are called `cuda` in torch) run compiled kernels; CPU tensors run them only
    under Triton's interpreter, which `TRITON_INTERPRET=1` turns on if it is set before triton is imported.
    """
    import torch

    kind = torch.device(device).type
    if kind not in ("cuda", "cpu"):
        return f"Triton kernels run on CUDA and ROCm devices and, interpreted, on a CPU; not on {kind!r}."
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed; the package's extra `kernels` brings it."
    interpreted = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")
    if kind == "cpu" and not interpreted:
        return (
            "CPU tensors need Triton's interpreter; set TRITON_INTERPRET=1 before triton is first imported."
        )
    if kind == "cuda" and not torch.cuda.is_available():
        return "torch sees no GPU on this machine."
    return None
