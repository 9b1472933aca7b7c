"""What an ablation's figures say about the readings it was made to look at.

A part of a reading is one claim about one figure. That a row is better than another holds where the paired
difference counts (see `comparing`), does not where it counts the other way round, and cannot be told where it
does not count. That a row is near chance holds where its whole interval is near it, does not where none of
it is. A reading holds where all its parts do; it does not where one does not; else it cannot be told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from pixelbert_fast.training.ablation.comparing import Values, difference, spread
from pixelbert_fast.training.ablation.recipe import AblationConfig, ClaimConfig


class Verdict(StrEnum):
    HOLDS = "holds"
    DOES_NOT = "does not hold"
    UNTOLD = "cannot be told"


@dataclass(frozen=True)
class Part:
    """One claim about one figure: its verdict, and why, in words."""

    verdict: Verdict
    why: str


@dataclass(frozen=True)
class Reading:
    """A reading of the ablation, as `says` has it, with its parts."""

    says: str
    verdict: Verdict
    parts: tuple[Part, ...]


def judged(config: AblationConfig, values: Values) -> list[Reading]:
    """Every reading of `config`, judged by `values`."""
    found = []
    for reading in config.readings:
        parts = [part for claim in reading.claims for part in _parts(config, claim, values)]
        found.append(Reading(reading.says, _together(parts), tuple(parts)))
    return found


def _together(parts: Sequence[Part]) -> Verdict:
    verdicts = {part.verdict for part in parts}
    if Verdict.DOES_NOT in verdicts:
        return Verdict.DOES_NOT
    return Verdict.UNTOLD if Verdict.UNTOLD in verdicts else Verdict.HOLDS


def _parts(config: AblationConfig, claim: ClaimConfig, values: Values) -> list[Part]:
    if claim.near_chance:
        return [_near(config, claim, row, name, values) for name in claim.of for row in claim.near_chance]
    return [_better(config, claim, name, values) for name in claim.of]


def _better(config: AblationConfig, claim: ClaimConfig, name: str, values: Values) -> Part:
    found = difference(values, str(claim.better), str(claim.than), name)
    one, other = (config.row(str(row)).title for row in (claim.better, claim.than))
    what = f"{_label(config, name)}: {one} less {other}"
    if found.mean is None:
        return Part(Verdict.UNTOLD, f"{what}: no seed of both is finished")
    if found.sign is None:
        return Part(Verdict.UNTOLD, f"{what}: {found.mean:+.1f}, and one seed shows no spread")
    verdict = {1: Verdict.HOLDS, -1: Verdict.DOES_NOT, 0: Verdict.UNTOLD}[found.sign]
    return Part(verdict, f"{what}: {found.mean:+.1f} ({found.low:+.1f} to {found.high:+.1f})")


def _near(config: AblationConfig, claim: ClaimConfig, row: str, name: str, values: Values) -> Part:
    chance = config.figures[name].chance
    found = spread(values[row][name].values())
    what = f"{_label(config, name)}: {config.row(row).title}"
    if found.mean is None:
        return Part(Verdict.UNTOLD, f"{what}: no seed is finished")
    if found.low is None:
        return Part(Verdict.UNTOLD, f"{what}: {found.mean:.1f}, and one seed shows no spread")
    low, high = chance - claim.within, chance + claim.within
    verdict = Verdict.UNTOLD
    if low <= found.low and found.high <= high:
        verdict = Verdict.HOLDS
    elif found.high < low or high < found.low:
        verdict = Verdict.DOES_NOT
    told = f"{found.mean:.1f} ({found.low:.1f} to {found.high:.1f})"
    return Part(verdict, f"{what}: {told}, near chance is {low:g} to {high:g}")


def _label(config: AblationConfig, name: str) -> str:
    return config.figures[name].label or name
