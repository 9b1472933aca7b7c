"""Building a data set: records rendered in parallel, written in blocks, resumed after a kill.

While a set is built, OUT.partial holds ``identity.json`` (what is being built), one Arrow file and one JSON
file for each finished block, and a lock; a kill loses only the blocks under way. Blocks are then copied into
one ``datasets`` directory, which takes OUT's name as the last step, so OUT is never half a set.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pixelbert_fast.data.blocks import Block, Dropped, render_blocks, write_split
from pixelbert_fast.data.catalogue import make_builder, options_from_words
from pixelbert_fast.data.records import CARD, PAIRS, SPLITS, VERSION, read_card, write_card
from pixelbert_fast.errors import RunError, UserError

__all__ = [
    "BuildReport",
    "Dropped",
    "Plan",
    "SetBuilder",
    "build_set",
    "make_builder",
    "options_from_words",
]

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class Plan:
    """All that is decided before anything is rendered.

    Args:
        splits: for each split its specs, one a record, in order (a list, or an array of numbers); a spec is
            any small picklable value.
        card: what card.json says beside format, name, options and counts; its "dropped", if any, lists what
            was left out already, and dropped records are added to it; its "published" ({"images in train":
            113287, ...}) is compared with "counted" ({"what": number}) and the records of each split.
        pairs: for each split its statements about two images (the columns PAIR_COLUMNS and, in all or none
            of them, any of OPTIONAL_PAIR_COLUMNS), where `left` and `right` are places in the split's specs;
            None for a set without them.
        files: further files to lie beside the card, which then has their checksums.
    """

    splits: dict[str, Sequence]
    card: dict
    pairs: dict[str, list[dict]] | None = None
    files: dict[str, bytes] = field(default_factory=dict)


class SetBuilder(Protocol):
    """What makes a data set. Picklable, since worker processes render with it.

    One made from a source (a folder of photographs) may also have ``notes() -> list[str]``: what it found
    there, in lines to print before building.
    """

    name: str

    def options(self) -> dict:
        """Everything the records depend on, JSON-able: the set's identity."""

    def plan(self) -> Plan:
        """Decide on every record: deterministic, cheap, with all checks that need the whole set."""

    def render(self, spec: Any) -> dict | Dropped:
        """The record of a spec, a pure function of the builder's options and the spec."""


@dataclass(slots=True)
class BuildReport:
    """What came of a build: records by split, what was dropped ({"key", "why"}), where the set lies, and
    lines on what else was counted, compared with what was published."""

    counts: dict[str, int]
    dropped: list[dict[str, str]] = field(default_factory=list)
    directory: Path = Path()
    counted: list[str] = field(default_factory=list)


def build_set(
    builder: SetBuilder,
    out: Path | str,
    *,
    workers: int | None = None,
    block: int = 500,
    progress: Progress | None = None,
) -> BuildReport:
    """Build a data set at `out`, or return at once where the same one is there already.

    Args:
        workers: processes that render; None takes one for each CPU this process may use, 1 renders here.
        block: records a block, the unit that is done in parallel and that a resumed build does not repeat.
            A resumed build keeps the size it began with.
        progress: called as ``progress(advance, total)`` with the records done since the last call (first with
            what an earlier, killed build had done) and the records in all.

    Raises:
        UserError: `out` holds anything but this set, another build of it is running, OUT.partial is of
            another set, or every image of a split was dropped.
        RunError: a worker process died, or a file could not be read or written.
    """
    if block < 1:
        raise ValueError(f"block must be at least 1, not {block}")
    out = Path(out)
    if out.name in ("", "..") or out.is_symlink():
        out = out.resolve()
    identity = {"name": builder.name, "options": json.loads(json.dumps(builder.options()))}
    partial = out.parent / (out.name + ".partial")
    done = _finished(out, identity)
    if done is not None:
        _clear_away(partial)
        return done
    if out.is_mount():
        raise UserError(f"{out} is where a file system is mounted, name a directory below it")
    try:
        with _claimed(partial, {**identity, "version": VERSION}, block, out) as block:
            # Another process may have finished it between the look above and the lock.
            done = _finished(out, identity)
            if done is not None:
                shutil.rmtree(partial)
                return done
            plan = builder.plan()
            blocks = _plan_blocks(plan, block)
            progress = progress or (lambda advance, total: None)
            render_blocks(builder, blocks, partial, workers or _cpus(), progress)
            report = _assemble(plan, blocks, partial, identity)
            if out.exists():
                out.rmdir()
            os.rename(partial / "set", out)
            shutil.rmtree(partial)
    except OSError as error:
        raise RunError(
            f"building {out} failed ({error}): put that right and run the same build, it resumes"
        ) from error
    report.directory = out
    return report


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _finished(out: Path, identity: dict) -> BuildReport | None:
    """The report of the set at `out` if it is this one; UserError if something else is there."""
    if not out.exists():
        return None
    if not out.is_dir():
        raise UserError(f"{out} is a file: name a directory for the data set")
    card = read_card(out)
    if card is None:
        if any(out.iterdir()):
            raise UserError(
                f"{out} is not empty and has no {CARD} of ours: name another directory for the data set"
            )
        return None
    there = {"name": card.get("name"), "options": card.get("builder")}
    if there != identity:
        raise UserError(
            f"{out} holds another data set, {_told(there, identity)}: name another directory or delete it"
        )
    return _report(card, out)


def _report(card: dict, directory: Path) -> BuildReport:
    counted, published = card.get("counted", {}), card.get("published", {})
    records = {f"images in {split}": number for split, number in card["counts"].items()}
    lines = []
    for what, expected in published.items():
        number = {**counted, **records}.get(what, 0)
        told = "as published" if number == expected else f"published are {expected:,}"
        lines.append(f"{number:,} {what}, {told}")
    lines += [f"{number:,} {what}" for what, number in counted.items() if number and what not in published]
    return BuildReport(card["counts"], card["dropped"], directory, lines)


def _told(there: dict, wanted: dict) -> str:
    """How one identity differs from another, in a few words."""
    if there["name"] != wanted["name"]:
        return f"{there['name']!r} and not {wanted['name']!r}"
    old, new = there["options"] or {}, wanted["options"]
    names = [name for name in {**new, **old} if old.get(name) != new.get(name)]
    return ", ".join(f"with {name} = {old.get(name)!r} and not {new.get(name)!r}" for name in names)


@contextmanager
def _claimed(partial: Path, identity: dict, block: int, out: Path) -> Iterator[int]:
    """Hold OUT.partial, made when missing, for this process, and give its block size. A kill frees it."""
    try:
        partial.mkdir(parents=True, exist_ok=True)
        lock = open(partial / "lock", "w")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}): name another directory") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"another process is building {out}: wait for it or name another directory"
            ) from None
        path = partial / "identity.json"
        try:
            there = json.loads(path.read_text()) if path.exists() else None
        except (ValueError, RecursionError):
            there = None
        if not isinstance(there, dict) or not _is_size(there.get("block")):
            # Blocks of which nobody knows any more what they are of.
            _empty(partial)
            there = {**identity, "block": block}
            beside = path.with_name(path.name + ".new")
            beside.write_text(json.dumps(there, indent=1) + "\n")
            os.replace(beside, path)
        block = there.pop("block")
        if there != identity:
            raise UserError(
                f"{partial} holds an unfinished build of another data set: delete it or build elsewhere"
            )
        yield block


def _is_size(block: Any) -> bool:
    return isinstance(block, int) and not isinstance(block, bool) and block >= 1


def _clear_away(partial: Path) -> None:
    """Delete what a kill has left between the naming of a finished set and the end of its build."""
    with suppress(OSError), open(partial / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(partial)


def _empty(partial: Path) -> None:
    """Delete all that is in OUT.partial but the lock."""
    for path in partial.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "lock":
            path.unlink()


def _plan_blocks(plan: Plan, size: int) -> list[Block]:
    unknown = [split for split in plan.splits if split not in SPLITS]
    if unknown:
        raise ValueError(f"a plan has a split {unknown[0]!r}, expected {', '.join(SPLITS)}")
    return [
        Block(split, start, specs[start : start + size])
        for split, specs in plan.splits.items()
        for start in range(0, len(specs), size)
    ]


def _assemble(plan: Plan, blocks: list[Block], partial: Path, identity: dict) -> BuildReport:
    """Write OUT.partial/set from the finished blocks, replacing what a killed build left of it."""
    target = partial / "set"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    counts, dropped, rows = {}, list(plan.card.get("dropped", [])), {}
    for split, specs in plan.splits.items():
        own = [block for block in blocks if block.split == split]
        missing = [entry for block in own for entry in block.dropped(partial)]
        dropped += [{"key": entry["key"], "why": entry["why"]} for entry in missing]
        gone = {entry["index"] for entry in missing}
        counts[split] = len(specs) - len(gone)
        if specs and not counts[split]:
            why = missing[0]["why"]
            for block in own:  # the same build, when that was put right, looks at them again
                block.summary(partial).unlink()
            raise UserError(f"all {len(specs)} images of split {split!r} were dropped, the first for: {why}")
        if plan.pairs is not None:
            rows[split] = {
                index: row for row, index in enumerate(i for i in range(len(specs)) if i not in gone)
            }
        if counts[split]:
            files = [block.arrow(partial) for block in own if block.rows(partial)]
            write_split(target / split, files, split, identity)
    written = [split for split in counts if counts[split]]
    _write_splits(target, written)
    card = {
        "name": identity["name"],
        "builder": identity["options"],
        "counts": counts,
        **plan.card,
        "dropped": dropped,
    }
    if plan.pairs is not None:
        card["pairs"], lost = _write_pairs(target / PAIRS, plan.pairs, rows, identity)
        dropped += lost
    if plan.files:
        card["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in plan.files.items()}
    for name, content in plan.files.items():
        (target / name).write_bytes(content)
    write_card(target, card)
    return _report(card, target)


def _write_splits(directory: Path, splits: list[str]) -> None:
    """The file that makes `datasets.load_from_disk` open a directory as a DatasetDict."""
    (directory / "dataset_dict.json").write_text(json.dumps({"splits": splits}))


def _write_pairs(
    directory: Path, pairs: dict[str, list[dict]], rows: dict[str, dict], identity: dict
) -> tuple[dict[str, int], list[dict]]:
    """Write the statements, places in the plan turned into rows; those about a dropped image are left out.

    Returns how many each split has, and the card's entries for those left out that have an identifier.
    """
    counts, lost = {}, []
    directory.mkdir()
    for split, statements in pairs.items():
        row = rows[split]
        kept = []
        for one in statements:
            left, right = row.get(one["left"]), row.get(one["right"])
            if left is not None and right is not None:
                kept.append({**one, "left": left, "right": right})
            elif "identifier" in one:
                lost.append({"key": one["identifier"], "why": "an image of the pair was dropped"})
        counts[split] = len(kept)
        if kept:
            write_split(directory / split, kept, f"{PAIRS}-{split}", identity)
    _write_splits(directory, [split for split in counts if counts[split]])
    return counts, lost
