"""The pictures of a report, each one self-contained SVG file."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import draw_roofline
import draw_speedups
import draw_step
from stored import Report

KINDS = {"speedups": draw_speedups, "step": draw_step, "roofline": draw_roofline}
TITLES = {name: module.TITLE for name, module in KINDS.items()}


def draw(report: Report) -> dict[str, str]:
    """SVG by name, of those that the report has rows for: "speedups", "step", "roofline"."""
    pictures = {name: module.draw(report) for name, module in KINDS.items()}
    return {name: picture for name, picture in pictures.items() if picture is not None}
