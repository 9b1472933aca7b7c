"""From figures, made up here, to spread, differences, readings, the table and the chart."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest

from pixelbert_fast.errors import UserError
from pixelbert_fast.training.ablation import comparing, table
from pixelbert_fast.training.ablation.readings import Verdict, judged
from pixelbert_fast.training.ablation.recipe import AblationConfig, load_ablation
from pixelbert_fast.visualize.dot_chart import Mark, Panel, dot_chart

SVG = "{http://www.w3.org/2000/svg}"


def ablation(*claims):
    rows = [{"name": "old", "paper": {"a": 40.0}}, {"name": "new", "label": "new | better"}]
    figures = {"a": {"stage": "s", "path": "x", "chance": 50}, "b": {"stage": "s", "path": "x"}}
    readings = [{"says": "it is so", "claims": list(claims)}] if claims else []
    return AblationConfig.model_validate(
        {"stages": {"s": {"recipe": "demo"}}, "rows": rows, "figures": figures, "readings": readings}
    )


def values(old, new, b=(1, 2, 3)):
    seeds = lambda given: dict(enumerate(given))  # noqa: E731
    return {"old": {"a": seeds(old), "b": seeds(b)}, "new": {"a": seeds(new), "b": seeds(b)}}


BETTER = {"better": "new", "than": "old", "of": ["a"]}


def verdict(claim, given):
    return judged(ablation(claim), given)[0].verdict


def test_students_t_is_the_density_integrated():
    x = np.linspace(0, 1, 2_000_001)
    for freedom in range(1, 31):
        t = comparing.student(freedom) * x
        density = (1 + t**2 / freedom) ** (-(freedom + 1) / 2)
        inside = np.trapezoid(density, t)
        # The rest of the half: t = tan(angle) * sqrt(freedom) makes it finite.
        angle = np.arctan(comparing.student(freedom) / np.sqrt(freedom)) * x
        whole = np.arange(2_000_001) / 2_000_000 * np.pi / 2
        scale = np.sqrt(freedom)
        half = scale * np.trapezoid(np.cos(whole) ** (freedom - 1), whole)
        again = scale * np.trapezoid(np.cos(angle) ** (freedom - 1), angle)
        assert inside == pytest.approx(again, rel=1e-6)
        # The table has three decimals, and the density is 0.01 to 0.05 there.
        assert 0.5 + 0.5 * again / half == pytest.approx(0.975, abs=3e-5)
    assert comparing.student(500) == comparing.student(30)


def test_mean_deviation_and_interval():
    found = comparing.spread([1.0, 2.0, 6.0])
    assert (found.count, found.mean) == (3, 3.0)
    assert found.deviation == pytest.approx(np.std([1, 2, 6], ddof=1))
    # 4.303 of three values' deviation / sqrt(3)
    assert found.high - found.mean == pytest.approx(4.303 * found.deviation / 3**0.5)
    assert comparing.spread([5.0]).sign is None
    assert comparing.spread([]).mean is None


def test_seeds_are_compared_with_themselves():
    """Seeds that differ by 20 and rows by 2: unpaired nothing could be told."""
    given = values([50, 60, 70], [52.1, 61.9, 72.0])
    assert comparing.difference(given, "new", "old", "a").sign == 1
    assert verdict(BETTER, given) is Verdict.HOLDS
    assert verdict(BETTER, values([52.1, 61.9, 72.0], [50, 60, 70])) is Verdict.DOES_NOT
    assert verdict(BETTER, values([50, 60, 70], [60, 71, 52])) is Verdict.UNTOLD
    # Only the seeds that both have.
    assert comparing.difference(values([50, 60], [51, 61, 99]), "new", "old", "a").count == 2


def test_one_seed_or_none_tells_nothing():
    assert verdict(BETTER, values([50], [90])) is Verdict.UNTOLD
    assert verdict(BETTER, values([], [90, 91, 92])) is Verdict.UNTOLD
    assert verdict(BETTER, values([50, 50, 50], [50, 50, 50])) is Verdict.UNTOLD


@pytest.mark.parametrize(
    ("figures", "wanted"),
    [
        ([50.1, 49.8, 50.2], Verdict.HOLDS),
        ([70.0, 71.0, 70.5], Verdict.DOES_NOT),
        ([49.0, 55.0, 52.0], Verdict.UNTOLD),  # the interval is 44.5 to 59.5
        ([40.0, 40.1, 39.9], Verdict.DOES_NOT),  # below chance is not near it either
        ([50.0], Verdict.UNTOLD),
    ],
)
def test_near_chance_is_a_matter_of_the_whole_interval(figures, wanted):
    claim = {"near_chance": ["old"], "within": 3, "of": ["a"]}
    assert verdict(claim, values(figures, [1, 2, 3])) is wanted


def test_a_reading_needs_all_its_parts():
    both = {"better": "new", "than": "old", "of": ["a", "b"]}
    better, worse = values([1, 2, 3], [11, 12, 13.5]), values([11, 12, 13.5], [1, 2, 3])
    reading = judged(ablation(both), better)[0]
    assert [part.verdict for part in reading.parts] == [Verdict.HOLDS, Verdict.UNTOLD]
    assert reading.verdict is Verdict.UNTOLD
    assert judged(ablation(both), worse)[0].verdict is Verdict.DOES_NOT


def test_the_papers_own_figures_hold_its_readings():
    """Its table, each row with the same small spread: what is asked for is what the paper says."""
    config = load_ablation("ablation_tiny")
    given = {
        row.name: {
            name: {seed: row.paper[name] + 0.01 * seed for seed in config.seeds} for name in config.figures
        }
        for row in config.rows
    }
    for reading in judged(config, given):
        assert reading.verdict is Verdict.HOLDS, list(reading.parts)
    # ... and the other way round none does.
    turned = {
        row: {name: {seed: 100 - value for seed, value in one.items()} for name, one in figures.items()}
        for row, figures in given.items()
    }
    assert {reading.verdict for reading in judged(config, turned)} == {Verdict.DOES_NOT}


def test_the_table_shows_mean_spread_paper_and_what_counts():
    config, given = ablation(BETTER), values([50, 60, 70], [52.1, 61.9, 72.0])
    text = table.markdown(config, given)
    assert "| old | 60.0 ± 10.0 (40) | 2.0 ± 1.0 (-) |" in text
    assert "| new \\| better | 62.0 ± 10.0 (-) | 2.0 ± 1.0 (-) |" in text
    assert "| new \\| better less old | **+2.0 (+1.8 to +2.2)** | +0.0 (+0.0 to +0.0) |" in text
    assert "1. it is so: **holds**." in text
    assert "Of 1 readings 1 hold (1); 0 do not hold; 0 cannot be told at this scale." in text
    assert "Not finished" not in text and "trained for" not in text
    spent = {"runs": 85, "steps": 34420, "training_seconds": 4.25 * 3600}
    told = table.markdown(config, given, spent=spent)
    assert "85 runs of 34,420 steps together, which trained for 4 h 15 min: the sum of their" in told
    part = values([50, 60, 70], [52.1])
    assert "Not finished" in table.markdown(config, part)
    assert "| new \\| better | 52.1 [1] (-) |" in table.markdown(config, part)


def test_a_figure_whose_stage_a_row_leaves_out_is_not_missing():
    config, given = ablation(), values([50, 60, 70], [])
    given["new"]["b"] = {}
    assert "Not finished" in table.markdown(config, given)
    without = config.rows[1].model_copy(update={"leave_out": ("s",)})
    config = config.model_copy(update={"rows": (config.rows[0], without)})
    assert "Not finished" not in table.markdown(config, given)
    assert table.document(config, given, {})["complete"]


def test_the_numbers_are_all_in_the_json():
    config, given = ablation(BETTER), values([50, 60, 70], [52.1, 61.9, 72.0])
    told = json.loads(json.dumps(table.document(config, given, {}, spent={"runs": 6})))
    assert told["spent"] == {"runs": 6}
    assert told["rows"][0]["figures"]["a"]["by_seed"] == {"0": 50, "1": 60, "2": 70}
    assert told["rows"][0]["figures"]["a"]["paper"] == 40
    one = next(pair for pair in told["differences"] if pair["figure"] == "a")
    assert (one["better"], one["than"], one["counts"]) == ("new", "old", True)
    assert told["readings"][0]["verdict"] == "holds"
    assert told["complete"]


def run_with(tmp_path, metrics):
    folder = SimpleNamespace(metrics=lambda: metrics, metrics_file=tmp_path / "metrics.json")
    run = SimpleNamespace(folder=folder, finished=True)
    return SimpleNamespace(config=ablation(), at=lambda row, seed, stage: run)


def test_figures_are_read_from_the_metrics_and_scaled(tmp_path):
    assert comparing.measured(run_with(tmp_path, {"x": 0.5}))["old"]["a"] == {0: 50.0, 1: 50.0, 2: 50.0}
    with pytest.raises(UserError, match=r"'a' is x, and .*metrics\.json has no x \(there is y\)"):
        comparing.measured(run_with(tmp_path, {"y": 1}))
    for value in (None, "fast", True, float("nan")):
        with pytest.raises(UserError, match="is no number"):
            comparing.measured(run_with(tmp_path, {"x": value}))


def test_the_chart_puts_each_value_at_its_place():
    panel = Panel("VQA", [Mark("low", [10.0, 30.0]), Mark("<b> & co", [90.0], 50.0), Mark("none", [])], 0.0)
    tree = ElementTree.fromstring(dot_chart([panel, panel], title="a < b", reference="them"))
    texts = ["".join(one.itertext()) for one in tree.iter(f"{SVG}text")]
    assert "<b> & co" in texts
    assert "dot: mean; ticks: single runs; diamond: them; dashes: chance" in texts
    numbers = [one for one in tree.iter(f"{SVG}text") if one.get("class") == "scale"]
    scale = {float(one.text): float(one.get("x")) for one in numbers[: len(numbers) // 2]}
    per_unit = (scale[100.0] - scale[0.0]) / 100
    dots = [float(one.get("cx")) for one in tree.iter(f"{SVG}circle")][:2]
    # Written with one decimal, both ends.
    assert dots == pytest.approx([scale[0.0] + 20 * per_unit, scale[0.0] + 90 * per_unit], abs=0.2)
    ticks = [float(one.get("x1")) for one in tree.iter(f"{SVG}line") if one.get("class") == "one"][:3]
    assert ticks == pytest.approx([scale[0.0] + v * per_unit for v in (10, 30, 90)], abs=0.2)
    diamonds = [one.get("points") for one in tree.iter(f"{SVG}polygon")]
    assert len(diamonds) == 2
    assert float(re.split("[ ,]", diamonds[0])[0]) == pytest.approx(scale[0.0] + 50 * per_unit, abs=0.2)
    assert dots[0] < dots[1]


@pytest.mark.parametrize("given", [[5.0], [5.0, 5.0], [0.0], [-3.0, 1e4], [0.2, 0.21]])
def test_the_chart_has_round_marks_around_whatever_comes(given):
    tree = ElementTree.fromstring(dot_chart([Panel("x", [Mark("one", given)])], title="t"))
    marks = [float(one.text) for one in tree.iter(f"{SVG}text") if one.get("class") == "scale"]
    assert 2 <= len(marks) <= 7
    assert marks[0] <= min(given) <= max(given) <= marks[-1]


def test_a_chart_of_nothing_or_of_different_rows_is_refused():
    with pytest.raises(ValueError, match="same rows"):
        dot_chart([], title="t")
    with pytest.raises(ValueError, match="same rows"):
        dot_chart([Panel("x", [Mark("a", [1.0])]), Panel("y", [Mark("b", [1.0])])], title="t")
