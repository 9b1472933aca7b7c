"""The CUDA kernels run by a CPU, block after block: `emulation/cuda_kernels.cpp`, compiled for a test."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
COMPILER = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
KINDS = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
POINTER, INTEGER = ctypes.c_void_p, ctypes.c_int64


def compiled(directory: Path) -> ctypes.CDLL:
    """The emulation as a library, built in `directory`."""
    library = directory / "cuda_kernels.so"
    includes = f"-isystem{Path(torch.__file__).parent / 'include'}"
    command = [COMPILER, "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", includes]
    source = ROOT / "tests" / "emulation" / "cuda_kernels.cpp"
    built = subprocess.run([*command, source, "-o", library], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    loaded = ctypes.CDLL(str(library))
    for function in (
        loaded.emulate_pool_gather_forward,
        loaded.emulate_pool_gather_backward,
        loaded.emulate_sample_positions,
    ):
        function.restype = ctypes.c_char_p
    loaded.divided.restype, loaded.divided.argtypes = INTEGER, [INTEGER, INTEGER]
    return loaded


def pointer(tensor: Tensor | None):
    return POINTER(None if tensor is None else tensor.data_ptr())


def numbers(values) -> ctypes.Array:
    return (INTEGER * 4)(*values)


def int32(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.to(torch.int32).contiguous()


def launched(answer: bytes) -> list[str]:
    """The kernels that ran; an access or a write that should not have been is an AssertionError."""
    text = answer.decode()
    assert not text.startswith("error: "), text
    return text.split(";")[:-1]


def pool_gather_forward(
    library: ctypes.CDLL,
    features: Tensor,
    positions: Tensor,
    embedding: Tensor | None = None,
    image_index: Tensor | None = None,
    *,
    save_winners: bool = True,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor | None, list[str]]:
    """Output, winners, and the kernels that ran; every element of both has been written once."""
    shape = (*positions.shape, features.shape[1])
    out = features.new_empty(shape) if out is None else out
    winners = torch.empty(shape, dtype=torch.uint8) if save_winners else None
    if embedding is not None:
        embedding = embedding.to(torch.promote_types(features.dtype, torch.float32))
    positions, image_index = int32(positions), int32(image_index)
    answer = library.emulate_pool_gather_forward(
        KINDS[features.dtype],
        pointer(features),
        numbers(features.shape),
        numbers(features.stride()),
        pointer(positions),
        pointer(image_index),
        pointer(embedding),
        INTEGER(positions.shape[0]),
        INTEGER(positions.shape[1]),
        pointer(out),
        pointer(winners),
    )
    return out, winners, launched(answer)


def pool_gather_backward(
    library: ctypes.CDLL,
    grad: Tensor,
    winners: Tensor,
    positions: Tensor,
    image_index: Tensor | None,
    shape: tuple[int, ...],
    channels_last: bool,
) -> tuple[Tensor, list[str]]:
    """The dense gradient and the kernels that ran; every element has been written once."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    out = torch.empty(shape, dtype=grad.dtype, memory_format=layout)
    positions, image_index = int32(positions), int32(image_index)
    answer = library.emulate_pool_gather_backward(
        KINDS[grad.dtype],
        pointer(grad),
        pointer(winners),
        pointer(positions),
        pointer(image_index),
        INTEGER(positions.shape[0]),
        INTEGER(positions.shape[1]),
        numbers(shape),
        ctypes.c_bool(not out.is_contiguous()),
        pointer(out),
    )
    return out, launched(answer)


def sample_positions(
    library: ctypes.CDLL, valid_grid: Tensor, grid: tuple[int, int], count: int, seed: int, keys: Tensor
) -> Tensor:
    """As :func:`pixelbert_fast.ops.sample_positions`."""
    valid_grid, keys = int32(valid_grid), keys.contiguous()
    out = torch.empty(valid_grid.shape[0], count, dtype=torch.int32)
    answer = library.emulate_sample_positions(
        pointer(valid_grid),
        INTEGER(seed),
        pointer(keys),
        *map(INTEGER, (valid_grid.shape[0], *grid, count)),
        pointer(out),
    )
    launched(answer)
    return out
