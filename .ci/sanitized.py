"""`make asan`: build the C++ kernels with sanitisers of addresses and arithmetic, and run their tests.

`make fuzz-ops-asan` (`--fuzz CALLS`) makes that many random calls of them in place of the tests, and writes
docs/results/fuzz-ops-asan.md; interrupted, it goes on later.

What is built and run is a copy of the checkout in `build/asan`, whose library is the sanitised one; the
installed library stays as it is. Any report of a sanitiser ends the run with an error. It needs gcc with its
libasan, as on Linux.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPY = ROOT / "build" / "asan"
COPIED = ("pixelbert_fast", "kernels", "csrc", "tests", "setup.py", "pyproject.toml", "README.md", "LICENSE")
# Native code is built there. Nothing of CUDA: its code does not run on a CPU.
LEFT_OUT = shutil.ignore_patterns("*.so", "*.cu", "*.cuh", "_build_record.json", "__pycache__")
TESTS = (
    "test_ops_cpu.py",
    "test_pixel_embed_cpu.py",
    "test_pixel_embed_registered.py",
    "test_ops_registered.py",
    "test_ops_fuzz.py",
    "test_affine_relu.py",
    "test_resize_picture.py",
)
FUZZED_CALLS = 10_000
# Other calls than those of `make fuzz-ops`.
FIRST_SEED = 10_000
PAGE = Path("docs", "results", "fuzz-ops-asan.md")
SANITIZERS = "-fsanitize=address,undefined"
FLAGS = f"{SANITIZERS} -fno-sanitize-recover=all -fno-omit-frame-pointer -g"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fuzz", type=int, metavar="CALLS", help="random calls in place of the tests")
    options, for_pytest = parser.parse_known_args()
    start = time.monotonic()
    compiler = os.environ.get("CXX", "c++")
    # The second because the first, when it is loaded, looks for the functions that throw exceptions.
    runtimes = [runtime_of(compiler, name) for name in ("libasan.so", "libstdc++.so")]
    if None in runtimes:
        print(
            f"asan: {compiler} has no libasan.so; install it or name another compiler in CXX", file=sys.stderr
        )
        return 2
    refresh_copy()
    build = os.environ | {"CFLAGS": FLAGS, "LDFLAGS": SANITIZERS, "PIXELBERT_FAST_BUILD": "force"}
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    if subprocess.run(command, cwd=COPY, env=build).returncode != 0:
        print("asan: the sanitised library could not be built", file=sys.stderr)
        return 1
    if not has_sanitizer(COPY / "pixelbert_fast"):
        print("asan: the library was built without the sanitisers", file=sys.stderr)
        return 1
    print(f"asan: built in {time.monotonic() - start:.0f} s", flush=True)
    tests = [f"tests/{name}" for name in TESTS if (COPY / "tests" / name).is_file()]
    run = os.environ | {
        "LD_PRELOAD": ":".join(runtimes),
        # Python and torch never free much of what they allocate.
        "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
    }
    # A report goes to the process's own stderr, which pytest would otherwise keep and lose with the process.
    pytest = ["-m", "pytest", "--capture=sys", "-q", "-rs", "-p", "no:cacheprovider", *for_pytest, *tests]
    fuzz = ["tests/fuzz_ops.py", "--sanitized"]
    if options.fuzz is None:
        runs = [pytest, [*fuzz, "--again", "--calls", str(FUZZED_CALLS)]]
    else:
        runs = [[*fuzz, "--report", "--calls", str(options.fuzz), "--seed", str(FIRST_SEED)]]
    status = 0
    for arguments in runs:
        status = status or subprocess.run([sys.executable, *arguments], cwd=COPY, env=run).returncode
    if status == 0 and options.fuzz is not None:
        shutil.copy2(COPY / PAGE, ROOT / PAGE)
    print(f"asan: {'no report' if status == 0 else 'FAILED'}, {time.monotonic() - start:.0f} s", flush=True)
    return status


def runtime_of(compiler: str, name: str) -> str | None:
    """The path of a library of the compiler's, which must be loaded before anything else."""
    command = [compiler, f"-print-file-name={name}"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return found if Path(found).is_absolute() else None  # a bare name is one that was not found


def refresh_copy() -> None:
    """Copy what is built and tested, with its dates, so that only what changed is compiled again."""
    for name in COPIED:
        source, target = ROOT / name, COPY / name
        if source.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, ignore=LEFT_OUT)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def has_sanitizer(package: Path) -> bool:
    """Whether the only library in `package` calls AddressSanitizer."""
    libraries = list(package.glob("_C.*.so"))
    return len(libraries) == 1 and b"__asan_init" in libraries[0].read_bytes()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
