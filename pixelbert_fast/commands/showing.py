"""What the commands share: where a model computes, bars, tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pixelbert_fast.errors import UserError


def chosen_device(name: str | None) -> str:
    """The device of that name; None: a GPU where there is one. Raises UserError where it cannot be used."""
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # torch raises either for a device that is not there
        reason = str(error).partition("\n")[0]
        raise UserError(f"--device {name} cannot be used here ({reason}); leave it out") from None
    return name


def chosen_checkpoint(given: Path | None, name: str) -> Path:
    """The checkpoint given; None: the model of that name that comes with the package, which is said."""
    if given is not None:
        return given
    import typer

    from pixelbert_fast import pretrained

    typer.echo(
        f"by the package's small model {name!r}, which knows rendered scenes alone; --checkpoint for another",
        err=True,
    )
    return pretrained.folder(name)


def checkpoint_name(checkpoint: Path) -> str:
    """What a page calls a checkpoint; of the package's models not where on this machine they lie."""
    from pixelbert_fast import pretrained

    own = {pretrained.folder(name): name for name in pretrained.NAMES}
    return f"the package's small model {own[checkpoint]!r}" if checkpoint in own else str(checkpoint)


@contextmanager
def progress_bar(title: str, unit: str = "image") -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, moved by calling what is given with (done, in all), and there from the first call."""
    from pixelbert_fast.training.logs import bar

    with ExitStack() as held:
        shown = None

        def reached(done: int, total: int) -> None:
            nonlocal shown
            if shown is None:  # what is refused before anything is done shows none
                shown = held.enter_context(bar(title, total, unit=unit))
            if done < shown.n:
                shown.reset(total)
            shown.total = total
            shown.update(done - shown.n)

        yield reached


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Two columns."""
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
