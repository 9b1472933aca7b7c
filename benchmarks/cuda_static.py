"""What the CUDA kernels ask of a GPU, by compiling them without one: registers, spills, shared memory.

    python benchmarks/cuda_static.py                  sm_80, sm_90 and sm_100, to docs/results/cuda-static.md
    python benchmarks/cuda_static.py --json sm_90     the targets named, printed as JSON

Warnings of nvcc and of the host's compiler are errors. The figures are ptxas's own (-Xptxas -v), a thread's
registers and stack, and a block's shared memory.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pixelbert_fast import _build, _build_cuda  # noqa: E402

REPORT = ROOT / "docs" / "results" / "cuda-static.md"
TARGETS = ("sm_80", "sm_90", "sm_100")
STRICT = ["-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra,-Werror", "-Xptxas", "-v"]
ELEMENTS = {"float": "float32", "double": "float64", "BFloat16": "bfloat16", "Half": "float16"}


def resources(target: str, machine: _build.Machine, directory: Path) -> list[dict]:
    """A row for each kernel of each `.cu` file, compiled for `target`.

    Raises:
        RuntimeError: nvcc failed; the message is what it printed.
    """
    major, minor = target.removeprefix("sm_")[:-1], target[-1]
    machine = replace(machine, architectures=f"{major}.{minor}")
    rows = []
    for source in machine.cuda_sources:
        made = directory / f"{Path(source).stem}.{target}.o"
        command = [*_build_cuda.compile_command(machine), *STRICT, "-c", source, "-o", str(made)]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if ran.returncode:
            raise RuntimeError(f"{source} for {target}:\n{ran.stderr}")
        rows += [{"source": Path(source).name, "target": target, **row} for row in kernels_in(ran.stderr)]
    return rows


def kernels_in(report: str) -> list[dict]:
    """What ptxas said of each kernel: name, elements, registers, bytes of stack, spills and shared memory."""
    rows = []
    for part in report.split("Compiling entry function '")[1:]:
        mangled = part.partition("'")[0]
        stack, stored, loaded = map(
            int,
            re.search(
                r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part
            ).groups(),
        )
        shared = re.search(r"(\d+) bytes smem", part)
        rows.append(
            {
                **named(mangled),
                "registers": int(re.search(r"Used (\d+) registers", part)[1]),
                "stack": stack,
                "spills": stored + loaded,
                "shared": int(shared[1]) if shared else 0,
            }
        )
    return rows


def named(mangled: str) -> dict[str, str]:
    """Kernel, its work and element type from a mangled name: `GatherRows<Float32, 4>` by 4 elements."""
    kernel = re.search(r"\d([a-z_]+_kernel)", mangled)[1]
    work = re.search(r"\d(GatherRows|GatherTiles|FillMissing|ScatterRows|ScatterTiles|ListReaders)", mangled)
    kinds = re.search(r"BFloat16|Half|WideKindI([fd])", mangled)
    element = {"f": "float", "d": "double"}.get(kinds[1], kinds[0]) if kinds else ""
    width = re.search(r"EELi(\d+)EE", mangled)
    return {
        "kernel": kernel,
        "work": (work[1] if work else "") + (f" by {width[1]}" if width else ""),
        "elements": ELEMENTS.get(element, "any"),
    }


def page(rows: list[dict], version: str) -> str:
    """The rows as a page: one line a kernel, one column a target."""
    lines = [
        "# The CUDA kernels, compiled without a GPU",
        "",
        "X",
        "registers a thread / bytes a thread spills / bytes of shared memory a block. No kernel has a stack.",
        "`by N`: a thread moves N elements at a time, 16 bytes or one element. 256 threads a block;",
        "`ListReaders` 128.",
        "",
        f"| kernel | work | elements | {' | '.join(TARGETS)} |",
        f"|---|---|---|{'---|' * len(TARGETS)}",
    ]
    table: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in rows:
        cell = f"{row['registers']} / {row['spills']} / {row['shared']}"
        table.setdefault((row["kernel"], row["work"], row["elements"]), {})[row["target"]] = cell
    for about, cells in sorted(table.items()):
        lines.append(f"| {' | '.join(about)} | {' | '.join(cells[target] for target in TARGETS)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", nargs="+", metavar="TARGET", help="only these targets, printed as JSON")
    arguments = parser.parse_args()
    machine = _build.find_machine(ROOT)
    if machine.nvcc is None:
        sys.exit("no nvcc found; install the CUDA toolkit or name it in CUDA_HOME.")
    targets = arguments.json or TARGETS
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(os.cpu_count()) as pool:
        single = [(target, replace(machine, cuda_sources=(source,))) for target in targets
                  for source in machine.cuda_sources]  # fmt: skip
        parts = pool.map(lambda one: resources(one[0], one[1], Path(directory)), single)
        try:
            rows = [row for part in parts for row in part]
        except RuntimeError as error:
            sys.exit(str(error))
    if arguments.json:
        print(json.dumps(rows))
        return 0
    printed = subprocess.run([machine.nvcc, "--version"], check=True, capture_output=True, text=True).stdout
    REPORT.write_text(page(rows, re.search(r"release ([\d.]+)", printed)[1]), encoding="utf-8")
    wrong = [row for row in rows if row["spills"] or row["stack"]]
    for row in wrong:
        print(f"uses local memory: {row}", file=sys.stderr)
    print(f"{len(rows)} kernels, {len(wrong)} with spills or a stack: {REPORT.relative_to(ROOT)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
