"""Whether `torch.compile` can run on this machine, found out before it is asked to."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import subprocess
import sysconfig
from functools import cache

import torch

logger = logging.getLogger(__name__)

PROBE = "#include <Python.h>\n#include <vector>\n"
"""What every file that Inductor generates for a CPU includes."""


def can_compile(device: torch.device | str) -> str | None:
    """None where ``torch.compile`` can run for `device`; where it cannot, why not, in one sentence.

    Takes less than a second the first time (a C++ compiler is started) and nothing after: a process looks at
    the machine once for each kind of device.
    """
    return _why_not(torch.device(device).type)


def compiles_or_warns(device: torch.device | str, what: str) -> bool:
    """Whether ``torch.compile`` can run for `device`; where not, a warning says so once.

    Args:
        what: the subject of that sentence, such as "the inference path".
    """
    reason = can_compile(device)
    if reason is not None:
        _warn_once(f"{what} runs without torch.compile: {reason}")
    return reason is None


@cache
def _warn_once(sentence: str) -> None:
    logger.warning(sentence)


@cache
def _why_not(kind: str) -> str | None:
    if not torch._dynamo.is_dynamo_supported():
        return f"torch {torch.__version__} cannot trace this version of Python"
    if torch._dynamo.config.disable:
        return "it is switched off (TORCH_COMPILE_DISABLE or TORCHDYNAMO_DISABLE)"
    if kind == "cpu":
        return _why_no_cpp()
    if kind == "cuda":
        return _why_no_triton()
    return f"only code for cpu and cuda is generated here, not for {kind}"


def _why_no_cpp() -> str | None:
    """Inductor's own search for a compiler, then one tiny file: a compiler alone is not enough."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        compiler = get_cpp_compiler()
    except Exception as error:  # InvalidCxxCompiler; a compiler that may not be started raises OSError
        return f"there is no working C++ compiler ({_first_line(error)}); install g++, or name one in CXX"
    if os.name == "nt":
        return None  # Inductor has asked it for its version; its options are others there
    include = sysconfig.get_paths()["include"]
    command = [compiler, "-x", "c++", "-fsyntax-only", f"-I{include}", "-"]
    try:
        done = subprocess.run(command, input=PROBE, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        return f"the C++ compiler {compiler} does not run ({_first_line(error)})"
    if done.returncode:
        return (
            f"the C++ compiler {compiler} cannot compile what includes Python.h and <vector> "
            f"({_first_line(done.stderr)}); install Python's headers and C++'s"
        )
    return None


def _why_no_triton() -> str | None:
    from torch.utils._triton import has_triton

    if not torch.cuda.is_available():
        return "torch sees no GPU"
    if not has_triton():
        return "Triton is missing, or knows no GPU as old as this one; install triton"
    # Triton builds the launcher of each kernel with a C compiler.
    named = os.environ.get("CC")
    if not any(map(shutil.which, [shlex.split(named)[0]] if named else ["cc", "gcc", "clang"])):
        return "Triton finds no C compiler; install gcc, or name one in CC"
    return None


def _first_line(message: object) -> str:
    return (str(message).strip().splitlines() or ["no message"])[0]
