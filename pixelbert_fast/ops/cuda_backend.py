"""The `cuda` backend: C++ kernels for CUDA tensors, in a library of its own, which an installation has built.

The library is loaded when an op first asks for it, and only where torch sees a GPU: it needs symbols that a
torch without CUDA has not.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch

from .. import _build
from ..environment import BUILD
from . import cpu_backend
from .arguments import FLOATS
from .native_calls import pool_gather_backward, pool_gather_forward, sample_positions

__all__ = ["pool_gather_backward", "pool_gather_forward", "sample_positions"]

AUTOMATIC = ("cuda",)
LIBRARIES = "_C_cuda.*"
PACKAGE = cpu_backend.PACKAGE


def why_not(op: str, device_type: str, dtype: torch.dtype) -> str | None:
    """See `backends`."""
    if device_type != "cuda":
        return f"it takes CUDA tensors, and these are on {device_type}."
    if op == "pixel_embed":
        return "it has no kernel of its own for pixel_embed."
    if op == "pool_gather" and dtype not in FLOATS:
        return f"it has no kernel for {dtype}."
    if torch.version.hip is not None:
        return "it is CUDA code, and this torch is built for ROCm; use triton."
    if not torch.cuda.is_available():
        return "torch sees no GPU on this machine."
    return why_not_loaded() or why_not_started(torch.cuda.current_device())


@cache
def why_not_loaded() -> str | None:
    """Load the library, once; None where that worked."""
    library = library_path()
    if library is None:
        reason = _build.why_not_built(PACKAGE, "cuda")
        return f"its library was not built ({reason}); install again with {BUILD.name}=force and nvcc."
    reason = cpu_backend.why_not_loaded()  # which defines the ops that this library implements
    if reason is not None:
        return reason
    try:
        torch.ops.load_library(library)
    except OSError as error:
        return f"{library.name} does not load into torch {torch.__version__}: {error}"
    return None


@cache
def why_not_started(device: int) -> str | None:
    """None where the driver and the GPU number `device` run the library's kernels; it has been loaded."""
    ask = ctypes.CDLL(str(library_path())).pixelbert_fast_cuda_why_not
    ask.restype = ctypes.c_char_p
    reason = ask(ctypes.c_int(device))
    if reason is None:
        return None
    return (
        f"its kernels do not run on cuda:{device}: {reason.decode()}; build them for that GPU"
        f" with TORCH_CUDA_ARCH_LIST and {BUILD.name}=force."
    )


def library_path() -> Path | None:
    """The library beside the package's other files; None where it was not built."""
    found = sorted(path for path in PACKAGE.glob(LIBRARIES) if path.suffix in (".so", ".pyd"))
    return found[0] if found else None
