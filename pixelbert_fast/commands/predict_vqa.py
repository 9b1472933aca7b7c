"""`pixelbert predict vqa`: the answers to a question about an image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pixelbert_fast.pretrained import SCENES_VQA

from .showing import chosen_checkpoint, chosen_device, table


def vqa(
    image: Annotated[Path, typer.Argument(help="An image file.")],
    question: Annotated[str, typer.Argument(help='Such as "what colour is the circle?"')],
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="A model fine-tuned to VQA: its checkpoint, or its run's folder; default: the package's."
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many answers.")] = 5,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: cuda where there is one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Answer a question about an image: the best answers, each with its probability of being right."""
    from pixelbert_fast.tasks.vqa.checkpoint import ask

    found = ask(
        chosen_checkpoint(checkpoint, SCENES_VQA), image, question, top=top, device=chosen_device(device)
    )
    if as_json:
        typer.echo(json.dumps([{"answer": answer, "probability": score} for answer, score in found]))
    else:
        typer.echo(table([(answer, f"{100 * score:.1f} %") for answer, score in found]))


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("vqa")(vqa)
