"""`make audit` says what was checked: an advisory database that knows nothing is no good news."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOUND = {"name": "a", "version": "1", "vulns": []}
HOLED = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
UNKNOWN = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("packages", "status", "said"),
    [
        ([SOUND], 0, "1 packages checked, 0 known holes"),
        ([SOUND, UNKNOWN], 0, "of 1 the database knows nothing: c"),
        ([SOUND, HOLED], 1, "b 2: PYSEC-1, mended in 3"),
        ([UNKNOWN], 1, "nothing was checked"),
        (None, 1, "could not be asked, so nothing was checked"),
    ],
)
def test_an_audit_says_what_it_checked(tmp_path: Path, packages, status: int, said: str) -> None:
    file = tmp_path / "found.json"
    if packages is not None:
        file.write_text(json.dumps({"dependencies": packages, "fixes": []}))
    ran = subprocess.run(
        [sys.executable, ".ci/audit.py", str(file)], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == status
    assert said in ran.stdout + ran.stderr
