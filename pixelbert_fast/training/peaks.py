"""The most that a device can compute, which the log's `mfu` is a share of."""

from __future__ import annotations

import torch

# Dense TFLOP/s by the makers' data sheets: (a part of the device's name, bf16, TF32, fp32). The first that
# fits counts, so the longer name stands first.
_PEAKS: tuple[tuple[str, float, float, float], ...] = (
    ("GB200", 2500.0, 1250.0, 80.0),
    ("B200", 2250.0, 1125.0, 75.0),
    ("H100 PCIe", 756.0, 378.0, 51.0),
    ("H100 NVL", 835.0, 417.0, 60.0),
    ("H100", 989.0, 494.0, 67.0),
    ("H200 NVL", 835.0, 417.0, 60.0),
    ("H200", 989.0, 494.0, 67.0),
    ("GH200", 989.0, 494.0, 67.0),
    ("A100", 312.0, 156.0, 19.5),
    ("A800", 312.0, 156.0, 19.5),
    ("A30", 165.0, 82.0, 10.3),
    ("A10G", 70.0, 35.0, 35.0),
    ("A10", 125.0, 62.5, 31.2),
    ("L40S", 362.0, 183.0, 91.6),
    ("L40", 181.0, 90.5, 90.5),
    ("L4", 121.0, 60.0, 30.3),
    ("RTX 6000 Ada", 364.0, 182.0, 91.1),
    ("RTX A6000", 154.8, 77.4, 38.7),
    ("RTX 4090", 165.2, 82.6, 82.6),
    ("RTX 3090", 71.0, 35.6, 35.6),
)


def peak_tflops(device: torch.device, precision: str, given: float | None = None) -> float | None:
    """The most TFLOP/s a device can do, of dense products; None: not known.

    Args:
        precision: the run's; fp32 means TF32 where torch may use it for convolutions or products.
        given: `training.peak_tflops`, which goes before the table of known GPUs.
    """
    if given is not None:
        return given
    if device.type != "cuda":
        return None
    return known_peak(torch.cuda.get_device_name(device), precision, _tf32())


def known_peak(name: str, precision: str, tf32: bool) -> float | None:
    """By a GPU's name as CUDA tells it; tf32: whether fp32 goes that way."""
    words = f" {name} ".replace("-", " ")
    for known, bf16, through_tf32, fp32 in _PEAKS:
        if f" {known} " in words:
            return bf16 if precision in ("bf16", "fp16") else through_tf32 if tf32 else fp32
    return None


def _tf32() -> bool:
    return torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
