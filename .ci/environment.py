"""Make or refresh `.venv`: torch first, at one version and without CUDA where there is no GPU, then the rest.

Run by `make setup` with any Python >= 3.11; it needs nothing but the standard library. When nothing has
changed since the last time it does nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
STAMP = VENV / "pixelbert-fast.stamp"
CONSTRAINTS = VENV / "pixelbert-fast-constraints.txt"
BUILD_RECORD = ROOT / "pixelbert_fast" / "_build_record.json"
TORCH_VERSION = "2.13.0"
EXTRAS = "train,dev,kernels"


class SetupError(Exception):
    """The environment could not be made: one sentence saying why."""


def main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 - the Makefile's PYTHON may name any interpreter
        print(f"Python >= 3.11 is needed; {sys.executable} is {platform.python_version()}", file=sys.stderr)
        return 2
    start = time.monotonic()
    wanted = fingerprint()
    stamped = STAMP.is_file() and STAMP.read_text(encoding="utf-8") == wanted
    # `make clean` deletes the native code with its record.
    if stamped and VENV_PYTHON.exists() and BUILD_RECORD.is_file():
        return 0
    try:
        make_venv()
        STAMP.unlink(missing_ok=True)
        torch = install_torch()
        install_package(torch)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    STAMP.write_text(wanted, encoding="utf-8")
    print(f"setup: .venv is ready, torch {torch}, {time.monotonic() - start:.0f} s")
    return 0


def fingerprint() -> str:
    """Return a digest of all that decides what the environment holds."""
    digest = hashlib.sha256()
    for path in [*(ROOT / name for name in ("pyproject.toml", "setup.py", "Makefile")), Path(__file__)]:
        digest.update(path.read_bytes())
    for path in sorted(ROOT.glob("csrc/**/*.[ch]*")):
        digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    for fact in (platform.python_version(), str(ROOT), os.environ.get("PIXELBERT_FAST_BUILD", "")):
        digest.update(fact.encode() + b"\0")
    return digest.hexdigest() + "\n"


def make_venv() -> None:
    """Create `.venv`, or again where its Python is gone or of another version than the one that runs this."""
    asked = f"{sys.version_info.major}.{sys.version_info.minor}"
    if VENV.exists():
        if has := venv_answer("import sys; print('%d.%d' % sys.version_info[:2])"):
            if has == asked:
                return
            print(f"setup: .venv has Python {has}, not {asked}; making it again", flush=True)
        else:
            print("setup: the Python of .venv does not run; making it again", flush=True)
        shutil.rmtree(VENV)
    print(f"setup: making .venv with Python {platform.python_version()}", flush=True)
    if subprocess.run([sys.executable, "-m", "venv", str(VENV)]).returncode != 0:
        shutil.rmtree(VENV, ignore_errors=True)
        raise SetupError(
            f"{sys.executable} could not make .venv; does it have the `venv` and `ensurepip` modules?"
        )


def install_torch() -> str:
    """Install torch unless it is there, and return its version with the build label, such as `2.13.0+cpu`."""
    with_gpu = has_nvidia_gpu()
    installed = torch_version()
    if installed and installed.split("+")[0] == TORCH_VERSION:
        return installed
    index = os.environ.get("PIXELBERT_FAST_TORCH_INDEX", "").strip()
    source = ["--index-url", index] if index else []
    print(
        f"setup: installing torch {TORCH_VERSION} ({'an' if with_gpu else 'no'} NVIDIA GPU here)", flush=True
    )
    if with_gpu or sys.platform == "darwin" or not install_cpu_torch(source):
        pip(*source, f"torch=={TORCH_VERSION}")
    installed = torch_version()
    if not installed:
        raise SetupError("torch was installed and cannot be imported")
    return installed


def install_cpu_torch(source: list[str]) -> bool:
    """Install the build of torch without CUDA; False, with a line that says so, where none can be had."""
    command = [*pip_install(), *source, f"torch=={TORCH_VERSION}+cpu"]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode == 0:
        return True
    if "No matching distribution found for torch" not in result.stdout:
        print(result.stdout, file=sys.stderr)
        raise SetupError("pip could not install torch")
    print(
        "setup: no CPU build of torch can be had here, taking the plain one, which may bring several GB of"
        " CUDA; PIXELBERT_FAST_TORCH_INDEX can name PyTorch's CPU index",
        flush=True,
    )
    return False


def install_package(torch: str) -> None:
    """Install the build tools, then the package with its extras, and make sure that torch stayed."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    CONSTRAINTS.write_text(f"torch=={torch}\n", encoding="utf-8")
    print("setup: installing the package and what it needs", flush=True)
    pip(*project["build-system"]["requires"], "wheel", "ninja")
    pip("--no-build-isolation", "--constraint", str(CONSTRAINTS), "--editable", f"{ROOT}[{EXTRAS}]")
    record = json.loads(BUILD_RECORD.read_text(encoding="utf-8"))
    for part, name in (("cpu", "C++"), ("cuda", "CUDA"), ("host", "host")):
        built = "built" if record[part]["built"] else "not built"
        print(f"setup: {name} part {built}: {record[part]['reason']}", flush=True)
    if (now := torch_version()) != torch:
        raise SetupError(f"torch {torch} was installed first and is now {now}; remove .venv and try again")


def torch_version() -> str:
    """Return the version of the environment's torch, or an empty string where it cannot be imported."""
    return venv_answer("import torch; print(torch.__version__)")


def has_nvidia_gpu() -> bool:
    """Ask the driver, which answers only where there is one and it sees a GPU."""
    try:
        answer = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0 and "GPU" in answer.stdout


def pip_install() -> list[str]:
    loudness = [] if sys.stdout.isatty() else ["--quiet"]
    return [str(VENV_PYTHON), "-m", "pip", "install", *loudness, "--disable-pip-version-check", "--no-input"]


def pip(*arguments: str) -> None:
    """Install, or raise SetupError; pip says why itself."""
    if subprocess.run([*pip_install(), *arguments]).returncode != 0:
        raise SetupError(f"pip could not install {' '.join(arguments)}")


def venv_answer(code: str) -> str:
    """Run `code` with the environment's Python, outside the checkout, and return what it printed."""
    try:
        result = subprocess.run([str(VENV_PYTHON), "-c", code], capture_output=True, text=True, cwd=VENV)
    except OSError:
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(main())
