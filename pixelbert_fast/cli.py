"""The `pixelbert` command.

Exit status: 0 done, 1 a failure, 2 a user's mistake, 130 stopped with Ctrl-C. Whatever goes wrong is said in
one sentence on stderr; `--debug`, anywhere on the line, shows the traceback as well.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from . import __version__, commands
from .commands.stopping import Stoppable
from .data.catalogue import listing
from .errors import RunError, Stopped, UserError, nearest

# Typer's own UsageError has no public name: older versions take it from click, newer ones from a copy inside.
_UsageError = typer.BadParameter.__base__
_REASONS_SHOWN = 10
_STOPPED = 130

app = typer.Typer(
    cls=Stoppable,
    name="pixelbert",
    help="Pixel-BERT: build data sets, train, and look at this machine.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Built data sets.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")
commands.register(app)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"pixelbert_fast {__version__}")
        raise typer.Exit


@app.callback()
def pixelbert(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of what goes wrong.")] = False,
) -> None:
    """Pixel-BERT: build data sets, train, and look at this machine."""


_BUILD_HELP = """Build a data set: a Hugging Face `datasets` directory with its card.

Resumes where it was stopped.

\b
Sets:
"""


@data_app.command("build", help=_BUILD_HELP + "\n".join(f"  {line}" for line in listing()))
def build_data(
    name: Annotated[str, typer.Argument(help="Which set; a wrong name lists them.")],
    out: Annotated[Path, typer.Option(help="The directory to write.")],
    images: Annotated[
        str | None, typer.Option(help="Rendered sets: how many, in all splits. Others: the folder of images.")
    ] = None,
    annotations: Annotated[
        list[Path] | None, typer.Option(help="An annotation file as distributed; may be repeated.")
    ] = None,
    karpathy: Annotated[
        Path | None, typer.Option(help="dataset_coco.json, whose val and test images are left out.")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="OURS=THEIRS, as image=photo; may be repeated.")
    ] = None,
    share: Annotated[
        list[str] | None, typer.Option(help="SPLIT=SHARE, as val=0.05, of a set without splits; repeated.")
    ] = None,
    config: Annotated[str | None, typer.Option(help="Configuration of a set of a hub.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same set.")] = None,
    size: Annotated[int | None, typer.Option(help="Pixels on a side of each image.")] = None,
    source: Annotated[
        str | None, typer.Option(help="Folder of the collection, or the name of a set on a hub.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one a core.")] = None,
) -> None:
    from .data import build

    words = {
        "images": images,
        "annotations": [str(path) for path in annotations or ()],
        "karpathy": str(karpathy) if karpathy else None,
        "column": column,
        "share": share,
        "config": config,
        "seed": seed,
        "size": size,
        "source": source,
    }
    try:
        builder = build.make_builder(name, **build.options_from_words(name, words))
        for line in getattr(builder, "notes", list)():
            typer.echo(line)
        with closing(_Bar(f"building {name}")) as bar:
            report = build.build_set(builder, out, workers=workers, progress=bar.update)
    except KeyboardInterrupt:
        raise Stopped(f"stopped; run the same command again to go on building {out}") from None
    _print_report(report)


@data_app.command("show")
def show_data(
    directory: Annotated[Path, typer.Argument(help="A built data set.")],
    split: Annotated[str | None, typer.Option(help="Which split; default: the first.")] = None,
    images: Annotated[int, typer.Option(min=1, help="How many, spread over the split.")] = 24,
    out: Annotated[Path | None, typer.Option(help="The page; default: SET-SPLIT.html, here.")] = None,
    preset: Annotated[str, typer.Option(help="Whose sizes and places: r50, x152, tiny.")] = "r50",
    short_side: Annotated[int | None, typer.Option(help="Instead of the preset's, in pixels.")] = None,
    long_side: Annotated[int | None, typer.Option(help="Instead of the preset's, in pixels.")] = None,
    size_divisor: Annotated[int, typer.Option(help="Both sides become multiples of it.")] = 1,
    tokenizer: Annotated[
        str | None, typer.Option(help="Lengths in word pieces by this tokenizer (a folder).")
    ] = None,
) -> None:
    """Look at a data set: a contact sheet as one HTML file, and figures of its sizes and lengths."""
    from .visualize.showing import show

    shown = show(
        directory,
        split=split,
        images=images,
        out=out,
        preset=preset,
        short_side=short_side,
        long_side=long_side,
        size_divisor=size_divisor,
        tokenizer=tokenizer,
    )
    for line in shown.lines:
        typer.echo(line)


@app.command(
    "train",
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def train(context: typer.Context) -> None:
    """Train, as `python pixelbert_fast/train.py` does: [--config FILE] [key.path=value ...]."""
    from .training.cli import main as train_main

    raise typer.Exit(train_main(context.args, reporter=commands.report.report_run) or 0)


_OVERRIDES = typer.Argument(help="Options that replace the recipe's.", metavar="key.path=value")


@app.command("plan")
def show_plan(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of one of the package's recipes.")],
    overrides: Annotated[list[str] | None, _OVERRIDES] = None,
    gpus: Annotated[int, typer.Option(min=1, help="How many, one process each.")] = 1,
    gpu_memory: Annotated[float, typer.Option(help="GB of each.")] = 24.0,
    rate: Annotated[float | None, typer.Option(help="Measured pairs a second, all GPUs together.")] = None,
    tflops: Annotated[float | None, typer.Option(help="A GPU's peak, with --mfu in place of --rate.")] = None,
    mfu: Annotated[float | None, typer.Option(help="The share of the peak that is reached.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """What a recipe takes: parameters, FLOPs, memory under each ZeRO stage, steps and hours. Needs no GPU."""
    from .training.plan import Machine, plan
    from .training.plan_text import table
    from .training.recipes import load_config

    made = plan(load_config(config, overrides or ()), Machine(gpus, gpu_memory, rate, tflops, mfu))
    typer.echo(json.dumps(made, indent=2) if as_json else table(made))


@app.command("recipe")
def show_recipe(
    config: Annotated[
        str | None, typer.Argument(help="A YAML file, or the name of one of the package's; none: list them.")
    ] = None,
    overrides: Annotated[list[str] | None, _OVERRIDES] = None,
) -> None:
    """Show a recipe with everything it is based on and every default, as YAML that can be trained by."""
    from .training.recipes import as_yaml, load_config, recipe_names

    if config is None:
        for name in recipe_names():
            typer.echo(name)
        return
    typer.echo(as_yaml(load_config(config, overrides or ())), nl=False)


@app.command("export")
def export_checkpoint(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CKPT", help="A run's folder, a state in it (resume/step-N), or best/.")
    ],
    out: Annotated[Path, typer.Option(help="The directory to write; an earlier export is replaced.")],
) -> None:
    """Write a run's weights, finished or not, as a directory that `from_pretrained` reads."""
    from .training.export import export

    exported = export(checkpoint, out)
    after = "" if exported.step is None else f", after step {exported.step}"
    typer.echo(f"{out}: from {exported.source}{after}")


@app.command("env")
def show_environment(
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show versions, the machine, what was built, and which backends the ops can use here."""
    from . import environment_report

    report = environment_report.report()
    typer.echo(json.dumps(report, indent=2) if as_json else environment_report.text(report))


@app.command("selftest")
def check_backends(
    seconds: Annotated[float, typer.Option(min=0, help="About how long it may take.")] = 50.0,
) -> None:
    """Check every backend of the ops on this machine. Automatic choice then avoids those that are wrong."""
    from .ops import selftest, verdicts

    def tell(result: selftest.Result) -> None:
        line = f"{result.op:<16}  {result.backend:<9}  {result.device!s:<6}  {result.status}: {result.detail}"
        typer.echo(line)

    try:
        results = selftest.run(seconds=seconds, tell=tell)
    except KeyboardInterrupt:
        raise Stopped("stopped; what was found is not kept") from None
    wrong = [result for result in results if result.status == selftest.FAILED]
    try:
        selftest.keep(results)
        if wrong:
            typer.echo(f"Automatic choice avoids what failed from now on: {verdicts.file()} says so.")
    except OSError as error:
        typer.echo(f"Automatic choice cannot be told, set XDG_CACHE_HOME to a writable directory: {error}")
    raise typer.Exit(1 if wrong else 0)


class _Bar:
    """A progress bar that appears with the first report, when the total is known."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._bar: Any = None

    def update(self, advance: int, total: int) -> None:
        """Show that `advance` more of `total` images are there."""
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=self._what, unit=" images", file=sys.stderr)
        self._bar.update(advance)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _print_report(report: Any) -> None:
    counts = ", ".join(f"{split} {count:,}" for split, count in report.counts.items())
    typer.echo(f"{report.directory}: {counts}")
    for line in report.counted:
        typer.echo(line)
    if not report.dropped:
        return
    reasons = Counter(drop["why"] for drop in report.dropped)
    typer.echo(f"dropped {len(report.dropped):,} (each is listed in {report.directory}/card.json):")
    for why, count in reasons.most_common(_REASONS_SHOWN):
        typer.echo(f"  {count:6,}  {why}")
    if len(reasons) > _REASONS_SHOWN:
        rest = len(report.dropped) - sum(count for _, count in reasons.most_common(_REASONS_SHOWN))
        typer.echo(f"  {rest:6,}  for {len(reasons) - _REASONS_SHOWN} other reasons")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (default: the process's own) and return its exit status."""
    line = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in line
    line = [word for word in line if word != "--debug"]
    if debug and line[:1] == ["train"]:
        line.append("--debug")  # training tells its own errors
    try:
        return app(line, prog_name="pixelbert", standalone_mode=False) or 0
    except Exception as error:
        if debug:
            traceback.print_exception(error)
        status, sentence = _explain(error)
        print(sentence if sentence.startswith("Usage:") else f"pixelbert: {sentence}", file=sys.stderr)
        return status


def entry_point() -> None:
    """The console script."""
    sys.exit(main())


def _explain(error: Exception) -> tuple[int, str]:
    if isinstance(error, Stopped):
        return _STOPPED, str(error)
    if isinstance(error, UserError):
        return 2, str(error)
    if isinstance(error, RunError):
        return 1, str(error)
    if isinstance(error, _UsageError):
        return 2, _usage_sentence(error)
    first_line = str(error).strip().partition("\n")[0]
    said = f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__
    return 1, f"failed with {said} (--debug shows where)"


def _usage_sentence(error: Any) -> str:
    """Typer's sentence, with the nearest right option; the nearest command it names itself."""
    option = getattr(error, "option_name", None)
    sentence = f"no such option {option}" if option else error.format_message().strip().rstrip(".")
    context = getattr(error, "ctx", None)
    if context is None or sentence.startswith("Usage:"):
        return sentence
    if option and (guess := nearest(option, _known_words(context))):
        sentence += f"; did you mean {guess}?"
    return f"{sentence} ({context.command_path} --help shows the usage)"


def _known_words(context: Any) -> list[str]:
    return [word for parameter in context.command.params for word in parameter.opts]


if __name__ == "__main__":
    entry_point()
