"""The commands ask nothing of the network where no name on a hub is given."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "pixelbert_fast" / "pretrained" / "pictures" / "7.jpg"
SCENES = ROOT / "pixelbert_fast" / "pretrained" / "scenes"
# An audit hook sees every socket of Python's, whoever opens it, and cannot be taken away again.
GUARDED = """
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        print("NETWORK", event, arguments[-2:], file=sys.stderr, flush=True)
        raise OSError("no network here")
sys.addaudithook(refuse)
"""


def guarded(code: str, tmp_path: Path) -> subprocess.CompletedProcess:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))
    }
    environment = kept | {"HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", GUARDED + code],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_attend_works_without_a_network(tmp_path: Path) -> None:
    line = ["attend", str(PICTURE), "a red square", "--checkpoint", str(SCENES), "--out", "a.html"]
    ran = guarded(f"from pixelbert_fast.cli import main\nraise SystemExit(main({line!r}))", tmp_path)
    assert ran.returncode == 0 and "NETWORK" not in ran.stderr, ran.stderr
    assert (tmp_path / "a.html").is_file()


def test_the_guard_sees_a_connection(tmp_path: Path) -> None:
    code = "import socket\nsocket.create_connection(('192.0.2.1', 9), timeout=1)"
    assert "NETWORK" in guarded(code, tmp_path).stderr
