"""`pixelbert evaluate`: the metrics of a fine-tuned checkpoint on a split."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from pixelbert_fast.errors import Stopped, UserError

from .showing import chosen_device, progress_bar, table

_HELP = """Score a fine-tuned checkpoint on a split of a built data set: a table, and the metrics as JSON.

A checkpoint that has not learnt the task is refused; grounding (does a word's attention find what it names?)
takes any, and sets whose truth is known. VQA on a split without public answers has no accuracy;
its predictions are what the evaluation server takes.
"""


def evaluate(
    task: Annotated[str, typer.Argument(help="vqa, nlvr2, retrieval or grounding.")],
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
    images: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="At most so many: of vqa and nlvr2 spread over the split, of retrieval the first.",
        ),
    ] = None,
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
        typer.Option(
            metavar="NAME=VALUE",
            help="Of the one task, repeated: vqa: edition=first; retrieval: captions=all, precision=bf16, "
            "memory_megabytes=N, keep=true, compositions=ATTRIBUTE.",
        ),
    ] = None,
) -> None:
    from pixelbert_fast.data.records import open_set
    from pixelbert_fast.tasks import checkpoint_evaluation
    from pixelbert_fast.tasks.fine_tuned import EvaluationRequest
    from pixelbert_fast.tasks.saved_model import trained_blank
    from pixelbert_fast.tasks.whole_file import written_whole
    from pixelbert_fast.training.provenance import versions

    began = time.perf_counter()
    work, built = checkpoint_evaluation(task), open_set(data)
    for file in (out, predictions, report):
        _check_place(file)
    if out is not None and predictions is not None and out.resolve() == predictions.resolve():
        raise UserError(f"--out and --predictions are both {out}; give each a file of its own")
    if trained_blank(checkpoint) and not text_only:
        note = f"{checkpoint} was trained on blank images and is now shown pixels: --text-only shows it none"
        typer.echo(f"warning: {note}", err=True)
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
        try:
            evaluated = work(checkpoint, built, split, request)
        except KeyboardInterrupt:
            raise Stopped(f"stopped; {_kept(out)}") from None
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
        told |= {"images": images, "text_only": text_only, "options": request.options}
        told["metrics"] = evaluated.metrics
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


def _kept(out: Path | None) -> str:
    kept = None if out is None else out.with_name(f"{out.name}.scores")
    if kept is not None and kept.is_dir():
        return f"run the same command again to go on with what is in {kept}"
    return (
        "nothing was written; run the same command again to begin anew, with --images fewer for less "
        "(retrieval goes on where --out was given)"
    )


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
