"""A decoded picture -> the pixels a model reads, in one pass: Pillow's bilinear resize, normalised.

Not among the public ops: it writes into its argument, and a batch of images is decoded on a CPU alone.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..environment import BACKEND
from . import cpu_backend

DTYPES = (torch.uint8, torch.float32, torch.bfloat16, torch.float16)


def resize_picture_(out: Tensor, picture: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``out = resized(picture) * scale + shift`` by the C++ kernel, where :func:`runs_natively` says so.

    The resized picture is that of ``Image.resize`` by the bilinear filter, since Pillow 13, to the bit (on
    x86-64; elsewhere a compiler may fuse operations and a weight's last bit change); earlier versions took
    the directions in another order for some sizes, a level apart. Each product is rounded, then
    each sum, in float32, then to the dtype of `out`.

    Args:
        out: ``[h, w, 3]`` of one of `DTYPES`, rows of any distance; uint8 takes the picture as it is.
        picture: ``[H, W, 3]`` uint8, contiguous.
        scale, shift: ``[3]`` float32.

    Raises:
        ValueError: a tensor of another shape, dtype, layout or device, beyond which the kernel would read.
    """
    if not (
        picture.dtype == torch.uint8 and picture.is_cpu and _is_picture(picture) and picture.is_contiguous()
    ):
        raise ValueError("resize_picture_: picture must be [H, W, 3] uint8 on the CPU, contiguous")
    if not (out.dtype in DTYPES and out.is_cpu and _is_picture(out) and out.stride()[1:] == (3, 1)):
        raise ValueError("resize_picture_: out must be [h, w, 3] on the CPU, each row without gaps")
    for each in (scale, shift):
        if not (each.shape == (3,) and each.dtype == torch.float32 and each.is_cpu and each.is_contiguous()):
            raise ValueError("resize_picture_: scale and shift must be [3] float32 on the CPU")
    torch.ops.pixelbert_fast_native.resize_picture(picture, scale, shift, out)
    return out


def resize_picture_reference(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """The resize in plain PyTorch: a contiguous uint8 ``[h, w, 3]``, at most 2 levels off Pillow's.

    PyTorch weighs 8-bit pixels by 16-bit fractions, Pillow by 22-bit ones.
    """
    if picture.shape[:2] == size:
        return picture
    # The batch axis comes before the permutation: only then does torch see channels_last, and not copy.
    source = picture[None].permute(0, 3, 1, 2)
    result = F.interpolate(source, size, mode="bilinear", antialias=True)
    return result.permute(0, 2, 3, 1)[0].contiguous()


def runs_natively() -> bool:
    """Whether the kernel can run and is wanted.

    A decoder works on the CPU beside a GPU too, where the backend named for the ops is another one: only the
    reference, asked for by name, keeps it from running.
    """
    return BACKEND.read() != "reference" and cpu_backend.why_not_loaded() is None


def _is_picture(tensor: Tensor) -> bool:
    return tensor.dim() == 3 and tensor.shape[2] == 3 and min(tensor.shape) > 0
