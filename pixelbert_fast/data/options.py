"""Checks of the numbers that builders of rendered or composed sets take."""

from __future__ import annotations

from pixelbert_fast.errors import UserError


def check_picture_options(name: str, *, least_images: int, images, seed, size, quality) -> None:
    """Raises UserError unless all are whole numbers within their bounds (size in pixels, quality of JPEG)."""
    limits = {
        "images": (images, least_images, 100_000_000),
        "seed": (seed, 0, 2**63 - 1),
        "size": (size, 32, 2048),
        "quality": (quality, 1, 100),
    }
    for option, (value, least, most) in limits.items():
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise UserError(f"{name}: {option} must be a whole number from {least} to {most}, not {value!r}")
