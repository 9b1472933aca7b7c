"""`pixelbert env`: everything it tells, as text and as JSON, also where pieces are broken."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import pixelbert_fast
from pixelbert_fast import _build, _build_host, cli, environment_report
from pixelbert_fast.data.decoders import choice
from pixelbert_fast.environment import BUILD, CHECK, VARIABLES
from pixelbert_fast.ops import backends, cpu_backend, triton_backend, verdicts

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch):
    """Nothing remembered of a library, of verdicts, or of a variable that is set."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable.name, raising=False)
    cpu_backend.why_not_loaded.cache_clear()
    yield
    cpu_backend.why_not_loaded.cache_clear()
    verdicts.avoided.cache_clear()


def as_json(capsys: pytest.CaptureFixture[str]) -> dict:
    assert cli.main(["env", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def as_text(capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["env"]) == 0
    return capsys.readouterr().out


def test_what_is_told_is_so(capsys: pytest.CaptureFixture[str]) -> None:
    told = as_json(capsys)
    assert list(told) == ["versions", "machine", "torch", "environment", "build", "native", "ops", "decoders"]
    assert told["versions"]["pixelbert_fast"] == pixelbert_fast.__version__
    assert told["versions"]["transformers"] == importlib.metadata.version("transformers")
    assert told["torch"]["version"] == torch.__version__
    assert len(told["torch"]["gpus"]) == torch.cuda.device_count()
    assert told["torch"]["threads"] == torch.get_num_threads()
    assert set(told["environment"]) == {variable.name for variable in VARIABLES}
    assert told["build"] == json.loads((ROOT / "pixelbert_fast" / _build.RECORD).read_text())
    assert set(told["decoders"]) == set(choice.DECODERS)
    for name, about in told["decoders"].items():
        assert ("cpu" in about["usable_on"]) == (choice.why_not(name, "cpu") is None)
        assert ("cpu" in about["chosen_on"]) == (choice.choose(None, "cpu") == name)
    assert set(told["ops"]) == set(backends.OPS)
    for op, by_name in told["ops"].items():
        assert list(by_name) == list(backends.BACKENDS)
        dtype = torch.int32 if op == "sample_positions" else torch.float32
        for name, about in by_name.items():
            assert ("cpu" in about["usable_on"]) == (backends.why_not(name, op, "cpu", dtype) is None)
            assert ("cpu" in about["chosen_on"]) == (backends.choose(op, None, "cpu", dtype) == name)


def test_the_text_has_the_same_in_columns(capsys: pytest.CaptureFixture[str]) -> None:
    told, text = as_json(capsys), as_text(capsys)
    blocks = dict(block.split("\n", 1) for block in text.rstrip("\n").split("\n\n"))
    assert list(blocks) == list(told)
    for line in blocks["versions"].splitlines():
        name, value = line.split(maxsplit=1)
        assert value == told["versions"][name]
    assert "not set, default 'auto'" in blocks["environment"]
    assert "sample_positions / reference  usable on cpu" in blocks["ops"]
    assert "plain  usable on cpu, chosen automatically" in blocks["decoders"]
    assert "{" not in text and "[" not in text


def test_no_heavy_package_is_imported_for_its_version() -> None:
    code = (
        "import sys; from pixelbert_fast import environment_report as e; e.report();"
        " print(sorted({m.partition('.')[0] for m in sys.modules}"
        " & {'transformers', 'triton', 'deepspeed', 'nvidia', 'datasets'}))"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "[]"


def test_a_package_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment_report, "PACKAGES", ("torch", "no-such-package", "nvidia-dali"))
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: [])
    versions = environment_report.report()["versions"]
    assert versions["no-such-package"] == versions["nvidia-dali"] == "not installed"
    assert versions["torch"] == importlib.metadata.version("torch")


def test_gpus_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    gpu = SimpleNamespace(name="NVIDIA H100", major=9, minor=0, total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: gpu)
    told = {"name": "NVIDIA H100", "compute_capability": "9.0", "memory_gib": 80.0}
    assert as_json(capsys)["torch"]["gpus"] == [told, told]
    assert as_text(capsys).count("name NVIDIA H100, compute_capability 9.0, memory_gib 80.0") == 2


def test_variables_with_values_right_and_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(CHECK.name, "1")
    monkeypatch.setenv(BUILD.name, "forse")
    told = as_json(capsys)["environment"]
    assert told[CHECK.name] == {"value": "1", "default": "0", "problem": None}
    assert "did you mean 'force'?" in told[BUILD.name]["problem"]
    text = as_text(capsys)
    assert "'1' (default '0')" in text
    assert "wrong: PIXELBERT_FAST_BUILD is 'forse'" in text


def test_a_missing_library_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cpu_backend, "LIBRARIES", "_nothing.*")
    told = as_json(capsys)
    assert told["native"]["library"] is None and "was not built" in told["native"]["problem"]
    about = told["ops"]["pool_gather"]
    assert about["cpu"]["usable_on"] == [] and "was not built" in about["cpu"]["why_not"]["cpu"]
    assert about["reference"]["chosen_on"][:1] == ["cpu"]
    assert "not usable on cpu: the C++ library was not built" in as_text(capsys)


def test_a_library_that_does_not_load_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "_C.abi3.so"
    broken.write_bytes(b"no library")
    monkeypatch.setattr(cpu_backend, "library", lambda: broken)
    told = as_json(capsys)
    assert "does not load into torch" in told["native"]["problem"]
    assert "does not load into torch" in told["ops"]["pool_gather"]["cpu"]["why_not"]["cpu"]


def test_without_the_host_module_the_reason_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = {"host": {"built": False, "reason": "it serves one Python version and a wheel many"}}
    monkeypatch.setattr(_build_host, "library_name", lambda: "_nothing.so")
    monkeypatch.setattr(_build, "read_record", lambda package: record)
    assert as_json(capsys)["native"]["host_module"] == {
        "problem": "not built: it serves one Python version and a wheel many"
    }


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_build_record_that_cannot_be_read_is_told(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / _build.RECORD).write_text(content)
    monkeypatch.setattr(environment_report, "__file__", str(tmp_path / "environment_report.py"))
    told = as_json(capsys)
    assert list(told["build"]) == ["broken"] and "an installation writes it" in told["build"]["broken"]
    assert told["torch"]["version"] == torch.__version__


def test_what_raises_is_told_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_):
        raise ImportError("undefined symbol\nsomewhere")

    monkeypatch.setattr(triton_backend, "why_not", fail)
    monkeypatch.setattr(torch, "get_num_threads", fail)
    told = as_json(capsys)
    assert told["torch"] == {"broken": "ImportError: undefined symbol"}
    assert told["ops"]["pool_gather"]["triton"] == {"broken": "ImportError: undefined symbol"}
    assert told["ops"]["pool_gather"]["reference"]["usable_on"][:1] == ["cpu"]
    text = as_text(capsys)
    assert "pool_gather / triton          broken: ImportError: undefined symbol" in text


def test_what_selftest_found_wrong_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if reason := cpu_backend.why_not_loaded():
        pytest.skip(reason)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    verdicts.keep(torch.device("cpu"), {("pool_gather", "cpu"): "output: it is off."}, set())
    about = as_json(capsys)["ops"]["pool_gather"]["cpu"]
    assert about["usable_on"] == ["cpu"] and about["chosen_on"] == []
    assert about["avoided_on"] == {"cpu": "output: it is off."}
    assert "avoided on cpu, selftest found: output: it is off." in as_text(capsys)
