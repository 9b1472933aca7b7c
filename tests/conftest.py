"""What holds for every test."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Nothing reads the user's own cache: a verdict of `pixelbert selftest` there would change what runs."""
    directory = tempfile.mkdtemp(prefix="pixelbert-tests-")
    os.environ["XDG_CACHE_HOME"] = directory
    config.add_cleanup(lambda: shutil.rmtree(directory, ignore_errors=True))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An empty cache directory for a test that writes to it, and nothing remembered from another one."""
    from pixelbert_fast.ops import backends, verdicts

    def forget() -> None:
        verdicts.avoided.cache_clear()
        backends._warn_once.cache_clear()

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    forget()
    yield tmp_path / "cache"
    forget()
