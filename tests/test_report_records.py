"""What a report reads of a run: its folder, whatever state that is in, and its figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pixelbert_fast.errors import UserError
from pixelbert_fast.training.folding import folded
from pixelbert_fast.visualize.report.charts import quantities
from pixelbert_fast.visualize.report.figures import looked_up, rows
from pixelbert_fast.visualize.report.records import read_run, read_runs, text_only_twin
from tests.run_folders import SPLIT, config, run_folder, train_record


def test_a_log_with_a_torn_line_and_steps_twice_gives_one_curve(tmp_path: Path) -> None:
    again = (
        json.dumps(train_record(90, loss=7.0))
        + "\n"
        + json.dumps({"kind": "left_out", "step": 95, "loss": 1})
    )
    folder = run_folder(tmp_path / "run", finished=False, tail=again.encode() + b'\n{"kind": "train", "st')
    run = read_run(folder)
    assert [record["step"] for record in run.train] == list(range(10, 101, 10))
    assert run.train[8]["loss"] == 7.0  # of what a resumed run wrote again, the later
    assert (run.unread, len(run.events), run.metrics, run.step) == (1, 1, None, 100)
    steps, values = quantities(run)["loss", "all"]
    assert len(steps) == 10 and values[8] == 7.0


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no run in .*nothing"):
        read_run(tmp_path / "nothing")
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match="no run in"):
        read_run(tmp_path)


def test_a_run_before_its_first_record_can_be_read(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", steps=0, finished=False)
    (folder / "log.jsonl").unlink()
    run = read_run(folder)
    assert (run.train, run.step, run.figures()) == ([], 0, None)


def test_runs_of_one_name_go_by_their_paths(tmp_path: Path) -> None:
    folders = [run_folder(tmp_path / part / "run", steps=1) for part in ("a", "b")]
    assert [run.name for run in read_runs(folders)] == [str(folder) for folder in folders]
    with pytest.raises(UserError, match="given twice"):
        read_runs([folders[0], folders[0]])


def test_the_text_only_twin_is_found_beside_a_run(tmp_path: Path) -> None:
    run = read_run(run_folder(tmp_path / "run", steps=1))
    run_folder(tmp_path / "other", steps=1, start={"text_only": True}, seed=1)
    run_folder(
        tmp_path / "tuned", steps=1, start={"text_only": True}, model={"overrides": {"sampled_pixels": 9}}
    )
    assert text_only_twin(run) is None
    run_folder(tmp_path / "twin", steps=1, start={"text_only": True}, output="elsewhere")
    found = text_only_twin(run)
    assert found is not None and found.name == "twin"
    assert text_only_twin(found) is None


@pytest.mark.parametrize(
    "content", [{"config": "train.yaml"}, {"config": ["a"]}, {"config": {"start": "now", "data": 3}}]
)
def test_another_programs_run_beside_is_passed_over(tmp_path: Path, content: dict) -> None:
    run = read_run(run_folder(tmp_path / "run", steps=1))
    other = tmp_path / "another"
    other.mkdir()
    (other / "run.json").write_text(json.dumps(content))
    (other / "metrics.json").write_text("{}")
    assert text_only_twin(run) is None
    with pytest.raises(UserError, match="no run in"):
        read_run(other)


def test_figures_stand_beside_what_guessing_gives() -> None:
    found = {row.name: row for row in rows("pretrain", SPLIT)}
    assert (found["matching"].value, found["matching"].of, found["matching"].chance) == (0.9, 400, 0.5)
    assert (found["masked content words"].beside, found["masked content words"].chance) == (0.3, None)
    assert (found["colour"].value, found["colour"].beside, found["colour"].part) == (0.8, 0.1, True)
    assert looked_up(SPLIT, found["colour"].key) == 0.8
    assert not {"images", "dropped", "itm pairs"} & set(found)


def test_chance_of_a_recall() -> None:
    figures = {
        "images": 100,
        "texts": 500,
        **{f"{way}_r{k}": 0.5 for way in ("ir", "tr") for k in (1, 5, 10)},
    }
    found = {row.name: row.chance for row in rows("retrieval", figures)}
    assert found["text to image, R@5"] == pytest.approx(5 / 100)
    assert found["image to text, R@1"] == pytest.approx(5 / 500)
    # None of five own texts among ten of 500: a hypergeometric distribution.
    assert found["image to text, R@10"] == pytest.approx(0.09645, abs=1e-4)


def test_figures_of_the_other_tasks() -> None:
    vqa = {
        "accuracy": 0.8,
        "questions": 10,
        "by_answer_type": {"yes/no": {"accuracy": 0.9, "questions": 6}},
        "by_question_type": {},
    }
    found = {row.name: row for row in rows("vqa", vqa, {"all": 0.4, "yes/no": 0.55})}
    assert (found["accuracy"].chance, found["yes/no"].chance, found["yes/no"].of) == (0.4, 0.55, 6)
    nlvr2 = {"statements": 8, "accuracy": 0.75, "sentences": 2, "consistency": None, "forms": {"one": 0.5}}
    found = {row.name: row for row in rows("nlvr2", nlvr2)}
    assert found["accuracy"].chance == found["one"].chance == 0.5
    assert found["sentences right for all their pairs"].value is None
    objects = rows("objects", {"images": 5, "accuracy": {"shape": 0.7}}, {"shape": 0.125})
    assert [(row.name, row.chance) for row in objects] == [("shape", 0.125)]
    # Of a task that is not known here, every share; nothing is taken for one that is none.
    assert [row.name for row in rows("grounding", {"pointing": 0.25, "items": 7, "name": "x"})] == [
        "pointing"
    ]


def test_a_recipe_is_folded_to_what_differs() -> None:
    described = config(seed=3, data={"directory": "data/x"})
    described["data"]["since_removed"] = True
    changed, whole = folded(described)
    assert changed == {
        "seed": 3,
        "data": {"directory": "data/x", "since_removed": True},
        "training": {"epochs": 3.0},
    }
    assert whole == described
    del described["logging"]  # an option that came after that run
    assert folded(described)[1]["logging"] == {"wandb": None}
