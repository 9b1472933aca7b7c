"""The files of published sets in small, mutated, and what a build of them may come to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from pixelbert_fast.data.build import build_set, make_builder
from pixelbert_fast.data.image_files import image_columns
from pixelbert_fast.data.records import open_set
from pixelbert_fast.errors import UserError
from tests import official_files, vqa_files
from tests.fuzzed_cases import WORKED, Target, sentence
from tests.fuzzed_files import Mutated, dumped, lines, mutated_file, mutated_tree
from tests.test_easy_vqa import ANSWERS

Writer = Callable[[Any], bytes]


@dataclass(repr=False)
class Material:
    """A set as it should be.

    Attributes:
        folder: of its images.
        files: by name, the tree of each annotation file and how it is written; bytes for one of no tree.
        options: of the builder, from the case's folder.
        units: the ids of the entries in a file's tree, each with the entry: what must not be lost silently.
        ids: which of these a record of the built set holds.
    """

    name: str
    folder: Path
    files: dict[str, tuple[Any, Writer]]
    options: Callable[[Path, Path], dict]
    units: Callable[[str, Any], Iterator[tuple[str, Any]]] = lambda name, tree: iter(())
    ids: Callable[[dict], list[str]] = lambda record: [record["key"]]
    pair_ids: Callable[[dict], list[str]] = lambda pair: [pair["identifier"]]
    images: set[bytes] = field(default_factory=set)


def _given(*names: str) -> Callable[[Path, Path], dict]:
    return lambda images, case: {"images": images, "annotations": [case / name for name in names]}


def _listed(tree: Any, member: str | None, key: Callable[[dict], str]) -> Iterator[tuple[str, Any]]:
    for entry in tree[member] if member else tree:
        yield key(entry), entry


def _coco(root: Path) -> Material:
    folder, file = official_files.write_coco(root)
    return Material(
        "coco", folder, {file.name: (json.loads(file.read_text()), dumped)}, _given(file.name),
        lambda name, tree: _listed(tree, "images", lambda one: f"coco-{one['cocoid']}"),
    )  # fmt: skip


def _flickr(root: Path) -> Material:
    folder, file = official_files.write_flickr(root)
    return Material(
        "flickr30k", folder, {file.name: (json.loads(file.read_text()), dumped)}, _given(file.name),
        lambda name, tree: _listed(tree, "images", lambda one: f"flickr30k-{one['filename'][:-4]}"),
    )  # fmt: skip


def _visual_genome(root: Path) -> Material:
    folder, described, listed = official_files.write_visual_genome(root)
    _, split_file = official_files.write_coco(root / "coco")
    trees = {path.name: (json.loads(path.read_text()), dumped) for path in (described, listed, split_file)}

    def options(images: Path, case: Path) -> dict:
        return {**_given(described.name, listed.name)(images, case), "karpathy": case / split_file.name}

    def units(name: str, tree: Any) -> Iterator[tuple[str, Any]]:
        if name == described.name:
            yield from _listed(tree, None, lambda one: f"visual-genome-{one['id']}")

    return Material("visual-genome", folder, trees, options, units)


def _captions(root: Path, suffix: str) -> Material:
    names = ["a.jpg", "sub/b.jpg", "c d.jpg", "é.jpg"]
    for number, name in enumerate(names):
        official_files.put(root / "images" / name, official_files.picture(number))
    rows = [
        {"image": name, "caption": [f"picture {number}", "same"], "split": "train" if number < 3 else "val"}
        for number, name in enumerate(names * 2)
    ]
    if suffix == "jsonl":
        file: tuple[Any, Writer] = (rows, lines)
    else:
        sign = {"csv": ",", "tsv": "\t"}[suffix]
        table = [
            ["image", "caption", "split"],
            *([row["image"], row["caption"][0], row["split"]] for row in rows),
        ]
        table[2][1] = '"two ""words""\nin quotes"'
        file = ("\r\n".join(sign.join(row) for row in table).encode(), bytes)
    units = (lambda name, tree: _listed(tree, None, lambda one: one["image"])) if suffix == "jsonl" else None
    more = {} if units is None else {"units": units}
    return Material("captions", root / "images", {f"c.{suffix}": file}, _given(f"c.{suffix}"), **more)


def _vqa2(root: Path) -> Material:
    trees: dict[str, tuple[Any, Writer]] = {}
    for subtype, numbers in (("train2014", range(1, 6)), ("val2014", range(11, 13))):
        asked, told = [], []
        for image in numbers:
            vqa_files.coco_image(root / "images", subtype, image, vqa_files.picture((image, 9, 9)))
            for number in range(3):
                asked.append(vqa_files.question(image, number))
                told.append(vqa_files.annotation(image, number, ["red"] * 7 + ["Two dogs"] * 3))
        trees[f"{subtype}_q.json"] = (vqa_files.questions_file(subtype, asked), dumped)
        trees[f"{subtype}_a.json"] = (vqa_files.annotations_file(subtype, told), dumped)

    def units(name: str, tree: Any) -> Iterator[tuple[str, Any]]:
        if name.endswith("_q.json"):
            yield from _listed(tree, "questions", lambda one: str(one["question_id"]))

    def ids(record: dict) -> list[str]:
        return [str(number) for number in record["question_ids"]]

    return Material("vqa2", root / "images", trees, _given(*trees), units, ids)


def _nlvr2(root: Path) -> Material:
    trees: dict[str, tuple[Any, Writer]] = {}
    for split, below in (("train", "train/37/"), ("dev", "dev/"), ("test1", "test1/")):
        told = []
        for pair in range(2):
            for side in (0, 1):
                shade = len(split) * 9 + pair * 2 + side
                official_files.put(
                    root / "images" / f"{below}{split}-5-{pair}-img{side}.png",
                    vqa_files.picture((shade, 0, 0)),
                )
            told += [
                vqa_files.statement(
                    f"{split}-5-{pair}-{number}",
                    f"There are {number}.",
                    directory=37 if split == "train" else None,
                )
                for number in range(2)
            ]
        trees[f"{split}.json"] = (told, lines)

    def units(name: str, tree: Any) -> Iterator[tuple[str, Any]]:
        yield from _listed(tree, None, lambda one: one["identifier"])

    return Material("nlvr2", root / "images", trees, _given(*trees), units, lambda record: [])


def _easy_vqa(root: Path) -> Material:
    trees: dict[str, tuple[Any, Writer]] = {"answers.txt": ("\n".join(ANSWERS).encode(), bytes)}
    for folder, number in (("train", 12), ("test", 2)):
        for image in range(number):
            content = vqa_files.picture((image, len(folder), 0), (8, 8), kind="PNG")
            official_files.put(root / "images" / folder / "images" / f"{image}.png", content)
        asked = [["what is it?", "circle", one] for one in range(number)]
        trees[f"{folder}/questions.json"] = (asked, dumped)

    def options(images: Path, case: Path) -> dict:
        shutil.copytree(images, case, dirs_exist_ok=True)
        return {"source": str(case)}

    def units(name: str, tree: Any) -> Iterator[tuple[str, Any]]:
        if name.endswith(".json"):
            yield from _listed(tree, None, lambda one: f"{name[:-15]}-{one[2]:06d}")

    return Material("easy-vqa", root / "images", trees, options, units)


MAKERS: dict[str, Callable[[Path], Material]] = {
    "coco": _coco,
    "flickr30k": _flickr,
    "visual-genome": _visual_genome,
    "captions.csv": lambda root: _captions(root, "csv"),
    "captions.tsv": lambda root: _captions(root, "tsv"),
    "captions.jsonl": lambda root: _captions(root, "jsonl"),
    "vqa2": _vqa2,
    "nlvr2": _nlvr2,
    "easy-vqa": _easy_vqa,
}


@cache
def material(name: str, root: Path) -> Material:
    """The set called so in MAKERS, written below `root` once."""
    made = MAKERS[name](root / name)
    made.images = {path.read_bytes() for path in made.folder.rglob("*") if path.is_file()}
    return made


@st.composite
def _cases(draw, made: Material) -> dict[str, Mutated]:
    """All files of a set, one or two of them mutated."""
    names = list(made.files)
    chosen = draw(st.sets(st.sampled_from(names), min_size=1, max_size=2))
    case = {}
    for name in names:
        tree, write = made.files[name]
        if name not in chosen:
            case[name] = Mutated(write(tree), tree)
        elif write is bytes:
            case[name] = draw(mutated_file(tree))
        else:
            case[name] = draw(mutated_tree(tree, write))
    return case


def judge_build(made: Material, case: dict[str, Mutated], folder: Path) -> str:
    """A whole set in which nothing is lost silently, or a user error and no set."""
    for name, file in case.items():
        official_files.put(folder / "given" / name, file.content)
    out = folder / "set"
    try:
        options = made.options(made.folder, folder / "given")
        report = build_set(make_builder(made.name, **options), out, workers=1, block=3)
    except UserError as error:
        assert not out.exists(), "an error left a set"
        return sentence(error)
    check_whole(out, report.counts, made.images)
    built = open_set(out)
    records = {split: list(built.split(split)) for split in built.splits if report.counts[split]}
    told = {one for own in records.values() for record in own for one in [*made.ids(record), record["key"]]}
    for split, number in (built.card.get("pairs") or {}).items():
        told |= {one for pair in (built.pairs(split) if number else ()) for one in made.pair_ids(pair)}
    dropped = " ".join(one["key"] for one in report.dropped)
    for unit in intact(made, case):
        assert unit in told or unit in dropped or _image_of(made, unit) in dropped, f"{unit} is lost"
    again = build_set(make_builder(made.name, **options), out, workers=1)
    assert again.counts == report.counts
    assert not out.with_name("set.partial").exists()
    return WORKED


def check_whole(out: Path, counts: dict[str, int], images: set[bytes]) -> None:
    """Every record of the built set reads, and is what the schema says."""
    built, keys = open_set(out), set()
    assert built.card["counts"] == counts and sum(counts.values())
    for split, number in counts.items():
        rows = list(built.split(split)) if number else []
        assert len(rows) == number
        for row in rows:
            assert row["key"] not in keys, f"the key {row['key']!r} comes twice"
            keys.add(row["key"])
            assert row["image"] in images
            columns = image_columns(row["image"])
            assert (row["height"], row["width"]) == (columns["height"], columns["width"])
            assert all(text and text == " ".join(text.split()) for text in row["captions"])
    for split, number in (built.card.get("pairs") or {}).items():
        rows = list(built.pairs(split)) if number else []
        assert len(rows) == number
        assert all(max(row["left"], row["right"]) < counts[split] and row["statement"] for row in rows)
    json.dumps(built.card).encode()


def intact(made: Material, case: dict[str, Mutated]) -> list[str]:
    """The ids of the entries that are in the mutated files as they were."""
    if any(file.tree is None for file in case.values()):
        return []
    found = []
    for name, (tree, write) in made.files.items():
        if write is bytes:
            continue
        still = {dumped(one) for one in _entries(case[name].tree)}
        found += [unit for unit, entry in made.units(name, tree) if dumped(entry) in still]
    return found


def _entries(tree: Any) -> Iterator[Any]:
    """The members of all lists at the top of a tree."""
    for one in tree.values() if isinstance(tree, dict) else [tree]:
        if isinstance(one, list):
            yield from one


def _image_of(made: Material, unit: str) -> str:
    """What a dropped image of VQA v2 or NLVR2 is called, whose questions or statements go with it."""
    if made.name == "vqa2":
        subtype = "train2014" if int(unit) < 11_000 else "val2014"
        return f"COCO_{subtype}_{int(unit) // 1000:012d}"
    return unit


def targets(root: Path) -> list[Target]:
    """One for each set in MAKERS, written below `root`."""

    def one(name: str) -> Target:
        made = material(name, root)
        judge = lambda case, folder: judge_build(made, case, folder)  # noqa: E731
        return Target(f"build {name}", "annotation files", st.deferred(lambda: _cases(made)), judge)

    return [one(name) for name in MAKERS]
