"""`pixelbert ablate`: a table of what each part of a training is worth, from runs of recipes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pixelbert_fast.errors import RunError, UserError

_HELP = """Train the rows of an ablation, each stage by a recipe in a folder of its own, and write the table.

OUTPUT/ablation.md, .json and .svg are written anew after each run that a figure is of. The same command goes
on where it was stopped; several at once share the work. docs/ablation.md says how to write one of your own.
"""
_TABLE = "ablation"


def ablate(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Options that replace the ablation's.", metavar="key.path=value"),
    ] = None,
    config: Annotated[
        str, typer.Option(help="A YAML file, or the name of one of the package's.")
    ] = "ablation_tiny",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the runs and their steps only.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHAT=NAME[,NAME]",
            help="Some rows, seeds or stages, as row=itm,mlm or seed=0, with what they start from; repeated.",
        ),
    ] = None,
) -> None:
    chosen = _only(only or [])
    from pixelbert_fast.training.ablation.plan import Plan
    from pixelbert_fast.training.ablation.recipe import load_ablation

    ablation = load_ablation(config, overrides or ())
    plan = Plan(ablation)
    runs = plan.chosen(chosen)

    from pixelbert_fast.commands.report import report_run
    from pixelbert_fast.training.ablation.progress import plan_lines
    from pixelbert_fast.training.ablation.work import check, train
    from pixelbert_fast.training.loop import Stopped

    check(plan)
    if dry_run:
        typer.echo("\n".join([f"{ablation.output}:", *plan_lines(runs, ablation.seeds)]))
        return
    shown = {figure.stage for figure in ablation.figures.values()}
    try:
        train(
            runs,
            ablation.output,
            lambda run: write(plan) if run.stage in shown else None,
            reporter=report_run,
        )
    except Stopped as stopped:
        typer.echo(str(stopped), err=True)
        raise typer.Exit(stopped.status) from None
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on from the last saved state", err=True)
        raise typer.Exit(130) from None
    text, files = write(plan)
    typer.echo("\n".join([text, *map(str, files)]))


def write(plan: Any) -> tuple[str, Sequence[Path]]:
    """Write the table of the runs that are finished; returns it as text, and the files."""
    from pixelbert_fast.tasks.whole_file import written_whole
    from pixelbert_fast.training.ablation import comparing, table
    from pixelbert_fast.training.ablation.records import runs_made_by, spent
    from pixelbert_fast.training.provenance import made_by
    from pixelbert_fast.visualize.dot_chart import Mark, Panel, dot_chart

    config, values = plan.config, comparing.measured(plan)
    runs_by, taken = runs_made_by(plan.runs), spent(plan.runs)
    text = table.markdown(config, values, runs_by, taken)
    panels = [
        Panel(group["label"], [Mark(*row) for row in group["rows"]], group["chance"])
        for group in table.chart_groups(config, values)
    ]
    contents = {
        "md": text,
        "json": json.dumps(
            table.document(config, values, made_by(), runs_by, taken), indent=2, ensure_ascii=False
        )
        + "\n",
        "svg": dot_chart(panels, title=config.title, reference="the paper"),
    }
    files = []
    for ending, content in contents.items():
        files.append(Path(config.output) / f"{_TABLE}.{ending}")
        try:
            with written_whole(files[-1], unique=True) as file:
                file.write(content)
        except OSError as error:
            raise RunError(
                f"{files[-1]} cannot be written ({error.strerror}); put that right, the same command goes on"
            ) from None
    return text, files


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("ablate", help=_HELP)(ablate)


def _only(given: Sequence[str]) -> dict[str, set[str]]:
    """By what is chosen, which: of `row=itm,mlm` and `seed=0`, also in one word with a comma between."""
    found: dict[str, set[str]] = {}
    for word in given:
        what = ""
        for part in word.split(","):
            before, equals, name = part.rpartition("=")
            what = before.strip() if equals else what
            if not (what and name.strip()):
                raise UserError(f"--only {word!r} is not WHAT=NAME, as row=itm,mlm or seed=0")
            found.setdefault(what, set()).add(name.strip())
    return found
