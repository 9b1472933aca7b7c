"""Every fenced block of the documentation runs, or is held against what exists."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from pixelbert_fast import cli
from pixelbert_fast.model.config import PRESETS
from pixelbert_fast.training.ablation.recipe import load_ablation
from pixelbert_fast.training.recipe_files import parse
from pixelbert_fast.training.recipes import load_config
from tests import doc_commands
from tests.doc_blocks import LANGUAGES, Block, blocks, blocks_of, commands_of
from tests.doc_needs import provide

# Commands that run here wherever they stand, with what they name in small; `SMALLER` shortens what is long.
RUN = {
    "pixelbert examples",
    "pixelbert attend",
    "pixelbert predict vqa",
    "pixelbert predict match",
    "pixelbert predict nlvr2",
    "pixelbert search",
    "pixelbert env",
    "pixelbert plan",
    "pixelbert recipe",
    "pixelbert data show",
    "pixelbert data build scenes",
    "pixelbert data build scenes-objects",
    "pixelbert data build captions",
}
SMALLER = {"--images 10000": "--images 20"}
# Why the others do not run; that they could, by their options, names and files, is checked of every one.
NOT_RUN = {
    "pixelbert train": "trains for minutes to days; tests/test_train_cli.py trains",
    "python pixelbert_fast/train.py": "trains for minutes to days; tests/test_train_cli.py trains",
    "deepspeed": "trains for minutes to days; tests/test_deepspeed_engine.py trains",
    "pixelbert ablate": "trains for hours; tests/test_ablation.py runs a small one",
    "pixelbert evaluate": "needs the page's set and model; the tests of each task have small ones",
    "pixelbert report": "needs logs of whole runs; tests/test_report_page.py writes it of small ones",
    "pixelbert export": "needs an unfinished run; tests/test_run_export.py makes one",
    "pixelbert selftest": "takes most of a minute; tests/test_selftest.py runs it",
    "pixelbert data build tuxpaint": "needs the collection; tests/test_tuxpaint.py builds of a small one",
    "pixelbert data build tuxpaint-objects": "as tuxpaint",
    "pixelbert data build tuxpaint-pairs": "as tuxpaint; tests/test_tuxpaint_pairs.py",
    "pixelbert data build coco": "needs the official files; tests/test_official_captions.py has small ones",
    "pixelbert data build flickr30k": "as coco",
    "pixelbert data build visual-genome": "needs the official files; tests/test_visual_genome.py",
    "pixelbert data build vqa2": "needs the official files; tests/test_vqa2.py has small ones",
    "pixelbert data build nlvr2": "needs the official files; tests/test_nlvr2.py has small ones",
    "pixelbert data build easy-vqa": "needs the package easy-vqa; tests/test_easy_vqa.py has a small one",
    "pixelbert data build huggingface": "needs a set of the reader's; tests/test_hugging_face.py makes some",
    "make": "environments and suites of minutes; .ci/run goes by setup, lint and test",
    ".ci/run": "runs these tests",
    "python -m build": "fetches what it builds with; tests/test_sdist.py builds without",
    "python -m pytest": "tests run by themselves",
    "pytest": "measures for minutes; tests/test_benchmark_suite.py runs what it measures",
    "python benchmarks/bench_decoding.py": "measures for minutes",
    "python benchmarks/bench_records.py": "measures for minutes",
    "python benchmarks/bench_epochs.py": "measures for minutes",
    "python benchmarks/bench_builders.py": "measures for minutes",
    "python benchmarks/bench_model.py": "measures for minutes",
    "python benchmarks/bench_retrieval.py": "measures for minutes",
    "python benchmarks/scenes_questions.py": "needs the set and the model of the page",
    "python benchmarks/compare_results.py": "needs two reports; tests/test_compare_results.py has some",
    "pip": "needs a network",
    **dict.fromkeys(doc_commands.FOREIGN, "is not ours"),
}
# Blocks of Python that do not run at every change, by a line of theirs.
SLOW_PYTHON = {"save_package(model, shape": "Inductor compiles for most of a minute: `-m slow` runs it"}


def shapes_are_as_told(space: dict[str, Any]) -> None:
    outputs, (sentences, words) = space["outputs"], space["inputs"]["input_ids"].shape
    assert outputs.pooler_output.shape == (sentences, 128) == (3, 128)
    assert outputs.last_hidden_state.shape == (3, words + outputs.positions.shape[1], 128)


def maps_are_as_told(space: dict[str, Any]) -> None:
    (maps,) = space["pooled"].attentions
    assert maps.shape[:3] == (3, 2, 1) and maps.shape[3] > space["inputs"]["input_ids"].shape[1]


def compiled_is_the_same(space: dict[str, Any]) -> None:
    assert type(space["compiled"]).__name__ == "CompiledInference"
    with torch.no_grad():
        eager = space["fast"](**space["inputs"], image_index=torch.tensor([0, 0, 1]))
    # Float32 sums in another order: what a drop-in promises.
    for name in ("last_hidden_state", "pooler_output"):
        torch.testing.assert_close(space["same"][name], eager[name], rtol=1e-4, atol=1e-4)


# What is true after a block with such a line, beyond that it ran.
AFTERWARDS: dict[str, Callable[[dict[str, Any]], None]] = {
    "outputs = model(**inputs": shapes_are_as_told,
    "AttentionRequest(layers=[-1]": maps_are_as_told,
    "compiled = fast.compile_for_inference": compiled_is_the_same,
}


def pages_with(language: str) -> list[str]:
    return list(dict.fromkeys(block.page for block in blocks(language)))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("world")


@pytest.fixture
def here(world: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(world)
    # The sizes are small; everything else is the preset's.
    small = {"backbone_channels": 8, "hidden_size": 24, "intermediate_size": 48, "vocab_size": 100}
    monkeypatch.setitem(PRESETS, "r50", {**PRESETS["r50"], **small})
    return world


def test_every_block_says_what_it_is() -> None:
    unknown = [f"{one.where} {one.language!r}" for one in blocks() if one.language not in LANGUAGES]
    assert not unknown, f"a block is one of {', '.join(sorted(LANGUAGES))}: {'; '.join(unknown)}"


@pytest.mark.parametrize("page", pages_with("bash"))
def test_every_command_could_run(page: str) -> None:
    wrong = []
    for block in blocks("bash"):
        for command in commands_of(block) if block.page == page else ():
            try:
                doc_commands.check(command)
                if doc_commands.kind(command) not in {*RUN, *NOT_RUN, *doc_commands.SHELL, ""}:
                    wrong.append(f"{command.where}: {command}: neither runs nor has a reason why not")
            except doc_commands.MISTAKES as error:
                wrong.append(f"{command.where}: {command}: {error}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", pages_with("bash"))
def test_commands_of_seconds_run(page: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for block in blocks("bash"):
        for command in commands_of(block) if block.page == page else ():
            if doc_commands.kind(command) in RUN:
                run(doc_commands.filled(command.words)[1:])
                assert capsys.readouterr().out, command


def run(words: list[str]) -> None:
    provide("\n".join(word for before, word in pairwise(["", *words]) if before != "--out"))
    for long, short in SMALLER.items():
        words = "\0".join(words).replace(long.replace(" ", "\0"), short.replace(" ", "\0")).split("\0")
    workers = ["--workers", "1"] if words[:2] == ["data", "build"] else []
    assert cli.main([*words, *workers]) == 0, words


@pytest.mark.parametrize("page", pages_with("python"))
def test_python_runs_one_block_after_another(
    page: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The compiler has tests of its own; shapes are prepared and called here without it.
    monkeypatch.setattr("pixelbert_fast.model.inference.compiles_or_warns", lambda device, what: False)
    space: dict[str, Any] = {}
    for block in blocks("python"):
        if block.page == page and not any(line in block.text for line in SLOW_PYTHON):
            execute(block, space)


def execute(block: Block, space: dict[str, Any]) -> None:
    provide(block.text)
    lines = "\n" * block.line  # an error then names the page and its line
    exec(compile(lines + block.text, block.page, "exec"), space)
    for line, holds in AFTERWARDS.items():
        if line in block.text:
            holds(space)


@pytest.mark.slow
@pytest.mark.parametrize("line", SLOW_PYTHON)
def test_python_that_takes_long_runs(line: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(here / "inductor"))
    space: dict[str, Any] = {}
    (block,) = (one for one in blocks("python") if line in one.text)
    execute(block, space)
    assert space["outputs"].pooler_output.shape == (2, 128)


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: block.where)
def test_yaml_is_a_recipe_or_an_ablation(block: Block, tmp_path: Path) -> None:
    tree, file = parse(block.text, block.where), tmp_path / "mine.yaml"
    file.write_text(block.text if "rows" in tree or "base" in tree else f"base: demo\n{block.text}")
    (load_ablation if "rows" in tree else load_config)(file)


@pytest.mark.parametrize("block", blocks("json") or [None], ids=lambda block: getattr(block, "where", "none"))
def test_json_can_be_read(block: Block | None) -> None:
    if block is not None:
        json.loads(block.text)


def test_no_entry_of_the_tables_is_stale() -> None:
    commands = [command for block in blocks("bash") for command in commands_of(block)]
    kinds = {doc_commands.kind(command) for command in commands}
    assert not NOT_RUN.keys() - kinds and not RUN & NOT_RUN.keys()
    words = [" ".join(command.words) for command in commands]
    assert not [long for long in SMALLER if not any(long in line for line in words)]
    values = {part for command in commands for word in command.words for part in word.split("=")}
    assert not doc_commands.PLACEHOLDERS.keys() - values
    texts = [block.text for block in blocks("python")]
    for line in (*SLOW_PYTHON, *AFTERWARDS):
        assert sum(line in text for text in texts) == 1, line


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("pixelbert trian", "No such command"),
        ("pixelbert train --config dmo", "did you mean 'demo'"),
        ("pixelbert train training.epoch=2", "did you mean 'training.epochs'"),
        ("pixelbert attend photo.jpg 'a star' --layers 2", "No such option"),
        ("pixelbert data build scenes --out x --share val=0.1", "takes no share"),
        ("pixelbert data build coco --out x --images y", "needs annotations"),
        ("pixelbert evaluate vqq --checkpoint x --data y", "did you mean vqa"),
        ("pixelbert ablate --only row=nobody", "nobody"),
        ("python benchmarks/nothing.py", "no script"),
        ("python benchmarks/bench_records.py --recrods 3", "no option --recrods"),
        ("python -m pytest tests/test_nothing.py", "there is no"),
        ("make tset", "no target tset"),
        ("make test TETS=x", "no variable TETS"),
        ("pip install -e '.[trian]'", "no extra trian"),
        ("PIXELBERT_FAST_BACKEND=gpu pixelbert env", "does not take gpu"),
        ("PIXELBERT_FAST_BCKEND=cpu pixelbert env", "nothing reads"),
        ("frobnicate", "no program"),
        ("srun bash -c 'exec python pixelbert_fast/train.py --config dmo'", "did you mean 'demo'"),
    ],
)
def test_a_wrong_command_is_found(line: str, said: str) -> None:
    (block,) = blocks_of("page.md", f"text\n\n```bash\ntrue_name=1 && cd x  # {line}\n{line}\n```\n")
    *_, command = commands_of(block)
    with pytest.raises(doc_commands.MISTAKES) as raised:
        doc_commands.check(command)
    explained = getattr(raised.value, "format_message", lambda: str(raised.value))()
    assert said in explained


def test_commands_are_taken_apart_as_a_shell_does() -> None:
    lines = ["A=1 cat 'x # y' \\", "  z > f  # c", "head -1 f | cut -f1 && kill 2"]
    text = "\n".join(["- a list", "", "  ```bash", *(f"  {line}" for line in lines), "  ```", ""])
    (block,) = blocks_of("page.md", text)
    assert (block.where, block.language) == ("page.md:3", "bash")
    found = [(command.words, command.variables) for command in commands_of(block)]
    expected = [("cat", "x # y", "z"), ("head", "-1", "f"), ("cut", "-f1"), ("kill", "2")]
    assert found == [(expected[0], ("A=1",)), *((words, ()) for words in expected[1:])]
