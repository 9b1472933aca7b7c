"""`pixelbert evaluate`: the metrics of a fine-tuned checkpoint on a split."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from pixelbert_fast.errors import UserError

from .showing import chosen_device, progress_bar, table

_HELP = """Score a fine-tuned checkpoint on a split of a built data set: a table, and the metrics as JSON.

A checkpoint that has not learnt the task is refused. VQA on a split without public answers has no accuracy;
its predictions are what the evaluation server takes.
"""


def evaluate(
    task: Annotated[str, typer.Argument(help="vqa, nlvr2 or retrieval.")],
    checkpoint: Annotated[Path, typer.Option(help="A checkpoint, or the folder of the run that made it.")],
    data: Annotated[Path, typer.Option(help="A built data set.")],
    split: Annotated[str, typer.Option(help="Which split.")] = "val",
    out: Annotated[Path | None, typer.Option(help="The metrics, as JSON.")] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="The predictions, in the form of the task's evaluation server.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="A page of the metrics and of examples, right and wrong (HTML).")
    ] = None,
    images: Annotated[int | None, typer.Option(min=1, help="At most so many, spread over the split.")] = None,
    images_per_batch: Annotated[int, typer.Option(min=1, help="At most.")] = 16,
    pixels: Annotated[
        int | None, typer.Option(min=1, help="Of a batch (height x width x images), at most: bounds memory.")
    ] = None,
    text_only: Annotated[bool, typer.Option("--text-only", help="Show blank images.")] = False,
    decoder: Annotated[
        str | None, typer.Option(help="plain or dali; default: the best that can run.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: cuda where there is one.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Of the one task, as edition=first; repeated."),
    ] = None,
) -> None:
    from pixelbert_fast.data.records import open_set
    from pixelbert_fast.tasks import checkpoint_evaluation
    from pixelbert_fast.tasks.fine_tuned import EvaluationRequest
    from pixelbert_fast.tasks.whole_file import written_whole
    from pixelbert_fast.training.provenance import versions

    began = time.perf_counter()
    work, built = checkpoint_evaluation(task), open_set(data)
    for file in (out, predictions, report):
        _check_place(file)
    with progress_bar(f"{task} on {data}, {split}") as progress:
        request = EvaluationRequest(
            out=out,
            predictions=predictions,
            images=images,
            images_per_batch=images_per_batch,
            pixels=pixels,
            text_only=text_only,
            decoder=decoder,
            device=chosen_device(device),
            progress=progress,
            options=_options(option or []),
        )
        evaluated = work(checkpoint, built, split, request)
    if os.environ.get("RANK", "0") != "0":  # of torchrun: the first process tells for all
        return
    typer.echo(table(evaluated.rows))
    if out is not None:
        told: dict[str, Any] = {
            "task": task,
            "checkpoint": str(checkpoint),
            "data": str(data),
            "split": split,
        }
        told |= {"images": images, "text_only": text_only, "metrics": evaluated.metrics}
        told |= {"seconds": round(time.perf_counter() - began, 3), "versions": versions()}
        with written_whole(out) as file:
            file.write(json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    if report is not None:
        _write_report(report, task, checkpoint, built, split, evaluated.metrics, text_only, device)
    for file in (out, predictions, report):
        if file is not None:
            typer.echo(str(file))


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("evaluate", help=_HELP)(evaluate)


def _write_report(
    page: Path,
    task: str,
    checkpoint: Path,
    built: Any,
    split: str,
    metrics: dict[str, Any],
    text_only: bool,
    device: str | None,
) -> None:
    from pixelbert_fast.training.provenance import machine, made_by
    from pixelbert_fast.visualize.report.evaluation import evaluation_page

    from .report import write_page
    from .report_material import guessed, split_examples

    groups, reason = split_examples(task, checkpoint, built, split, text_only=text_only, device=device)
    about = {"task": task, "checkpoint": str(checkpoint), "data": str(built.directory), "split": split}
    known = guessed(task, built, split)
    content = evaluation_page(
        about, metrics, known, groups, reason, {**made_by(), "machine": machine()}, text_only=text_only
    )
    write_page(page, content)


def _check_place(file: Path | None) -> None:
    """Before the work that would be lost."""
    if file is None:
        return
    if file.is_dir():
        raise UserError(f"{file} is a folder; give the name of a file in it")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{file} cannot be written ({error.strerror}); give another place") from None
    if not os.access(file.parent, os.W_OK):
        raise UserError(f"{file} cannot be written (its folder allows none to); give another place")


def _options(given: list[str]) -> dict[str, str]:
    found = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not (name and equals):
            raise UserError(f"--option {one!r} is not NAME=VALUE, as edition=first")
        found[name] = value
    return found
