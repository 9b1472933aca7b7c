"""Mutations of valid files, of their JSON trees and of their bytes, as hypothesis draws them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st


@dataclass(frozen=True)
class Raw:
    """A JSON value by its bytes: what `json.dumps` would not write."""

    content: bytes


class Twice(dict):
    """An object whose members are written twice, the first time as null."""


DEPTHS = (80, 300, 940, 960, 980, 990, 1000, 100_000)
"""Of nesting: Python's decoder ends between 900 and 1,000, the sooner the more calls it is below."""

ODD_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**400, 1.5, -0.0, 1e308,
    "", " ", "\0", "\n", "a\0b", "../../etc/passwd", "/etc/passwd", ".", "..", "a" * 300, "x" * 70_000,
    "\ud800", "\udcff.jpg", "\u2028", "\x1b[31m", "\ufeff", "<script>", "é" * 200, "None", "NaN", "train",
    [], {}, [[]], [None], {"": None}, {"a": {"b": []}}, [1, "a", None],
    Raw(b"NaN"), Raw(b"Infinity"), Raw(b"-1e999"), Raw(b"1" * 5000), Raw(b"0x10"), Raw(b"01"), Raw(b"'a'"),
    Raw(b'"\xff\xfe"'), Raw(b'"\xc3"'), Raw(b'"\\u12"'), Raw(b'"\t"'), Raw(b'"'), Raw(b""), Raw(b"]"),
]  # fmt: skip


def nested(depth: int, accent: bool) -> Raw:
    """Lists in lists; `accent`: with a letter that is not ASCII inside, as another path decodes it."""
    return Raw(b"[" * depth + ('"é"'.encode() if accent else b"") + b"]" * depth)


@dataclass
class Mutated:
    """A file after mutations: `tree` is None where bytes were changed and no tree says what they mean."""

    content: bytes
    tree: Any = None
    steps: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        told = "; ".join(self.steps) or "as it was"
        shown = self.content if len(self.content) <= 3000 else self.content[:3000] + b"..."
        return f"<{told}: {shown!r}>"


def dumped(tree: Any) -> bytes:
    """The tree as JSON, lone surrogates escaped."""
    if isinstance(tree, Raw):
        return tree.content
    if isinstance(tree, dict):
        members = [(json.dumps(str(key)).encode(), dumped(value)) for key, value in tree.items()]
        first = [key + b": null" for key, _ in members] if isinstance(tree, Twice) else []
        return b"{" + b", ".join([*first, *(key + b": " + value for key, value in members)]) + b"}"
    if isinstance(tree, (list, tuple)):
        return b"[" + b", ".join(map(dumped, tree)) + b"]"
    return json.dumps(tree).encode()


def lines(tree: Any) -> bytes:
    """The values of a list, one a line."""
    return b"".join(dumped(one) + b"\n" for one in (tree if isinstance(tree, list) else [tree]))


def _places(tree: Any, place: tuple = ()) -> list[tuple]:
    """Where the nodes of a tree are, the root first."""
    below: Any = ()
    if isinstance(tree, dict):
        below = tree.items()
    elif isinstance(tree, list):
        below = enumerate(tree)
    return [place, *(found for key, one in below for found in _places(one, (*place, key)))]


def _at(tree: Any, place: tuple) -> Any:
    for key in place:
        tree = tree[key]
    return tree


@st.composite
def mutated_tree(draw, tree: Any, write: Callable[[Any], bytes] = dumped, most: int = 3) -> Mutated:
    """The tree after up to `most` changes, and in a third of all cases one of its bytes, as a file."""
    holder, steps = [copy.deepcopy(tree)], []
    for _ in range(draw(st.integers(0, most))):
        steps.append(_change(draw, holder))
    found = Mutated(write(holder[0]), holder[0], steps)
    return draw(mutated_bytes(found)) if draw(st.integers(0, 2)) == 0 else found


def _change(draw, holder: list) -> str:
    """One change of the tree in `holder`; returns what it was."""
    places = _places(holder)[1:]
    place = draw(st.sampled_from(places))
    above, key = _at(holder, place[:-1]), place[-1]
    kind = draw(
        st.sampled_from(["odd", "odd", "odd", "leave out", "again", "nested", "other", "wrapped", "twice"])
    )
    if kind == "odd":
        above[key] = copy.deepcopy(draw(st.sampled_from(ODD_VALUES)))
    elif kind == "leave out" and len(place) > 1:
        del above[key]
    elif kind == "again" and isinstance(above, list) and len(place) > 1:
        above.insert(draw(st.integers(0, len(above))), copy.deepcopy(above[key]))
    elif kind == "nested":
        above[key] = nested(draw(st.sampled_from(DEPTHS)), draw(st.booleans()))
    elif kind == "other":
        above[key] = copy.deepcopy(_at(holder, draw(st.sampled_from(places))))
    elif kind == "wrapped":
        above[key] = [above[key]]
    elif kind == "twice" and isinstance(above[key], dict):
        above[key] = Twice(above[key])
    return f"{kind} at {place}"


@st.composite
def mutated_bytes(draw, found: Mutated) -> Mutated:
    """The file after one change of its bytes."""
    content, size = found.content, len(found.content)
    place = draw(st.integers(0, size))
    kinds = ["cut", "flip", "insert", "remove", "zeros", "again", "mark", "behind", "empty", "utf-16"]
    kind = draw(st.sampled_from(kinds))
    if kind == "cut":
        content = content[:place]
    elif kind == "flip" and place < size:
        content = (
            content[:place] + bytes([content[place] ^ 1 << draw(st.integers(0, 7))]) + content[place + 1 :]
        )
    elif kind == "insert":
        content = content[:place] + draw(st.binary(min_size=1, max_size=8)) + content[place:]
    elif kind == "remove":
        content = content[:place] + content[place + draw(st.integers(1, 64)) :]
    elif kind == "zeros":
        length = draw(st.integers(1, 64))
        content = content[:place] + bytes(min(length, size - place)) + content[place + length :]
    elif kind == "again":
        content = content + content
    elif kind == "mark":
        content = b"\xef\xbb\xbf" + content
    elif kind == "behind":
        content += draw(
            st.sampled_from([b"\0", b"\n\n", b"]", b",", b"{", b"\xff", b" " * 5000, b"\r\n\x1a"])
        )
    elif kind == "empty":
        content = draw(st.sampled_from([b"", b" ", b"\n", b"\0", b"null", b"[]", b"{}", b"0", b'""']))
    else:
        content = content.decode("utf-8", "replace").encode("utf-16")
    return Mutated(content, None, [*found.steps, f"{kind} at byte {place}"])


def mutated_file(content: bytes) -> st.SearchStrategy[Mutated]:
    """A file of no tree, after one to three changes of its bytes."""
    once = mutated_bytes(Mutated(content))
    return st.one_of(once, once.flatmap(mutated_bytes), once.flatmap(mutated_bytes).flatmap(mutated_bytes))
