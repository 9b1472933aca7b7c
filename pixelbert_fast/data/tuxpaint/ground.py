"""The ground of a composed scene: a muted colour that has one name, plain, shaded or grainy."""

import colorsys
from dataclasses import dataclass
from functools import lru_cache
from random import Random

import numpy as np
from PIL import Image

# Ranges of hue (degrees), saturation and value, so far apart that no ground could be called by another's
# name.
_COLOURS = {
    "blue": ((205, 225), (0.45, 0.65), (0.60, 0.85)),
    "brown": ((20, 28), (0.50, 0.65), (0.36, 0.48)),
    "green": ((112, 138), (0.35, 0.55), (0.50, 0.72)),
    "grey": ((0, 360), (0.0, 0.04), (0.45, 0.72)),
    "pink": ((330, 344), (0.30, 0.45), (0.88, 0.96)),
    "purple": ((266, 280), (0.40, 0.55), (0.45, 0.65)),
    "yellow": ((50, 57), (0.55, 0.75), (0.86, 0.95)),
}
COLOURS = tuple(_COLOURS)
TEXTURES = ("plain", "shaded", "grainy")

# How much lighter and darker than its colour a shaded ground gets, and a grainy one, as factors.
_SHADE = 0.16
_GRAIN = 0.10


@dataclass(frozen=True, slots=True)
class Ground:
    """A ground: its colour's name, its texture, the exact colour (0 to 255), and the seed of its pattern."""

    colour: str
    texture: str
    rgb: tuple[int, int, int]
    seed: int


def choose_ground(rng: Random) -> Ground:
    """A ground of any colour and texture with equal chances."""
    colour = rng.choice(COLOURS)
    (h0, h1), (s0, s1), (v0, v1) = _COLOURS[colour]
    hue, saturation, value = rng.uniform(h0, h1), rng.uniform(s0, s1), rng.uniform(v0, v1)
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue / 360, saturation, value))
    return Ground(colour, rng.choice(TEXTURES), (red, green, blue), rng.getrandbits(32))


def draw_ground(ground: Ground, size: int) -> Image.Image:
    """The ground as an RGB image of `size` x `size` pixels."""
    if ground.texture == "plain":
        return Image.new("RGB", (size, size), ground.rgb)
    rng = np.random.default_rng(ground.seed)
    if ground.texture == "shaded":
        angle = rng.uniform(0, 2 * np.pi)
        along, down = _ramps(size)
        light = 1 + _SHADE * (np.cos(angle) * along + np.sin(angle) * down)
    else:
        # Patches an eighth of the side wide, smoothed, under a fine grain.
        patches = Image.fromarray(rng.random((8, 8), dtype=np.float32)).resize(
            (size, size), Image.Resampling.BICUBIC
        )
        light = (
            1 + _GRAIN * (2 * np.asarray(patches) - 1) + _GRAIN * (rng.random((size, size), np.float32) - 0.5)
        )
    pixels = np.asarray(light, np.float32)[:, :, None] * np.asarray(ground.rgb, np.float32)
    return Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8))


@lru_cache(maxsize=8)
def _ramps(size: int) -> tuple[np.ndarray, np.ndarray]:
    """From -1 to 1 along a row, `[1, size]`, and down a column, `[size, 1]`."""
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    return ramp[None, :], ramp[:, None]
