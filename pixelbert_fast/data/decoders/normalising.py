"""uint8 pictures -> resized and normalised ones, value for value as the image processor computes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...ops.resize_picture import resize_picture_, resize_picture_reference, runs_natively

# Below this many values torch starts no threads of its own: a decoder has its threads already. A block of
# that size also stays in a core's cache between the passes over it.
_BLOCK = 32768


class Normalisation:
    """``x / 255``, less the mean, divided by the standard deviation, of R, G and B.

    Args:
        mean, std: three numbers each, for values in 0..1.
        native: False keeps to PyTorch where the C++ kernel can run. The kernel resizes as Pillow does, to the
            bit, PyTorch at most 2 levels off; what needs no resize is the same to the bit.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], native: bool = True) -> None:
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        # One multiplication and one addition a value, rounded apart: a fused pair would give other bits.
        folded = [
            [1 / (255 * s) for s in self.std],
            [-m / s for m, s in zip(self.mean, self.std, strict=True)],
        ]
        self.scale, self.shift = torch.tensor(folded, dtype=torch.float64).to(torch.float32)
        self._native = native and runs_natively()
        # The same for the length of the longest row so far, three values a pixel.
        self._row = (self.scale, self.shift)

    def into(self, out: Tensor, picture: Tensor) -> None:
        """Write `picture`, uint8 ``[H, W, 3]``, contiguous, to `out`, ``[h, w, 3]`` of floats or uint8.

        A picture of another size is resized: bilinear, antialiased, rounded to 8 bits.
        """
        if self._native:
            resize_picture_(out, picture, self.scale, self.shift)
        else:
            self._by_blocks(out, resize_picture_reference(picture, tuple(out.shape[:2])))

    def _by_blocks(self, out: Tensor, picture: Tensor) -> None:
        height, width, _ = picture.shape
        if out.dtype == torch.uint8:
            out.copy_(picture)
            return
        scale, shift = self._of_width(width)
        source, target = picture.view(height, 3 * width), out.flatten(1)
        rows = max(1, _BLOCK // (3 * width))
        for top in range(0, height, rows):
            block = target[top : top + rows]
            if out.dtype == torch.float32:
                block.copy_(source[top : top + rows]).mul_(scale).add_(shift)
            else:
                block.copy_(torch.mul(source[top : top + rows], scale).add_(shift))

    def _of_width(self, width: int) -> tuple[Tensor, Tensor]:
        scale, shift = self._row
        if len(scale) < 3 * width:
            # One assignment of both: threads share this.
            scale, shift = self._row = (self.scale.repeat(width), self.shift.repeat(width))
        return scale[: 3 * width], shift[: 3 * width]
