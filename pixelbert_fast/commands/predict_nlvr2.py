"""`pixelbert predict nlvr2`: whether statements are true of two images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .showing import chosen_device, table


def nlvr2(
    left: Annotated[Path, typer.Argument(help="The left image, a file.")],
    right: Annotated[Path, typer.Argument(help="The right image.")],
    statements: Annotated[
        list[str], typer.Argument(metavar="STATEMENT...", help='Such as "both images have a red star".')
    ],
    checkpoint: Annotated[
        Path, typer.Option(help="A model fine-tuned to NLVR2: its checkpoint, or its run's folder.")
    ] = Path("runs/nlvr2_scenes"),
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: cuda where there is one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Say whether each statement is true of a pair of images, and how probable that is."""
    from pixelbert_fast.tasks.nlvr2.checkpoint import judge_pair

    found = judge_pair(checkpoint, left, right, statements, device=chosen_device(device))
    if as_json:
        told = [{"statement": one, "true": p} for one, p in zip(statements, found, strict=True)]
        typer.echo(json.dumps(told))
    else:
        typer.echo(table([(one, _said(p)) for one, p in zip(statements, found, strict=True)]))


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("nlvr2")(nlvr2)


def _said(true: float) -> str:
    return f"true, {100 * true:.1f} %" if true > 0.5 else f"false, {100 * (1 - true):.1f} %"
