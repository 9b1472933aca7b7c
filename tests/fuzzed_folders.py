"""Folders that the package or `datasets` wrote, one file of them mutated, and what reading may come to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import torch
from hypothesis import strategies as st

from pixelbert_fast.data.build import build_set, make_builder
from pixelbert_fast.data.captions import CaptionTexts, caption_column
from pixelbert_fast.data.decoded import DecodedImages
from pixelbert_fast.data.processor import PixelBertImageProcessor
from pixelbert_fast.data.records import open_set
from pixelbert_fast.data.stored_bytes import StoredBytes
from pixelbert_fast.errors import UserError
from pixelbert_fast.model import PixelBertForVisualQuestionAnswering
from pixelbert_fast.model.checkpoint_files import read_checkpoint
from pixelbert_fast.tasks import make_task
from pixelbert_fast.tasks.saved_model import open_saved
from pixelbert_fast.training.config import RunConfig
from pixelbert_fast.training.folder import RunFolder
from pixelbert_fast.visualize.report.records import read_run
from tests import fuzzed_sets, toy_sets, vqa_sets
from tests.fuzzed_cases import WORKED, Target, sentence
from tests.fuzzed_files import Mutated, dumped, lines, mutated_file, mutated_tree

Case = tuple[str, Mutated | None]
"""The name of a file, and what it is now; None: it is gone."""


def _tree_of(path: Path) -> tuple[Any, Callable[[Any], bytes]] | None:
    """What a file says as a tree, and how it is written; None for one of no tree."""
    try:
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in path.read_bytes().splitlines()], lines
        return (json.loads(path.read_bytes()), dumped) if path.suffix == ".json" else None
    except ValueError:
        return None


@st.composite
def one_file(draw, folder: Path) -> Case:
    """One of the files below `folder`, mutated or gone."""
    path = draw(st.sampled_from(sorted(path for path in folder.rglob("*") if path.is_file())))
    name = str(path.relative_to(folder))
    if draw(st.integers(0, 19)) == 0:
        return name, None
    tree = _tree_of(path)
    # Files of many members or bytes make the draws slow, and all of their kinds are at the beginning.
    found = (
        mutated_tree(*tree)
        if tree is not None and path.stat().st_size < 20_000
        else mutated_file(path.read_bytes())
    )
    return name, draw(found)


def copied(folder: Path, case: Case, target: Path) -> Path:
    """`folder` with the one file as the case says, as `target`."""
    shutil.copytree(folder, target)
    name, content = case
    (target / name).unlink()
    if content is not None:
        (target / name).write_bytes(content.content)
    return target


def read_set(folder: Path) -> None:
    """Everything that training reads of a built set."""
    built = open_set(folder)
    for split in built.splits:
        if not built.card["counts"][split]:
            continue
        rows = built.split(split)
        stored, captions = StoredBytes(rows), CaptionTexts(caption_column(rows))
        images = DecodedImages(rows, PixelBertImageProcessor(16, 32), broken_limit=1.0)
        images.readable(range(min(len(rows), 3)), 0, 0)
        assert len(captions) == len(rows) == len(stored)
        for row, record in enumerate(rows):
            assert record["image"] == stored[row]
            assert all(isinstance(text, str) for text in record["captions"])
        if "answer_labels" in rows.features:
            known = len(built.answers())
            assert all(0 <= label < known for own in rows["answer_labels"] for one in own for label in one)
    for split, number in (built.card.get("pairs") or {}).items():
        for pair in built.pairs(split) if number else ():
            assert max(pair["left"], pair["right"]) < len(built.split(split))


def judge_set(whole: Path, case: Case, folder: Path) -> str:
    try:
        read_set(copied(whole, case, folder / "set"))
    except UserError as error:
        return sentence(error)
    return WORKED


@cache
def unfinished(root: Path) -> tuple[Path, dict[str, bytes]]:
    """(the folder of a build that was stopped after two blocks, the files of the whole set)."""
    build_set(toy_sets.Toy(), root / "whole", workers=1, block=3)
    try:
        build_set(toy_sets.Toy(), root / "set", workers=1, block=3, progress=toy_sets.stop_after(2))
    except toy_sets.Stop:
        return root / "set.partial", toy_sets.files(root / "whole")
    raise AssertionError("it was not stopped")


def judge_resumed(root: Path, case: Case, folder: Path) -> str:
    """The same build again gives the same set to the byte, whatever became of one of its files."""
    partial, wanted = unfinished(root)
    copied(partial, case, folder / "set.partial")
    try:
        build_set(toy_sets.Toy(), folder / "set", workers=1, block=3)
    except UserError as error:
        assert not (folder / "set").exists()
        return sentence(error)
    found = toy_sets.files(folder / "set")
    assert found.keys() == wanted.keys()
    assert all(found[name] == wanted[name] for name in wanted if not name.endswith("card.json"))
    return WORKED


@cache
def saved_dataset(root: Path) -> Path:
    """What `save_to_disk` of `datasets` writes."""
    pictures = [fuzzed_sets.official_files.picture(number) for number in range(4)]
    rows = {"image": pictures, "caption": [["a", "b"], ["c"], ["d e"], ["f"]], "id": [5, 6, 7, 8]}
    features = datasets.Features(
        {
            "image": datasets.Value("binary"),
            "caption": datasets.List(datasets.Value("string")),
            "id": datasets.Value("int64"),
        }
    )
    split = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": split, "validation": split.select([0, 3])}).save_to_disk(root / "saved")
    return root / "saved"


def judge_dataset(root: Path, case: Case, folder: Path) -> str:
    source = copied(saved_dataset(root), case, folder / "saved")
    try:
        builder = make_builder("huggingface", source=str(source))
        report = build_set(builder, folder / "set", workers=1, block=3)
    except UserError as error:
        assert not (folder / "set").exists()
        return sentence(error)
    assert sum(report.counts.values())
    read_set(folder / "set")
    return WORKED


@cache
def checkpoint(root: Path) -> Path:
    """What a run saves in the end, small."""
    built = vqa_sets.build(root / "vqa")
    task = make_task(vqa_sets.config(built))
    task.save(task.model, root / "checkpoint")
    return root / "checkpoint"


def judge_checkpoint(root: Path, case: Case, folder: Path) -> str:
    """A model and a processor that answer, or a user error."""
    given = copied(checkpoint(root), case, folder / "checkpoint")
    try:
        model, processor, _ = open_saved(given, PixelBertForVisualQuestionAnswering)
        picture = vqa_sets.picture(0, (20, 30))
        # As every caller of it is told what the processor of a file wants.
        inputs = processor(images=picture, text="what colour is it?", short_side=32, long_side=64)
    except UserError as error:
        return sentence(error)
    with torch.no_grad():
        logits = model(**inputs).logits
    assert logits.ndim == 2 and len(logits) == 1
    return WORKED


@cache
def weight_files(root: Path) -> Path:
    """A backbone's weights as torch and as safetensors write them, and as shards with their index."""
    from safetensors.torch import save_file

    folder = root / "weights"
    folder.mkdir()
    draw = torch.Generator().manual_seed(0)
    tensors = {f"layer.{number}.weight": torch.randn(3, 4, generator=draw) for number in range(3)}
    torch.save({"epoch": 3, "state_dict": tensors}, folder / "weights.pt")
    save_file(tensors, folder / "shard-1.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, "shard-1.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 4}))
    return folder


def judge_weights(root: Path, case: Case, folder: Path) -> str:
    given = copied(weight_files(root), case, folder / "weights")
    errors = []
    for source in (given, given / "weights.pt"):
        try:
            read = read_checkpoint(source)
        except UserError as error:
            errors.append(sentence(error))
            continue
        assert read.tensors and all(isinstance(one, torch.Tensor) for one in read.tensors.values())
    return errors[0] if errors else WORKED


@cache
def run_folder(root: Path) -> Path:
    """The small files of a finished run."""
    folder = root / "run"
    config = RunConfig.model_validate({"output": "runs/x", "training": {"epochs": 1}}).model_dump(mode="json")
    assert RunFolder(folder).claim(config, "auto", {"versions": {"torch": "2"}}) == "new"
    records = [{"kind": "train", "step": step, "loss": 1 / step, "lr/backbone": 0.1} for step in range(1, 5)]
    records.append({"kind": "evaluation", "step": 4, "metrics": {"val": {"itm_accuracy": 0.5}}})
    (folder / "log.jsonl").write_bytes(lines(records))
    metrics = {"task": "pretrain", "steps": 4, "metrics": {"val": {"itm_accuracy": 0.5}}, "versions": {}}
    (folder / "metrics.json").write_bytes(dumped(metrics))
    return folder


def judge_run(root: Path, case: Case, folder: Path) -> str:
    """What `pixelbert report` and a second run of the same recipe look at."""
    given = copied(run_folder(root), case, folder / "run")
    errors = []
    try:
        read = read_run(given)
        assert isinstance((read.task, read.step, read.versions, read.figures()), tuple)
    except UserError as error:
        errors.append(sentence(error))
    config = RunConfig.model_validate({"output": "runs/x", "training": {"epochs": 1}}).model_dump(mode="json")
    before = toy_sets.files(given)
    try:
        if RunFolder(given).claim(config, "auto") == "finished":
            assert isinstance(RunFolder(given).metrics(), dict)
    except UserError as error:
        errors.append(sentence(error))
        assert toy_sets.files(given) == before, "an error took files away"
    return errors[0] if errors else WORKED


def targets(root: Path) -> list[Target]:
    """One for each kind of folder, written below `root` when first used."""

    def one(name: str, what: str, make: Callable[[], Path], judge: Callable[[Case, Path], str]) -> Target:
        return Target(name, what, st.deferred(lambda: one_file(make())), judge)

    made = fuzzed_sets.material

    @cache
    def built(name: str) -> Path:
        own = made(name, root)
        case = {file: Mutated(write(tree)) for file, (tree, write) in own.files.items()}
        assert fuzzed_sets.judge_build(own, case, root / "built" / name) == WORKED
        return root / "built" / name / "set"

    return [
        *(
            one(f"read a set ({name})", "one file of it", lambda name=name: built(name),
                lambda case, folder, name=name: judge_set(built(name), case, folder))
            for name in ("coco", "vqa2", "nlvr2")
        ),
        one("resume a build", "one file of it", lambda: unfinished(root)[0],
            lambda case, folder: judge_resumed(root, case, folder)),
        one("build huggingface", "one file of a saved set", lambda: saved_dataset(root),
            lambda case, folder: judge_dataset(root, case, folder)),
        one("open a checkpoint", "one file of it", lambda: checkpoint(root),
            lambda case, folder: judge_checkpoint(root, case, folder)),
        one("read weights", "one file of them", lambda: weight_files(root),
            lambda case, folder: judge_weights(root, case, folder)),
        one("read a run", "one file of it", lambda: run_folder(root),
            lambda case, folder: judge_run(root, case, folder)),
    ]  # fmt: skip
