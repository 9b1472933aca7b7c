"""`pixelbert examples`: pictures to try the package's small models on."""

from __future__ import annotations

import csv
import shlex
from pathlib import Path
from typing import Annotated

import typer

from pixelbert_fast import pretrained
from pixelbert_fast.errors import UserError

_HELP = """Write a few pictures to try `attend`, `predict` and `search` on, and print commands to begin with.

They are rendered scenes that the package's small models were not trained on.
"""


def examples(
    directory: Annotated[Path, typer.Argument(help="The folder to write.")] = Path("examples"),
) -> None:
    contents = {
        directory / file.name: file.read_bytes() for file in (*pretrained.pictures(), pretrained.texts())
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for file, content in contents.items():
            if file.exists() and file.read_bytes() != content:
                raise UserError(f"{file} is another file, which stays as it is; give another folder")
        for file, content in contents.items():
            file.write_bytes(content)
    except OSError as error:
        raise UserError(
            f"{error.filename or directory} cannot be written ({error.strerror}); give another folder"
        ) from None
    with (directory / pretrained.texts().name).open(encoding="utf-8", newline="") as file:
        told = next(csv.DictReader(file, delimiter="\t"))
    folder, first = (shlex.quote(str(path)) for path in (directory, directory / told["picture"]))
    typer.echo(
        f"{len(pretrained.pictures())} pictures are in {directory}, and what is in them in "
        f"{pretrained.texts().name}. Try:"
    )
    for command in (
        f'pixelbert attend {first} "{told["caption"]}" --out attention.html',
        f'pixelbert predict vqa {first} "{told["question"]}"',
        f'pixelbert predict match {first} "a {_object(told["caption"])}" "a yellow square"',
        f'pixelbert search {folder} "a {_object(told["caption"])}" --out found.html',
    ):
        typer.echo(f"  {command}")


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("examples", help=_HELP)(examples)


def _object(caption: str) -> str:
    """The first object of a caption that lists them: its colour and shape."""
    return " ".join(caption.partition(": ")[2].split()[:2])
