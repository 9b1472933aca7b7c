"""The pages of docs/ that are written from the code: configuration.md and environment.md.

python .ci/reference_pages.py            says which differ from the code, and exits with 1 where one does
python .ci/reference_pages.py --write    writes them
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

import config_reference  # noqa: E402

from pixelbert_fast.environment import VARIABLES  # noqa: E402

WRITTEN = "<!-- Written by `make pages` from the code; change it there. -->"
ENVIRONMENT = """\
# Environment variables

The variables of this project. An empty one counts as not set, and a value that is none of those listed is an
error that names the nearest right one.
"""
OTHERS = """\
## Variables of others that are read as well

PyTorch, transformers, DeepSpeed and Triton read more of their own.
"""
# By name: who sets it, and what the package makes of it.
READ = {
    "OMP_NUM_THREADS": "CPU threads of a process where `training.threads` says nothing",
    "RANK": "number of this process among all; set by the launcher, as the five below",
    "LOCAL_RANK": "its number on this machine, and the GPU it takes",
    "WORLD_SIZE": "how many processes there are",
    "LOCAL_WORLD_SIZE": "how many are on this machine",
    "LOCAL_SIZE": "the same, as DeepSpeed's launcher calls it",
    "MASTER_ADDR": "where the processes meet",
    "MASTER_PORT": "its port; a single process takes a free one",
    "XDG_CACHE_HOME": "where `pixelbert selftest` keeps what it found, `~/.cache` where not set",
    "TRITON_INTERPRET": "1: the Triton kernels run on a CPU, by Triton's interpreter",
    "CC": "the C compiler that Triton builds the launchers of its kernels with",
    "PATH": "where an installation looks for compilers, nvcc and ninja",
    "CXX": "the C++ compiler of an installation",
    "CUDA_HOME": "where an installation looks for nvcc",
    "CUDA_PATH": "the same, after CUDA_HOME",
    "TORCH_CUDA_ARCH_LIST": "the GPUs that the CUDA part is built for",
    "MAX_JOBS": "how many compilers an installation runs at a time",
}


def environment_page() -> str:
    """docs/environment.md as text, from `pixelbert_fast.environment`."""
    lines = [ENVIRONMENT, "| variable | values | default | what it does |", "|---|---|---|---|"]
    for variable in VARIABLES:
        values = ", ".join(f"`{one}`" for one in variable.choices) or "any text"
        default = f"`{variable.default}`" if variable.default else "not set"
        lines.append(f"| `{variable.name}` | {values} | {default} | {variable.meaning} |")
    lines += ["", OTHERS, "| variable | what it does here |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in READ.items()]
    return "\n".join(lines) + "\n"


def pages() -> dict[Path, str]:
    """Each file with what should be in it."""
    docs = ROOT / "docs"
    made = {
        docs / "configuration.md": config_reference.page(),
        docs / "environment.md": environment_page(),
    }
    return {file: f"{WRITTEN}\n\n{text}" for file, text in made.items()}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write what differs")
    write = parser.parse_args(arguments).write
    differing = [
        file for file, text in pages().items() if not file.is_file() or file.read_text("utf-8") != text
    ]
    for file in differing:
        if write:
            file.write_text(pages()[file], encoding="utf-8")
        print(f"{file.relative_to(ROOT)} {'written' if write else 'differs from the code; make pages'}")
    return 0 if write else int(bool(differing))


if __name__ == "__main__":
    sys.exit(main())
