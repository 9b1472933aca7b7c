"""The commands ask nothing of the network where no name on a hub is given."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PRETRAINED = ROOT / "pixelbert_fast" / "pretrained"
PICTURE = PRETRAINED / "pictures" / "7.jpg"
SCENES = PRETRAINED / "scenes"
# An audit hook sees every socket of Python's, whoever opens it, and cannot be taken away again. What goes to
# this machine itself is allowed: processes of one training meet there.
GUARDED = """
import os, sys
def refuse(event, arguments):
    if event not in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        return
    where = arguments[0] if isinstance(arguments[0], str) else arguments[-1]
    where = where[0] if isinstance(where, tuple) else where
    if where not in ("localhost", "127.0.0.1", "::1"):
        print("NETWORK", event, arguments[-2:], file=sys.stderr, flush=True)
        os._exit(3)  # an error might be taken for a network that is down, and tried again
sys.addaudithook(refuse)
"""
COMMANDS = """
import json
from pixelbert_fast.cli import main
for line in json.loads(sys.argv[1]):
    print("COMMAND", *line, file=sys.stderr, flush=True)
    if main(line):
        raise SystemExit(f"failed: {line}")
"""
RECIPE = """
task: pretrain
output: run
data:
  directory: set
  short_side: 32
  long_side: 32
tokenizer: {size: 600}
model: {preset: tiny}
training: {images_per_batch: 8, steps: 2}
evaluation: {splits: [val], images: 2}
"""


def guarded(code: str, folder: Path, *arguments: str, before: tuple[str, ...] = ()):
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))
    }
    environment = kept | {"HF_HOME": str(folder / "hf"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*before, sys.executable, "-c", GUARDED + code, *arguments],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def isolated() -> tuple[str, ...]:
    """The words that run a command on a machine without a network; none where a user may not have that."""
    words = ("unshare", "--user", "--map-root-user", "--net")
    if shutil.which(words[0]) is None:
        return ()
    return words if subprocess.run([*words, "true"], capture_output=True).returncode == 0 else ()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("offline")
    (made / "images").mkdir()
    for number in (1, 2):
        shutil.copy(PRETRAINED / "pictures" / f"{number}.jpg", made / "images")
    (made / "recipe.yaml").write_text(RECIPE)
    return made


def test_every_command_works_without_a_network(folder: Path) -> None:
    """In one process, since imports take most of the time, and on a machine without one where that can be."""
    vqa = str(PRETRAINED / "scenes-vqa")
    lines = [
        ["data", "build", "scenes", "--images", "40", "--size", "48", "--workers", "1", "--out", "set"],
        ["train", "--config", "recipe.yaml"],
        ["data", "show", "set", "--tokenizer", str(SCENES), "--out", "set.html"],
        ["attend", str(PICTURE), "a red square", "--checkpoint", str(SCENES), "--out", "a.html"],
        ["predict", "vqa", str(PICTURE), "what colour is it?"],
        ["predict", "match", str(PICTURE), "a red square", "a star"],
        ["search", "images", "a red square", "--out", "found.html"],
        ["evaluate", "vqa", "--checkpoint", vqa, "--data", "set", "--images", "1", "--out", "vqa.json"],
    ]
    # Last a name on a hub, so that the silence before it says something.
    lines.append(["data", "show", "set", "--tokenizer", "nobody/nothing", "--out", "none.html"])
    ran = guarded(COMMANDS, folder, json.dumps(lines), before=isolated())
    *silent, asking = ran.stderr.split("COMMAND")
    assert len(silent) == len(lines), ran.stderr
    assert "NETWORK" not in "".join(silent), ran.stderr
    assert "NETWORK" in asking and ran.returncode == 3, ran.stderr
    for name in ("set.html", "a.html", "found.html", "vqa.json", "run/metrics.json"):
        assert (folder / name).is_file(), name


@pytest.mark.skipif(not isolated(), reason="no network namespace can be had here")
def test_there_is_no_network_in_a_namespace_of_its_own(tmp_path: Path) -> None:
    code = "import socket\nprint(socket.if_nameindex())"
    assert guarded(code, tmp_path, before=isolated()).stdout == "[(1, 'lo')]\n"


def test_the_guard_sees_a_connection(tmp_path: Path) -> None:
    for call in ("create_connection(('192.0.2.1', 9), timeout=1)", "getaddrinfo('example.org', 9)"):
        assert "NETWORK" in guarded(f"import socket\nsocket.{call}", tmp_path).stderr, call
