"""The fenced blocks of the documentation, and the commands of those that a shell runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.scripts import ROOT

LANGUAGES = {"bash", "python", "yaml", "json", "text"}
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[^\n]*)\n(?P<text>.*?)^ *```$", re.DOTALL | re.MULTILINE)
_ASSIGNMENT = re.compile(r"[A-Z_][A-Z0-9_]*=")


class Block(NamedTuple):
    """A fenced block: its page (a path in the repository), the line its fence stands on, its text."""

    page: str
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


class Command(NamedTuple):
    """One command of a shell block: its words, and the variables set before them."""

    where: str
    words: tuple[str, ...]
    variables: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join(self.words)


def pages() -> list[Path]:
    """Every page that a reader is given."""
    folders = [ROOT / "docs", ROOT / "benchmarks", ROOT / "csrc", ROOT / "pixelbert_fast"]
    return [*sorted(ROOT.glob("*.md")), *(page for one in folders for page in sorted(one.rglob("*.md")))]


def blocks_of(page: str, text: str) -> list[Block]:
    """The blocks of a page, in order."""
    found = []
    for match in _FENCE.finditer(text):
        inside = re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE)
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, line, match["language"].strip(), inside))
    return found


def blocks(*languages: str) -> list[Block]:
    """All blocks of these languages; of none given: all."""
    found = []
    for page in pages():
        found += blocks_of(page.relative_to(ROOT).as_posix(), page.read_text(encoding="utf-8"))
    return [block for block in found if not languages or block.language in languages]


def commands_of(block: Block) -> Iterator[Command]:
    """The commands of a shell block, those that another one is given as text (`bash -c`) in place of it."""
    text = re.sub(r"\\\n", " ", block.text)
    text = "\n".join(map(_without_comment, text.splitlines()))
    lexer = shlex.shlex(f"{text}\n", posix=True, punctuation_chars="();|&<>\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t\r", True, ""
    words: list[str] = []
    redirected = False
    for word in lexer:
        if set(word) <= set("<>"):
            redirected = True
        elif redirected:
            redirected = False
        elif set(word) <= set("();|&\n"):
            yield from _command(block, words)
            words = []
        else:
            words.append(word)


def _command(block: Block, words: list[str]) -> Iterator[Command]:
    variables = []
    while words and (words[0] == "export" or _ASSIGNMENT.match(words[0])):
        variables.append(words[0])
        words = words[1:]
    variables = [word for word in variables if word != "export"]
    if words[:1] == ["exec"]:
        words = words[1:]
    if "-c" in words and ("bash" in words or "sh" in words):
        inner = words[words.index("-c") + 1]
        yield from commands_of(block._replace(text=inner))
    elif words or variables:
        yield Command(block.where, tuple(words), tuple(variables))


def _without_comment(line: str) -> str:
    for match in re.finditer(r"(^|\s)#", line):
        before = line[: match.start()]
        if before.count('"') % 2 == 0 and before.count("'") % 2 == 0:
            return before
    return line
