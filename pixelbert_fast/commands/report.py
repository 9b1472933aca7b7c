"""`pixelbert report`, and the report that a training run has written about itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pixelbert_fast.errors import UserError

PAGE = "report.html"


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, finished or not.")],
    out: Annotated[
        Path | None,
        typer.Option(help="The page; default: report.html in the run's folder; of several: comparison.html."),
    ] = None,
    examples: Annotated[
        bool, typer.Option(help="Show what the model gets right and wrong, with where it looks.")
    ] = True,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: cuda where there is one.")] = None,
) -> None:
    """Write the report of a run again, or compare several: one HTML file of curves, metrics, examples."""
    if out is not None and out.is_dir():
        raise UserError(f"{out} is a folder; give the name of a file in it")
    if len(runs) == 1:
        page = _of_one(runs[0], examples=examples, device=device, states=True)
        out = out or runs[0] / PAGE
    else:
        page = _of_several(runs)
        out = out or Path("comparison.html")
    write_page(out, page)
    typer.echo(str(out))


def report_run(folder: Path, *, examples: bool) -> None:
    """Write report.html into a run's folder: a `training.reporting.Reporter`.

    Raises UserError and RunError, of one sentence each.
    """
    write_page(folder / PAGE, _of_one(folder, examples=examples, device=None, states=False))


def write_page(out: Path, page: str) -> None:
    """Write a page, whole or not at all; raises UserError where it cannot be."""
    from pixelbert_fast.tasks.whole_file import written_whole

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(out) as file:
            file.write(page)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}); give another place") from None


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("report")(report)


def _of_one(folder: Path, *, examples: bool, device: str | None, states: bool) -> str:
    from pixelbert_fast.visualize.report.page import report_page
    from pixelbert_fast.visualize.report.records import read_run

    from .report_material import material

    run = read_run(folder)
    return report_page(run, material(run, examples=examples, device=device, states=states))


def _of_several(folders: Sequence[Path]) -> str:
    from pixelbert_fast.visualize.report.comparison import comparison_page
    from pixelbert_fast.visualize.report.records import read_runs

    from .report_material import guesses, recipe

    runs = read_runs(list(folders))
    return comparison_page(runs, [recipe(run)[1] for run in runs], [guesses(run) for run in runs])
