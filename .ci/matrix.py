"""The wheel on every Python here, with the oldest versions it claims and the newest there are.

    python .ci/matrix.py                          the oldest Python with both, each later one with the newest
    python .ci/matrix.py 3.11:oldest 3.13:newest  some of that
    python .ci/matrix.py --wheel FILE ...         this wheel; else one is built by the Python that runs this

One environment at a time, in a temporary directory (TMPDIR), gone afterwards. In each the wheel is installed
as anyone would, torch first: its CPU build from PIXELBERT_FAST_TORCH_INDEX or pip's own configuration where
there is one, else the plain one. `tests/installed` then runs there, from outside the checkout. The rows go to
docs/results/matrix.md; those of combinations that were not run stay as they were.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "results" / "matrix.md"
TESTS = ROOT / "tests" / "installed"
OLDEST_PYTHON = 11
NEWEST_PYTHON = 14
ENDS = ("oldest", "newest")
HEAD = """# The wheel on other versions

```bash
make matrix                                    # all of it
make matrix MATRIX="3.11:oldest 3.13:newest"   # some of it
```

One wheel, built once, from the sdist, is installed into a new environment of each Python. `oldest`: each
dependency at the lowest version that pyproject.toml claims; `newest`: whatever pip finds that day. There
`tests/installed` runs from outside the checkout: imports, the command, the ops on a CPU, predictions of the
shipped models, a small fine-tuning, a program exported and one compiled. The seconds are of installing
everything, torch included, and of the tests.

"""
COLUMNS = ("Python", "versions", "torch", "transformers", "others", "outcome", "installing", "tests", "when")
TOLD = ("numpy", "pillow", "pydantic", "datasets", "pyarrow", "typer")


class MatrixError(Exception):
    """One sentence saying why a combination cannot be tried."""


@dataclass(frozen=True)
class Combination:
    """A Python of one minor version and which end of the claimed versions it gets."""

    minor: int
    end: str

    @property
    def key(self) -> tuple[str, str]:
        return f"3.{self.minor}", self.end


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; 1 where anything failed."""
    it = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    it.add_argument("combinations", nargs="*", metavar="3.N:END", help="END: oldest or newest")
    it.add_argument("--wheel", type=Path, help="instead of building one")
    told = it.parse_args(arguments)
    # A checkout on the path would pass for the installed package, to pip as well.
    os.environ.pop("PYTHONPATH", None)
    pythons = interpreters()
    try:
        asked = [parsed(word) for word in told.combinations] or standard(pythons)
        if missing := sorted({f"3.{one.minor}" for one in asked} - {f"3.{minor}" for minor in pythons}):
            raise MatrixError(f"no Python {', '.join(missing)} on the path or among pyenv's versions")
        with tempfile.TemporaryDirectory(prefix="pixelbert-matrix-") as directory:
            wheel = told.wheel.resolve() if told.wheel else build_wheel(Path(directory))
            outcomes = [tried(one, pythons[one.minor], wheel, Path(directory)) for one in asked]
    except MatrixError as error:
        print(f"matrix: {error}", file=sys.stderr)
        return 2
    return 0 if all(outcomes) else 1


def interpreters() -> dict[int, str]:
    """The Pythons that the package claims and that are here, by minor version: on the path, else pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = {}
    for minor in range(OLDEST_PYTHON, NEWEST_PYTHON + 1):
        candidates = [shutil.which(f"python3.{minor}"), *pyenv.glob(f"3.{minor}.*/bin/python")]
        runs = (str(path) for path in candidates if path and answer(str(path), VERSION) == f"3.{minor}")
        if python := next(runs, None):
            found[minor] = python
    return found


VERSION = "import sys, ensurepip; print('%d.%d' % sys.version_info[:2])"


def standard(pythons: dict[int, str]) -> list[Combination]:
    """The oldest versions on the oldest Python alone: they are older than later Pythons."""
    oldest = [Combination(OLDEST_PYTHON, "oldest")] if OLDEST_PYTHON in pythons else []
    return oldest + [Combination(minor, "newest") for minor in pythons]


def parsed(word: str) -> Combination:
    """`3.12:newest`."""
    version, _, end = word.partition(":")
    major, _, minor = version.partition(".")
    if major != "3" or not minor.isdigit() or end not in ENDS:
        raise MatrixError(f"{word!r} is no combination; write it as 3.12:newest or 3.11:oldest")
    return Combination(int(minor), end)


def lowest(project: dict) -> list[str]:
    """Each dependency of pyproject.toml's `project` pinned to the lower bound it claims.

    Raises:
        MatrixError: one of them claims none.
    """
    pins = []
    for requirement in map(Requirement, project["dependencies"]):
        bounds = [bound.version for bound in requirement.specifier if bound.operator == ">="]
        if len(bounds) != 1:
            raise MatrixError(f"{requirement} has no lower bound in pyproject.toml")
        pins.append(f"{requirement.name}=={bounds[0]}")
    return pins


def build_wheel(directory: Path) -> Path:
    """A wheel of the checkout's sdist, with everything that this machine can build."""
    sdist = f"from setuptools import build_meta; build_meta.build_sdist({str(directory)!r})"
    checked([sys.executable, "-c", sdist], "the sdist could not be made", cwd=ROOT)
    (packed,) = directory.glob("pixelbert_fast-*.tar.gz")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps"]
    checked([*command, "--wheel-dir", str(directory), str(packed)], "the wheel could not be built")
    (wheel,) = directory.glob("pixelbert_fast-*.whl")
    return wheel


def tried(one: Combination, python: str, wheel: Path, directory: Path) -> bool:
    """Install and test in a new environment, and write the row; True where all tests passed."""
    venv = directory / f"venv-3.{one.minor}-{one.end}"
    start = time.monotonic()
    try:
        environment = install(one, python, wheel, venv)
        installed = time.monotonic()
        status, outcome = test(environment, wheel, directory)
        versions = {
            name: answer(environment, METADATA.format(name)) for name in ("torch", "transformers", *TOLD)
        }
        others = ", ".join(f"{name} {versions[name]}" for name in TOLD)
        row = [f"3.{one.minor}", one.end, versions["torch"], versions["transformers"], others, outcome]
        row += [f"{installed - start:.0f} s", f"{time.monotonic() - installed:.0f} s"]
    except MatrixError as error:
        status, row = 1, [f"3.{one.minor}", one.end, "", "", "", f"not installed: {error}", "", ""]
    finally:
        shutil.rmtree(venv, ignore_errors=True)
    write_row([*row, time.strftime("%B %Y")])
    print(f"matrix: 3.{one.minor} {one.end}: {row[5]}", flush=True)
    return status == 0


METADATA = "import importlib.metadata as m; print(m.version({!r}))"


def install(one: Combination, python: str, wheel: Path, venv: Path) -> str:
    """Make the environment and return its Python."""
    checked([python, "-m", "venv", str(venv)], f"{python} made no environment")
    environment = str(venv / "bin" / "python")
    pip = [environment, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    pip.append("--no-compile")  # it would take longer than the tests
    pins = venv / "pins.txt"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = lowest(project) if one.end == "oldest" else []
    torch = next((pin for pin in wanted if pin.startswith("torch==")), "torch")
    index = os.environ.get("PIXELBERT_FAST_TORCH_INDEX", "").strip()
    source = ["--index-url", index] if index else []
    # A CPU build names itself by its version, which only a pinned one can ask for.
    if torch == "torch" or subprocess.run([*pip, *source, f"{torch}+cpu"], capture_output=True).returncode:
        checked([*pip, *source, torch], f"pip could not install {torch}")
    found = answer(environment, METADATA.format("torch"))
    others = [pin for pin in wanted if not pin.startswith("torch==")]
    pins.write_text("\n".join([f"torch=={found}", *others]) + "\n", encoding="utf-8")
    checked([*pip, "--constraint", str(pins), str(wheel), "pytest"], "pip could not install the wheel")
    checked([environment, "-m", "pip", "check"], "what was installed does not fit together")
    return environment


def test(environment: str, wheel: Path, directory: Path) -> tuple[int, str]:
    """Run the copied tests there; the status and pytest's own last line."""
    with tempfile.TemporaryDirectory(dir=directory) as outside:
        shutil.copytree(TESTS, Path(outside, "tests"), ignore=shutil.ignore_patterns("__pycache__"))
        Path(outside, "pytest.ini").write_text("[pytest]\nmarkers = slow: also run here\n", encoding="utf-8")
        command = [environment, "-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider"]
        command += ["-W", "error::DeprecationWarning:pixelbert_fast", "tests"]
        ran = subprocess.run(command, cwd=outside, capture_output=True, text=True, env=surroundings(outside))
    lines = [line for line in ran.stdout.splitlines() if line.strip()]
    if ran.returncode:
        print(ran.stdout, ran.stderr, sep="\n", file=sys.stderr)
        return ran.returncode, "FAILED: " + (lines[-1] if lines else f"pytest's status {ran.returncode}")
    return 0, lines[-1].partition(" in ")[0]


def surroundings(outside: str) -> dict[str, str]:
    """The environment of a user with nothing of ours: no checkout on the path, no cache."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIXELBERT_"))
    }
    kept |= {"XDG_CACHE_HOME": f"{outside}/cache", "TMPDIR": outside, "HF_HUB_OFFLINE": "1"}
    return {"OMP_NUM_THREADS": "2", "TOKENIZERS_PARALLELISM": "false"} | kept


def write_row(row: list[str]) -> None:
    """Put the row into the page, in the place of an earlier one of its combination."""
    rows = {tuple(old[:2]): old for old in rows_of(PAGE)} | {tuple(row[:2]): row}
    ordered = sorted(
        rows.values(), key=lambda one: (int(one[0].partition(".")[2]), -ENDS[::-1].index(one[1]))
    )
    table = [COLUMNS, ["---"] * len(COLUMNS), *ordered]
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in table)
    where = f"Machine: {os.cpu_count()} cores of {platform.system()} {platform.machine()}, no GPU."
    had = {int(one[0].partition(".")[2]) for one in ordered}
    missing = [f"3.{minor}" for minor in range(OLDEST_PYTHON, NEWEST_PYTHON + 1) if minor not in had]
    if missing:
        where += f" Not tried, for want of an interpreter: Python {', '.join(missing)}."
    PAGE.write_text(f"{HEAD}{text}\n\n{where}\n", encoding="utf-8")


def rows_of(page: Path) -> list[list[str]]:
    """The cells of each row that a page has."""
    lines = page.read_text(encoding="utf-8").splitlines() if page.is_file() else []
    return [
        [cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines if line.startswith("| 3.")
    ]


def checked(command: list[str], problem: str, cwd: Path | None = None) -> None:
    """Run the command, or raise MatrixError with `problem` and pip's first error."""
    ran = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ran.returncode:
        print(ran.stdout, file=sys.stderr)
        lines = [line for line in ran.stdout.splitlines() if line.startswith("ERROR")] or [""]
        raise MatrixError(f"{problem} ({lines[0]})")


def answer(python: str, code: str) -> str:
    """What a Python prints, or nothing where it does not run."""
    try:
        ran = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=tempfile.gettempdir())
    except OSError:
        return ""
    return ran.stdout.strip() if ran.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(main())
