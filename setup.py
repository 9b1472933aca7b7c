"""What pyproject.toml cannot say: where the kernels lie, and which native code this machine builds."""

import sys
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))  # a build front end does not put the source tree on the path

from pixelbert_fast import _build_commands  # noqa: E402 - needs the path above

setup(
    packages=[*find_packages(include=["pixelbert_fast", "pixelbert_fast.*"]), "pixelbert_fast.kernels"],
    package_dir={"pixelbert_fast.kernels": "kernels"},
    **_build_commands.setup_arguments(ROOT, sys.argv),
)
