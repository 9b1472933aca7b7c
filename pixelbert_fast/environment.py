"""Every environment variable of the project: its name, its values, its default and what it does.

Nothing else in the package reads a `PIXELBERT_FAST_*` variable from the environment.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from .errors import UserError, nearest


@dataclass(frozen=True)
class Variable:
    """One environment variable.

    Attributes:
        name: what it is called in the environment.
        meaning: what it does, in a sentence.
        default: its value when it is unset or empty.
        choices: the values it takes; empty when any text will do.
    """

    name: str
    meaning: str
    default: str = ""
    choices: tuple[str, ...] = ()

    def read(self) -> str:
        """Return its value now.

        Raises:
            UserError: when the value is none of `choices`.
        """
        value = self.given() or self.default
        if self.choices and value not in self.choices:
            guess = nearest(value, self.choices)
            hint = f"; did you mean {guess!r}?" if guess else ""
            raise UserError(f"{self.name} is {value!r}; it takes one of {', '.join(self.choices)}{hint}")
        return value

    def given(self) -> str | None:
        """Return what the environment says, right or wrong; None where it says nothing."""
        return os.environ.get(self.name, "").strip() or None


BACKEND = Variable(
    "PIXELBERT_FAST_BACKEND",
    "Which backend the ops use where the code does not say: the best that can run (auto), or one by name,"
    " which is an error where it cannot run.",
    default="auto",
    choices=("auto", "reference", "cuda", "triton", "cpu"),
)
BUILD = Variable(
    "PIXELBERT_FAST_BUILD",
    "Which native code an installation builds: what this machine can build (auto), that or fail, with the"
    " CUDA part wherever nvcc is found (force), or none (skip).",
    default="auto",
    choices=("auto", "force", "skip"),
)
CHECK = Variable(
    "PIXELBERT_FAST_CHECK",
    "1: the ops check the values of places and image indices on every device, which on a GPU waits for it,"
    " and raise. On a CPU they always do.",
    default="0",
    choices=("0", "1"),
)
DECODER = Variable(
    "PIXELBERT_FAST_DECODER",
    "Which decoder turns files into pixels where the code does not say: the best that can run (auto), or one"
    " by name, which is an error where it cannot run.",
    default="auto",
    choices=("auto", "plain", "dali"),
)
TORCH_INDEX = Variable(
    "PIXELBERT_FAST_TORCH_INDEX",
    "The package index `make setup` takes torch from, as PyTorch's installation page gives it for your"
    " machine, for example its CPU index. Unset: pip's own configuration decides.",
)

VARIABLES: tuple[Variable, ...] = (BACKEND, BUILD, CHECK, DECODER, TORCH_INDEX)
